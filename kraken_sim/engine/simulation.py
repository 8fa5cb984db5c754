"""Run a program on a machine: a SimPy simulation of every rank, or of what symmetry and repetition leave.

Folding is exact. Ranks run the same program on the same device, so one rank tells all (`fold_ranks`).
Layers repeat: once a layer is the previous one shifted by a constant, on every stream, so are all that
follow, and they are counted instead of simulated (`fold_layers`). The clock is in integers, so "the same,
shifted" is an equality and not a tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import simpy

from kraken_sim.engine.collective import JointCollective, LinkState
from kraken_sim.engine.device import DeviceState
from kraken_sim.engine.streams import Rank
from kraken_sim.engine.timeline import Fold, Span, Timeline
from kraken_sim.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.costs.contention import ContentionConstants
    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.engine.collective import LinkSpeeds
    from kraken_sim.hardware.device import LaunchCosts
    from kraken_sim.program.ops import AllReduce, ComputeOp
    from kraken_sim.program.program import Program

FIRST_REPEATS = 5
"""Repetitions simulated at first: one to start, three to compare, one that meets the next segment."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the engine needs to know of a profile: sizes, launch costs, contention, and two cost functions."""

    num_sms: int
    hbm_bandwidth_bytes_per_s: float
    launch: LaunchCosts
    contention: ContentionConstants
    kernel_cost: Callable[[ComputeOp], KernelCost]
    collective_cost: Callable[[AllReduce], CollectiveCost]
    link_speeds: LinkSpeeds | None = None
    """The pace that different collectives leave each other on the links they share; None: they share none."""


def run(program: Program, machine: Machine, *, eager: bool, exact: bool = False) -> Timeline:
    """Simulate `program`; `exact` simulates every rank and every layer.

    Raises:
        SimulationError: Some operations wait for each other; names them.
    """
    if exact:
        return _simulate(program, machine, eager=eager, num_ranks=program.num_devices)
    repeats = FIRST_REPEATS
    longest = max(segment.repeat for segment in program.segments)
    while repeats < longest:
        short = _shorten(program, repeats)
        timeline = _simulate(short, machine, eager=eager, num_ranks=1)
        folds = _folds(program, short, timeline)
        if folds is not None:
            return _unshorten(timeline, folds, short)
        repeats *= 2
    return _simulate(program, machine, eager=eager, num_ranks=1)


def _simulate(program: Program, machine: Machine, *, eager: bool, num_ranks: int) -> Timeline:
    env = simpy.Environment(initial_time=0)
    groups: dict[tuple[object, ...], JointCollective] = {}
    calls: dict[tuple[int, int, int], int] = {}
    links = None if machine.link_speeds is None else LinkState(machine.link_speeds)

    def join(rank: int, op: AllReduce) -> tuple[CollectiveCost, JointCollective]:
        """The collective that this rank's next call on its group belongs to."""
        group = _group(rank, op) if num_ranks > 1 else 0
        call = (rank, op.num_devices, op.stride)
        calls[call] = number = calls.get(call, 0) + 1
        key = (op.num_devices, op.stride, group, number)
        if key not in groups:
            cost = machine.collective_cost(op)
            members = op.num_devices if num_ranks > 1 else 1
            groups[key] = JointCollective(env, cost, members, env.event(), op, links)
        return groups[key].cost, groups[key]

    ranks = []
    processes: list[simpy.Process] = []
    for number in range(num_ranks):
        device = DeviceState(env, machine.num_sms, machine.hbm_bandwidth_bytes_per_s, machine.contention)
        rank = Rank(env, number, device, machine.launch, eager, machine.kernel_cost, join)
        processes += rank.start(program)
        ranks.append(rank)
    num_events = _run_to_end(env, processes, ranks)
    spans = sorted(
        (span for rank in ranks for span in rank.spans),
        key=lambda span: (span.start_ps, span.rank, span.stream, span.end_ps),
    )
    end_ps = max((span.end_ps for span in spans), default=0)
    return Timeline(tuple(spans), (), end_ps, num_events)


def _group(rank: int, op: AllReduce) -> int:
    """Number of the group that `rank` belongs to: blocks of stride * n ranks, every stride-th together."""
    return rank // (op.stride * op.num_devices) * op.stride + rank % op.stride


def _run_to_end(env: simpy.Environment, processes: list[simpy.Process], ranks: list[Rank]) -> int:
    """Step until every process has ended and return the number of events."""
    num_events = 0
    finished = env.all_of(processes)
    while not finished.triggered:
        try:
            env.step()
        except simpy.core.EmptySchedule:
            waiting = [
                f"rank {rank.number} stream {stream}: {queue.waiting_for or 'its host'}"
                for rank in ranks
                for stream, queue in rank.queues.items()
                if queue.waiting_for is not None or not queue.closed
            ]
            raise SimulationError("the simulation cannot finish; waiting: " + "; ".join(waiting)) from None
        num_events += 1
    return num_events


def _shorten(program: Program, repeats: int) -> Program:
    segments = tuple(replace(segment, repeat=min(segment.repeat, repeats)) for segment in program.segments)
    return replace(program, segments=segments)


def _folds(program: Program, short: Program, timeline: Timeline) -> tuple[Fold, ...] | None:
    """How to stretch the short run to the whole program, or None while a segment is not yet steady."""
    folds = []
    for whole, part in zip(program.segments, short.segments, strict=True):
        if whole.repeat == part.repeat:
            continue
        period = _period(timeline, part.name, part.repeat)
        if period is None:
            return None
        folds.append(Fold(part.name, part.repeat - 2, whole.repeat - part.repeat, period))
    return tuple(folds)


def _period(timeline: Timeline, segment: str, repeats: int) -> int | None:
    """The common shift of the last layers but one, if they are copies of each other.

    The last repetition is left out: the next segment may overlap it.
    """
    layers = [
        [span for span in timeline.simulated if span.segment == segment and span.iteration == iteration]
        for iteration in range(repeats - 4, repeats - 1)
    ]
    shifts = {_shift(before, after) for before, after in pairwise(layers)}
    return shifts.pop() if len(shifts) == 1 else None


def _shift(before: list[Span], after: list[Span]) -> int | None:
    """By how much every span of a layer comes later than in the layer before; None if they differ.

    A host that enqueues a layer in more time than the device needs is running out of its lead, so the
    layers look steady and are not.
    """
    if [(span.name, span.stream) for span in before] != [(span.name, span.stream) for span in after]:
        return None
    pairs = list(zip(before, after, strict=True))
    shifts = {new.start_ps - old.start_ps for old, new in pairs}
    shifts |= {new.end_ps - old.end_ps for old, new in pairs}
    if len(shifts) != 1:
        return None
    shift = shifts.pop()
    host_keeps_up = all(new.queued_ps - old.queued_ps <= shift for old, new in pairs)
    return shift if host_keeps_up else None


def _unshorten(timeline: Timeline, folds: tuple[Fold, ...], short: Program) -> Timeline:
    """Shift everything after a folded repetition by the time of the copies."""
    order = [segment.name for segment in short.segments]
    spans = []
    for span in timeline.simulated:
        shift = count = 0
        for fold in folds:
            same = span.segment == fold.segment and span.iteration > fold.iteration
            if same or order.index(span.segment) > order.index(fold.segment):
                shift += fold.count * fold.period_ps
            if same:
                count = fold.count
        spans.append(span.shifted(shift, count) if shift else span)
    end_ps = timeline.end_ps + sum(fold.count * fold.period_ps for fold in folds)
    return Timeline(tuple(spans), folds, end_ps, timeline.num_events)
