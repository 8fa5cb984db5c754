"""What every op of a program costs on one machine under one runtime: the cost models behind one door."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kraken_sim.costs.attention import attention_cost
from kraken_sim.costs.collectives import all_reduce_cost
from kraken_sim.costs.collectives.policy import CollectivePolicy, Transport
from kraken_sim.costs.gemm import gemm_cost
from kraken_sim.costs.memory_bound import memory_bound_cost
from kraken_sim.program.ops import AllReduce, Attention, Gemm

if TYPE_CHECKING:
    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.hardware.profile import HardwareProfile
    from kraken_sim.program.ops import ComputeOp


@dataclass(slots=True)
class Pricing:
    """Costs of ops on `profile`, each op priced once.

    `clock_ratio` is the clock under load over the boost clock; it scales arithmetic.
    """

    profile: HardwareProfile
    policy: CollectivePolicy = field(default_factory=CollectivePolicy)
    clock_ratio: float = 1.0
    _kernels: dict[ComputeOp, KernelCost] = field(default_factory=dict)
    _collectives: dict[AllReduce, CollectiveCost] = field(default_factory=dict)

    def kernel(self, op: ComputeOp) -> KernelCost:
        """The cost of a compute kernel alone on the device."""
        cost = self._kernels.get(op)
        if cost is None:
            cost = self._kernels[op] = self._kernel(op)
        return cost

    def _kernel(self, op: ComputeOp) -> KernelCost:
        profile = self.profile
        if isinstance(op, Gemm):
            return gemm_cost(op, profile.device, profile.gemm, self.clock_ratio)
        if isinstance(op, Attention):
            return attention_cost(op, profile.device, profile.attention, self.clock_ratio)
        return memory_bound_cost(op, profile.device, profile.memory_bound)

    def collective(self, op: AllReduce) -> CollectiveCost:
        """The cost of an AllReduce alone on the machine."""
        cost = self._collectives.get(op)
        if cost is None:
            p2p = self.policy.transport is not Transport.SHM
            interconnect = self.profile.topology.interconnect(op.num_devices, op.stride, p2p)
            cost = self._collectives[op] = all_reduce_cost(
                op.num_bytes, interconnect, self.profile.device, self.profile.collectives, self.policy
            )
        return cost
