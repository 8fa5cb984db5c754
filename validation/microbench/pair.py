"""Compute beside an AllReduce: both released by one event on two streams, alone and together.

An iteration is what a Kraken layer does: fork, the AllReduce on the side stream and a chain of kernels on the main
stream, join. A graph holds a few iterations, so the ranks run in step and the cost of fork and join is in
the period. A second graph has events at the fork and at the end of each side; they cost a little themselves, so
spans come from this graph, with both sides and with each alone. Eagerly launched pairs wait behind a sleeping
kernel until all of it is queued.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from kraken_sim.measurements.records.together import AttentionOp, GemmOp, PairCase
from kraken_sim.program.formats import ActivationScheme, Quantization
from kraken_sim.scenario.spec import Launch
from validation.microbench import attention, gemm, memory_bound, scaled_gemm
from validation.microbench.bench import Bench, Outcome
from validation.timing import time_graph

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kraken_sim.measurements.records.together import PairedOp
    from kraken_sim.program.ops import DType

    Call = Callable[[], object]

ITERATIONS = 5
REPEATS = 7
_EAGER_GATE_S = 1.5e-3


@dataclass(slots=True)
class Marks:
    """Events of one iteration: at the fork and at the end of each side."""

    fork: Any
    compute_end: Any
    collective_end: Any


def compute_chains(
    bench: Bench, ops: Sequence[PairedOp], dtype: DType, count: int, quantization: str | None = None
) -> list[Call]:
    """`count` runs of a chain; weights differ from run to run as long as that matters for L2."""
    columns = [_op_calls(bench, op, dtype, count, quantization) for op in ops]

    def chain(index: int) -> Call:
        calls = [column[index] for column in columns]

        def run_all() -> None:
            for call in calls:
                call()

        return run_all

    return [chain(index) for index in range(count)]


def _scaled(bench: Bench, op: GemmOp, dtype: DType, count: int) -> list[Call]:
    """GEMMs on fp8 with a scale a tensor."""
    return scaled_gemm.calls(bench, (op.m, op.n, op.k), dtype, Quantization.FP8, ActivationScheme.STATIC, count)


def _op_calls(bench: Bench, op: PairedOp, dtype: DType, count: int, quantization: str | None) -> list[Call]:
    if isinstance(op, GemmOp):
        if quantization is not None:
            return _scaled(bench, op, dtype, count)
        return gemm.calls(bench, op.m, op.n, op.k, dtype, "bias", count)
    if isinstance(op, AttentionOp) and op.kv_len is not None:
        return attention.decode_calls(bench, op, op.kv_len, dtype, count)
    if isinstance(op, AttentionOp):
        views = attention.prefill_views(bench, op.batch, op.q_len, op.num_heads, op.num_kv_heads, op.head_dim, dtype)
        return [attention.prefill_call(*views)] * count
    return memory_bound.calls(bench, op.op, op.num_tokens, op.hidden_size, dtype, count)


class Pair:
    """One case with its buffers; `compute` and `collective` say which sides run."""

    def __init__(self, bench: Bench, case: PairCase, count: int) -> None:
        self.bench, self.case = bench, case
        self.chains = compute_chains(bench, case.compute, case.dtype, count)
        elements = max(1, case.num_bytes // case.dtype.num_bytes)
        self.source = bench.inputs(case.dtype).take(elements)
        self.data = bench.outputs(case.dtype).take(elements)

    def before(self) -> None:
        """Fresh data for the sums, cold weights, all ranks at the same point."""
        self.data.copy_(self.source).mul_(1e-4)
        self.bench.flush()
        self.bench.align()

    def iteration(self, index: int, marks: Marks | None = None, *, compute: bool, collective: bool) -> None:
        """Fork, the sides that run, join."""
        main, side = self.bench.clock.main, self.bench.clock.side
        forked, joined = torch.cuda.Event(), torch.cuda.Event()
        if marks:
            marks.fork.record(main)
        forked.record(main)
        side.wait_event(forked)

        def run_collective() -> None:
            with torch.cuda.stream(side):
                self.bench.all_reduce(self.data)
                if marks:
                    marks.collective_end.record(side)

        def run_compute() -> None:
            self.chains[index]()
            if marks:
                marks.compute_end.record(main)

        sides = [(collective, run_collective), (compute, run_compute)]
        for runs, run_side in sides if self.case.order == "collective_first" else reversed(sides):
            if runs:
                run_side()
        joined.record(side)
        main.wait_event(joined)

    def periods(self, *, compute: bool, collective: bool) -> list[float]:
        """Period of one iteration in a graph of `ITERATIONS`, one value a repeat."""

        def call(index: int) -> Call:
            return lambda: self.iteration(index, compute=compute, collective=collective)

        lead, *timed = [call(index) for index in range(ITERATIONS + 1)]
        return time_graph(self.bench.clock, timed, REPEATS, before=self.before, lead=[lead])

    def spans(self, *, compute: bool, collective: bool) -> tuple[list[float], list[float]]:
        """Fork to the end of each side, mean over the iterations of a graph, one value a repeat."""
        clock = self.bench.clock
        marks = [Marks(*(clock.event(in_graph=True) for _ in range(3))) for _ in range(ITERATIONS)]

        def body() -> None:
            self.iteration(0, compute=compute, collective=collective)
            for index, mark in enumerate(marks, start=1):
                self.iteration(index, mark, compute=compute, collective=collective)

        graph = clock.capture(body)
        spans: tuple[list[float], list[float]] = ([], [])
        for repeat in range(1 + REPEATS):
            self.before()
            clock.gate()
            graph.replay()
            clock.synchronize()
            if repeat:
                _add_spans(spans, marks, compute=compute, collective=collective)
        return spans

    def eager_once(self, *, compute: bool, collective: bool) -> Marks:
        """One iteration, all of it queued before the device begins."""
        clock = self.bench.clock
        self.data.copy_(self.source).mul_(1e-4)
        self.bench.flush()
        clock.gate(_EAGER_GATE_S)
        self.bench.align()
        marks = Marks(*(clock.event() for _ in range(3)))
        self.iteration(0, marks, compute=compute, collective=collective)
        clock.synchronize()
        return marks

    def eager_spans(self, *, compute: bool, collective: bool) -> tuple[list[float], list[float]]:
        """Fork to the end of each side, one value a repeat."""
        spans: tuple[list[float], list[float]] = ([], [])
        for repeat in range(1 + REPEATS):
            marks = self.eager_once(compute=compute, collective=collective)
            if repeat:
                _add_spans(spans, [marks], compute=compute, collective=collective)
        return spans


def _add_spans(spans: tuple[list[float], list[float]], marks: list[Marks], *, compute: bool, collective: bool) -> None:
    if compute:
        spans[0].append(sum(m.fork.elapsed_time(m.compute_end) for m in marks) * 1e-3 / len(marks))
    if collective:
        spans[1].append(sum(m.fork.elapsed_time(m.collective_end) for m in marks) * 1e-3 / len(marks))


def run(bench: Bench, case: PairCase) -> Outcome:
    """Time both sides alone and together."""
    if not bench.clock.is_cuda:
        return _run_on_cpu(bench, case)
    if case.launch is Launch.EAGER:
        return _run_eager(bench, case)
    pair = Pair(bench, case, ITERATIONS + 1)
    # Each side once before any capture: library handles, workspaces and connections come into being.
    pair.iteration(0, compute=True, collective=True)
    times = {"together_s": pair.periods(compute=True, collective=True)}
    sides = {
        "compute": (case.compute_key, {"compute": True, "collective": False}),
        "collective": (str(case.num_bytes), {"compute": False, "collective": True}),
    }
    spans = bench.clock.events_in_graphs
    for name, (memo_key, runs) in sides.items():
        key = (name, memo_key, case.dtype)
        if key not in bench.memo:
            bench.memo[key] = pair.periods(**runs)
            if spans:
                bench.memo[*key, "span"] = pair.spans(**runs)[name == "collective"]
        times[f"{name}_alone_s"] = bench.memo[key]
        if spans:
            times[f"{name}_alone_span_s"] = bench.memo[*key, "span"]
    if spans:
        times["compute_span_s"], times["collective_span_s"] = pair.spans(compute=True, collective=True)
    return Outcome(times, {"calls": ITERATIONS, "repeats": REPEATS})


def _run_eager(bench: Bench, case: PairCase) -> Outcome:
    pair = Pair(bench, case, 1)
    compute_span, collective_span = pair.eager_spans(compute=True, collective=True)
    compute_alone, _ = pair.eager_spans(compute=True, collective=False)
    _, collective_alone = pair.eager_spans(compute=False, collective=True)
    times = {
        "together_s": [max(ends) for ends in zip(compute_span, collective_span, strict=True)],
        "compute_alone_s": compute_alone,
        "collective_alone_s": collective_alone,
        "compute_span_s": compute_span,
        "collective_span_s": collective_span,
    }
    return Outcome(times, {"calls": 1, "repeats": REPEATS})


def _run_on_cpu(bench: Bench, case: PairCase) -> Outcome:
    """The backend's own threads carry the collective; spans end when the host sees them end."""
    pair = Pair(bench, case, 1)
    names = ("together_s", "compute_alone_s", "collective_alone_s", "compute_span_s", "collective_span_s")
    times: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(1 + REPEATS):
        pair.data.copy_(pair.source).mul_(1e-4)
        alone = _timed(bench, pair.chains[0])
        collective = _timed(bench, lambda: bench.all_reduce(pair.data))
        bench.align()
        begun = time.perf_counter()
        work = dist.all_reduce(pair.data, group=bench.group, async_op=True)
        pair.chains[0]()
        compute_end = time.perf_counter() - begun
        if work is not None:
            work.wait()
        end = time.perf_counter() - begun
        for name, value in zip(names, (end, alone, collective, compute_end, end), strict=True):
            times[name] += [value] * (repeat > 0)
    return Outcome(times, {"calls": 1, "repeats": REPEATS})


def _timed(bench: Bench, call: Call) -> float:
    bench.align()
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
