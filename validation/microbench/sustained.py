"""A chain of kernels for seconds: its rate from chunk to chunk, and clock, power and temperature meanwhile."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from typing import TYPE_CHECKING

from validation.microbench import gemm
from validation.microbench.bench import Bench, Outcome
from validation.microbench.pair import compute_chains
from validation.nvml import Sensors, open_sensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.measurements.records import SustainedCase

_FIRST_CHUNK_S = 2e-3
_CHUNK_GROWTH = 1.2
_LONGEST_CHUNK_S = 0.1
_SAMPLE_EVERY_S = 0.015
_MOST_SAMPLES = 120
_BUFFERS = 12


@dataclass(slots=True)
class Sampler:
    """Reads the sensors in a thread until it is stopped."""

    sensors: Sensors
    samples: list[tuple[float, float, float, float]] = field(default_factory=list)
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
            reading = self.sensors.read()
            if reading is not None:
                self.samples.append((time.perf_counter(), *reading))


def run(bench: Bench, case: SustainedCase) -> Outcome:
    """Rest, then run the chain for as long as the case says."""
    sequence = _sequence(bench, case)
    for _, call in sequence[: max(1, len(case.shapes))]:
        call()
    bench.clock.synchronize()
    round_flops = sum(2.0 * m * n * k for m, n, k in case.shapes)
    if not case.shapes:
        round_flops = _pretended_flops(bench, sequence)
        sequence = [(round_flops, call) for _, call in sequence]
    sensors = open_sensors(bench.device)
    sampler = Sampler(sensors) if sensors is not None else None
    time.sleep(case.idle_before_s)
    if sampler is not None:
        sampler.start()
    try:
        begun, ends, rates = _chunks(bench, sequence, case.duration_s)
    finally:
        if sampler is not None:
            sampler.stop()
    samples = [(at - begun, *rest) for at, *rest in sampler.samples] if sampler is not None else []
    step = -(-len(samples) // _MOST_SAMPLES) or 1
    rounds = [rate / round_flops for rate in rates]
    flops = [rate if case.shapes else 0.0 for rate in rates]
    fields = {"chunk_end_s": ends, "chunk_flops": flops, "chunk_rounds_per_s": rounds}
    return Outcome({}, {**fields, "samples": samples[::step]})


def _sequence(bench: Bench, case: SustainedCase) -> list[tuple[float, Callable[[], object]]]:
    """Calls in turn with the FLOPs of each; buffers differ from round to round."""
    if case.compute:
        return [(0.0, chain) for chain in compute_chains(bench, case.compute, case.dtype, _BUFFERS)]
    columns = [gemm.calls(bench, m, n, k, case.dtype, "bias", _BUFFERS) for m, n, k in case.shapes]
    return [
        (2.0 * m * n * k, calls[index])
        for index in range(_BUFFERS)
        for (m, n, k), calls in zip(case.shapes, columns, strict=True)
    ]


def _pretended_flops(bench: Bench, sequence: list[tuple[float, Callable[[], object]]]) -> float:
    """FLOPs of a round if the device ran at the rate that `_chunks` starts from; they only size the chunks."""
    start = _mark(bench)
    for _, call in sequence:
        call()
    return _first_rate(bench) * _seconds(bench, start, _mark(bench)) / len(sequence)


def _first_rate(bench: Bench) -> float:
    return 5e14 if bench.clock.is_cuda else 2e10


def _chunks(
    bench: Bench, sequence: list[tuple[float, Callable[[], object]]], duration_s: float
) -> tuple[float, list[float], list[float]]:
    """Host time of the start, end of each chunk since then, FLOP/s within it.

    Chunks grow geometrically: the clock falls within milliseconds and settles over seconds. Two chunks are in
    flight, so that the device never waits for the host.
    """
    marks, flops, host_times = [], [0.0], []
    work = cycle(sequence)
    rate = _first_rate(bench)
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
        flops.append(done)
        host_times.append(time.perf_counter())
        if len(marks) > 2:
            elapsed_s = _seconds(bench, marks[0], marks[-2])
            rate = flops[-2] / max(1e-9, _seconds(bench, marks[-3], marks[-2]))
        target_s = min(_LONGEST_CHUNK_S, target_s * _CHUNK_GROWTH)
    bench.clock.synchronize()
    ends = [_seconds(bench, marks[0], mark) for mark in marks[1:]]
    spans = [_seconds(bench, a, b) for a, b in pairwise(marks)]
    rates = [amount / span for amount, span in zip(flops[1:], spans, strict=True)]
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
