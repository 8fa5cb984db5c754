"""What every op of a program costs on one machine under one runtime: the cost models behind one door."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kraken_sim.costs.attention import attention_cost
from kraken_sim.costs.collectives import collective_cost
from kraken_sim.costs.collectives.algorithms import algorithm_named
from kraken_sim.costs.collectives.norm_fusion import norm_all_reduce_cost
from kraken_sim.costs.collectives.policy import CollectivePolicy, Transport
from kraken_sim.costs.collectives.selection import policy_for
from kraken_sim.costs.gemm import gemm_cost
from kraken_sim.costs.links.sharing import interconnect_of
from kraken_sim.costs.links.side_by_side import SideBySide
from kraken_sim.costs.memory_bound import memory_bound_cost
from kraken_sim.costs.power import Load, clock_factor, settled_clock, slowdown, slowdown_from_rest, slowest_of, tensor_s
from kraken_sim.costs.types import KernelCost
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.predict.memo import Memo
from kraken_sim.program.kernel_sets import CardLoad
from kraken_sim.program.ops import Attention, Collective, Gemm
from kraken_sim.program.program import MAIN_STREAM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.power import PowerConstants
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.program.ops import CollectiveKind, ComputeOp, DType
    from kraken_sim.program.program import Program


MOST_PRICES = 20_000
"""Prices of a kind that are kept, some 10 MB, then all are dropped; a limit of ours, so that memory stays flat in a
long sweep."""


@dataclass(slots=True)
class Pricing:
    """Costs of ops on `profile`, each op priced once.

    `slowdown` is how much longer arithmetic takes than at the clock the kernels were measured at. `num_devices` is
    how many run the program: a collective of fewer runs in several groups at once, which share links.
    """

    profile: HardwareProfile
    policy: CollectivePolicy = field(default_factory=CollectivePolicy)
    num_devices: int = 0
    slowdown: float = 1.0
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

    def kernel(self, op: ComputeOp) -> KernelCost:
        """The cost of a compute kernel alone on the device."""
        cost = self._own.get(id(op))
        if cost is not None:
            return cost
        cost = self.at_boost(op)
        return cost if self.slowdown == 1.0 else self._slower(cost)

    def _slower(self, cost: KernelCost) -> KernelCost:
        return slower(cost, self.slowdown, self.profile.device.hbm_bandwidth_bytes_per_s)

    def at_boost(self, op: ComputeOp) -> KernelCost:
        """The cost of a compute kernel alone on the device at the clock that kernels were measured at."""
        return self._kernels.get(op, lambda: self._kernel(op))

    def _kernel(self, op: ComputeOp) -> KernelCost:
        profile = self.profile
        if isinstance(op, Gemm):
            block, cost = "gemm", gemm_cost(op, profile.device, profile.gemm_of(op.quantization, by_row=op.by_row)[1])
        elif isinstance(op, Attention):
            block, cost = "attention", attention_cost(op, profile.device, profile.attention_of(op)[1])
        else:
            block, cost = "memory_bound", memory_bound_cost(op, profile.device, profile.memory_bound)
        factor = profile.time_factors.get(block, 1.0)
        return cost if factor == 1.0 else scaled(cost, factor)

    def collective(self, op: Collective) -> CollectiveCost:
        """The cost of a collective, alone on the machine but for the program's other groups that run it too."""
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
        power, device, launch = self.profile.power, self.profile.device, self.profile.launch
        if power is None:
            return self
        loads, transfers, compute_s, other_s = [], [], 0.0, 0.0
        gap_s, kernels = launch.graph_node_gap_s, self._kernels.values
        own: dict[int, KernelCost] = {}
        for segment in program.segments:
            repeat = segment.repeat
            for kernel in segment.kernels:
                op = kernel.op
                if isinstance(op, Collective):
                    reduce = self.collective(op)
                    transfers.append(collective_load_of(reduce, device.num_sms, repeat))
                    if kernel.stream == MAIN_STREAM:
                        other_s += repeat * reduce.busy_s
                    continue
                cost = own[id(op)] = kernels.get(op) or self.at_boost(op)
                loads.append(load_of(op, cost, device, power, repeat))
                compute_s += repeat * cost.busy_s
                other_s += repeat * gap_s
        clock = settled_clock(loads, transfers, other_s, device.hbm_bandwidth_bytes_per_s, power)
        step_s = compute_s + other_s
        if load is CardLoad.RESTED:
            factor = slowdown_from_rest(clock, step_s, power)
        else:
            factor = slowest_of(program.num_devices, slowdown(clock, step_s, power), power)
        if factor > 1.0:
            bandwidth = device.hbm_bandwidth_bytes_per_s
            slowed = {id(cost): slower(cost, factor, bandwidth) for cost in own.values()}
            own = {number: slowed[id(cost)] for number, cost in own.items()}
        return replace(self, slowdown=max(1.0, factor), _program=program, _own=own)


def _order(op: Collective) -> tuple[int, int, int, str, bool]:
    return op.num_bytes, op.num_devices, op.stride, op.kind, op.norm is None


def arithmetic_format(op: ComputeOp) -> DType | None:
    """The number format of a kernel's matrix products; None where it has none."""
    if isinstance(op, Gemm):
        return op.input_dtype
    return op.dtype if isinstance(op, Attention) else None


def load_of(op: ComputeOp, cost: KernelCost, device: Device, power: PowerConstants | None, repeat: int = 1) -> Load:
    """What `repeat` such kernels mean to the card's power."""
    dtype = arithmetic_format(op)
    peak_s = tensor_s(cost.flops, dtype, device, power) if dtype is not None else 0.0
    share = min(1.0, cost.ctas / device.num_sms) * max(0.0, 1.0 - cost.fixed_s / cost.busy_s)
    clocked = clocked_share(cost, device.hbm_bandwidth_bytes_per_s)
    return Load(repeat * cost.busy_s, repeat * peak_s, repeat * cost.hbm_bytes, share, clocked)


def collective_load_of(cost: CollectiveCost, num_sms: int, repeat: int = 1) -> Load:
    """What `repeat` such collectives mean to the card's power."""
    return Load(repeat * cost.busy_s, 0.0, repeat * cost.hbm_bytes, min(1.0, cost.channels / num_sms))


def clocked_share(cost: KernelCost, hbm_bandwidth_bytes_per_s: float) -> float:
    """How far the kernel's time follows the SMs' clock: their and L2's time by itself over that and HBM's."""
    hbm_s = min(cost.memory_s, cost.hbm_bytes / hbm_bandwidth_bytes_per_s)
    clocked_s = max(cost.compute_s, cost.memory_s - hbm_s)
    return clocked_s / (clocked_s + hbm_s) if clocked_s + hbm_s > 0.0 else 1.0


def slower(cost: KernelCost, factor: float, hbm_bandwidth_bytes_per_s: float) -> KernelCost:
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
