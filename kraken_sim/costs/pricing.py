"""What every op of a program costs on one machine under one runtime: the cost models behind one door."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kraken_sim.costs.attention import attention_cost
from kraken_sim.costs.collectives import all_reduce_cost
from kraken_sim.costs.collectives.policy import CollectivePolicy, Transport
from kraken_sim.costs.gemm import gemm_cost
from kraken_sim.costs.memory_bound import memory_bound_cost
from kraken_sim.costs.power import Load, settled_clock, slowdown
from kraken_sim.program.ops import AllReduce, Attention, Gemm
from kraken_sim.program.program import MAIN_STREAM

if TYPE_CHECKING:
    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.hardware.profile import HardwareProfile
    from kraken_sim.program.ops import ComputeOp
    from kraken_sim.program.program import Program


@dataclass(slots=True)
class Pricing:
    """Costs of ops on `profile`, each op priced once.

    `slowdown` is how much longer compute kernels take than at the clock they were measured at.
    """

    profile: HardwareProfile
    policy: CollectivePolicy = field(default_factory=CollectivePolicy)
    slowdown: float = 1.0
    _kernels: dict[ComputeOp, KernelCost] = field(default_factory=dict)
    _collectives: dict[AllReduce, CollectiveCost] = field(default_factory=dict)

    def kernel(self, op: ComputeOp) -> KernelCost:
        """The cost of a compute kernel alone on the device."""
        cost = self._kernels.get(op)
        if cost is None:
            cost = self._kernel(op)
            if self.slowdown != 1.0:
                cost = slower(cost, self.slowdown)
            self._kernels[op] = cost
        return cost

    def _kernel(self, op: ComputeOp) -> KernelCost:
        profile = self.profile
        if isinstance(op, Gemm):
            block, cost = "gemm", gemm_cost(op, profile.device, profile.gemm)
        elif isinstance(op, Attention):
            block, cost = "attention", attention_cost(op, profile.device, profile.attention)
        else:
            block, cost = "memory_bound", memory_bound_cost(op, profile.device, profile.memory_bound)
        factor = profile.time_factors.get(block, 1.0)
        return cost if factor == 1.0 else slower(cost, factor)

    def collective(self, op: AllReduce) -> CollectiveCost:
        """The cost of an AllReduce alone on the machine."""
        cost = self._collectives.get(op)
        if cost is None:
            p2p = self.policy.transport is not Transport.SHM
            interconnect = self.profile.topology.interconnect(op.num_devices, op.stride, p2p)
            cost = all_reduce_cost(
                op.num_bytes, interconnect, self.profile.device, self.profile.collectives, self.policy
            )
            factor = self.profile.time_factors.get("collectives", 1.0)
            if factor != 1.0:
                cost = slower_collective(cost, factor)
            self._collectives[op] = cost
        return cost

    def under_sustained_load(self, program: Program) -> Pricing:
        """The same machine at the clock that it keeps while the program runs again and again."""
        power, device, launch = self.profile.power, self.profile.device, self.profile.launch
        if power is None:
            return self
        loads, transfers, dtypes, compute_s, other_s = [], [], set(), 0.0, 0.0
        for segment in program.segments:
            for kernel in segment.kernels:
                if isinstance(kernel.op, AllReduce):
                    reduce = self.collective(kernel.op)
                    transfers.append(Load(segment.repeat * reduce.busy_s, 0.0, segment.repeat * reduce.hbm_bytes))
                    if kernel.stream == MAIN_STREAM:
                        other_s += segment.repeat * reduce.busy_s
                    continue
                cost = self.kernel(kernel.op)
                loads.append(Load(*(segment.repeat * x for x in (cost.busy_s, cost.flops, cost.hbm_bytes))))
                compute_s += segment.repeat * cost.busy_s
                other_s += segment.repeat * (launch.graph_node_gap_s + launch.kernel_switch_s)
                if isinstance(kernel.op, Gemm):
                    dtypes.add(kernel.op.dtype)
        peak_flops = min((device.peak_flops[dtype] for dtype in dtypes), default=1.0)
        clock = settled_clock(loads, transfers, other_s, peak_flops, device.hbm_bandwidth_bytes_per_s, power)
        factor = slowdown(clock, compute_s + other_s, power)
        return Pricing(self.profile, self.policy, factor, {}, self._collectives) if factor > 1.0 else self


def slower(cost: KernelCost, factor: float) -> KernelCost:
    """The same kernel taking `factor` times as long, whatever limits it."""
    return replace(
        cost,
        busy_s=cost.busy_s * factor,
        fixed_s=cost.fixed_s * factor,
        compute_s=cost.compute_s * factor,
        memory_s=cost.memory_s * factor,
    )


def slower_collective(cost: CollectiveCost, factor: float) -> CollectiveCost:
    """The same collective taking `factor` times as long, start-up and transfer alike."""
    return replace(
        cost, busy_s=cost.busy_s * factor, latency_s=cost.latency_s * factor, transfer_s=cost.transfer_s * factor
    )
