"""The families of dense decoders that are supported, and what a family implies beyond the sizes in a config.

Traits, defaults and the other names of fields are those of the public `configuration_*.py` and `modeling_*.py` files of
Hugging Face transformers (github huggingface/transformers, src/transformers/models/<model_type>).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Family:
    """What a `model_type` implies beyond its sizes; biases are the defaults where the file has no field.

    `ffn_factor` is intermediate_size / hidden_size where the file may leave it out, None where it may not. `defaults`
    are sizes that its configs may leave out, `flag_names` what it calls a flag by another name. `window_every` is how
    many layers there are to each with full attention, where the file has a window and does not say which layers
    it is for (1: all have the window); without `windows_by_default` only where `use_sliding_window` says so. The other
    traits are those of `TransformerConfig`.
    """

    gated_ffn: bool
    position_embeddings: bool
    norm_bias: bool
    attention_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    ffn_factor: int | None = None
    attention_output_bias: bool | None = None
    qk_norm: bool = False
    lm_head_bias: bool = False
    norm_weight: bool = True
    post_norms: bool = False
    num_extra_positions: int = 0
    scaled_embedding: bool = False
    scaled_residual: bool = False
    num_logit_kernels: int = 0
    window_every: int = 1
    windows_by_default: bool = True
    defaults: Mapping[str, int] = field(default_factory=dict)
    flag_names: Mapping[str, str] = field(default_factory=dict)


_LLAMA = Family(
    gated_ffn=True,
    position_embeddings=False,
    norm_bias=False,
    attention_bias=False,
    mlp_bias=False,
    tie_word_embeddings=False,
)
_GPT = Family(
    gated_ffn=False,
    position_embeddings=True,
    norm_bias=True,
    attention_bias=True,
    mlp_bias=True,
    tie_word_embeddings=True,
    ffn_factor=4,
)
"""GPT-2's traits; an FFN of four times the width where `n_inner` is null (configuration_gpt2.py)."""
_NEOX = replace(_GPT, position_embeddings=False, tie_word_embeddings=False, ffn_factor=None)
_GEMMA = replace(_LLAMA, tie_word_embeddings=True, scaled_embedding=True)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "gpt2": _GPT,
        "gptj": replace(_NEOX, attention_bias=False, ffn_factor=4, lm_head_bias=True),
        "gpt_neox": _NEOX,
        "llama": _LLAMA,
        "mistral": _LLAMA,
        "qwen2": replace(_LLAMA, attention_bias=True, attention_output_bias=False, windows_by_default=False),
        "qwen3": replace(_LLAMA, qk_norm=True, windows_by_default=False),
        "gemma": replace(_GEMMA, defaults={"head_dim": 256, "max_position_embeddings": 8192}),
        "gemma2": replace(
            _GEMMA,
            post_norms=True,
            window_every=2,
            defaults={"head_dim": 256, "max_position_embeddings": 8192},
        ),
        "gemma3_text": replace(
            _GEMMA,
            post_norms=True,
            qk_norm=True,
            window_every=6,
            defaults={
                "head_dim": 256,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "vocab_size": 262_208,
                "max_position_embeddings": 131_072,
                "sliding_window": 4096,
            },
        ),
        "phi": replace(_NEOX, lm_head_bias=True, ffn_factor=4),
        "phi3": replace(_LLAMA, defaults={"max_position_embeddings": 4096}),
        "opt": replace(
            _GPT,
            ffn_factor=None,
            num_extra_positions=2,
            flag_names={"attention_bias": "enable_bias", "mlp_bias": "enable_bias"},
        ),
        "falcon": replace(
            _NEOX,
            attention_bias=False,
            mlp_bias=False,
            tie_word_embeddings=True,
            ffn_factor=4,
            defaults={"max_position_embeddings": 2048},
            flag_names={"attention_bias": "bias", "mlp_bias": "bias"},
        ),
        "starcoder2": replace(
            _NEOX,
            tie_word_embeddings=True,
            flag_names={"attention_bias": "use_bias", "mlp_bias": "use_bias"},
        ),
        "olmo": replace(_LLAMA, norm_weight=False),
        "smollm3": replace(_LLAMA, tie_word_embeddings=True, windows_by_default=False),
        "granite": replace(_LLAMA, scaled_embedding=True, scaled_residual=True, num_logit_kernels=1),
    }
)
"""The dense decoders that are supported, by Hugging Face `model_type`, as the modeling files of transformers have them
(modeling_gpt2.py, modeling_gptj.py, modeling_llama.py and so on)."""
