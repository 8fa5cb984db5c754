"""Overlap as tools that add kernels up have it: max(compute, communication), at no cost to either."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from kraken_sim.metrics import main_stream_slices

if TYPE_CHECKING:
    from kraken_sim.engine.timeline import Timeline
    from kraken_sim.metrics import Slice

ALL_REDUCE, RECEIVE = "all_reduce", "receive"
"""Kraken's exchange between sub-layers, and the start of the names of the kernels that use its sum."""


def ideal_overlap_saving_s(blocking: Timeline) -> float:
    """What a step of Kraken with blocking AllReduces would save if each hid behind the attention beside it.

    In every layer that is the smaller of the AllReduce and of the compute between it and the use of its sum.
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
