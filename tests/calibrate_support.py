"""A calibration with measurements of a machine whose constants are known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from measurement_support import header, microbenchmarks

from kraken_sim.measurements.records.kernels import GemmRecord
from kraken_sim.measurements.schema import MeasurementFile
from kraken_sim.profiles.load import load_profile

if TYPE_CHECKING:
    from kraken_sim.profiles.profile import HardwareProfile

BASE = "h200-sxm-x2"
OPS = {
    "gemm prefill": {"op": "gemm", "m": 512, "n": 5376, "k": 3072, "weights": "cold"},
    "gemm large": {"op": "gemm", "m": 3072, "n": 4096, "k": 6144, "weights": "cold"},
    "gemm decode": {"op": "gemm", "m": 4, "n": 4096, "k": 4096, "weights": "cold"},
    "attention": {"op": "attention", "q_len": 1536, "kv_len": 1536, "num_heads": 20, "serving": False},
    "attention decode": {"op": "attention", "batch": 8, "q_len": 1, "kv_len": 4096, "num_heads": 16, "serving": False},
    "norm": {"op": "norm", "num_tokens": 1024, "hidden_size": 5120},
    "add": {"op": "elementwise", "num_elements": 4_000_000},
    "copy": {"op": "copy", "bytes": 6_000_000},
    "all_reduce small": {"op": "all_reduce", "bytes": 24_576, "num_devices": 2},
    "all_reduce": {"op": "all_reduce", "bytes": 3_145_728, "num_devices": 2},
    "all_reduce shm": {"op": "all_reduce", "bytes": 6_291_456, "num_devices": 2, "transport": "shm"},
}


def another_machine() -> HardwareProfile:
    """The base with other constants: what the measurements in these tests come from.

    Corrections are left out: they have a value for every few shapes, more than a quick fit has records.
    """
    base = load_profile(BASE)
    kernels = {name: dict(row) | {"cta_s": 1.3 * row["cta_s"]} for name, row in base.memory_bound.kernels.items()}
    prefill = {dim: dict(row) | {"efficiency": 0.85 * row["efficiency"]} for dim, row in base.attention.prefill.items()}
    rates = {
        link: {protocol: 0.8 * rate for protocol, rate in row.items()}
        for link, row in base.collectives.link_efficiency.items()
    }
    return replace(
        base,
        launch=replace(base.launch, graph_node_gap_s=0.6e-6),
        gemm=replace(base.gemm, mma_efficiency=0.9 * base.gemm.mma_efficiency, hbm_efficiency=0.75, correction={}),
        attention=replace(base.attention, prefill=prefill, decode_correction={}),
        memory_bound=replace(base.memory_bound, kernels=kernels, hbm_efficiency=0.8),
        collectives=replace(base.collectives, link_efficiency=rates),
    )


@cache
def records() -> tuple[object, ...]:
    return tuple(microbenchmarks(another_machine()))


def gemm_records() -> list[GemmRecord]:
    return [record for record in records() if isinstance(record, GemmRecord)]


def file_of(*extra: object, only: tuple[object, ...] | None = None, **changes: object) -> MeasurementFile:
    found = records() if only is None else only
    return MeasurementFile("measured.jsonl", header(**changes), (*found, *extra))  # type: ignore[arg-type]
