"""Timing device work: chains of calls in CUDA graphs or launched eagerly, and host clocks on CPUs.

Graph: an untimed first call, an event, the calls, an event, all nodes of one graph. The events are inside the
graph so that what it costs to launch the graph is not part of the result; the first call finds the caches that
the flush left and brings the activations in. Eager: events around the calls, so a host that launches more
slowly than the device computes shows.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kraken_sim.measurements.records.base import Quartiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Call = Callable[[], object]

GATE_S = 60e-6
"""A sleeping kernel of this length lets the host queue a graph launch before the device gets to it."""


def quartiles(samples: Sequence[float]) -> Quartiles:
    """Quartiles with linear interpolation; `samples` must not be empty."""
    first, median, third = np.percentile(np.asarray(samples, dtype=np.float64), (25, 50, 75))
    return Quartiles(float(first), float(median), float(third))


def nothing() -> None:
    """The default of hooks."""


@dataclass(slots=True)
class Clock:
    """A device with the two streams that work runs on; on a CPU there are none.

    The main stream is the current stream of the process, and not the default stream: graphs can't be captured
    from that one.
    """

    device: torch.device
    main: Any = None
    side: Any = None
    pool: Any = None
    events_in_graphs: bool = False
    sleep_cycles_per_s: float = 2e9
    _anchor: Any = field(default=None, init=False, repr=False)

    @classmethod
    def on(cls, device: torch.device) -> Clock:
        """Streams for `device`, made current."""
        if device.type != "cuda":
            return cls(device)
        torch.cuda.set_device(device)
        main, side = torch.cuda.Stream(device), torch.cuda.Stream(device)
        torch.cuda.set_stream(main)
        clock = cls(device, main, side, torch.cuda.graph_pool_handle())
        torch.ones(1, device=device)
        # A pool that no graph uses any more cannot be captured into again, so one graph stays.
        clock._anchor = clock.capture(lambda: torch.ones(1, device=device))
        clock.events_in_graphs = _events_work_in_graphs(clock)
        return clock

    @property
    def is_cuda(self) -> bool:
        """Whether there are streams, events and graphs."""
        return self.device.type == "cuda"

    def synchronize(self) -> None:
        """Wait for all work on the device."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def gate(self, seconds: float = GATE_S) -> None:
        """Hold the main stream back for about `seconds`, longer when the clock is below its maximum."""
        if self.is_cuda:
            # The unstable torch.cuda._sleep is what torch's own stream tests use; there is no public spin kernel.
            torch.cuda._sleep(int(seconds * self.sleep_cycles_per_s))

    def is_healthy(self) -> bool:
        """Whether work still runs and can still be captured, after an error."""
        if not self.is_cuda:
            return True
        try:
            self.capture(lambda: torch.ones(1, device=self.device)).replay()
            self.synchronize()
        except RuntimeError:
            return False
        return True

    def event(self, *, in_graph: bool = False) -> Any:
        """An event that can be timed, also from outside a graph that it is recorded in."""
        if in_graph:
            return torch.cuda.Event(enable_timing=True, external=True)
        return torch.cuda.Event(enable_timing=True)

    def capture(self, body: Callable[[], object]) -> Any:
        """What `body` enqueues on the main stream (and streams forked from it) as a graph.

        torch.cuda.graph() would empty the allocator's cache every time, which costs more than the capture. The
        mode is thread-local because NCCL's watchdog thread queries events meanwhile.
        """
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
        try:
            body()
        except BaseException:
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
            raise
        graph.capture_end()
        return graph


def _events_work_in_graphs(clock: Clock) -> bool:
    """Whether this torch and driver can time events that a graph recorded."""
    data = torch.ones(1 << 20, device=clock.device)
    data.add_(1)
    try:
        start, end = clock.event(in_graph=True), clock.event(in_graph=True)

        def body() -> None:
            start.record()
            data.add_(1)
            end.record()

        graph = clock.capture(body)
        graph.replay()
        clock.synchronize()
        return bool(start.elapsed_time(end) > 0)
    except (RuntimeError, TypeError, ValueError):
        return False


def time_graph(
    clock: Clock,
    calls: Sequence[Call],
    repeats: int,
    *,
    before: Call = nothing,
    lead: Sequence[Call] = (),
    warmup: int = 1,
) -> list[float]:
    """Mean period of `calls` as a chain of graph nodes, one value a repeat, in seconds.

    Args:
        clock: where to run; on a CPU this is `time_eager`.
        calls: what to time; each is captured once. The last one also runs once beforehand, outside the graph.
        repeats: timed replays.
        before: enqueued before each replay (flush caches, refill buffers, align ranks).
        lead: untimed calls at the start of the graph.
        warmup: untimed replays.
    """
    if not clock.is_cuda:
        return time_eager(clock, calls, repeats, before=before, warmup=warmup)
    inside = clock.events_in_graphs
    start, end = clock.event(in_graph=inside), clock.event(in_graph=inside)
    calls[-1]()

    def body() -> None:
        for call in lead:
            call()
        if inside:
            start.record()
        for call in calls:
            call()
        if inside:
            end.record()

    graph = clock.capture(body)
    samples = []
    for repeat in range(warmup + repeats):
        before()
        clock.gate()
        if not inside:
            start.record()
        graph.replay()
        if not inside:
            end.record()
        clock.synchronize()
        if repeat >= warmup:
            samples.append(start.elapsed_time(end) * 1e-3 / len(calls))
    return samples


def time_eager(
    clock: Clock, calls: Sequence[Call], repeats: int, *, before: Call = nothing, warmup: int = 1
) -> list[float]:
    """Mean period of `calls` launched one by one, one value a repeat, in seconds.

    On CUDA the device waits for the host where launching takes longer than running, as in an eager model.
    """
    samples = []
    for _ in range(warmup + repeats):
        before()
        # Whatever is still queued would give the host a head start.
        clock.synchronize()
        samples.append(_eager_once(clock, calls))
    return samples[warmup:]


def _eager_once(clock: Clock, calls: Sequence[Call]) -> float:
    if not clock.is_cuda:
        begun = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - begun) / len(calls)
    start, end = clock.event(), clock.event()
    start.record()
    for call in calls:
        call()
    end.record()
    clock.synchronize()
    return float(start.elapsed_time(end)) * 1e-3 / len(calls)


def time_host(clock: Clock, call: Call, count: int, repeats: int, *, gate_s: float = 5e-3) -> list[float]:
    """Host time of one `call` while the device is kept busy, so that the host never waits for it, in seconds."""
    samples = []
    for repeat in range(1 + repeats):
        clock.gate(gate_s)
        begun = time.perf_counter()
        for _ in range(count):
            call()
        elapsed = (time.perf_counter() - begun) / count
        clock.synchronize()
        if repeat:
            samples.append(elapsed)
    return samples


def time_queued(clock: Clock, body: Call, repeats: int, *, gate_s: float = 3e-3) -> list[float]:
    """Device time of what `body` enqueues eagerly, all of it queued before the device begins, in seconds.

    On a CPU: the host time of `body`.
    """
    samples = []
    for repeat in range(1 + repeats):
        clock.gate(gate_s)
        elapsed = _eager_once(clock, [body])
        if repeat:
            samples.append(elapsed)
    return samples
