"""Where refits of what ships start: round numbers, so that a refit depends on nothing that was fitted before.

A fit stays near its start only in what the samples cannot tell, such as the rate of one channel where all messages
take all channels. Kind: assumed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.calibration.memory_bound import DEFAULT_START as MEMORY_BOUND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.contention import ContentionConstants
    from kraken_sim.costs.memory_bound import MemoryBoundConstants

LINKS: Final[Mapping[str, Mapping[str, Mapping[str, float]]]] = {
    "hopper": {
        "base_s": {"ll": 4e-6, "ll128": 9e-6, "simple": 20e-6, "nvls": 22e-6},
        "step_s": {"ll": 0.75e-6, "ll128": 1.5e-6, "simple": 1e-6, "nvls": 0.5e-6},
        "channel_bytes_per_s": {"ll": 12e9, "ll128": 18e9, "simple": 19e9, "nvls": 30e9},
        "link_efficiency": {"ll": 0.38, "ll128": 0.6, "simple": 0.83, "nvls": 0.5},
    },
    "blackwell": {
        "base_s": {"ll": 4e-6, "ll128": 9e-6, "simple": 20e-6, "nvls": 22e-6},
        "step_s": {"ll": 0.75e-6, "ll128": 1.5e-6, "simple": 1e-6, "nvls": 0.5e-6},
        "channel_bytes_per_s": {"ll": 12e9, "ll128": 18e9, "simple": 19e9, "nvls": 30e9},
        "link_efficiency": {"ll": 0.38, "ll128": 0.6, "simple": 0.83, "nvls": 0.5},
    },
    "ampere": {
        "base_s": {"ll": 5.6e-6, "ll128": 12.8e-6, "simple": 19.2e-6},
        "step_s": {"ll": 0.8e-6, "ll128": 1.5e-6, "simple": 2e-6},
        "channel_bytes_per_s": {"ll": 6e9, "ll128": 10e9, "simple": 12.5e9},
        "link_efficiency": {"ll": 0.35, "ll128": 0.7, "simple": 0.76},
    },
    "ada": {
        "base_s": {"ll": 2e-6, "ll128": 12e-6, "simple": 16e-6},
        "step_s": {"ll": 1.2e-6, "ll128": 2.5e-6, "simple": 1.2e-6},
        "channel_bytes_per_s": {"ll": 4e9, "ll128": 8e9, "simple": 12e9},
        "link_efficiency": {"ll": 0.45, "ll128": 0.6, "simple": 0.64},
    },
}
"""By generation: NVLink's row, of Ada that of PCIe. Latencies and channel rates near NCCL's src/graph/tuning.cc."""

LINK_CLASS: Final = {"hopper": "nvlink", "blackwell": "nvlink", "ampere": "nvlink", "ada": "pcie"}
PAIR_LOSS: Final = {"ll": 0.2, "ll128": 0.1, "simple": 0.16}

CUSTOM: Final[Mapping[str, Mapping[str, Mapping[str, float]]]] = {
    "hopper": {
        "custom_base_s": {
            "one_shot_tensorrt_llm": 1.8e-6, "two_shot_tensorrt_llm": 5e-6, "one_shot_vllm": 3.4e-6,
            "two_shot_vllm": 7e-6, "multimem": 8.6e-6,
        },
        "custom_link_efficiency": {
            "one_shot_tensorrt_llm": 0.67, "two_shot_tensorrt_llm": 0.5, "one_shot_vllm": 0.6, "two_shot_vllm": 0.7,
            "multimem": 0.56,
        },
        "custom_cta_bytes_per_s": {
            "one_shot_tensorrt_llm": 70e9, "two_shot_tensorrt_llm": 20e9, "one_shot_vllm": 66e9, "two_shot_vllm": 19e9,
            "multimem": 20e9,
        },
    },
    "ampere": {
        "custom_base_s": {"one_shot_tensorrt_llm": 2.8e-6, "one_shot_vllm": 3.8e-6, "two_shot_vllm": 8.8e-6},
        "custom_link_efficiency": {"one_shot_tensorrt_llm": 0.5, "one_shot_vllm": 0.6, "two_shot_vllm": 0.65},
        "custom_cta_bytes_per_s": {"one_shot_tensorrt_llm": 13e9, "one_shot_vllm": 42e9, "two_shot_vllm": 13e9},
    },
    "ada": {
        "custom_base_s": {"one_shot_vllm": 4e-6},
        "custom_link_efficiency": {"one_shot_vllm": 0.6},
        "custom_cta_bytes_per_s": {"one_shot_vllm": 13e9},
    },
}  # fmt: skip
"""Engines' kernels by generation; kernels that no rows are of keep what the profile has."""
CUSTOM_PEER_S: Final = 0.1e-6

CONTENTION: Final = {
    "compute_slowdown": 1.0,
    "collective_memory_slowdown": 0.5,
}
"""The fitted constants of contention; the others stay."""


def collectives_start(constants: CollectiveConstants, generation: str) -> CollectiveConstants:
    """The constants with all that AllReduces and other collectives tell set to its start."""
    link = LINK_CLASS[generation]
    changes: dict[str, Any] = {name: {**getattr(constants, name), link: row} for name, row in LINKS[generation].items()}
    custom = CUSTOM.get(generation, {})
    for name, row in custom.items():
        changes[name] = {**getattr(constants, name), **row}
    kernels = custom.get("custom_base_s", {})
    changes["custom_peer_s"] = {**constants.custom_peer_s, **dict.fromkeys(kernels, CUSTOM_PEER_S)}
    return replace(
        constants,
        **changes,
        ring_pair_loss=PAIR_LOSS,
        link_correction={},
        custom_link_correction={} if kernels else constants.custom_link_correction,
        kind_factors={},
        kind_link_correction={},
    )


def memory_bound_start(constants: MemoryBoundConstants) -> MemoryBoundConstants:
    """The constants with all that kernels tell set to its start; the common rates are never fitted."""
    return replace(
        constants, kernels=MEMORY_BOUND.kernels, l2_share=MEMORY_BOUND.l2_share, l2_width=MEMORY_BOUND.l2_width
    )


def contention_start(constants: ContentionConstants) -> ContentionConstants:
    """The constants with all that pairs tell set to its start."""
    changes: dict[str, Any] = dict(CONTENTION)
    return replace(constants, **changes)
