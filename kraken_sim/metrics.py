"""From a timeline to what people ask: latency, where it went, and what communication cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.engine.clock import to_s
from kraken_sim.engine.timeline import SpanKind
from kraken_sim.program.program import MAIN_STREAM, Category

if TYPE_CHECKING:
    from kraken_sim.engine.timeline import Span, Timeline


@dataclass(frozen=True, slots=True)
class Slice:
    """The time the main stream of rank 0 spent on one span, its launch gap included."""

    span: Span
    duration_s: float
    weight: int
    """How many folded repetitions the slice stands for."""


@dataclass(frozen=True, slots=True)
class OverlapCost:
    """Where the overlap of communication with compute is lost, in seconds over the whole step.

    `waiting_s` is the main stream standing still for a collective of another stream; `compute_slowdown_s`
    what its kernels lost to collectives beside them; `collective_slowdown_s` what the overlapped collectives
    lost to compute.
    """

    waiting_s: float
    compute_slowdown_s: float
    collective_slowdown_s: float


def main_stream_slices(timeline: Timeline) -> list[Slice]:
    """Cut the step into consecutive slices, one for every span of rank 0's main stream."""
    spans = [span for span in timeline.simulated if span.rank == 0 and span.stream == MAIN_STREAM]
    slices, cursor_ps = [], 0
    previous: Span | None = None
    for span in spans:
        hole_ps = 0
        if previous is not None:
            hole_ps = sum(
                fold.count * fold.period_ps
                for fold in timeline.folds
                if (fold.segment, fold.iteration) == (previous.segment, previous.iteration)
                and (span.segment, span.iteration) != (previous.segment, previous.iteration)
            )
        slices.append(Slice(span, to_s(span.end_ps - cursor_ps - hole_ps), timeline.weight(span)))
        cursor_ps, previous = span.end_ps, span
    return slices


def breakdown_s(timeline: Timeline) -> dict[str, float]:
    """Seconds by the paper's categories; they add up to the duration of the step."""
    totals = {category.value: 0.0 for category in Category}
    for part in main_stream_slices(timeline):
        totals[part.span.category.value] += part.duration_s * part.weight
    totals[Category.OTHER.value] += timeline.duration_s - sum(totals.values())
    return totals


def exposed_communication_s(timeline: Timeline) -> float:
    """Time the main stream spent in collectives or waiting for one."""
    return sum(
        part.duration_s * part.weight
        for part in main_stream_slices(timeline)
        if part.span.kind in (SpanKind.COLLECTIVE, SpanKind.WAIT)
    )


def _collectives_beside(timeline: Timeline) -> list[Span]:
    return [
        span
        for span in timeline.simulated
        if span.rank == 0 and span.kind is SpanKind.COLLECTIVE and span.stream != MAIN_STREAM
    ]


def hidden_communication_s(timeline: Timeline) -> float:
    """Time of collectives on other streams during which the main stream was not waiting for them."""
    overlapped = sum(span.duration_s * timeline.weight(span) for span in _collectives_beside(timeline))
    return max(0.0, overlapped - overlap_cost(timeline).waiting_s)


def communication_alone_s(timeline: Timeline) -> float:
    """What all collectives of the step would take one after the other on an idle machine."""
    return sum(
        span.alone_s * timeline.weight(span)
        for span in timeline.simulated
        if span.rank == 0 and span.kind is SpanKind.COLLECTIVE
    )


def overlap_cost(timeline: Timeline) -> OverlapCost:
    """What overlapping cost both sides."""
    waiting = slower = 0.0
    for span in timeline.simulated:
        if span.rank == 0 and span.stream == MAIN_STREAM:
            weight = timeline.weight(span)
            if span.kind is SpanKind.WAIT:
                waiting += span.duration_s * weight
            elif span.kind is SpanKind.COMPUTE:
                slower += (span.duration_s - span.alone_s) * weight
    collective = sum((span.duration_s - span.alone_s) * timeline.weight(span) for span in _collectives_beside(timeline))
    return OverlapCost(waiting, max(0.0, slower), max(0.0, collective))


def host_wait_s(timeline: Timeline) -> float:
    """Time the main stream stood idle because the host had not enqueued its next kernel yet."""
    total = 0.0
    for part in main_stream_slices(timeline):
        span = part.span
        if span.start_ps == span.queued_ps and span.kind is not SpanKind.WAIT:
            total += (part.duration_s - span.duration_s) * part.weight
    return total
