"""Windows of overlap: each simulated by events, for one point or for many, of which equal ones are simulated once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kraken_sim.engine.ranks import Simulated, simulate_ranks
from kraken_sim.engine.streams import QueuedStep
from kraken_sim.program.many import is_many
from kraken_sim.program.ops import Collective
from kraken_sim.program.points import ops_of_points
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kraken_sim.engine.ranks import Machine
    from kraken_sim.engine.timeline import Span
    from kraken_sim.program.many import Sizes
    from kraken_sim.program.program import Step


def timed(later: list[int], simulated: Callable[[Sequence[int]], Simulated]) -> Simulated:
    """A window whose steps the host enqueues `later`, picoseconds after it begins.

    The host is taken to have enqueued all of it; that is what happens if each step comes before it is asked for.
    """
    result = simulated([0] * len(later))
    leads = [asked - queued for asked, queued in zip(result.asked_ps[1:], later[1:], strict=True) if queued > 0]
    return simulated(later) if min(leads, default=1) <= 0 else result


def simulate_window(
    steps: Sequence[Step], later: Sequence[int], ready: tuple[int, int], machine: Machine, *, eager: bool
) -> Simulated:
    """A window by events; `ready` is when the first kernel of either stream may start."""
    launches = [QueuedStep(step, "window", 0, queued) for step, queued in zip(steps, later, strict=True)]
    starts = {MAIN_STREAM: ready[0], COMM_STREAM: ready[1]}
    return simulate_ranks(launches, machine, eager=eager, num_ranks=1, ready_ps=starts)


class PointsWindow:
    """A window of many points: each is simulated alone, and once for each of the moments at which its steps may start.

    Args:
        steps: of the program, with arrays of sizes.
        machine: whose costs are arrays.
        eager: whether the host launches kernel by kernel.
        num: points.
    """

    def __init__(self, steps: Sequence[Step], machine: Machine, eager: bool, num: int) -> None:
        self._steps, self._machine, self._eager, self._num = steps, machine, eager, num
        self._costs = {id(step.op): _rows(_cost_of(step, machine)) for step in steps if isinstance(step, Kernel)}
        self._own_steps = _steps_of_points(steps, num)
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
        queued = list(zip(*(np.broadcast_to(value, self._num).tolist() for value in later), strict=True))
        starts = list(zip(*(np.broadcast_to(value, self._num).tolist() for value in ready), strict=True))
        found = {point: self._of_point(point, queued[point], starts[point]) for point in points}
        return _stacked(found, self._steps, self._num, self._num_events)

    def _of_point(self, point: int, later: tuple[int, ...], ready: tuple[int, ...]) -> Simulated:
        priced = {number: row[point if len(row) > 1 else 0] for number, row in self._costs.items()}
        steps = self._own_steps[point]
        reduces = {
            own.op: priced[id(step.op)]
            for step, own in zip(self._steps, steps, strict=True)
            if isinstance(step, Kernel) and isinstance(own, Kernel) and isinstance(own.op, Collective)
        }
        machine = replace(self._machine, kernel_cost=lambda op: priced[id(op)], collective_cost=lambda op: reduces[op])

        def simulated(queued: Sequence[int]) -> Simulated:
            key = (point, ready, *queued)
            result = self._known.get(key)
            if result is None:
                starts = (ready[0], ready[1])
                result = self._known[key] = simulate_window(steps, queued, starts, machine, eager=self._eager)
                self._num_events[point] += result.num_events
            return result

        return timed(list(later), simulated)


def _cost_of(step: Kernel, machine: Machine) -> Any:
    return machine.collective_cost(step.op) if isinstance(step.op, Collective) else machine.kernel_cost(step.op)


def _rows(cost: Any) -> list[Any]:
    """A cost of arrays as one of numbers a point."""
    names = [field.name for field in fields(cost)]
    values = [getattr(cost, name) for name in names]
    num = max((len(value) for value in values if is_many(value)), default=1)
    columns = [value.tolist() if is_many(value) else [value] * num for value in values]
    return [type(cost)(*row) for row in zip(*columns, strict=True)]


def _steps_of_points(steps: Sequence[Step], num: int) -> list[tuple[Step, ...]]:
    """The steps of every point: collectives are told from each other by their value, so they have plain numbers."""
    columns: list[list[Step]] = []
    for step in steps:
        if isinstance(step, Kernel) and isinstance(step.op, Collective):
            columns.append([replace(step, op=op) for op in ops_of_points(step.op)] or [step] * num)
        else:
            columns.append([step] * num)
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
