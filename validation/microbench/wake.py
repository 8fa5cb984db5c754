"""The first graph after a rest: how long until it is done, where the time goes, what the clocks do.

Event, launch, event on a device without work, as somebody who waits for an answer sees it. Events inside the graph
tell the work from what launching it takes; who rested (host, device or both) tells whose sleep it is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from validation.microbench.bench import Bench, Outcome
from validation.microbench.pair import compute_chains
from validation.nvml import open_sensors
from validation.timing import quartiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kraken_sim.measurements.records.loads import WakeCase

    Call = Callable[[], object]

_BUFFERS = 12
_MOST_MARKS = 9
"""Events in a graph: they cost about a microsecond each."""
_TRIES = ((0.05, 9), (0.2, 5), (10.0, 3))
"""Repeats of rests up to so many seconds."""
_AWAKE_SHARE = 0.9
"""Of the rest, in which the device is kept awake: it has to be idle when the graph is launched."""


@dataclass(slots=True)
class _Graph:
    """Rounds of a chain as one graph, with events between some of them."""

    replay: Call
    marks: Sequence[Any]
    rounds_apart: int

    def rounds_s(self) -> list[float]:
        """Mean time of a round from one event in the graph to the next."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        return [a.elapsed_time(b) * 1e-3 / self.rounds_apart for a, b in pairs]


def run(bench: Bench, case: WakeCase) -> Outcome:
    """Rest, launch, wait; a few times."""
    if case.remapped:
        bench.remap()
    chains = compute_chains(bench, case.compute, case.dtype, min(case.rounds, _BUFFERS))
    calls = [chains[index % len(chains)] for index in range(case.rounds)]
    calls[0]()
    graph = _graph(bench, calls)
    tries = next(count for longest, count in _TRIES if case.rest_s <= longest)
    for _ in range(2):
        graph.replay()
    bench.clock.synchronize()
    outside, inside, host, rounds = [], [], [], []
    for _ in range(tries):
        total_s, launch_s = _once(bench, case, graph)
        apart = graph.rounds_s()
        outside.append(total_s)
        host.append(launch_s)
        rounds.append(apart)
        inside.append(sum(apart) * graph.rounds_apart if apart else total_s)
    fields = {"calls": 1, "repeats": tries, "inside_s": quartiles(inside), "host_s": quartiles(host)}
    fields["round_s"] = [median(column) for column in zip(*rounds, strict=True)]
    return Outcome({"time_s": outside}, {**fields, **_readings(bench, case, graph)})


def _graph(bench: Bench, calls: Sequence[Call]) -> _Graph:
    apart = -(-len(calls) // (_MOST_MARKS - 1))
    whole = apart * (len(calls) // apart)
    if not bench.clock.is_cuda or not bench.clock.events_in_graphs:
        return _Graph(lambda: [call() for call in calls], (), apart)
    marks = [bench.clock.event(in_graph=True) for _ in range(whole // apart + 1)]

    def body() -> None:
        marks[0].record()
        for index, call in enumerate(calls[:whole], start=1):
            call()
            if index % apart == 0:
                marks[index // apart].record()

    graph = bench.clock.capture(body)
    return _Graph(lambda: graph.replay(), marks, apart)


def _once(bench: Bench, case: WakeCase, graph: _Graph) -> tuple[float, float]:
    """Event to event, and the host's time for the launch."""
    _rest(bench, case)
    if not bench.clock.is_cuda:
        begun = time.perf_counter()
        graph.replay()
        elapsed = time.perf_counter() - begun
        return elapsed, elapsed
    start, end = bench.clock.event(), bench.clock.event()
    start.record()
    begun = time.perf_counter()
    graph.replay()
    launched = time.perf_counter() - begun
    end.record()
    bench.clock.synchronize()
    return start.elapsed_time(end) * 1e-3, launched


def _rest(bench: Bench, case: WakeCase) -> None:
    bench.clock.synchronize()
    if case.wait == "device":
        bench.clock.gate(_AWAKE_SHARE * case.rest_s)
    if case.wait != "spin":
        time.sleep(case.rest_s)
        return
    until = time.perf_counter() + case.rest_s
    while time.perf_counter() < until:
        pass


def _readings(bench: Bench, case: WakeCase, graph: _Graph) -> dict[str, object]:
    """The card's clocks and power at the end of a rest and behind the graph."""
    sensors = open_sensors(bench.device)
    if sensors is None:
        return {}
    _rest(bench, case)
    before, memory_before = sensors.read(), sensors.memory_clock_hz()
    graph.replay()
    bench.clock.synchronize()
    after, memory_after = sensors.read(), sensors.memory_clock_hz()
    if before is None or after is None:
        return {}
    found: dict[str, object] = {"sm_clock_hz": (before[0], after[0]), "power_w": (before[1], after[1])}
    if memory_before is not None and memory_after is not None:
        found["memory_clock_hz"] = (memory_before, memory_after)
    return found
