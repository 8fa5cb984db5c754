"""Whole passes of the architectures side by side: what the suite `rivals` measures.

On one device Krakens of two, four and eight ways run their sub-layers one after the other, and Ladder-Residual has
nothing to hide: the compute side alone. On more, all that run by their wiring, with and without overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kraken_sim.architectures.two_parts import LEAST_TOKENS
from kraken_sim.measurements.records.passes import PassCase
from kraken_sim.models.kraken_width import kraken_config_for_latency
from kraken_sim.models.presets import preset
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from collections.abc import Iterator

WAYS: Final = (2, 4, 8)
MODELS: Final[tuple[dict[str, Any], ...]] = ({"preset": "1.3B"}, {"preset": "6.7B", "num_hidden_layers": 16})
CPU_MODELS: Final[tuple[dict[str, Any], ...]] = ({"preset": "125M", "num_hidden_layers": 2},)
STEPS: Final[tuple[dict[str, Any], ...]] = (
    {"phase": "prefill", "batch_size": 1, "context_length": 128},
    {"phase": "prefill", "batch_size": 1, "context_length": 2048},
    {"phase": "decode", "batch_size": 1, "context_length": 1024},
    {"phase": "decode", "batch_size": 16, "context_length": 1024},
    {"phase": "prefill", "batch_size": 4, "context_length": 512},
)
"""The most telling first."""


def rival_passes(num_devices: int, condition: str, *, cpu: bool = False) -> tuple[PassCase, ...]:
    """The passes on so many devices, those with the same weights next to each other."""
    return tuple(
        PassCase.model_validate(
            {
                "architecture": architecture,
                "model": model,
                "num_devices": num_devices,
                "dtype": DType.FLOAT32 if cpu else DType.BFLOAT16,
                "launch": Launch.EAGER if cpu else Launch.GRAPH,
                "overlap": overlap,
                "condition": condition,
                **step,
            }
        )
        for model in (CPU_MODELS if cpu else MODELS)
        for architecture, overlaps in _architectures(model, num_devices)
        for step in (STEPS[:1] if cpu else STEPS)
        for overlap in overlaps
        if _is_itself(architecture["kind"], step)
    )


def _architectures(model: dict[str, Any], num_devices: int) -> Iterator[tuple[dict[str, Any], tuple[bool, ...]]]:
    """Fields of a scenario, and the settings of `overlap` that make a difference."""
    several = num_devices > 1
    beside = (True, False) if several else (False,)
    yield {"kind": "standard"}, (False,)
    yield {"kind": "ladder"}, beside
    for ways in WAYS:
        shape = kraken_config_for_latency(preset(model["preset"]), ways)
        fields = {"hidden_size": shape.hidden_size, "num_attention_heads": shape.num_attention_heads}
        overlapping = beside if ways >= num_devices else (False,)
        yield {"kind": "kraken", "ways": ways, **fields}, overlapping
    if several:
        yield {"kind": "parallel"}, (False,)
        yield {"kind": "desync"}, (False,)
        yield {"kind": "caat_net"}, (False,)
        yield {"kind": "parallel_track"}, (False,)
        yield {"kind": "sequence_parallel"}, (False,)
        yield {"kind": "domino"}, (True,)
        yield {"kind": "token_weave"}, (True,)


def _is_itself(kind: str, step: dict[str, Any]) -> bool:
    """Whether the step is one that an architecture with halves cuts."""
    if kind == "token_weave":
        new = step["batch_size"] * (step["context_length"] if step["phase"] == "prefill" else 1)
        return bool(new >= LEAST_TOKENS)
    return kind != "domino" or bool(step["batch_size"] > 1)
