"""Windows of overlap: each simulated by events, for one point or for many, of which equal ones are simulated once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kraken_sim.engine.pieces import pieces_of
from kraken_sim.engine.ranks import Simulated, simulate_ranks
from kraken_sim.engine.resident import LaunchShape, launch_shape
from kraken_sim.engine.streams import QueuedStep
from kraken_sim.program.many import is_many
from kraken_sim.program.ops import Collective
from kraken_sim.program.points import ops_of_points
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.engine.pieces import Piece
    from kraken_sim.engine.ranks import Machine
    from kraken_sim.engine.timeline import Span
    from kraken_sim.program.many import Sizes
    from kraken_sim.program.ops import ComputeOp
    from kraken_sim.program.program import Program, Step

_UNKNOWN: Final = 1 << 62
"""When a stream asks for a step, where that is not told in advance; a definition: no step comes as late."""


@dataclass(slots=True)
class SimulatedWindows:
    """What was simulated of a program on a machine, which does not depend on how long its host takes for a launch.

    Runs on other hosts may share it; whoever changes anything else of the machine takes a new one.
    """

    pieces: list[tuple[Piece, ...] | None] = field(default_factory=list)
    """Of every segment; None where it can't be cut."""
    simulated: dict[tuple[object, ...], Simulated] = field(default_factory=dict)
    """By the identity of a piece, and when its steps may start."""
    asked_at_least: dict[int, list[Sizes]] = field(default_factory=dict)
    """By the identity of a piece; see the function."""
    of_points: dict[int, PointsWindow] = field(default_factory=dict)
    """By the identity of a piece of a program of many points."""

    def pieces_of(self, program: Program) -> list[tuple[Piece, ...] | None]:
        """The program cut, once."""
        if not self.pieces:
            self.pieces = [pieces_of(segment.steps) for segment in program.segments]
        return self.pieces


def timed(later: list[int], at_least: Sequence[int], simulated: Callable[[list[int]], Simulated]) -> Simulated:
    """A window whose steps the host enqueues `later`, picoseconds after it begins.

    The host is taken to have enqueued all of it; that is what happens if each step comes before it is asked for.
    Which of both is simulated first does not matter, so that is what is likelier to be right.

    Args:
        later: by step, when the host enqueues it.
        at_least: by step, before when no stream asks for it.
        simulated: the window whose host enqueues its steps at given times.
    """
    if not any(later):
        return simulated(later)
    if any(queued > asked for queued, asked in zip(later, at_least, strict=True)):
        result = simulated(later)
        return result if _waited(result, later) else simulated([0] * len(later))
    result = simulated([0] * len(later))
    return simulated(later) if _waited(result, later) else result


def _waited(result: Simulated, later: Sequence[int]) -> bool:
    """Whether a step would have been asked for before it came."""
    return any(asked <= queued for asked, queued in zip(result.asked_ps[1:], later[1:], strict=True) if queued > 0)


def shapes_of(steps: Sequence[Step], machine: Machine) -> dict[int, LaunchShape]:
    """The shapes of the window's compute kernels, by the identity of their ops."""
    ops = [step.op for step in steps if isinstance(step, Kernel) and not isinstance(step.op, Collective)]
    return {id(op): launch_shape(machine.kernel_cost(op), machine.num_sms) for op in ops}


def asked_at_least(steps: Sequence[Step], shapes: Mapping[int, LaunchShape]) -> list[Sizes]:
    """When the streams ask for the steps at the earliest, picoseconds: after the main stream's kernels before them."""
    asked_ps: Sizes = 0
    found = []
    for step in steps:
        found.append(asked_ps if step.stream == MAIN_STREAM else _UNKNOWN)
        if isinstance(step, Kernel) and step.stream == MAIN_STREAM and id(step.op) in shapes:
            asked_ps = asked_ps + shapes[id(step.op)].alone_ps
    return found


def simulate_window(
    launches: Sequence[QueuedStep], later: Sequence[int], ready: tuple[int, int], machine: Machine, *, eager: bool
) -> Simulated:
    """A window by events, enqueued `later`; `ready` is when the first kernel of either stream may start."""
    if any(later):
        launches = [launch._replace(queued_ps=queued) for launch, queued in zip(launches, later, strict=True)]
    starts = {MAIN_STREAM: ready[0], COMM_STREAM: ready[1]}
    return simulate_ranks(launches, machine, eager=eager, num_ranks=1, ready_ps=starts, alone=True)


class PointsWindow:
    """A window of many points: each is simulated alone, and once for each of the moments at which its steps may start.

    Args:
        steps: of the program, with arrays of sizes.
        machine: whose costs are arrays.
        eager: whether the host launches kernel by kernel.
        num: points.
    """

    def __init__(self, steps: Sequence[Step], machine: Machine, eager: bool, num: int) -> None:
        self._steps, self._eager, self._num = steps, eager, num
        self._own_steps = _steps_of_points(steps, num)
        self._costs = {id(step.op): _rows(_cost_of(step, machine)) for step in steps if isinstance(step, Kernel)}
        self._point, self._reduces = 0, self._reduces_of_points()
        shapes = shapes_of(steps, machine)
        self._at_least = _by_point(asked_at_least(steps, shapes), num)
        self._machine = replace(
            machine,
            kernel_cost=self._kernel_cost,
            collective_cost=self._collective_cost,
            shapes={id(cost): row for op, shape in shapes.items() for cost, row in self._by_cost(op, shape)},
        )
        self._known: dict[tuple[object, ...], Simulated] = {}
        self._num_events = np.zeros(num, dtype=np.int64)

    def timed(self, later: Sequence[Sizes], ready: tuple[Sizes, Sizes], active: Sizes) -> Simulated:
        """The window of every active point, all times arrays [num_points]; the others' are those of some other.

        Args:
            later: by step, when the host enqueues it, picoseconds after the window begins.
            ready: when the first kernel of either stream may start.
            active: whether a point's window is asked for.

        Returns:
            with the events of those that were simulated now.
        """
        self._num_events = np.zeros(self._num, dtype=np.int64)
        points = np.flatnonzero(active).tolist()
        queued, starts = _by_point(later, self._num), _by_point(ready, self._num)
        found = {point: self._of_point(point, queued[point], starts[point]) for point in points}
        return _stacked(found, self._steps, self._num, self._num_events)

    def _of_point(self, point: int, later: tuple[int, ...], ready: tuple[int, ...]) -> Simulated:
        self._point = point
        steps = self._own_steps[point]

        def simulated(queued: Sequence[int]) -> Simulated:
            key = (point, ready, *queued)
            result = self._known.get(key)
            if result is None:
                starts = (ready[0], ready[1])
                result = simulate_window(steps, queued, starts, self._machine, eager=self._eager)
                self._known[key] = result
                self._num_events[point] += result.num_events
            return result

        return timed(list(later), self._at_least[point], simulated)

    def _reduces_of_points(self) -> dict[int, CollectiveCost]:
        """What collectives cost, by the identity of the op of each point."""
        found = {}
        for number, step in enumerate(self._steps):
            if isinstance(step, Kernel) and isinstance(step.op, Collective):
                rows = self._costs[id(step.op)]
                for own, cost in zip(self._own_steps, rows if len(rows) > 1 else rows * self._num, strict=True):
                    kernel = own[number].step
                    assert isinstance(kernel, Kernel)
                    found[id(kernel.op)] = cost
        return found

    def _by_cost(self, op: int, shape: LaunchShape) -> Iterator[tuple[KernelCost, LaunchShape]]:
        """The shape of each point's cost of an op, by its identity."""
        costs = self._costs[op]
        columns = (np.broadcast_to(column, len(costs)).tolist() for column in shape)
        return zip(costs, map(LaunchShape._make, zip(*columns, strict=True)), strict=True)

    def _kernel_cost(self, op: ComputeOp) -> KernelCost:
        rows: list[KernelCost] = self._costs[id(op)]
        return rows[self._point] if len(rows) > 1 else rows[0]

    def _collective_cost(self, op: Collective) -> CollectiveCost:
        return self._reduces[id(op)]


def _by_point(columns: Sequence[Sizes], num: int) -> list[tuple[int, ...]]:
    """Times that are arrays, or the same at all points, as those of each point."""
    return list(zip(*(np.broadcast_to(column, num).tolist() for column in columns), strict=True))


def _cost_of(step: Kernel, machine: Machine) -> Any:
    return machine.collective_cost(step.op) if isinstance(step.op, Collective) else machine.kernel_cost(step.op)


def _rows(cost: Any) -> list[Any]:
    """A cost of arrays as one of numbers a point."""
    names = [field.name for field in fields(cost)]
    values = [getattr(cost, name) for name in names]
    num = max((len(value) for value in values if is_many(value)), default=1)
    columns = [value.tolist() if is_many(value) else [value] * num for value in values]
    return [type(cost)(*row) for row in zip(*columns, strict=True)]


def queued_steps(steps: Sequence[Step]) -> list[QueuedStep]:
    """A window's steps, enqueued when it begins."""
    return [QueuedStep(step, "window", 0, 0) for step in steps]


def _steps_of_points(steps: Sequence[Step], num: int) -> list[tuple[QueuedStep, ...]]:
    """The steps of every point: collectives are told from each other by their value, so they have plain numbers."""
    columns: list[list[QueuedStep]] = []
    for queued, step in zip(queued_steps(steps), steps, strict=True):
        if isinstance(step, Kernel) and isinstance(step.op, Collective):
            own = [queued._replace(step=replace(step, op=op)) for op in ops_of_points(step.op)]
            columns.append(own or [queued] * num)
        else:
            columns.append([queued] * num)
    return list(zip(*columns, strict=True))


def _stacked(found: Mapping[int, Simulated], steps: Sequence[Step], num: int, num_events: Sizes) -> Simulated:
    """Windows of one shape, by point, as one whose times are arrays; spans are in the order of their launch."""
    points, results = list(found), list(found.values())

    def column(values: Sequence[float]) -> Sizes:
        whole = np.full(num, values[0])
        whole[points] = values
        return whole

    asked = [column(values) for values in zip(*(result.asked_ps for result in results), strict=True)]
    by_launch: dict[int, dict[int, Span]] = defaultdict(dict)
    for point, result in found.items():
        for number, span in result.spans:
            by_launch[number][point] = span
    spans = []
    for number, own in sorted(by_launch.items()):
        ran = list(own)
        start, end, alone = asked[number].copy(), asked[number].copy(), 0.0 * asked[number]
        start[ran] = [span.start_ps for span in own.values()]
        end[ran] = [span.end_ps for span in own.values()]
        alone[ran] = [span.alone_s for span in own.values()]
        step, any_span = steps[number], own[ran[0]]
        op = step.op if isinstance(step, Kernel) else None
        spans.append((number, any_span._replace(start_ps=start, end_ps=end, alone_s=alone, detail="", op=op)))
    ends, starts = (
        {stream: column([getattr(result, name)[stream] for result in results]) for stream in (MAIN_STREAM, COMM_STREAM)}
        for name in ("end_ps", "ready_ps")
    )
    return Simulated(spans, asked, ends, starts, num_events)
