"""A chain of kernels for seconds: its rate from chunk to chunk, and clock, power and temperature meanwhile.

The sensors of a Hopper card give a new reading every 100 ms; its energy counter tells the average between two.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any

from kraken_sim.scenario.spec import Launch
from validation.microbench import gemm
from validation.microbench.bench import Bench, Outcome
from validation.microbench.pair import compute_chains
from validation.microbench.spin import spin_call
from validation.nvml import Sensors, open_sensors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kraken_sim.measurements.records.loads import SustainedCase

    Call = Callable[[], object]
    Calls = Sequence[tuple[float, Call]]
    """Calls in turn, each with how many rounds it is."""

_FIRST_CHUNK_S = 2e-3
_CHUNK_GROWTH = 1.2
_SAMPLE_EVERY_S = 0.01
_MOST_SAMPLES = 120
_BUFFERS = 12
_GRAPH_S = 0.5e-3
"""A graph of rounds lasts at least so long, so that the host stays ahead."""
_MOST_ROUNDS = 240
"""Of a graph."""


@dataclass(slots=True)
class Sampler:
    """Reads the sensors in a thread until it is stopped."""

    sensors: Sensors
    samples: list[tuple[float, float, float, float]] = field(default_factory=list)
    energy: list[tuple[float, float]] = field(default_factory=list)
    """(time, J) where the card's energy counter was found to have moved."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read; times are of the monotonic clock."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait for the last reading."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_SAMPLE_EVERY_S):
            reading, joules = self.sensors.read(), self.sensors.energy_j()
            now = time.perf_counter()
            if reading is not None:
                self.samples.append((now, *reading))
            if joules is not None and (not self.energy or joules > self.energy[-1][1]):
                self.energy.append((now, joules))


def run(bench: Bench, case: SustainedCase) -> Outcome:
    """Rest, then run the chain for as long as the case says."""
    pause_s = 0.0
    if case.launch is Launch.GRAPH:
        sequence, rate, pause_s = _graphs(bench, case)
    else:
        sequence, rate = _calls(bench, case)
    bench.clock.synchronize()
    if case.load_before_s:
        _chunks(bench, sequence, rate, case.load_before_s, case.chunk_s)
    sensors = open_sensors(bench.device)
    sampler = Sampler(sensors) if sensors is not None else None
    time.sleep(case.idle_before_s)
    if sampler is not None:
        sampler.start()
    try:
        begun, ends, rounds = _chunks(bench, sequence, rate, case.duration_s, case.chunk_s)
    finally:
        if sampler is not None:
            sampler.stop()
    round_flops = sum(2.0 * m * n * k for m, n, k in case.shapes)
    fields: dict[str, Any] = {"chunk_end_s": ends, "chunk_rounds_per_s": rounds}
    fields["chunk_flops"] = [rate * round_flops for rate in rounds]
    if sampler is not None:
        samples = [(at - begun, *rest) for at, *rest in sampler.samples]
        fields["samples"] = samples[:: -(-len(samples) // _MOST_SAMPLES) or 1]
        fields["energy_j"] = [(at - begun, joules - sampler.energy[0][1]) for at, joules in sampler.energy]
    return Outcome({}, {**fields, "pause_s": pause_s})


def _calls(bench: Bench, case: SustainedCase) -> tuple[Calls, float]:
    """Kernels in turn, launched one by one, each with its part of a round; and about how many rounds a second."""
    if case.compute:
        sequence = [(1.0, chain) for chain in compute_chains(bench, case.compute, case.dtype, _BUFFERS)]
        sequence[0][1]()
        return sequence, 1.0 / _round_s(bench, [call for _, call in sequence])
    columns = [gemm.calls(bench, m, n, k, case.dtype, "bias", _BUFFERS) for m, n, k in case.shapes]
    round_flops = sum(2.0 * m * n * k for m, n, k in case.shapes)
    sequence = [
        (2.0 * m * n * k / round_flops, calls[index])
        for index in range(_BUFFERS)
        for (m, n, k), calls in zip(case.shapes, columns, strict=True)
    ]
    for _, call in sequence[: len(case.shapes)]:
        call()
    return sequence, _first_rate(bench) / round_flops


def _graphs(bench: Bench, case: SustainedCase) -> tuple[Calls, float, float]:
    """Graphs of whole rounds, about how many rounds a second, and the pause behind each."""
    rounds = compute_chains(bench, case.compute, case.dtype, _BUFFERS, case.quantization)
    rounds[0]()
    busy_s, pause_s = _round_s(bench, [_captured(bench, rounds)]) / len(rounds), 0.0
    if case.pause_share:
        pause_s = case.pause_share * busy_s
        spin = spin_call(bench.device, case.pause_ctas, pause_s)
        spin()
        rounds = [_both(call, spin) for call in rounds]
    count = min(_MOST_ROUNDS, math.ceil(_GRAPH_S / (busy_s + pause_s)))
    around = cycle(rounds)
    groups = [[next(around) for _ in range(count)] for _ in range(math.ceil(len(rounds) / count))]
    sequence = [(float(count), _captured(bench, group)) for group in groups]
    return sequence, 1.0 / (busy_s + pause_s), pause_s


def _both(first: Call, second: Call) -> Call:
    def run_both() -> None:
        first()
        second()

    return run_both


def _captured(bench: Bench, calls: Sequence[Call]) -> Call:
    """The calls as one graph; on a CPU one after the other."""

    def body() -> None:
        for call in calls:
            call()

    if not bench.clock.is_cuda:
        return body
    graph = bench.clock.capture(body)
    return lambda: graph.replay()


def _round_s(bench: Bench, calls: Sequence[Call]) -> float:
    """About how long a call takes."""
    for call in calls:
        call()
    start = _mark(bench)
    for call in calls:
        call()
    return max(1e-7, _seconds(bench, start, _mark(bench)) / len(calls))


def _first_rate(bench: Bench) -> float:
    return 5e14 if bench.clock.is_cuda else 2e10


def _chunks(
    bench: Bench, sequence: Calls, rate: float, duration_s: float, chunk_s: float
) -> tuple[float, list[float], list[float]]:
    """Host time of the start, end of each chunk since then, rounds a second within it.

    Chunks grow geometrically up to `chunk_s`: the clock falls within milliseconds and settles over seconds. Two
    chunks are in flight, so that the device never waits for the host.
    """
    marks, amounts = [], [0.0]
    work = cycle(sequence)
    target_s, elapsed_s = _FIRST_CHUNK_S, 0.0
    begun = time.perf_counter()
    marks.append(_mark(bench))
    while elapsed_s < duration_s:
        done = 0.0
        while done < rate * target_s:
            amount, call = next(work)
            call()
            done += amount
        marks.append(_mark(bench))
        amounts.append(done)
        if len(marks) > 2:
            elapsed_s = _seconds(bench, marks[0], marks[-2])
            rate = amounts[-2] / max(1e-9, _seconds(bench, marks[-3], marks[-2]))
        target_s = min(chunk_s, target_s * _CHUNK_GROWTH)
    bench.clock.synchronize()
    ends = [_seconds(bench, marks[0], mark) for mark in marks[1:]]
    spans = [_seconds(bench, a, b) for a, b in pairwise(marks)]
    rates = [amount / max(1e-9, span) for amount, span in zip(amounts[1:], spans, strict=True)]
    return begun, ends, rates


def _mark(bench: Bench) -> object:
    if not bench.clock.is_cuda:
        return time.perf_counter()
    event = bench.clock.event()
    event.record()
    return event


def _seconds(bench: Bench, start: object, end: object) -> float:
    """Between two marks; waits for the later one."""
    if isinstance(start, float) and isinstance(end, float):
        return end - start
    assert bench.clock.is_cuda
    end.synchronize()  # type: ignore[attr-defined]
    return float(start.elapsed_time(end)) * 1e-3  # type: ignore[attr-defined]
