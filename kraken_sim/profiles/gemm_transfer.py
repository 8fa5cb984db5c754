"""GEMM constants for a GPU that nobody measured, from those of the nearest calibrated one."""

from __future__ import annotations

from dataclasses import replace
from math import isclose
from typing import TYPE_CHECKING, Any

from kraken_sim.costs.gemm_shapes import CLUSTER_CTAS, is_persistent
from kraken_sim.profiles.held_rate import MAX_MMA_EFFICIENCY, held_share
from kraken_sim.profiles.transfer import memory_share

if TYPE_CHECKING:
    from kraken_sim.costs.gemm_constants import GemmConstants
    from kraken_sim.hardware.device import Device
    from kraken_sim.program.formats import DType

__all__ = ["MAX_MMA_EFFICIENCY", "PARTITIONED_L2_GENERATIONS", "carry_over_gemm"]

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

_OF_SMS = ("prologue_s", "tile_s", "bias_tile_s")
"""Times that an SM computes for; names of `GemmConstants`."""

_OF_MEMORY = ("hbm_efficiency", "gemv_hbm_efficiency")
"""Shares of the memory's rate; names of `GemmConstants`."""


def carry_over_gemm(
    constants: GemmConstants, source: Device, target: Device, dtype: DType | None = None
) -> GemmConstants:
    """Constants of `source` moved to `target` by what the two datasheets say.

    Shares of peak bandwidth and times of the front end stay. Four things move: what an SM does around its products
    takes the same clocks; the shares of the tensor cores' rate that short kernels and long ones have are what the
    target holds (`held_rate`); an SM's feed from L2 stays the same in bytes a second, doubled where clusters multicast
    operands; waves and L2 residency follow the kernels. The correction grid is kept inside a generation only.

    Args:
        constants: of products in `dtype`.
        source: the GPU that they were fitted to.
        target: another one.
        dtype: the number format that is multiplied; None for the fastest of 16 bits and more.
    """
    clocks = source.boost_clock_hz / target.boost_clock_hz
    memory = memory_share(source, target)
    multicast = _multicast(target) / _multicast(source)
    held = held_share(constants.mma_efficiency, source, target, dtype, short=True)
    of_long = held_share(constants.mma_efficiency * (1.0 - constants.throttle_depth), source, target, dtype)
    kept = held * (1.0 - constants.throttle_depth)
    changes: dict[str, Any] = {
        "mma_efficiency": held,
        "throttle_depth": constants.throttle_depth if isclose(of_long, kept) else max(1.0 - of_long / held, 0.0),
        **{name: getattr(constants, name) * clocks for name in _OF_SMS},
        **{name: min(getattr(constants, name) * memory, 1.0) for name in _OF_MEMORY},
        "l2_bytes_per_clock": constants.l2_bytes_per_clock * clocks * multicast,
        "split_bytes_per_clock": constants.split_bytes_per_clock * clocks,
    }
    if is_persistent(source.kernel_generation) != is_persistent(target.kernel_generation):
        persistent = is_persistent(target.kernel_generation)
        changes["wave_quantisation"] = _PERSISTENT_QUANTISATION if persistent else _PLAIN_QUANTISATION
    if _partitioned(source) != _partitioned(target):
        changes["l2_resident_share"] = _PARTITIONED_SHARE if _partitioned(target) else _WHOLE_SHARE
        changes["l2_resident_softness"] = _RESIDENT_SOFTNESS
    if (source.generation, source.kernel_generation) != (target.generation, target.kernel_generation):
        changes["correction"] = {}
    return replace(constants, **changes)


def _multicast(device: Device) -> int:
    return CLUSTER_CTAS if is_persistent(device.kernel_generation) else 1


def _partitioned(device: Device) -> bool:
    return device.kernel_generation in PARTITIONED_L2_GENERATIONS
