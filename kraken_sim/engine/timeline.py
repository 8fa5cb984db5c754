"""What happened when: one span a kernel or wait, on every simulated rank and stream."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from kraken_sim.engine.clock import to_s

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kraken_sim.program.ops import Op
    from kraken_sim.program.program import Category


class SpanKind(StrEnum):
    """What a stream did during a span."""

    COMPUTE = "compute"
    COLLECTIVE = "collective"
    WAIT = "wait"
    """The main stream stood still until an event of another stream; a side stream idles when it has nothing to do."""


class Span(NamedTuple):
    """A kernel or a wait on one stream; `iteration` counts the repetitions of its segment.

    `queued_ps` is when the host had enqueued it: a kernel that starts just then waited for its host.
    `alone_s` is how long it takes on an idle machine, so `duration_s - alone_s` is what others cost it.
    """

    kind: SpanKind
    name: str
    category: Category
    rank: int
    stream: int
    segment: str
    iteration: int
    start_ps: int
    end_ps: int
    queued_ps: int
    alone_s: float
    detail: str
    op: Op | None

    @property
    def start_s(self) -> float:
        """Start, seconds after the launch of the step."""
        return to_s(self.start_ps)

    @property
    def end_s(self) -> float:
        """End, seconds after the launch of the step."""
        return to_s(self.end_ps)

    @property
    def duration_s(self) -> float:
        """End minus start."""
        return to_s(self.end_ps - self.start_ps)

    def shifted(self, delta_ps: int, iterations: int) -> Span:
        """The same span `iterations` repetitions later."""
        return self._replace(
            start_ps=self.start_ps + delta_ps,
            end_ps=self.end_ps + delta_ps,
            queued_ps=self.queued_ps + delta_ps,
            iteration=self.iteration + iterations,
        )


@dataclass(frozen=True, slots=True)
class Fold:
    """Repetitions of a segment that were not simulated because they repeat the one before, shifted.

    After repetition `iteration` of `segment`, `count` copies of it follow, `period_ps` apart.
    """

    segment: str
    iteration: int
    count: int
    period_ps: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """Spans in order of their start; `folds` say which layers stand for several.

    Of a program of many points (`kraken_sim.program.many`) times and counts are arrays, and spans in order of launch.
    """

    simulated: tuple[Span, ...]
    folds: tuple[Fold, ...]
    end_ps: int
    num_events: int

    @property
    def duration_s(self) -> float:
        """From the launch of the step to the end of its last kernel."""
        return to_s(self.end_ps)

    def weight(self, span: Span) -> int:
        """How many repetitions a simulated span stands for."""
        return 1 + sum(
            fold.count for fold in self.folds if fold.segment == span.segment and fold.iteration == span.iteration
        )

    @property
    def spans(self) -> tuple[Span, ...]:
        """Every span of the step, folded layers written out."""
        return tuple(self.in_order())

    @property
    def num_spans(self) -> int:
        """How many that is."""
        copies = Counter[tuple[str, int]]()
        for fold in self.folds:
            copies[fold.segment, fold.iteration] += fold.count
        return len(self.simulated) + sum(copies[_layer(span)] for span in self.simulated)

    def in_order(self) -> Iterator[Span]:
        """The same one by one: folded layers are written out while they are asked for, however many there are.

        Spans after a fold are shifted already; copies fill the hole it left.
        """
        folds = defaultdict[tuple[str, int], list[Fold]](list)
        for fold in self.folds:
            folds[fold.segment, fold.iteration].append(fold)
        ordered = sorted(enumerate(self.simulated), key=_place)
        copies = [_copies(index, span, folds[key]) for index, span in ordered if (key := _layer(span)) in folds]
        return (span for _, span in heapq.merge(ordered, *copies, key=_place))


def _layer(span: Span) -> tuple[str, int]:
    return span.segment, span.iteration


def _place(numbered: tuple[int, Span]) -> tuple[int, int, int, int]:
    """Where a span stands among the others: by its start; of equal ones, that which was simulated first."""
    index, span = numbered
    return span.start_ps, span.end_ps, span.stream, index


def _copies(index: int, span: Span, folds: Sequence[Fold]) -> Iterator[tuple[int, Span]]:
    """What a span of a folded layer stands for beside itself."""
    for fold in folds:
        for copy in range(1, fold.count + 1):
            yield index, span.shifted(copy * fold.period_ps, copy)
