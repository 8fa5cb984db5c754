"""The host that enqueues a program and the streams that run it, as SimPy processes of one rank."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from kraken_sim.costs.host import host_share
from kraken_sim.engine.clock import now_ps, to_ps
from kraken_sim.engine.timeline import Span, SpanKind
from kraken_sim.program.ops import Collective
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Category, Kernel, RecordEvent, WaitEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    import simpy

    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.engine.collective import JointCollective
    from kraken_sim.engine.device import DeviceState
    from kraken_sim.hardware.device import LaunchCosts
    from kraken_sim.program.ops import ComputeOp, Op
    from kraken_sim.program.program import Program, Step


class QueuedStep(NamedTuple):
    """A step that the host enqueues at `queued_ps`."""

    step: Step
    segment: str
    iteration: int
    queued_ps: int


def launches_of(program: Program, costs: LaunchCosts, *, eager: bool) -> Iterator[QueuedStep]:
    """Every step in program order: eager launches cost host time each, a graph costs once.

    The host waits for nothing, so its times do not depend on the device.
    """
    now_ps = 0 if eager else to_ps(costs.graph_launch_s)
    for segment, iteration, step in program.steps():
        if eager:
            now_ps += launch_ps(step, costs)
        yield QueuedStep(step, segment, iteration, now_ps)


def launch_ps(step: Step, costs: LaunchCosts) -> int:
    """Host time of an eager launch."""
    if not isinstance(step, Kernel):
        return to_ps(costs.eager_event_s)
    if isinstance(step.op, Collective):
        beside = costs.eager_side_collective_s if step.stream == COMM_STREAM else 0.0
        return to_ps(max(beside, costs.eager_collective_s))
    shares = costs.eager_shares
    return to_ps(costs.eager_kernel_s * host_share(step.op, shares) if shares else costs.eager_kernel_s)


def node_gap_ps(costs: LaunchCosts, *, eager: bool) -> int:
    """Time between two kernels of one stream."""
    return to_ps(costs.eager_kernel_gap_s if eager else costs.graph_node_gap_s)


@dataclass(slots=True)
class Enqueued:
    """A step in a stream's queue, the number of its launch, and the recording it makes or waits for."""

    number: int
    step: Step
    segment: str
    iteration: int
    queued_ps: int
    event: simpy.Event | None = None


@dataclass(slots=True)
class StreamQueue:
    """A FIFO between the host and a stream."""

    env: simpy.Environment
    items: deque[Enqueued] = field(default_factory=deque)
    closed: bool = False
    item: Enqueued | None = None
    """The kernel or wait that the stream is at."""
    end_ps: int = 0
    """The last step that the stream ran had ended."""
    ready_ps: int = 0
    """The stream's next kernel starts no earlier."""
    _wake: simpy.Event | None = None

    @property
    def waiting_for(self) -> str | None:
        """What the stream is at, in words."""
        if self.item is None:
            return None
        step = self.item.step
        what = step.name if isinstance(step, Kernel) else f"event {step.event}"
        return f"{self.item.segment}[{self.item.iteration}] {what}"

    def push(self, item: Enqueued) -> None:
        """Enqueue one step."""
        self.items.append(item)
        self._notify()

    def close(self) -> None:
        """Nothing will follow."""
        self.closed = True
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake.succeed()

    def wait(self) -> simpy.Event:
        """An event that succeeds at the next push or close."""
        self._wake = self.env.event()
        return self._wake


@dataclass(slots=True)
class Rank:
    """One rank: its host process, its streams and its device."""

    env: simpy.Environment
    number: int
    device: DeviceState
    launch: LaunchCosts
    eager: bool
    cost_of: Callable[[ComputeOp], KernelCost]
    join: Callable[[int, Collective], tuple[CollectiveCost, JointCollective]]
    spans: list[tuple[int, Span]] = field(default_factory=list)
    """With the number of the launch they belong to."""
    asked_ps: list[int] = field(default_factory=list)
    """By launch, when its stream was ready to take it."""
    queues: dict[int, StreamQueue] = field(default_factory=dict)

    def start(
        self, launches: Iterable[QueuedStep], ready_ps: Mapping[int, int] = MappingProxyType({})
    ) -> list[simpy.Process]:
        """Start the host and the streams; the processes end when their work has.

        Args:
            launches: what the host enqueues; see `QueuedStep`.
            ready_ps: by stream, when its first kernel may start; streams that have run nothing may at once.
        """
        self.queues = {
            stream: StreamQueue(self.env, ready_ps=ready_ps.get(stream, 0)) for stream in (MAIN_STREAM, COMM_STREAM)
        }
        host = None
        if all(launch.queued_ps <= 0 for launch in launches):
            for item in self._items(launches):
                self.queues[item.step.stream].items.append(item)
            self._close()
        else:
            host = self._host(launches)
        streams = [self.env.process(self._stream(stream)) for stream in self.queues]
        return streams if host is None else [self.env.process(host), *streams]

    def _items(self, launches: Iterable[QueuedStep]) -> Iterator[Enqueued]:
        """What the host enqueues, with the recordings that waits are for."""
        recordings: dict[str, simpy.Event] = {}
        for number, (step, segment, iteration, queued_ps) in enumerate(launches):
            self.asked_ps.append(0)
            event = None
            if isinstance(step, RecordEvent):
                event = recordings[step.event] = self.env.event()
            elif isinstance(step, WaitEvent):
                event = recordings.get(step.event)
            yield Enqueued(number, step, segment, iteration, queued_ps, event)

    def _host(self, launches: Iterable[QueuedStep]) -> Generator[Any, object, None]:
        """Enqueue every step when its time has come."""
        for item in self._items(launches):
            if item.queued_ps > (now := now_ps(self.env)):
                yield self.env.timeout(item.queued_ps - now)
            self.queues[item.step.stream].push(item)
        self._close()

    def _close(self) -> None:
        for queue in self.queues.values():
            queue.close()

    def _stream(self, stream: int) -> Generator[Any, object, None]:
        """Run the queue in order; two kernels of a stream are a gap apart."""
        env, queue = self.env, self.queues[stream]
        gap_ps, edge_ps = node_gap_ps(self.launch, eager=self.eager), to_ps(self.launch.graph_edge_s)
        while True:
            queue.end_ps = asked_ps = now_ps(env)
            while not queue.items:
                if queue.closed:
                    return
                yield queue.wait()
            item = queue.items.popleft()
            self.asked_ps[item.number] = asked_ps
            step = item.step
            if isinstance(step, RecordEvent):
                if item.event is not None:
                    item.event.succeed(env.now)
                continue
            queue.item = item
            if isinstance(step, WaitEvent):
                queue.ready_ps = max(queue.ready_ps, (yield from self._wait(item, step)) + edge_ps)
            else:
                yield from self._kernel(item, step, queue.ready_ps)
                queue.ready_ps = now_ps(env) + gap_ps
            queue.item = None

    def _wait(self, item: Enqueued, step: WaitEvent) -> Generator[Any, object, int]:
        """Stand still until the event's recording has completed; returns when that was."""
        begin_ps = now_ps(self.env)
        if item.event is None:
            return 0
        if not item.event.processed:
            yield item.event
        if self.env.now > begin_ps and step.stream == MAIN_STREAM:
            self._record(item, step.event, step.category, step.stream, begin_ps, SpanKind.WAIT)
        recorded_ps = item.event.value
        assert isinstance(recorded_ps, int)
        return recorded_ps

    def _kernel(self, item: Enqueued, step: Kernel, ready_ps: int) -> Generator[Any, object, None]:
        env = self.env
        if ready_ps > env.now:
            yield env.timeout(ready_ps - now_ps(env))
        start_ps = now_ps(env)
        kind, busy_s, detail = SpanKind.COMPUTE, 0.0, ""
        if isinstance(step.op, Collective):
            cost, joint = self.join(self.number, step.op)
            kind, busy_s, detail = SpanKind.COLLECTIVE, cost.busy_s, cost.detail
            dispatch_s = min(cost.busy_s, self.device.contention.collective_dispatch_s)
            yield env.timeout(to_ps(dispatch_s))
            self.device.launch_collective(cost, joint)
            yield joint.finished
        else:
            kernel_cost = self.cost_of(step.op)
            busy_s, detail = kernel_cost.busy_s, kernel_cost.detail
            yield self.device.launch(kernel_cost)
        self._record(item, step.name, step.category, step.stream, start_ps, kind, busy_s, detail, step.op)

    def _record(
        self,
        item: Enqueued,
        name: str,
        category: Category,
        stream: int,
        start_ps: int,
        kind: SpanKind,
        busy_s: float = 0.0,
        detail: str = "",
        op: Op | None = None,
    ) -> None:
        span = Span(
            kind, name, category, self.number, stream, item.segment, item.iteration,
            start_ps, now_ps(self.env), item.queued_ps, busy_s, detail, op,
        )  # fmt: skip
        self.spans.append((item.number, span))
