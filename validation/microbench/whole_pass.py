"""Whole passes of real models: time to first token, or of a decode step, as the host sees it; and their kernels.

The ranks' devices and hosts meet before each repeat, then every rank records an event, launches the pass and records
another: the launch of a graph, or the launches of its kernels one by one, is part of the time. On a rested card this
comes after 0.1 s without work. Under load there is no pause: passes follow each other for up to a second, and what is
timed is the period of those that follow.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kraken_sim.program.kernel_sets import CardLoad
from kraken_sim.scenario.spec import Launch
from validation.microbench.bench import Bench, Outcome, SkipCase
from validation.microbench.kernels import kernels_in_order
from validation.nvml import open_sensors
from validation.passes import ModelPass, pass_model, required_bytes
from validation.timing import time_eager

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kraken_sim.measurements.records.passes import PassCase
    from validation.models.decoder import Decoder
    from validation.nvml import Sensors

_BUDGET_S = 0.6
_REPEATS = (7, 21)
_MEMORY_SHARE = 0.92
REST_S = 0.1
_RESTED_REPEATS = 5
_LOAD_S = {"prefill": 1.0, "decode": 0.4}
"""A decode step draws far less than the card's limit, so the clock settles sooner."""
_CHUNK_S = 0.03
_TIMED_S = 0.15
_SUSTAINED_REPEATS = (7, 51)
_MOST_KERNELS = 48
"""Of a trace: the embedding and two or three layers."""


class ModelBench:
    """Measures the cases of one model, which is built with the first and dropped at the end."""

    def __init__(self, bench: Bench, cases: Sequence[PassCase], stack: contextlib.ExitStack) -> None:
        self.bench, self.cases, self.stack = bench, cases, stack
        self._model: Decoder | None = None
        self._sensors: Sensors | None = None

    @property
    def model(self) -> Decoder:
        """This rank's model.

        Raises:
            SkipCase: it does not fit into the device's memory.
        """
        if self._model is None:
            _check_memory(self.bench, self.cases)
            self._model = self.stack.enter_context(pass_model(self.cases[0], self.bench.device))
            self._sensors = open_sensors(self.bench.device)
        return self._model

    def time(self, case: PassCase) -> Outcome:
        """Times one case as its load says."""
        with ModelPass(self.model, case) as one:
            first = time_eager(self.bench.clock, [one.run], 2, before=self.bench.align, warmup=2)
            # The same on every rank: the slowest rank's time decides.
            slowest = max(self.bench.control.gather(min(first)))
            fields: dict[str, Any] = {}
            if case.load is CardLoad.SUSTAINED:
                samples, fields = self._time_back_to_back(one, slowest, _LOAD_S[case.phase])
            elif case.load is CardLoad.RESTED:
                samples = time_eager(self.bench.clock, [one.run], _RESTED_REPEATS, before=self._rest, warmup=1)
            else:
                least, most = _REPEATS
                repeats = max(least, min(most, int(_BUDGET_S / slowest)))
                samples = time_eager(self.bench.clock, [one.run], repeats, before=self.bench.align, warmup=0)
            if not bool(torch.isfinite(one.logits).all() if one.logits is not None else True):
                raise RuntimeError("the logits are not finite")
        return Outcome({"time_s": samples}, {"calls": 1, "repeats": len(samples), **fields})

    def _rest(self) -> None:
        self.bench.clock.synchronize()
        time.sleep(REST_S)
        self.bench.align()

    def _time_back_to_back(self, one: ModelPass, pass_s: float, load_s: float) -> tuple[list[float], dict[str, Any]]:
        """Periods of passes after others without a pause; numbers of passes are equal on all ranks."""
        least, most = _SUSTAINED_REPEATS
        count = max(least, min(most, int(_TIMED_S / pass_s)))
        if not self.bench.clock.is_cuda:
            return [_host_time(one) for _ in range(count)], {}
        chunk = max(1, int(_CHUNK_S / pass_s))
        previous = None
        for _ in range(max(2, math.ceil(load_s / (chunk * pass_s)))):
            for _ in range(chunk):
                one.run()
            event = self.bench.clock.event()
            event.record()
            if previous is not None:
                previous.synchronize()
            previous = event
        # Two chunks are queued: the card is still at work while it is asked.
        reading = self._sensors.read() if self._sensors is not None else None
        events = [self.bench.clock.event() for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            one.run()
            event.record()
        self.bench.clock.synchronize()
        samples = [a.elapsed_time(b) * 1e-3 for a, b in pairwise(events)]
        return samples, {} if reading is None else {"sm_clock_hz": reading[0], "power_w": reading[1]}

    def kernels(self, case: PassCase) -> Outcome:
        """The first kernels of one replay of a pass's graph, after others, with their starts."""
        if case.launch is not Launch.GRAPH or not self.bench.clock.is_cuda:
            raise SkipCase("only graphs on CUDA are traced")
        with ModelPass(self.model, case) as one:
            for _ in range(3):
                one.run()
            self.bench.clock.synchronize()
            activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
            with torch.profiler.profile(activities=activities) as profiler:
                one.run()
                self.bench.clock.synchronize()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(path))
            events = json.loads(path.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
        found = kernels_in_order(events, _MOST_KERNELS)
        if not found:
            raise SkipCase("no kernels seen")
        return Outcome({}, {"kernels": [kernel.model_dump() for kernel in found]})


def _host_time(one: ModelPass) -> float:
    begun = time.perf_counter()
    one.run()
    return time.perf_counter() - begun


@contextlib.contextmanager
def model_of(bench: Bench, cases: Sequence[PassCase]) -> Iterator[ModelBench]:
    """What measures the cases of one model."""
    with contextlib.ExitStack() as stack:
        yield ModelBench(bench, cases, stack)


def _check_memory(bench: Bench, cases: Sequence[PassCase]) -> None:
    need = max(required_bytes(case) for case in cases)
    if bench.clock.is_cuda and need > bench.free_bytes * _MEMORY_SHARE:
        raise SkipCase(f"needs {need / 2**30:.1f} GiB of device memory, {bench.free_bytes / 2**30:.1f} GiB are free")
