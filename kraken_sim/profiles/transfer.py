"""Constants of attention, memory-bound kernels, collectives and power for a GPU that nobody measured.

Most constants are shares of what the datasheet says and stay. Times that an SM spends computing shrink with its
clock, what one SM draws grows with it, and what all of L2 delivers grows with the SMs too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kraken_sim.costs.gemm_shapes import is_persistent

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


def carry_over_attention(constants: AttentionConstants, source: Device, target: Device) -> AttentionConstants:
    """Attention constants of `source` moved to `target`.

    Efficiencies are shares of the tensor-core and HBM rates and stay, and so does the start of a kernel. The
    correction of decode times is kept inside a generation only, and so is whether prefill is persistent.
    """
    same = source.generation == target.generation
    clocks = source.boost_clock_hz / target.boost_clock_hz
    return replace(
        constants,
        prologue_s=constants.prologue_s * clocks,
        cta_s=constants.cta_s * clocks,
        tile_s=constants.tile_s * clocks,
        l2_bytes_per_s=constants.l2_bytes_per_s * _l2_ratio(source, target),
        serving_l2_bytes_per_s=constants.serving_l2_bytes_per_s * _l2_ratio(source, target),
        persistent=constants.persistent if is_persistent(target.generation) else 0,
        decode={kernel: _moved(values, source, target) for kernel, values in constants.decode.items()},
        decode_correction=constants.decode_correction if same else {},
    )


def carry_over_memory_bound(constants: MemoryBoundConstants, source: Device, target: Device) -> MemoryBoundConstants:
    """Constants of memory-bound kernels of `source` moved to `target`; shares of HBM and of L2's size stay."""
    return replace(
        constants,
        l2_bytes_per_s=constants.l2_bytes_per_s * _l2_ratio(source, target),
        kernels={kernel: _moved(values, source, target) for kernel, values in constants.kernels.items()},
    )


def carry_over_collectives(constants: CollectiveConstants, *, multicast: bool) -> CollectiveConstants:
    """Collective constants for another machine with the same kind of links.

    Start-up and steps are latencies of protocols over a link class, and link rates are shares of the line rate in
    the topology: all stay. `multicast` says whether the new machine's switch can add (NVLink SHARP).
    """
    return constants if multicast else replace(constants, nvls_enabled=0)


def carry_over_power(constants: PowerConstants, source: Device, target: Device) -> PowerConstants:
    """Power constants of `source` moved to `target`: every part is the same share of the card's limit."""
    ratio = target.tdp_w / source.tdp_w
    return replace(
        constants,
        idle_w=constants.idle_w * ratio,
        active_w=constants.active_w * ratio,
        tensor_w=constants.tensor_w * ratio,
        hbm_w=constants.hbm_w * ratio,
        limit_w=constants.limit_w * ratio,
    )


def _moved(values: Mapping[str, float], source: Device, target: Device) -> dict[str, float]:
    """The constants of one kernel, by what their names say they are."""
    clocks = source.boost_clock_hz / target.boost_clock_hz
    factors = dict.fromkeys(_L2_RATES, _l2_ratio(source, target)) | dict.fromkeys(_SM_RATES, 1.0 / clocks)
    factors |= dict.fromkeys(_OTHER_TIMES, 1.0)
    return {name: value * factors.get(name, clocks if name.endswith("_s") else 1.0) for name, value in values.items()}


def _l2_ratio(source: Device, target: Device) -> float:
    """How much more L2 delivers: it has a port for each SM and runs with their clock."""
    return target.num_sms * target.boost_clock_hz / (source.num_sms * source.boost_clock_hz)
