"""What a simulated pass gains or loses where the GEMMs of some shapes take longer than the model says."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from kraken_sim.program.ops import Gemm
from kraken_sim.program.program import MAIN_STREAM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.engine.timeline import Timeline


def gemm_delays_s(timeline: Timeline, factors: Mapping[str, float]) -> dict[str, float]:
    """Seconds by category that a step takes longer, to first order: what runs beside a GEMM stays as it is.

    Args:
        timeline: the step as the GEMM model has it.
        factors: by shape, written `MxNxK`, how many times as long as the model says a GEMM takes.
    """
    delays: dict[str, float] = defaultdict(float)
    for span in timeline.simulated:
        op = span.op
        if span.rank != 0 or span.stream != MAIN_STREAM or not isinstance(op, Gemm):
            continue
        if (factor := factors.get(f"{op.m}x{op.n}x{op.k}")) is not None:
            delays[span.category.value] += timeline.weight(span) * span.alone_s * (factor - 1.0)
    return dict(delays)
