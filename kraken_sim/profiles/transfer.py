"""Constants of attention, memory-bound kernels, collectives and power for a GPU that nobody measured.

Most constants are shares of what the datasheet says and stay, those of memory but for the traffic of ECC. Times that an
SM spends computing shrink with its clock, what one SM draws grows with it, and what all of L2 delivers grows with the
SMs too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from kraken_sim.costs.gemm_shapes import is_persistent
from kraken_sim.profiles.held_rate import MAX_MMA_EFFICIENCY, held_clock, held_share, joules_per_operation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.attention import AttentionConstants
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.memory_bound import MemoryBoundConstants
    from kraken_sim.costs.power import PowerConstants
    from kraken_sim.hardware.device import Device

_L2_RATES = ("l2_bytes_per_s", "reread_bytes_per_s")
_SM_RATES = ("cta_bytes_per_s",)
_OTHER_TIMES = ("launch_s", "cold_round_s")
"""Times of the front end and of HBM, which the SMs' clock does not change."""


_OF_MMA_SYNC: Final = frozenset({"volta", "turing", "ampere", "ada"})
"""Generations whose attention kernels are of one kind, FlashAttention-2's: warps that multiply, then take exponentials
(`mma.sync`, PTX ISA). From Hopper on each generation has kernels of its own, made for the pace of its tensor cores."""


def carry_over_attention(
    constants: AttentionConstants, source: Device, target: Device, mma_efficiency: float | None = None
) -> AttentionConstants:
    """Attention constants of `source` moved to `target`.

    Shares of the HBM rate stay, and so does the start of a kernel. The correction of decode times is kept inside a
    generation only, and so is whether prefill is persistent. The share of the tensor-core rate stays where the kernels
    are of another kind, since each kind is made for its tensor cores. Kernels of one kind (`_like_kernels`) take the
    clocks of their products and those of their exponentials one after the other, and as many clocks more as on
    `source`; where they took less on `source`, since some of both overlapped, as much of both overlaps.

    Args:
        constants: of `source`.
        source: the GPU that they were fitted to.
        target: another one.
        mma_efficiency: share of its peak that GEMMs of `source` hold, which tells its clock; None for the boost clock.
    """
    same = source.generation == target.generation
    clocks, memory = source.boost_clock_hz / target.boost_clock_hz, memory_share(source, target)
    return replace(
        constants,
        prologue_s=constants.prologue_s * clocks,
        cta_s=constants.cta_s * clocks,
        tile_s=constants.tile_s * clocks,
        l2_bytes_per_s=constants.l2_bytes_per_s * _l2_ratio(source, target),
        serving_l2_bytes_per_s=constants.serving_l2_bytes_per_s * _l2_ratio(source, target),
        hbm_efficiency=min(constants.hbm_efficiency * memory, 1.0),
        serving_hbm_efficiency=min(constants.serving_hbm_efficiency * memory, 1.0),
        persistent=constants.persistent if is_persistent(target.kernel_generation) else 0,
        prefill=_prefill(constants.prefill, source, target, mma_efficiency),
        decode={kernel: _moved(values, source, target) for kernel, values in constants.decode.items()},
        decode_correction=constants.decode_correction if same else {},
    )


def _prefill(
    rows: Mapping[str, Mapping[str, float]], source: Device, target: Device, mma_efficiency: float | None
) -> Mapping[str, Mapping[str, float]]:
    """Rows of a prefill by head dimension, at the share of the tensor-core rate that the target reaches."""
    if not _like_kernels(source, target):
        return rows
    clocks = (1.0, 1.0)
    if mma_efficiency is not None:
        clocks = held_clock(mma_efficiency), held_clock(held_share(mma_efficiency, source, target, short=True))

    def share(dim: str, own: float) -> float:
        rates = _flops_per_clock(source), _flops_per_clock(target)
        before, after = (_clocks_a_flop(device, int(dim)) for device in (source, target))
        if clocks[0] == clocks[1] and rates[0] == rates[1] and before == after:
            return own
        taken = clocks[0] / (own * rates[0])
        moved = taken - before + after if taken > before else taken * after / before
        return min(clocks[1] / (moved * rates[1]), max(MAX_MMA_EFFICIENCY * clocks[1], own))

    return {dim: {**row, "efficiency": share(dim, row["efficiency"])} for dim, row in rows.items()}


def _clocks_a_flop(device: Device, head_dim: int) -> float:
    """Clocks of an SM for a FLOP of attention: products and, one a score of 4 x `head_dim` FLOPs, exponentials.

    That they add up is measured: FlashAttention-3 on H100 (vLLM's rows of ai-dynamo/aiconfigurator, boost clock) takes
    2.08, 1.54, 1.31 and 1.27 times the clocks of its products at the peak with heads of 64, 128, 192 and 256; the sum
    is 2.05, 1.55, 1.39 and 1.30.
    """
    products = 1.0 / (MAX_MMA_EFFICIENCY * _flops_per_clock(device))
    return products + 1.0 / (4.0 * head_dim * device.exponentials_per_clock)


def _flops_per_clock(device: Device) -> float:
    """Of one SM at the boost clock."""
    return device.unquantised_flops / (device.num_sms * device.boost_clock_hz)


def _like_kernels(source: Device, target: Device) -> bool:
    kinds = {source.kernel_generation, target.kernel_generation}
    return len(kinds) == 1 or kinds <= _OF_MMA_SYNC


def memory_share(source: Device, target: Device) -> float:
    """How much more of its memory's rate data gets on `target` than on `source`, as ECC's bits move beside them."""
    return (1.0 - target.ecc_share) / (1.0 - source.ecc_share)


def carry_over_memory_bound(constants: MemoryBoundConstants, source: Device, target: Device) -> MemoryBoundConstants:
    """Constants of memory-bound kernels of `source` moved to `target`; shares of HBM and of L2's size stay."""
    return replace(
        constants,
        l2_bytes_per_s=constants.l2_bytes_per_s * _l2_ratio(source, target),
        hbm_efficiency=min(constants.hbm_efficiency * memory_share(source, target), 1.0),
        kernels={kernel: _moved(values, source, target) for kernel, values in constants.kernels.items()},
    )


def carry_over_collectives(constants: CollectiveConstants, *, multicast: bool) -> CollectiveConstants:
    """Collective constants for another machine with the same kind of links.

    Start-up and steps are latencies of protocols over a link class, and link rates are shares of the line rate in
    the topology: all stay. `multicast` says whether the new machine's switch can add (NVLink SHARP).
    """
    return constants if multicast else replace(constants, nvls_enabled=0)


def carry_over_power(constants: PowerConstants, source: Device, target: Device) -> PowerConstants:
    """Power constants of `source` moved to `target`.

    Idle power and limit are shares of the card's rating. What busy SMs draw goes with their number and clock, memory
    with its bandwidth, tensor cores with their rate and what an operation takes (`held_rate`).
    """
    rating = target.tdp_w / source.tdp_w
    sms = target.num_sms * target.boost_clock_hz / (source.num_sms * source.boost_clock_hz)
    operations = target.unquantised_flops / source.unquantised_flops
    memory = target.hbm_bandwidth_bytes_per_s / source.hbm_bandwidth_bytes_per_s
    return replace(
        constants,
        idle_w=constants.idle_w * rating,
        active_w=constants.active_w * sms,
        tensor_w=constants.tensor_w * operations * joules_per_operation(target) / joules_per_operation(source),
        hbm_w=constants.hbm_w * memory,
        limit_w=constants.limit_w * rating,
    )


def _moved(values: Mapping[str, float], source: Device, target: Device) -> dict[str, float]:
    """The constants of one kernel, by what their names say they are."""
    clocks = source.boost_clock_hz / target.boost_clock_hz
    factors = dict.fromkeys(_L2_RATES, _l2_ratio(source, target)) | dict.fromkeys(_SM_RATES, 1.0 / clocks)
    factors |= dict.fromkeys(_OTHER_TIMES, 1.0)
    moved = {name: value * factors.get(name, clocks if name.endswith("_s") else 1.0) for name, value in values.items()}
    if "hbm_efficiency" in moved:
        moved["hbm_efficiency"] = min(moved["hbm_efficiency"] * memory_share(source, target), 1.0)
    return moved


def _l2_ratio(source: Device, target: Device) -> float:
    """How much more L2 delivers: it has a port for each SM and runs with their clock."""
    return target.num_sms * target.boost_clock_hz / (source.num_sms * source.boost_clock_hz)
