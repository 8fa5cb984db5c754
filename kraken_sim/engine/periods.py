"""Programs whose streams are never idle together: a few layers by events, until they repeat, and copies of these.

Where a collective runs on into the next layer (Ladder-Residual, Domino, TokenWeave) there is no cut at which the device
is quiescent (`pieces`). But the stream of compute is between two kernels when it begins a layer, so that all that is
under way then is one collective of the stream of communication. If that began in the layer before, what becomes of it
depends on that layer's kernels alone, as the clock is in integers. So if the spans of three layers in a row are equal,
each seen from its first kernel, and these begin equally far apart, the next layer begins in the state in which the last
of the three did, and so do all that follow.

Launched one by one by a host, layers repeat where the host is as far ahead in each of them, or where nothing waits for
it in any layer that is left out nor behind.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from kraken_sim.engine.clock import to_ps
from kraken_sim.engine.ranks import simulate_ranks
from kraken_sim.engine.streams import launches_of, node_gap_ps
from kraken_sim.engine.timeline import Fold, Span, Timeline
from kraken_sim.program.ops import Collective
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kraken_sim.engine.ranks import Machine
    from kraken_sim.program.program import Kernel, Program, Segment

TRIED_LAYERS: Final = (5, 12)
"""Layers of a segment that are simulated before all of them are; a choice of ours: most repeat from the second on, and
the last one, which runs beside what follows it, tells nothing."""

ALIKE: Final = 3
"""Equal layers in a row that show that all later ones are; a definition, see above."""


class _Layer(NamedTuple):
    """The spans of one repetition: when the first one of the main stream begins, and all as seen from there."""

    begin_ps: int
    spans: tuple[tuple[str, int, int, int], ...]
    """Name, stream, start and end, in the order of start."""
    queued_ps: tuple[int, ...]


class _Period(NamedTuple):
    """From repetition `iteration` of a segment on, layers are `period_ps` apart, `left_out` more of which there are."""

    iteration: int
    left_out: int
    period_ps: int
    host_period_ps: int
    together: bool
    """Whether the host is as far ahead in each of them."""


def simulate_periods(program: Program, machine: Machine, *, eager: bool) -> Timeline | None:
    """The timeline of `program` on one rank, or None where its layers do not repeat soon.

    Raises:
        SimulationError: see `simulate_ranks`.
    """
    if any(kernel.stream == COMM_STREAM and not isinstance(kernel.op, Collective) for kernel in _kernels(program)):
        return None
    for most in TRIED_LAYERS:
        if all(segment.repeat <= most for segment in program.segments):
            return None
        segments = tuple(replace(segment, repeat=min(segment.repeat, most)) for segment in program.segments)
        short = replace(program, segments=segments)
        launches = tuple(launches_of(short, machine.launch, eager=eager))
        result = simulate_ranks(launches, machine, eager=eager, num_ranks=1, ready_ps={})
        spans = [span for _, span in result.spans]
        periods = _periods(program, spans, most)
        if periods is not None and _host_is_ahead(program, spans, periods, machine, eager=eager):
            return _timeline(program, spans, periods, result.num_events)
    return None


def _kernels(program: Program) -> Iterator[Kernel]:
    """Of one repetition of each segment."""
    return (kernel for segment in program.segments for kernel in segment.kernels)


def _periods(program: Program, spans: Sequence[Span], most: int) -> dict[str, _Period] | None:
    """By the name of a segment of which layers were left out; None where one of these does not repeat."""
    by_layer: dict[tuple[str, int], list[Span]] = defaultdict(list)
    for span in spans:
        by_layer[span.segment, span.iteration].append(span)
    found = {}
    for segment in program.segments:
        if segment.repeat > most:
            period = _period_of(segment, by_layer, most)
            if period is None:
                return None
            found[segment.name] = period
    return found


def _period_of(segment: Segment, by_layer: Mapping[tuple[str, int], list[Span]], most: int) -> _Period | None:
    layers = [_layer(by_layer[segment.name, index]) for index in range(most - 1)]
    for last in range(ALIKE - 1, len(layers)):
        alike = layers[last + 1 - ALIKE : last + 1]
        period_ps, *others_ps = {later.begin_ps - earlier.begin_ps for earlier, later in pairwise(alike)}
        in_time = all(start_ps >= 0 and end_ps <= 2 * period_ps for _, _, start_ps, end_ps in alike[-1].spans)
        if not others_ps and in_time and len({layer.spans for layer in alike}) == 1:
            host_ps = alike[-1].queued_ps[0] - alike[-2].queued_ps[0] + period_ps
            together = len({layer.queued_ps for layer in alike}) == 1
            return _Period(last, segment.repeat - most, period_ps, host_ps, together)
    return None


def _layer(spans: Sequence[Span]) -> _Layer:
    ordered = sorted(spans, key=lambda span: (span.start_ps, span.stream, span.end_ps))
    begin_ps = min(span.start_ps for span in ordered if span.stream == MAIN_STREAM)
    seen = tuple((span.name, span.stream, span.start_ps - begin_ps, span.end_ps - begin_ps) for span in ordered)
    return _Layer(begin_ps, seen, tuple(span.queued_ps - begin_ps for span in ordered))


def _host_is_ahead(
    program: Program, spans: Sequence[Span], periods: Mapping[str, _Period], machine: Machine, *, eager: bool
) -> bool:
    """Whether what was left out changes nothing by the host: a graph's has enqueued all before.

    A kernel that starts later than it was enqueued by more than an edge and a gap waited for its streams alone, and so
    did the recordings before it. The host loses of that lead with every layer that takes it longer than the device.
    """
    if not eager or all(period.together for period in periods.values()):
        return True
    least_ps = to_ps(machine.launch.graph_edge_s) + node_gap_ps(machine.launch, eager=True)
    needed_ps: dict[str, int] = {}
    for segment in program.segments:
        if (period := periods.get(segment.name)) is not None:
            least_ps += max(0, period.left_out * (period.host_period_ps - period.period_ps))
        if period is not None or needed_ps:
            needed_ps[segment.name] = least_ps
    first, *_ = needed_ps
    alike = periods[first].iteration + 1 - ALIKE
    concerned = (span for span in spans if span.segment in needed_ps)
    return all(
        span.start_ps - span.queued_ps > needed_ps[span.segment]
        for span in concerned
        if span.segment != first or span.iteration >= alike
    )


def _timeline(program: Program, spans: Sequence[Span], periods: Mapping[str, _Period], num_events: int) -> Timeline:
    """What was simulated, moved by what was left out, of which each period tells."""
    before: dict[str, tuple[int, int]] = {}
    passed_ps = host_ps = 0
    for segment in program.segments:
        before[segment.name] = passed_ps, host_ps
        if (period := periods.get(segment.name)) is not None:
            passed_ps += period.left_out * period.period_ps
            host_ps += period.left_out * period.host_period_ps
    moved = [_moved(span, periods.get(span.segment), *before[span.segment]) for span in spans]
    moved.sort(key=lambda span: (span.start_ps, span.stream, span.end_ps))
    folds = tuple(Fold(name, period.iteration, period.left_out, period.period_ps) for name, period in periods.items())
    return Timeline(tuple(moved), folds, max(span.end_ps for span in moved), num_events)


def _moved(span: Span, period: _Period | None, delta_ps: int, host_delta_ps: int) -> Span:
    """A span behind what was left out before its segment, and in it."""
    if period is not None and span.iteration > period.iteration:
        delta_ps += period.left_out * period.period_ps
        host_delta_ps += period.left_out * period.host_period_ps
        span = span._replace(iteration=span.iteration + period.left_out)
    return span._replace(
        start_ps=span.start_ps + delta_ps, end_ps=span.end_ps + delta_ps, queued_ps=span.queued_ps + host_delta_ps
    )
