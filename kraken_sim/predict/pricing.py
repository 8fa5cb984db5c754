"""What every op of a program costs on one machine under one runtime: the cost models behind one door."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from kraken_sim.costs.attention import attention_cost
from kraken_sim.costs.collectives import collective_cost
from kraken_sim.costs.collectives.algorithms import algorithm_named
from kraken_sim.costs.collectives.norm_fusion import norm_all_reduce_cost
from kraken_sim.costs.collectives.policy import CollectivePolicy, Transport
from kraken_sim.costs.collectives.selection import policy_for, takes_arrays
from kraken_sim.costs.contention import evicted
from kraken_sim.costs.gemm import gemm_cost
from kraken_sim.costs.gemm_constants import without_limit
from kraken_sim.costs.links.sharing import interconnect_of
from kraken_sim.costs.links.side_by_side import SideBySide
from kraken_sim.costs.memory_bound import memory_bound_cost
from kraken_sim.costs.power import expected_slowest, settled_clock, slowdown, slowdown_from_rest, slowest_of
from kraken_sim.costs.slower import scaled, slower, slower_collective
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.predict.card_load import StepSums, collective_load_of, load_of, streams
from kraken_sim.predict.memo import Memo
from kraken_sim.program.kernel_sets import CardLoad
from kraken_sim.program.many import POINTS, apart, maths_for, part_of, stacked
from kraken_sim.program.ops import Attention, Collective, Gemm
from kraken_sim.program.points import groups_alike, num_points, ops_of_points

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.program.many import Sizes
    from kraken_sim.program.ops import CollectiveKind, ComputeOp
    from kraken_sim.program.program import Program


MOST_PRICES = 20_000
"""Prices of a kind that are kept, some 10 MB, then all are dropped; a limit of ours, so that memory stays flat in a
long sweep."""


@dataclass(slots=True)
class Pricing:
    """Costs of ops on `profile`, each op priced once.

    `slowdown` is how much longer arithmetic takes than at the clock the kernels were measured at, `slowest` how much
    longer the slowest of the cards that wait for each other takes than one of its kind. `num_devices` is
    how many run the program: a collective of fewer runs in several groups at once, which share links.
    """

    profile: HardwareProfile
    policy: CollectivePolicy = field(default_factory=CollectivePolicy)
    num_devices: int = 0
    slowdown: Sizes = 1.0
    slowest: float = 1.0
    _kernels: Memo[KernelCost] = field(default_factory=lambda: Memo(MOST_PRICES))
    """By op, without the slowdown; others on the same profile may share it."""
    _collectives: Memo[CollectiveCost] = field(default_factory=lambda: Memo(MOST_PRICES))
    """By op, alone on the machine."""
    _shared: Memo[CollectiveCost] = field(default_factory=lambda: Memo(MOST_PRICES))
    """By op, with the program's other groups that run it too."""
    _link_speeds: Memo[Mapping[Collective, float]] = field(default_factory=lambda: Memo(MOST_PRICES))
    """By the set of ops under way."""
    _program: Program | None = None
    """The program that the slowdown is of."""
    _own: dict[int, KernelCost] = field(default_factory=dict)
    """Costs of that program's ops by their identity, which is faster to look up than their value."""
    _boost: dict[int, KernelCost] = field(default_factory=dict)
    """The same at the boost clock."""
    _reduces: dict[int, CollectiveCost] = field(default_factory=dict)
    """Costs of its collectives where it is a program of many points, alike."""
    _streamed: bool = False
    """The program streams more through L2 than it holds."""
    _evicted: Memo[CollectiveCost] = field(default_factory=lambda: Memo(MOST_PRICES))
    """By op, in such a program."""

    def kernel(self, op: ComputeOp) -> KernelCost:
        """The cost of a compute kernel alone on the device."""
        cost = self._own.get(id(op))
        if cost is not None:
            return cost
        cost = self._kernels.get(op, lambda: self._kernel(op))
        return cost if self.slowdown * self.slowest == 1.0 else self._slower(cost)

    def _slower(self, cost: KernelCost) -> KernelCost:
        return slower(cost, self.slowdown * self.slowest, self.profile.device.hbm_bandwidth_bytes_per_s)

    def at_boost(self, op: ComputeOp) -> KernelCost:
        """The cost of a compute kernel alone on the device at the clock that kernels were measured at."""
        cost = self._boost.get(id(op))
        return self._kernels.get(op, lambda: self._kernel(op)) if cost is None else cost

    def _kernel(self, op: ComputeOp) -> KernelCost:
        profile = self.profile
        if isinstance(op, Gemm):
            constants = profile.gemm_of(op.quantization, by_row=op.by_row)[1]
            # What the limit costs follows from the whole step's power, where that is known.
            of_step = constants if profile.power is None else without_limit(constants)
            block, cost = "gemm", gemm_cost(op, profile.device, of_step)
        elif isinstance(op, Attention):
            block, cost = "attention", attention_cost(op, profile.device, profile.attention_of(op)[1])
        else:
            block, cost = "memory_bound", memory_bound_cost(op, profile.device, profile.memory_bound)
        factor = profile.time_factors.get(block, 1.0)
        return cost if factor == 1.0 else scaled(cost, factor)

    def collective(self, op: Collective) -> CollectiveCost:
        """The cost of a collective, alone on the machine but for the program's other groups that run it too."""
        if self._reduces:
            return self._reduces[id(op)]
        if self._streamed:
            return self._evicted.get(op, lambda: evicted(self._undisturbed(op), True, self.profile.contention))
        return self._undisturbed(op)

    def _undisturbed(self, op: Collective) -> CollectiveCost:
        if not 1 < op.num_devices < self.num_devices:
            return self._alone(op)
        return self._shared.get(op, lambda: self._side_by_side().shared(op, self._alone(op)))

    def _alone(self, op: Collective) -> CollectiveCost:
        return self._collectives.get(op, lambda: self._collective(op))

    def _collective(self, op: Collective) -> CollectiveCost:
        profile = self.profile
        gpus = profile.topology.group(op.num_devices, op.stride)
        interconnect = interconnect_of(profile.topology, gpus, op.kind, self._p2p)
        policy = self._policy(op.kind, interconnect)
        if op.norm is None:
            cost = collective_cost(op.kind, op.num_bytes, interconnect, profile.device, profile.collectives, policy)
        else:
            row = memory_bound_cost(replace(op.norm, adds=0, writes_sum=False), profile.device, profile.memory_bound)
            cost = norm_all_reduce_cost(
                op.num_bytes, row, interconnect, profile.device, profile.collectives, self.policy
            )
        factor = profile.time_factors.get("collectives", 1.0)
        return cost if factor == 1.0 else slower_collective(cost, factor)

    def _policy(self, kind: CollectiveKind, interconnect: Interconnect) -> CollectivePolicy:
        """The policy as a group takes it.

        A program on several nodes has groups within them too; what is forced for groups on several nodes leaves
        these to the library.
        """
        policy = policy_for(self.policy, kind)
        if policy.algorithm is None or interconnect.kind is InterconnectKind.NETWORK or self.num_devices <= 1:
            return policy
        whole = self.profile.topology.interconnect(self.num_devices)
        within = algorithm_named(policy.algorithm).is_for(spans_nodes=False)
        return policy if within or whole.kind is not InterconnectKind.NETWORK else replace(policy, algorithm=None)

    def link_speeds(self, ops: frozenset[Collective]) -> Mapping[Collective, float]:
        """The pace of each of several collectives under way at once, relative to its `collective`."""

        def build() -> Mapping[Collective, float]:
            return self._side_by_side().speeds({op: self._alone(op) for op in sorted(ops, key=_order)})

        return self._link_speeds.get(ops, build)

    @property
    def _p2p(self) -> bool:
        return self.policy.transport is not Transport.SHM

    def _side_by_side(self) -> SideBySide:
        profile = self.profile
        return SideBySide(profile.topology, profile.collectives, self.num_devices, p2p=self._p2p)

    def under_load(self, program: Program, load: CardLoad) -> Pricing:
        """The prices at the clock that the machine keeps while it runs the program again and again, or runs it once.

        A rested card runs at its boost clock until its controller has seen enough of a long step.
        """
        device, bandwidth = self.profile.device, self.profile.device.hbm_bandwidth_bytes_per_s
        own, reduces = self._priced(program)
        streamed = streams(program, own, device.l2_capacity_bytes)
        reduces = {number: evicted(cost, streamed, self.profile.contention) for number, cost in reduces.items()}
        boost, power = own, self.profile.power
        priced = replace(self, _program=program, _own=own, _boost=boost, _reduces=reduces)
        priced._streamed = not program.num_points and bool(streamed)
        if power is None:
            return priced
        step = StepSums(self.profile.launch.graph_node_gap_s)
        for segment in program.segments:
            for kernel in segment.kernels:
                op = kernel.op
                if isinstance(op, Collective):
                    step.add_collective(priced.collective(op), segment.repeat, kernel.stream)
                else:
                    step.add(op, own[id(op)], segment.repeat)
        loads = [load_of(op, cost, device, power, repeat) for op, cost, repeat in step.kernels.values()]
        transfers = [collective_load_of(cost, device.num_sms, repeat) for cost, repeat in step.collectives]
        clock = settled_clock(loads, transfers, step.other_s, bandwidth, power)
        step_s = step.compute_s + step.other_s
        if load is CardLoad.RESTED:
            factor = slowdown_from_rest(clock, step_s, power)
        else:
            factor = slowest_of(program.num_devices, slowdown(clock, step_s, power), power)
        maths = maths_for(factor)
        factor, slowest = maths.maximum(1.0, factor), expected_slowest(program.num_devices, power)
        if maths is POINTS or factor * slowest > 1.0:
            slowed = {id(cost): slower(cost, factor * slowest, bandwidth) for cost in own.values()}
            own = {number: slowed[id(cost)] for number, cost in own.items()}
        return replace(priced, slowdown=factor, slowest=slowest, _own=own)

    def _priced(self, program: Program) -> tuple[dict[int, KernelCost], dict[int, CollectiveCost]]:
        """Costs of the program's kernels at the boost clock, by the identity of their ops.

        And of its collectives where the program is of many points, whose ops cannot be looked up by their value.
        """
        ops = {id(kernel.op): kernel.op for segment in program.segments for kernel in segment.kernels}
        computes = [op for op in ops.values() if not isinstance(op, Collective)]
        if not program.num_points:
            known = self._kernels.values
            return {id(op): known.get(op) or self.at_boost(op) for op in computes}, {}
        reduces = [op for op in ops.values() if isinstance(op, Collective)]
        many = [op for op in computes if num_points(op)]
        found = {id(op): self.at_boost(op) for op in computes if not num_points(op)}
        found |= {id(op): self._kernel_of_many(op) for op in many if not isinstance(op, Gemm)}
        for alike in groups_alike([op for op in many if isinstance(op, Gemm)]):
            cost = self._kernel(alike.whole)
            found |= {id(op): part_of(cost, part) for op, part in zip(alike.ops, alike.parts, strict=True)}
        return found, {id(op): self._collective_of_many(op) for op in reduces}

    def _kernel_of_many(self, op: ComputeOp) -> KernelCost:
        """`at_boost` of an op whose sizes are arrays; of windows of attention each point apart."""
        if isinstance(op, Attention) and op.window is not None:
            return stacked([self.at_boost(one) for one in ops_of_points(op)])
        return self._kernel(op)

    def _collective_of_many(self, op: Collective) -> CollectiveCost:
        """`collective` of an op whose sizes are arrays."""
        if not num_points(op):
            return self.collective(op)
        group = self.profile.topology.group(op.num_devices, op.stride)
        interconnect = interconnect_of(self.profile.topology, group, op.kind, self._p2p)
        shared = 1 < op.num_devices < self.num_devices
        if (
            shared
            or op.norm is not None
            or not takes_arrays(op.kind, interconnect, self._policy(op.kind, interconnect))
        ):
            return stacked([self.collective(one) for one in ops_of_points(op)])
        sizes, place = np.unique(op.num_bytes, return_inverse=True)
        return part_of(apart(lambda num_bytes: self._collective(replace(op, num_bytes=num_bytes)), sizes), place)


def _order(op: Collective) -> tuple[int, int, int, str, bool]:
    return op.num_bytes, op.num_devices, op.stride, op.kind, op.norm is None
