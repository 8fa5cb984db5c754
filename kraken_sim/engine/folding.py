"""Simulate what is distinct in a program once: one rank of those that are alike, one layer of those that repeat.

Three facts make it exact; tests hold it against the full simulation of every rank and layer.

- Ranks run the same program on the same device, so one rank tells all.
- A kernel that runs alone, from an idle device to an idle device, takes the time that the event simulation would
  give it (`LaunchShape.alone_ps`). On one stream a pass is then a sum (graph), or a max-plus recurrence of
  host and stream (eager): start = max(end before + gap, enqueued).
- Between two cuts (`pieces`) time enters only as differences. A window of overlap that begins in the same
  *state* (when either stream may go on, when the host has enqueued its steps, counted from its beginning) is a
  copy of the earlier one, shifted; so is a whole layer, and then so are all layers after it. The clock is in
  integers, so "the same state" is an equality and not a tolerance.

In eager mode the host has a lead that changes from layer to layer. A layer in which no stream waited for
the host is repeated for as many layers as the lead lasts, and then simulated again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kraken_sim.costs.types import CollectiveCost
from kraken_sim.engine.clock import each_to_ps, to_ps
from kraken_sim.engine.pieces import Window
from kraken_sim.engine.resident import launch_shape
from kraken_sim.engine.streams import launch_ps, node_gap_ps
from kraken_sim.engine.timeline import Fold, Span, SpanKind, Timeline
from kraken_sim.engine.windows import (
    PointsWindow,
    SimulatedWindows,
    asked_at_least,
    queued_steps,
    shapes_of,
    simulate_window,
    timed,
)
from kraken_sim.program.many import POINT, POINTS, where
from kraken_sim.program.ops import Collective
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.costs.types import KernelCost
    from kraken_sim.engine.pieces import Piece
    from kraken_sim.engine.ranks import Machine, Simulated
    from kraken_sim.program.many import Maths, Sizes
    from kraken_sim.program.program import Kernel, Program, Segment, Step

_ALWAYS = 1 << 62
"""A lead that never runs out, in picoseconds; a definition, 53 days."""

_NEVER = -1
"""When a step is enqueued that is not run; a definition."""


def fold(
    program: Program, machine: Machine, *, eager: bool, windows: SimulatedWindows | None = None
) -> Timeline | None:
    """The timeline of `program` on one rank, or None where its segments can't be cut into pieces.

    Of a program of many points all times are arrays [num_points]; its spans are in the order of their launch, and take
    no time at points that repeat fewer layers. `windows` are those of the same program on another host.

    Raises:
        SimulationError: see `simulate_ranks`.
    """
    windows = SimulatedWindows() if windows is None else windows
    num = program.num_points
    walk = _Walk(machine, eager, windows, POINTS if num else POINT, num)
    for segment, pieces in zip(program.segments, windows.pieces_of(program), strict=True):
        if pieces is None:
            return None
        if num:
            walk.segment_of_many(segment, pieces)
        else:
            walk.segment(segment, pieces)
    spans = walk.spans
    copied_ps = {(fold.segment, fold.iteration): fold.count * fold.period_ps for fold in walk.folds}
    ends_ps = [span.end_ps + copied_ps.get((span.segment, span.iteration), 0) for span in spans]
    if walk.maths is POINTS:
        return Timeline(tuple(spans), tuple(walk.folds), reduce(np.maximum, ends_ps), walk.num_events)
    spans.sort(key=lambda span: (span.start_ps, span.stream, span.end_ps))
    return Timeline(tuple(spans), tuple(walk.folds), max(ends_ps, default=0), walk.num_events)


class _State(NamedTuple):
    """Where a walk stands, in picoseconds after the main stream's last step; None where it doesn't matter."""

    ready_ps: Sizes
    side_ready_ps: Sizes | None
    host_ps: Sizes | None

    def equals(self, other: _State) -> Sizes:
        """Whether both are the same."""
        return (
            (self.ready_ps == other.ready_ps)
            & (self.side_ready_ps == other.side_ready_ps)
            & (self.host_ps == other.host_ps)
        )


class _Times(NamedTuple):
    """When a walk has ended a layer: its two streams, and the host."""

    end_ps: Sizes
    ready_ps: Sizes
    side_ready_ps: Sizes
    host_ps: Sizes


class _Price(NamedTuple):
    """What a kernel takes on an idle machine."""

    kind: SpanKind
    duration_ps: Sizes
    cost: KernelCost | CollectiveCost


class _Piece(NamedTuple):
    """A window's simulation and where it begins."""

    steps: tuple[Step, ...]
    queued_ps: list[Sizes]
    begin_ps: Sizes
    result: Simulated


@dataclass(slots=True)
class _Walk:
    """One rank on its way through a program, piece by piece; times are picoseconds of the whole pass."""

    machine: Machine
    eager: bool
    windows: SimulatedWindows
    maths: Maths = POINT
    num_points: int = 0
    spans: list[Span] = field(default_factory=list)
    folds: list[Fold] = field(default_factory=list)
    num_events: Sizes = 0
    end_ps: Sizes = 0
    """The main stream has ended its last step."""
    ready_ps: Sizes = 0
    """The main stream may start its next kernel."""
    side_ready_ps: Sizes = 0
    """The side stream may start its next kernel."""
    host_ps: Sizes = 0
    """The host has enqueued its last step."""
    lead_ps: Sizes = _ALWAYS
    """The least time, in this layer, from a step's launch by the host to the moment when its stream asks for it."""
    gap_ps: int = 0
    prices: dict[int, _Price] = field(default_factory=dict)
    """By the identity of the cost, which equal ops share; the price keeps the cost alive."""
    active: Sizes = 1
    """Of many points, those that are not done with the segment; a definition of one point: it is."""

    def __post_init__(self) -> None:
        self.gap_ps = node_gap_ps(self.machine.launch, eager=self.eager)
        if not self.eager:
            # A graph has all of its steps enqueued at once, and nothing asks for one before.
            start_ps = to_ps(self.machine.launch.graph_launch_s)
            self.host_ps = self.end_ps = self.ready_ps = self.side_ready_ps = start_ps

    def segment(self, segment: Segment, pieces: tuple[Piece, ...]) -> None:
        """Run the repetitions of a segment, equal ones once."""
        forks = any(isinstance(piece, Window) for piece in pieces)
        number = 0
        while number < segment.repeat:
            before, end_ps, host_ps = self._state(forks), self.end_ps, self.host_ps
            self.lead_ps = _ALWAYS
            for piece in pieces:
                if isinstance(piece, Window):
                    self._window(piece.steps, segment.name, number, piece)
                else:
                    self._alone(piece, segment.name, number)
            number += 1
            copies = self._copies(before, self._state(forks), segment.repeat - number)
            if copies:
                period_ps, host_period_ps = self.end_ps - end_ps, self.host_ps - host_ps
                self.folds.append(Fold(segment.name, number - 1, copies, period_ps))
                self._skip(copies * period_ps, copies * host_period_ps, forks)
                number += copies

    def segment_of_many(self, segment: Segment, pieces: tuple[Piece, ...]) -> None:
        """The same for many points, until each has run or copied its repetitions; one that has stands still."""
        forks = any(isinstance(piece, Window) for piece in pieces)
        done, number = np.zeros(self.num_points, dtype=np.int64), 0
        while (active := done < segment.repeat).any():
            self.active = active
            before, stands, first = self._state(forks), self._times(), len(self.spans)
            self.lead_ps = _ALWAYS
            for piece in pieces:
                if isinstance(piece, Window):
                    self._window(piece.steps, segment.name, number, piece)
                else:
                    self._alone(piece, segment.name, number)
            left = np.where(self.active, segment.repeat - done - 1, 0)
            copies = self._copies_of_many(before, self._state(forks), left)
            period_ps, host_period_ps = self.end_ps - stands.end_ps, self.host_ps - stands.host_ps
            self._stand_still(stands, first)
            done = done + self.active + copies
            if copies.any():
                self.folds.append(Fold(segment.name, number, copies, period_ps))
                self._skip(copies * period_ps, copies * host_period_ps, forks)
            number += 1

    def _times(self) -> _Times:
        return _Times(self.end_ps, self.ready_ps, self.side_ready_ps, self.host_ps)

    def _stand_still(self, before: _Times, first: int) -> None:
        """Take back what points that are done have run: their spans, from the first on, take no time."""
        if self.active.all():
            return
        now = self._times()
        self.end_ps, self.ready_ps, self.side_ready_ps, self.host_ps = (
            where(self.active, new, old) for new, old in zip(now, before, strict=True)
        )
        for index in range(first, len(self.spans)):
            span = self.spans[index]
            self.spans[index] = span._replace(
                start_ps=where(self.active, span.start_ps, before.end_ps),
                end_ps=where(self.active, span.end_ps, before.end_ps),
                queued_ps=where(self.active, span.queued_ps, _NEVER),
                alone_s=where(self.active, span.alone_s, 0.0),
            )

    def _copies_of_many(self, before: _State, after: _State, left: Sizes) -> Sizes:
        """`_copies` of many points."""
        equal = after.equals(before)
        if before.host_ps is None or after.host_ps is None:
            return np.where(equal, left, 0)
        lost_ps = after.host_ps - before.host_ps
        lasts = np.minimum(left, (self.lead_ps - 1) // np.maximum(lost_ps, 1))
        alike = after._replace(host_ps=before.host_ps).equals(before) & (self.lead_ps > 0)
        return np.where(equal, left, np.where(alike, np.where(lost_ps <= 0, left, lasts), 0))

    def _state(self, forks: bool) -> _State:
        """What the time of the next layer depends on; of the side stream only if the layer `forks`."""
        end_ps = self.end_ps
        return _State(
            self.ready_ps - end_ps,
            self.maths.maximum(0, self.side_ready_ps - end_ps) if forks else None,
            self.host_ps - end_ps if self.eager else None,
        )

    def _copies(self, before: _State, after: _State, left: int) -> int:
        """How many of the `left` layers after this one are copies of it, given the states around it."""
        if after.equals(before):
            return left
        if before.host_ps is None or after.host_ps is None or self.lead_ps <= 0:
            return 0
        if not after._replace(host_ps=before.host_ps).equals(before):
            return 0
        lost_ps = after.host_ps - before.host_ps
        return left if lost_ps <= 0 else int(min(left, (self.lead_ps - 1) // lost_ps))

    def _skip(self, time_ps: Sizes, host_time_ps: Sizes, forks: bool) -> None:
        self.end_ps = self.end_ps + time_ps
        self.ready_ps = self.ready_ps + time_ps
        self.host_ps = self.host_ps + host_time_ps
        if forks:
            self.side_ready_ps = self.side_ready_ps + time_ps

    def _alone(self, step: Kernel, segment: str, iteration: int) -> None:
        """A kernel of the main stream that starts and ends on an idle device."""
        op = step.op
        cost = self.machine.collective_cost(op) if isinstance(op, Collective) else self.machine.kernel_cost(op)
        price = self.prices.get(id(cost))
        if price is None:
            price = self.prices[id(cost)] = self._price(cost)
        if self.eager:
            self.host_ps = self.host_ps + launch_ps(step, self.machine.launch)
        maximum, queued_ps = self.maths.maximum, self.host_ps
        asked_ps = maximum(self.ready_ps, self.end_ps)
        if self.eager:
            self.lead_ps = self.maths.minimum(self.lead_ps, asked_ps - queued_ps)
        start_ps = maximum(queued_ps, asked_ps)
        self.end_ps = end_ps = start_ps + price.duration_ps
        self.ready_ps = end_ps + self.gap_ps
        self.num_events = self.num_events + self.active
        self.spans.append(
            Span(
                price.kind, step.name, step.category, 0, MAIN_STREAM, segment, iteration,
                start_ps, end_ps, queued_ps, cost.busy_s, cost.detail, op,
            )
        )  # fmt: skip

    def _price(self, cost: KernelCost | CollectiveCost) -> _Price:
        machine = self.machine
        if isinstance(cost, CollectiveCost):
            duration_ps = _collective_ps(cost, machine.contention.collective_dispatch_s, self.maths)
            return _Price(SpanKind.COLLECTIVE, duration_ps, cost)
        return _Price(SpanKind.COMPUTE, launch_shape(cost, machine.num_sms).alone_ps, cost)

    def _window(self, steps: tuple[Step, ...], segment: str, iteration: int, piece: Piece) -> None:
        """Steps of both streams, simulated by events unless an equal window was before."""
        queued_ps = [self.host_ps] * len(steps)
        if self.eager:
            for index, step in enumerate(steps):
                self.host_ps = self.host_ps + launch_ps(step, self.machine.launch)
                queued_ps[index] = self.host_ps
        maximum, minimum = self.maths.maximum, self.maths.minimum
        begin_ps = maximum(self.end_ps, queued_ps[0])
        self.lead_ps = minimum(self.lead_ps, self.end_ps - queued_ps[0])
        ready = (maximum(0, self.ready_ps - begin_ps), maximum(0, self.side_ready_ps - begin_ps))
        later = [maximum(0, queued - begin_ps) for queued in queued_ps]
        if self.maths is POINTS:
            result = self._timed_of_many(steps, later, ready, piece)
            self.num_events = self.num_events + result.num_events
        else:
            result = self._timed(steps, later, ready, piece)
        for asked, queued in zip(result.asked_ps[1:], queued_ps[1:], strict=True):
            self.lead_ps = minimum(self.lead_ps, begin_ps + asked - queued)
        self._add(_Piece(steps, queued_ps, begin_ps, result), segment, iteration)
        end_ps, ready_ps = result.end_ps, result.ready_ps
        self.end_ps, self.ready_ps = begin_ps + end_ps[MAIN_STREAM], begin_ps + ready_ps[MAIN_STREAM]
        if any(step.stream == COMM_STREAM for step in steps):
            self.side_ready_ps = begin_ps + ready_ps[COMM_STREAM]

    def _timed_of_many(
        self, steps: tuple[Step, ...], later: list[Sizes], ready: tuple[Sizes, Sizes], piece: Piece
    ) -> Simulated:
        known = self.windows.of_points
        points = known.get(id(piece))
        if points is None:
            points = known[id(piece)] = PointsWindow(steps, self.machine, self.eager, self.num_points)
        return points.timed(later, ready, self.active)

    def _timed(self, steps: tuple[Step, ...], later: list[int], ready: tuple[int, int], piece: Piece) -> Simulated:
        at_least = self.windows.asked_at_least.get(id(piece))
        if at_least is None:
            at_least = self.windows.asked_at_least[id(piece)] = asked_at_least(steps, shapes_of(steps, self.machine))
        return timed(later, at_least, lambda queued: self._simulated(steps, queued, ready, piece))

    def _simulated(
        self, steps: tuple[Step, ...], later: Sequence[int], ready: tuple[int, int], piece: Piece
    ) -> Simulated:
        key = (id(piece), ready, tuple(later))
        result = self.windows.simulated.get(key)
        if result is None:
            result = self.windows.simulated[key] = simulate_window(
                queued_steps(steps), later, ready, self.machine, eager=self.eager
            )
            self.num_events += result.num_events
        return result

    def _add(self, window: _Piece, segment: str, iteration: int) -> None:
        """The spans of a window."""
        begin_ps, queued_ps = window.begin_ps, window.queued_ps
        for index, span in window.result.spans:
            self.spans.append(
                span._replace(
                    segment=segment, iteration=iteration, queued_ps=queued_ps[index],
                    start_ps=begin_ps + span.start_ps, end_ps=begin_ps + span.end_ps,
                )
            )  # fmt: skip


def _collective_ps(cost: CollectiveCost, dispatch_s: float, maths: Maths) -> Sizes:
    """A collective on an idle machine: the way to its first SM, then the rest of its time."""
    first_s, rest_s = maths.minimum(cost.busy_s, dispatch_s), maths.maximum(0.0, cost.busy_s - dispatch_s)
    return each_to_ps(first_s) + each_to_ps(rest_s)
