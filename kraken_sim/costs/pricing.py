"""What every op of a program costs on one machine under one runtime: the cost models behind one door."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kraken_sim.costs.attention import attention_cost
from kraken_sim.costs.collectives import all_reduce_cost
from kraken_sim.costs.collectives.policy import CollectivePolicy, Transport
from kraken_sim.costs.gemm import gemm_cost
from kraken_sim.costs.memory_bound import memory_bound_cost
from kraken_sim.costs.power import Load, settled_clock, slowdown
from kraken_sim.costs.types import KernelCost
from kraken_sim.program.ops import AllReduce, Attention, Gemm
from kraken_sim.program.program import MAIN_STREAM

if TYPE_CHECKING:
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.hardware.profile import HardwareProfile
    from kraken_sim.program.ops import ComputeOp
    from kraken_sim.program.program import Program


MOST_PRICES = 20_000
"""Prices of a kind that are kept, some 10 MB; then all are dropped, so that memory stays flat in a long sweep."""


@dataclass(slots=True)
class Pricing:
    """Costs of ops on `profile`, each op priced once.

    `slowdown` is how much longer compute kernels take than at the clock they were measured at.
    """

    profile: HardwareProfile
    policy: CollectivePolicy = field(default_factory=CollectivePolicy)
    slowdown: float = 1.0
    _kernels: dict[ComputeOp, KernelCost] = field(default_factory=dict)
    """Without the slowdown; others on the same profile may share it."""
    _collectives: dict[AllReduce, CollectiveCost] = field(default_factory=dict)
    _program: Program | None = None
    """The program that the slowdown is of."""
    _own: dict[int, KernelCost] = field(default_factory=dict)
    """Costs of that program's ops by their identity, which is faster to look up than their value."""

    def kernel(self, op: ComputeOp) -> KernelCost:
        """The cost of a compute kernel alone on the device."""
        cost = self._own.get(id(op))
        if cost is not None:
            return cost
        cost = self._at_boost(op)
        return cost if self.slowdown == 1.0 else slower(cost, self.slowdown)

    def _at_boost(self, op: ComputeOp) -> KernelCost:
        cost = self._kernels.get(op)
        if cost is None:
            if len(self._kernels) >= MOST_PRICES:
                self._kernels.clear()
            cost = self._kernels[op] = self._kernel(op)
        return cost

    def _kernel(self, op: ComputeOp) -> KernelCost:
        profile = self.profile
        if isinstance(op, Gemm):
            return gemm_cost(op, profile.device, profile.gemm)
        if isinstance(op, Attention):
            return attention_cost(op, profile.device, profile.attention)
        return memory_bound_cost(op, profile.device, profile.memory_bound)

    def collective(self, op: AllReduce) -> CollectiveCost:
        """The cost of an AllReduce alone on the machine."""
        cost = self._collectives.get(op)
        if cost is None:
            if len(self._collectives) >= MOST_PRICES:
                self._collectives.clear()
            p2p = self.policy.transport is not Transport.SHM
            interconnect = self.profile.topology.interconnect(op.num_devices, op.stride, p2p)
            cost = self._collectives[op] = all_reduce_cost(
                op.num_bytes, interconnect, self.profile.device, self.profile.collectives, self.policy
            )
        return cost

    def under_sustained_load(self, program: Program) -> Pricing:
        """The same machine at the clock that it keeps while the program runs again and again."""
        power, device, launch = self.profile.power, self.profile.device, self.profile.launch
        if power is None:
            return self
        loads, transfers, dtypes, compute_s, other_s = [], [], set(), 0.0, 0.0
        gap_s, kernels = launch.graph_node_gap_s + launch.kernel_switch_s, self._kernels
        own: dict[int, KernelCost] = {}
        for segment in program.segments:
            repeat = segment.repeat
            for kernel in segment.kernels:
                op = kernel.op
                if isinstance(op, AllReduce):
                    reduce = self.collective(op)
                    transfers.append(Load(repeat * reduce.busy_s, 0.0, repeat * reduce.hbm_bytes))
                    if kernel.stream == MAIN_STREAM:
                        other_s += repeat * reduce.busy_s
                    continue
                cost = own[id(op)] = kernels.get(op) or self._at_boost(op)
                busy_s = repeat * cost.busy_s
                loads.append(Load(busy_s, repeat * cost.flops, repeat * cost.hbm_bytes))
                compute_s += busy_s
                other_s += repeat * gap_s
                if isinstance(op, Gemm):
                    dtypes.add(op.dtype)
        peak_flops = min((device.peak_flops[dtype] for dtype in dtypes), default=1.0)
        clock = settled_clock(loads, transfers, other_s, peak_flops, device.hbm_bandwidth_bytes_per_s, power)
        factor = slowdown(clock, compute_s + other_s, power)
        if factor > 1.0:
            slowed = {id(cost): slower(cost, factor) for cost in own.values()}
            own = {number: slowed[id(cost)] for number, cost in own.items()}
        return Pricing(self.profile, self.policy, max(1.0, factor), kernels, self._collectives, program, own)


def slower(cost: KernelCost, factor: float) -> KernelCost:
    """The same kernel taking `factor` times as long, whatever limits it."""
    return KernelCost(
        cost.busy_s * factor,
        cost.ctas,
        cost.ctas_per_sm,
        cost.tiles,
        cost.persistent,
        cost.flops,
        cost.hbm_bytes,
        cost.fixed_s * factor,
        cost.compute_s * factor,
        cost.memory_s * factor,
        cost.detail,
    )
