"""Costs of the same kernels and collectives where everything, or arithmetic alone, takes longer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kraken_sim.costs.power import clock_factor
from kraken_sim.costs.types import KernelCost
from kraken_sim.program.many import maths_for, where

if TYPE_CHECKING:
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.program.many import Sizes


def clocked_share(cost: KernelCost, hbm_bandwidth_bytes_per_s: float) -> Sizes:
    """How far the kernel's time follows the SMs' clock: their and L2's time by itself over that and HBM's."""
    maths = maths_for(cost.memory_s)
    hbm_s = maths.minimum(cost.memory_s, cost.hbm_bytes / hbm_bandwidth_bytes_per_s)
    clocked_s = maths.maximum(cost.compute_s, cost.memory_s - hbm_s)
    total_s = clocked_s + hbm_s
    some = total_s > 0.0
    return where(some, clocked_s, 1.0) / where(some, total_s, 1.0)


def slower(cost: KernelCost, factor: Sizes, hbm_bandwidth_bytes_per_s: float) -> KernelCost:
    """The same kernel where arithmetic takes `factor` times as long; HBM keeps its pace."""
    own = clock_factor(clocked_share(cost, hbm_bandwidth_bytes_per_s), factor)
    return KernelCost(
        cost.busy_s * own,
        cost.ctas,
        cost.ctas_per_sm,
        cost.tiles,
        cost.persistent,
        cost.flops,
        cost.hbm_bytes,
        cost.fixed_s * own,
        cost.compute_s * factor,
        cost.memory_s,
        cost.detail,
    )


def scaled(cost: KernelCost, factor: float) -> KernelCost:
    """The same kernel taking `factor` times as long, whatever limits it."""
    times = {name: factor * getattr(cost, name) for name in ("busy_s", "fixed_s", "compute_s", "memory_s")}
    return replace(cost, **times)


def slower_collective(cost: CollectiveCost, factor: float) -> CollectiveCost:
    """The same collective taking `factor` times as long, start-up and transfer alike."""
    return replace(
        cost, busy_s=cost.busy_s * factor, latency_s=cost.latency_s * factor, transfer_s=cost.transfer_s * factor
    )
