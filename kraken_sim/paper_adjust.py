"""First-order changes of a simulated pass: overlap at no cost, and GEMMs that take longer than the model says."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

from kraken_sim.metrics import main_stream_slices
from kraken_sim.program.ops import Gemm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.engine.timeline import Timeline
    from kraken_sim.metrics import Slice

ALL_REDUCE, RECEIVE = "all_reduce", "receive"
"""Kraken's exchange between sub-layers, and the start of the names of the kernels that use its sum."""


def ideal_overlap_saving_s(blocking: Timeline) -> float:
    """What a step of Kraken with blocking AllReduces would save if each hid behind the attention beside it.

    In every layer that is the smaller of the AllReduce and of the compute between it and the use of its sum: overlap
    as max(compute, communication), as tools that add kernels up have it.
    """
    slices = main_stream_slices(blocking)
    layers = groupby(slices, key=lambda part: (part.span.segment, part.span.iteration))
    return sum(_saving_s(list(layer)) for _, layer in layers)


def _saving_s(layer: list[Slice]) -> float:
    names = [part.span.name for part in layer]
    received = [index for index, name in enumerate(names) if name.startswith(RECEIVE)]
    if ALL_REDUCE not in names or not received:
        return 0.0
    sent = names.index(ALL_REDUCE)
    beside_s = sum(part.duration_s for part in layer[sent + 1 : received[0]])
    return layer[sent].weight * min(layer[sent].duration_s, beside_s)


def gemm_delays_s(timeline: Timeline, factors: Mapping[str, float]) -> dict[str, float]:
    """Seconds by category that a step takes longer if the GEMMs of some shapes do.

    Args:
        timeline: the step as the GEMM model has it.
        factors: by shape, written `MxNxK`, how many times as long as the model says a GEMM takes.
    """
    delays: dict[str, float] = defaultdict(float)
    for part in main_stream_slices(timeline):
        op = part.span.op
        if isinstance(op, Gemm) and (factor := factors.get(f"{op.m}x{op.n}x{op.k}")) is not None:
            delays[part.span.category.value] += part.weight * part.span.alone_s * (factor - 1.0)
    return dict(delays)
