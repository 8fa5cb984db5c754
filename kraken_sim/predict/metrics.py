"""From a timeline to what people ask: latency, where it went, and what communication cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kraken_sim.costs.memory_bound import kind_of
from kraken_sim.engine.clock import PS_PER_S
from kraken_sim.engine.timeline import SpanKind
from kraken_sim.program.many import POINTS, maths_for
from kraken_sim.program.ops import Attention, Collective, Gemm
from kraken_sim.program.program import MAIN_STREAM, Category

if TYPE_CHECKING:
    from kraken_sim.engine.timeline import Span, Timeline
    from kraken_sim.program.many import Maths, Sizes
    from kraken_sim.program.ops import Op

BLOCKS = ("gemm", "attention", "memory_bound", "collectives", "contention", "launch")
"""The blocks of constants of a profile that seconds are charged to."""


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


def _zero_categories() -> dict[str, float]:
    return {category.value: 0.0 for category in Category}


def _zero_blocks() -> dict[str, float]:
    return dict.fromkeys(BLOCKS, 0.0)


@dataclass(slots=True)
class Totals:
    """Seconds of a step on rank 0, all repetitions counted.

    The main stream's time is cut into consecutive slices, one a span, launch gap included. `breakdown_s` is by the
    paper's categories and adds up to the latency. `blocks_s` is by the block of constants that prices it: what
    overlapped kernels lose to each other is contention's, gaps and waiting for the host are the launch's. `kernels_s`
    is by what an error of the constants is of, and by op: the kernels of the main stream alone by their block, or by
    the kind of a memory-bound one; under contention the whole time of the side stream's collectives.
    Of a timeline of many points all are arrays, and kernels stand by the identity of their ops.
    `exposed_s` is spent in collectives or waiting for one, `beside_s` the time of the side stream's collectives,
    `alone_s` that of all collectives on an idle machine. `host_wait_s` is the main stream idle because its next
    kernel was not enqueued yet. The rest is what `OverlapCost` is made of.
    """

    breakdown_s: dict[str, float] = field(default_factory=_zero_categories)
    blocks_s: dict[str, float] = field(default_factory=_zero_blocks)
    kernels_s: dict[str, dict[object, float]] = field(default_factory=dict)
    exposed_s: float = 0.0
    beside_s: float = 0.0
    alone_s: float = 0.0
    host_wait_s: float = 0.0
    waiting_s: float = 0.0
    compute_slowdown_s: float = 0.0
    collective_slowdown_s: float = 0.0

    @property
    def compute_s(self) -> float:
        """Time of the main stream's kernels."""
        return self.blocks_s["gemm"] + self.blocks_s["attention"] + self.blocks_s["memory_bound"]

    @property
    def hidden_s(self) -> float:
        """Time of collectives on other streams during which the main stream was not waiting for them."""
        hidden_s = self.beside_s - self.waiting_s
        shown: float = maths_for(hidden_s).maximum(0.0, hidden_s)
        return shown

    @property
    def overlap_cost(self) -> OverlapCost:
        """What overlapping cost both sides."""
        slowed = (self.compute_slowdown_s, self.collective_slowdown_s)
        maximum = maths_for(*slowed).maximum
        return OverlapCost(self.waiting_s, *(maximum(0.0, seconds) for seconds in slowed))


def block_of_op(op: object) -> str:
    """The block of constants that prices a compute kernel."""
    return "gemm" if isinstance(op, Gemm) else "attention" if isinstance(op, Attention) else "memory_bound"


def constants_of_op(op: Op) -> str:
    """Where in a profile the constants of a kernel are: its block, of a memory-bound one the kind in it."""
    if isinstance(op, Gemm | Attention):
        return block_of_op(op)
    return "collectives" if isinstance(op, Collective) else f"memory_bound.kernels.{kind_of(op)}"


def totals(timeline: Timeline) -> Totals:
    """All sums over a timeline, in one pass."""
    found = Totals()
    folds = {(fold.segment, fold.iteration): fold for fold in timeline.folds}
    cursor_ps, maths = 0, maths_for(timeline.end_ps)
    before = ("", -1)
    for span in timeline.simulated:
        if span.rank != 0:
            continue
        here = (span.segment, span.iteration)
        fold = folds.get(here)
        weight = 1 if fold is None else 1 + fold.count
        duration_s = (span.end_ps - span.start_ps) / PS_PER_S
        if span.stream != MAIN_STREAM:
            if span.kind is SpanKind.COLLECTIVE:
                _add(found.kernels_s, "contention", span.op, duration_s * weight, maths)
                found.beside_s = found.beside_s + duration_s * weight
                found.alone_s = found.alone_s + span.alone_s * weight
                found.collective_slowdown_s = found.collective_slowdown_s + (duration_s - span.alone_s) * weight
            continue
        slice_ps = span.end_ps - cursor_ps
        if before != here and before in folds:
            slice_ps = slice_ps - folds[before].count * folds[before].period_ps
        _charge(found, span, duration_s, slice_ps / PS_PER_S, weight, maths)
        cursor_ps, before = span.end_ps, here
    breakdown_s = found.breakdown_s
    breakdown_s[Category.OTHER] = breakdown_s[Category.OTHER] + (timeline.duration_s - sum(breakdown_s.values()))
    return found


def _charge(found: Totals, span: Span, duration_s: Sizes, slice_s: Sizes, weight: int, maths: Maths) -> None:
    """Add one span of the main stream, whose slice of the time is `slice_s`, launch gap included."""
    kind, blocks_s, alone_s, weighted_s = span.kind, found.blocks_s, span.alone_s, slice_s * weight
    found.breakdown_s[span.category] = found.breakdown_s[span.category] + weighted_s
    if kind is SpanKind.COMPUTE:
        found.compute_slowdown_s = found.compute_slowdown_s + (duration_s - alone_s) * weight
        block = block_of_op(span.op)
    else:
        found.exposed_s = found.exposed_s + weighted_s
        if kind is SpanKind.WAIT:
            found.waiting_s = found.waiting_s + duration_s * weight
            blocks_s["contention"] = blocks_s["contention"] + weighted_s
            return
        found.alone_s = found.alone_s + alone_s * weight
        block = "collectives"
    if span.op is not None:
        _add(found.kernels_s, constants_of_op(span.op), span.op, maths.minimum(alone_s, duration_s) * weight, maths)
    waited_s = slice_s - duration_s
    found.host_wait_s = found.host_wait_s + waited_s * weight * (span.start_ps == span.queued_ps)
    blocks_s[block] = blocks_s[block] + maths.minimum(alone_s, duration_s) * weight
    blocks_s["contention"] = blocks_s["contention"] + maths.maximum(0.0, duration_s - alone_s) * weight
    blocks_s["launch"] = blocks_s["launch"] + maths.maximum(0.0, waited_s) * weight


def _add(kernels_s: dict[str, dict[object, float]], name: str, op: object, seconds: Sizes, maths: Maths) -> None:
    own = kernels_s.setdefault(name, {})
    key = id(op) if maths is POINTS else op
    own[key] = own.get(key, 0.0) + seconds
