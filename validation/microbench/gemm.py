"""GEMMs as torch.nn.Linear runs them: addmm on a transposed weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kraken_sim.scenario.spec import Launch
from validation.microbench import scaled_gemm
from validation.microbench.bench import Bench, Outcome, chain_length
from validation.timing import time_eager, time_graph

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.measurements.records.kernels import GemmCase
    from kraken_sim.program.ops import DType

# Of a recent data-center GPU; only used to choose how long a chain is.
_TYPICAL_FLOPS = 6e14
_TYPICAL_BYTES_PER_S = 3e12
_TYPICAL_OVERHEAD_S = 3e-6


def estimate_s(m: int, n: int, k: int) -> float:
    """A rough duration on a recent data-center GPU."""
    num_bytes = 2 * (m * n + n * k + m * k)
    return _TYPICAL_OVERHEAD_S + max(2 * m * n * k / _TYPICAL_FLOPS, num_bytes / _TYPICAL_BYTES_PER_S)


def calls(bench: Bench, m: int, n: int, k: int, dtype: DType, epilogue: str, count: int) -> list[Callable[[], object]]:
    """`count` GEMMs on cold weights: x [m, k], W [n, k], y [m, n], bias [n]; x and y are the same in all."""
    x = bench.inputs(dtype).take(m, k)
    y = bench.outputs(dtype).take(m, n)
    arena = bench.weights(dtype)
    bias = arena.take(n)
    distinct = bench.cold_count(n * k * dtype.num_bytes, count)
    weights = [arena.take(n, k).t() for _ in range(distinct)]

    def call(weight: torch.Tensor) -> Callable[[], object]:
        if epilogue == "none":
            return lambda: torch.mm(x, weight, out=y)
        if epilogue == "accumulate":
            return lambda: y.addmm_(x, weight)
        return lambda: torch.addmm(bias, x, weight, out=y)

    return [call(weights[index % distinct]) for index in range(count)]


def calls_of(bench: Bench, case: GemmCase, count: int) -> list[Callable[[], object]]:
    """`count` of a case's GEMMs on cold weights."""
    if case.quantization is None:
        return calls(bench, case.m, case.n, case.k, case.dtype, case.epilogue, count)
    shape = (case.m, case.n, case.k)
    return scaled_gemm.calls(
        bench, shape, case.dtype, case.quantization, case.activation_scheme, count, exact_sums=case.exact_sums
    )


def run(bench: Bench, case: GemmCase) -> Outcome:
    """Time a chain of one GEMM."""
    estimate = estimate_s(case.m, case.n, case.k)
    length = chain_length(estimate, most=20 if not bench.clock.is_cuda else 40)
    repeats = 7 if estimate < 2e-3 else 5
    lead, *chain = calls_of(bench, case, length + 1)
    if case.launch is Launch.GRAPH:
        burst_s = (length + 1) * estimate
        samples = time_graph(bench.clock, chain, repeats, before=lambda: bench.cool_and_flush(burst_s), lead=[lead])
    else:
        samples = time_eager(bench.clock, chain, repeats, before=bench.flush)
    return Outcome({"time_s": samples}, {"calls": length, "repeats": repeats})
