"""Ranks on one clock: what each host enqueues runs on the streams and devices until all of it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import simpy

from kraken_sim.engine.collective import JointCollective, LinkState
from kraken_sim.engine.device import DeviceState
from kraken_sim.engine.streams import Rank
from kraken_sim.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kraken_sim.costs.contention import ContentionConstants
    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.engine.clock import Clock
    from kraken_sim.engine.collective import LinkSpeeds
    from kraken_sim.engine.resident import LaunchShape
    from kraken_sim.engine.streams import QueuedStep
    from kraken_sim.engine.timeline import Span
    from kraken_sim.hardware.device import LaunchCosts
    from kraken_sim.program.many import Sizes
    from kraken_sim.program.ops import Collective, ComputeOp

EVENTS_PER_INSTANT = 100_000
"""Far more events than a rank has at one time of the clock; a limit of ours: beyond it, something keeps the clock from
advancing."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the engine needs to know of a profile: sizes, launch costs, contention, and two cost functions."""

    num_sms: int
    hbm_bandwidth_bytes_per_s: float
    launch: LaunchCosts
    contention: ContentionConstants
    kernel_cost: Callable[[ComputeOp], KernelCost]
    collective_cost: Callable[[Collective], CollectiveCost]
    link_speeds: LinkSpeeds | None = None
    """The pace that different collectives leave each other on the links they share; None: they share none."""
    shapes: Mapping[int, LaunchShape] = field(default_factory=dict)
    """Of costs that live as long as the machine, by their identity; others are worked out."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What ran. Spans are ordered by their start, each with the number of its launch.

    Of the first rank: `asked_ps`, by launch, is when its stream asked for it; `end_ps` and `ready_ps`, by stream,
    when it had ended its last step and when it may start its next kernel.
    """

    spans: list[tuple[int, Span]]
    asked_ps: list[Sizes]
    end_ps: dict[int, Sizes]
    ready_ps: dict[int, Sizes]
    num_events: Sizes


def simulate_ranks(
    launches: Sequence[QueuedStep],
    machine: Machine,
    *,
    eager: bool,
    num_ranks: int,
    ready_ps: Mapping[int, int],
    alone: bool = False,
) -> Simulated:
    """Simulate `launches` on each of `num_ranks` ranks from an idle machine on.

    Args:
        launches: what every host enqueues, in order.
        machine: costs and constants.
        eager: which gap lies between kernels.
        num_ranks: 1 simulates one rank for all, which is exact as long as all are alike.
        ready_ps: by stream, when its first kernel may start.
        alone: whether kernels that nothing can come beside any more take their time alone, which is the same but for
            the device's events.

    Raises:
        SimulationError: some operations wait for each other, or the clock stands still; names them.
    """
    env: Any = simpy.Environment(initial_time=0)
    groups: dict[tuple[object, ...], JointCollective] = {}
    calls: dict[tuple[int, int, int], int] = {}
    links = None if machine.link_speeds is None else LinkState(machine.link_speeds)

    def join(rank: int, op: Collective) -> tuple[CollectiveCost, JointCollective]:
        """The collective that this rank's next call on its group belongs to."""
        group = _group(rank, op) if num_ranks > 1 else 0
        call = (rank, op.num_devices, op.stride)
        calls[call] = number = calls.get(call, 0) + 1
        key = (op.num_devices, op.stride, group, number)
        if key not in groups:
            cost = machine.collective_cost(op)
            members = op.num_devices if num_ranks > 1 else 1
            groups[key] = JointCollective(env, op, cost, members, env.event(), links)
        return groups[key].cost, groups[key]

    ranks = []
    for number in range(num_ranks):
        device = DeviceState(
            env, machine.num_sms, machine.hbm_bandwidth_bytes_per_s, machine.contention, machine.shapes
        )
        rank = Rank(env, number, device, machine.launch, eager, alone, machine.kernel_cost, join)
        ranks.append(rank)
    for rank in ranks:
        rank.start(launches, ready_ps)
    num_events = _run_to_end(env, ranks)
    spans = [span for rank in ranks for span in rank.spans]
    spans.sort(key=lambda item: (item[1].start_ps, item[1].rank, item[1].stream, item[1].end_ps))
    streams = ranks[0].streams
    return Simulated(
        spans,
        ranks[0].asked_ps,
        {number: stream.end_ps for number, stream in streams.items()},
        {number: stream.ready_ps for number, stream in streams.items()},
        num_events,
    )


def _group(rank: int, op: Collective) -> int:
    """Number of the group that `rank` belongs to: blocks of stride * n ranks, every stride-th together."""
    return rank // (op.stride * op.num_devices) * op.stride + rank % op.stride


def _run_to_end(env: Clock, ranks: list[Rank]) -> int:
    """Take events until every stream has ended and return how many there were."""
    most_per_instant = EVENTS_PER_INSTANT * len(ranks)
    streams = [stream for rank in ranks for stream in rank.streams.values()]
    num_events, look, instant, step = 0, most_per_instant, env.now, env.step
    try:
        for stream in streams:
            while not stream.ended:
                step()
                num_events += 1
                if num_events == look:
                    if env.now == instant:
                        message = f"the simulation stands still at {instant} ps after {num_events} events; waiting: "
                        raise SimulationError(message + _waiting(ranks))
                    instant, look = env.now, look + most_per_instant
    except simpy.core.EmptySchedule:
        raise SimulationError("the simulation cannot finish; waiting: " + _waiting(ranks)) from None
    return num_events


def _waiting(ranks: list[Rank]) -> str:
    """What every stream that has not ended is doing."""
    return "; ".join(
        f"rank {rank.number} stream {number}: {stream.waiting_for or 'its host'}"
        for rank in ranks
        for number, stream in rank.streams.items()
        if not stream.ended
    )
