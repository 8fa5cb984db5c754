"""Where fits of the attention model start, and the bounds outside of which its constants lose their meaning."""

from __future__ import annotations

from kraken_sim.costs.attention_constants import PACKED, PER_HEAD, AttentionConstants

DEFAULT_START = AttentionConstants(
    launch_s=2e-6,
    prologue_s=3e-6,
    cta_s=1e-6,
    tile_s=1e-6,
    overlap_power=2.0,
    tail_share=0.3,
    hbm_efficiency=0.8,
    l2_bytes_per_s=4e12,
    l2_share=0.5,
    max_group=32,
    persistent=0,
    serving_hbm_efficiency=0.6,
    serving_l2_bytes_per_s=2e12,
    serving_l2_share=0.7,
    serving_kv_weight=1.0,
    serving_packed_cache_share=1.0,
    prefill={"128": {"efficiency": 0.6, "serial_ratio": 0.8}},
    decode={
        PER_HEAD: {
            "prologue_s": 2e-6, "token_s": 1e-9, "cta_s": 1.2e-6, "dim_cta_s": 1e-8, "group_cta_s": 1e-9,
            "block_s": 1e-9, "crowded_s": 1e-6, "split_s": 3e-6, "split_step_s": 1e-6, "hbm_efficiency": 0.9,
            "l2_bytes_per_s": 8e12, "l2_share": 0.8, "l2_width": 0.4, "reread_bytes_per_s": 8e12,
            "cta_bytes_per_s": 5e10, "overlap_power": 2.0, "splits_per_sm": 4.0, "tokens_per_split": 256.0,
        },
        PACKED: {
            "prologue_s": 1e-6, "token_s": 1e-9, "cta_s": 3e-6, "dim_cta_s": 1.5e-6, "group_cta_s": 0.6e-6,
            "block_s": 5e-7, "crowded_s": 5e-7, "split_s": 1.5e-6, "split_step_s": 3e-7, "hbm_efficiency": 0.9,
            "l2_bytes_per_s": 8e12, "l2_share": 0.8, "l2_width": 0.4, "reread_bytes_per_s": 8e12,
            "cta_bytes_per_s": 5e10, "overlap_power": 2.0, "splits_per_sm": 8.0, "tokens_per_split": 128.0,
        },
    },
    decode_correction={},
    serving_prefill_s={"128": 7e-6},
    serving_decode_s={"128": 6e-6},
)  # fmt: skip
"""Where a fit starts when no similar GPU is known; assumed."""

PREFILL_BOUNDS: dict[str, tuple[float, float]] = {
    "prologue_s": (1e-7, 2e-5),
    "cta_s": (1e-8, 1e-5),
    "tile_s": (1e-8, 1e-5),
    "overlap_power": (1.2, 8.0),
    "tail_share": (0.01, 2.0),
    "hbm_efficiency": (0.5, 1.0),
    "l2_bytes_per_s": (8e11, 4e13),
}
"""Bounds of the fitted fields of a prefill. Outside of them a number loses its physical meaning; assumed."""

SERVING_BOUNDS: dict[str, tuple[float, float]] = {
    "serving_hbm_efficiency": (0.05, 1.0),
    "serving_l2_bytes_per_s": (1e11, 4e13),
    "serving_l2_share": (0.2, 1.5),
    "serving_kv_weight": (0.3, 5.0),
}
"""Bounds of what a serving engine adds. Outside of them a number loses its physical meaning; assumed."""

LAUNCH_BOUNDS = (2e-7, 2e-5)
"""Bounds of the launch of a kernel, seconds; assumed."""

DECODE_DIM_BOUNDS = {"latency": (0.3, 4.0), "memory": (0.3, 4.0)}
"""Bounds of what a head dimension does to the shared decode kernel; assumed."""

DIM_BOUNDS = {"efficiency": (0.1, 1.0), "serial_ratio": (0.05, 10.0)}
"""Bounds of what depends on the head dimension; assumed."""

EXTRA_BOUNDS = (1e-7, 3e-5)
"""Bounds of the time of a serving engine's small kernels, seconds; assumed."""

DECODE_BOUNDS: dict[str, tuple[float, float]] = {
    "prologue_s": (2e-8, 3e-5),
    "token_s": (1e-10, 1e-6),
    "cta_s": (5e-8, 2e-5),
    "dim_cta_s": (1e-9, 1e-5),
    "group_cta_s": (1e-9, 1e-5),
    "block_s": (1e-9, 1e-5),
    "crowded_s": (1e-8, 2e-5),
    "split_s": (1e-8, 6e-5),
    "split_step_s": (1e-9, 2e-5),
    "hbm_efficiency": (0.5, 0.94),
    "l2_bytes_per_s": (1e12, 4e13),
    "l2_share": (0.05, 2.0),
    "l2_width": (0.1, 3.0),
    "reread_bytes_per_s": (2e11, 1e14),
    "cta_bytes_per_s": (5e8, 2e11),
    "overlap_power": (1.0, 8.0),
}
"""Bounds of the fitted fields of a decode kernel. Outside of them a number loses its physical meaning; assumed."""
