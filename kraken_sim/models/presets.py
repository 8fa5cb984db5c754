"""Named model sizes: five of the Kraken paper's latency study, three of its training runs.

Shapes are GPT-2/GPT-3-like: learned positions, GELU FFN of four times the width, biases, tied embeddings.
Source: Prabhakar et al., "Kraken" (arXiv 2408.07802), sections 4.1 and 4.3: vocabulary 51,200 and inputs up
to 2,048 tokens for latency; vocabulary 50,257 padded to 50,304 and context 1,024 for training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.errors import InputError, closest
from kraken_sim.models.hf import config_from_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.models.config import TransformerConfig

PRESETS: Mapping[str, tuple[int, int, int]] = {
    "125M": (12, 768, 12),
    "350M": (24, 1024, 16),
    "760M": (24, 1536, 16),
    "1.3B": (24, 2048, 16),
    "6.7B": (32, 4096, 32),
    "13B": (40, 5120, 40),
    "65B": (80, 8192, 64),
    "175B": (96, 12288, 96),
}
"""Layers, width and heads by name, smallest first (arXiv 2408.07802, sections 4.1 and 4.3)."""

_TRAINED = frozenset({"125M", "350M", "760M"})


def preset(name: str) -> TransformerConfig:
    """The shape of a named size; the name's case does not matter.

    Raises:
        InputError: no such preset; says which one was probably meant.
    """
    return config_from_fields(preset_fields(name))


def preset_fields(name: str, at: str = "preset") -> dict[str, object]:
    """The Hugging Face fields of a named size, with derived sizes (head_dim, FFN width) left out.

    Args:
        name: one of `PRESETS`, in any case.
        at: dotted path of the name in its file, for error messages.
    """
    known = {key.lower(): key for key in PRESETS}
    key = known.get(name.strip().lower())
    if key is None:
        message = f"unknown preset; known are {', '.join(PRESETS)}"
        raise InputError.single(at, message, name[:60], example="6.7B", suggestion=closest(name, tuple(PRESETS)))
    num_hidden_layers, hidden_size, num_attention_heads = PRESETS[key]
    trained = key in _TRAINED
    return {
        "model_type": "gpt2",
        "num_hidden_layers": num_hidden_layers,
        "hidden_size": hidden_size,
        "num_attention_heads": num_attention_heads,
        "vocab_size": 50_304 if trained else 51_200,
        "max_position_embeddings": 1_024 if trained else 2_048,
        "_name_or_path": key,
    }
