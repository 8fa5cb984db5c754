"""GEMM constants for a GPU that nobody measured, from those of the nearest calibrated one."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import TYPE_CHECKING, Any

from kraken_sim.costs.gemm_shapes import CLUSTER_CTAS, is_persistent

if TYPE_CHECKING:
    from kraken_sim.costs.gemm_constants import GemmConstants
    from kraken_sim.hardware.device import Device

MAX_MMA_EFFICIENCY = 0.93
"""Share of the tensor-core peak that a GPU reaches when neither power nor clock holds it back; assumed, a little
more than the largest of the shipped fits (A100, 0.92)."""

PARTITIONED_L2_GENERATIONS = frozenset({"ampere", "hopper", "blackwell"})
"""Data-centre generations whose L2 is two partitions that may both hold a line (NVIDIA A100 and H100
architecture whitepapers), so that cyclic reuse fits only part of the capacity."""

_PARTITIONED_SHARE = 0.65
"""Share of a partitioned L2 that cyclic reuse finds; assumed, near the fits of A100 (0.63) and H100 (0.65);
those of H200 have 0.70 and 0.80."""

_WHOLE_SHARE = 1.05
"""The same of an L2 in one piece; assumed: all of it, and datasheets say MB for MiB; the fit of L40S has 1.07."""

_RESIDENT_SOFTNESS = 0.03
"""Relative width of the transition from found to not found; assumed, as in the fit of L40S."""

_PERSISTENT_QUANTISATION = 0.05
"""How far waves are whole for persistent kernels; assumed; the fits of H100 and H200 have 0.02."""

_PLAIN_QUANTISATION = 0.9
"""The same for one tile a CTA; assumed, as in the fit of A100 (0.89)."""


def carry_over_gemm(constants: GemmConstants, source: Device, target: Device) -> GemmConstants:
    """Constants of `source` moved to `target` by what the two datasheets say.

    Shares of peak bandwidth and times stay. Three things move: a higher boost clock is held for less of the time
    under full load (efficiency falls with its square root, since power grows faster than the clock); an SM's feed
    from L2 stays the same in bytes a second, doubled where clusters multicast operands; waves and L2 residency
    follow the generation. The correction grid is kept inside a generation only.
    """
    clocks = source.boost_clock_hz / target.boost_clock_hz
    multicast = _multicast(target) / _multicast(source)
    efficiency = min(constants.mma_efficiency * sqrt(clocks), MAX_MMA_EFFICIENCY)
    changes: dict[str, Any] = {
        "mma_efficiency": efficiency,
        "l2_bytes_per_clock": constants.l2_bytes_per_clock * clocks * multicast,
        "split_bytes_per_clock": constants.split_bytes_per_clock * clocks,
    }
    if is_persistent(source.generation) != is_persistent(target.generation):
        persistent = is_persistent(target.generation)
        changes["wave_quantisation"] = _PERSISTENT_QUANTISATION if persistent else _PLAIN_QUANTISATION
    if _partitioned(source) != _partitioned(target):
        changes["l2_resident_share"] = _PARTITIONED_SHARE if _partitioned(target) else _WHOLE_SHARE
        changes["l2_resident_softness"] = _RESIDENT_SOFTNESS
    if source.generation != target.generation:
        changes["correction"] = {}
    return replace(constants, **changes)


def _multicast(device: Device) -> int:
    return CLUSTER_CTAS if is_persistent(device.generation) else 1


def _partitioned(device: Device) -> bool:
    return device.generation in PARTITIONED_L2_GENERATIONS
