"""AllReduce alone: a chain of calls in place, over sizes, under the condition of this process."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kraken_sim.scenario.spec import Launch
from validation.microbench.bench import Bench, Outcome
from validation.timing import time_eager, time_graph

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kraken_sim.measurements.records.kernels import AllReduceCase

_DOUBLINGS = 24
"""A sum over N ranks grows the data N times; fp16 holds this many doublings from 1e-4 on."""


def chain_of(num_bytes: int, num_devices: int) -> tuple[int, int]:
    """Calls in the chain and repeats; the same on every rank, so a function of the case alone."""
    growth = max(4, int(_DOUBLINGS / max(1.0, math.log2(num_devices))))
    if num_bytes >= 128 << 20:
        return 2, 3
    if num_bytes >= 16 << 20:
        return 4, 5
    return min(growth, 20), 7


def calls(bench: Bench, data: Tensor, count: int) -> list[Callable[[], object]]:
    """`count` AllReduces of the same buffer."""
    return [lambda: bench.all_reduce(data)] * count


def run(bench: Bench, case: AllReduceCase) -> Outcome:
    """Time a chain of AllReduces of one size."""
    count, repeats = chain_of(case.num_bytes, case.num_devices)
    elements = max(1, case.num_bytes // case.dtype.num_bytes)
    source = bench.inputs(case.dtype).take(elements)
    data = bench.outputs(case.dtype).take(elements)

    def before() -> None:
        # Small fresh numbers, so that no sum of the chain overflows: NCCL moves bits, but power depends on them.
        data.copy_(source).mul_(1e-4)
        bench.align()

    chain = calls(bench, data, count)
    if case.launch is Launch.GRAPH:
        samples = time_graph(bench.clock, chain, repeats, before=before, lead=chain[:1])
    else:
        chain[0]()
        samples = time_eager(bench.clock, chain, repeats, before=before)
    return Outcome({"time_s": samples}, {"calls": count, "repeats": repeats})
