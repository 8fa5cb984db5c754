"""The host that enqueues a program and the streams that run it, as SimPy processes of one rank."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kraken_sim.engine.clock import now_ps, to_ps
from kraken_sim.engine.timeline import Span, SpanKind
from kraken_sim.program.ops import AllReduce
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Category, Kernel, RecordEvent, WaitEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import simpy

    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.engine.collective import JointCollective
    from kraken_sim.engine.device import DeviceState
    from kraken_sim.hardware.device import LaunchCosts
    from kraken_sim.program.ops import ComputeOp, Op
    from kraken_sim.program.program import Program

PRIORITY = {MAIN_STREAM: 0, COMM_STREAM: -1}
"""The collective's stream has the lower priority, as in the paper's appendix A.2."""


@dataclass(slots=True)
class Enqueued:
    """A step in a stream's queue; `event` is the recording it makes or waits for."""

    step: Kernel | RecordEvent | WaitEvent
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
    waiting_for: str | None = None
    _wake: simpy.Event | None = None

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
    join: Callable[[int, AllReduce], tuple[CollectiveCost, JointCollective]]
    spans: list[Span] = field(default_factory=list)
    queues: dict[int, StreamQueue] = field(default_factory=dict)

    def start(self, program: Program) -> list[simpy.Process]:
        """Start the host and the streams; the processes end when their work has."""
        self.queues = {stream: StreamQueue(self.env) for stream in (MAIN_STREAM, COMM_STREAM)}
        streams = [self.env.process(self._stream(stream)) for stream in self.queues]
        return [self.env.process(self._host(program)), *streams]

    def _host(self, program: Program) -> Generator[simpy.Event, object, None]:
        """Enqueue every step in program order; eager launches cost host time each, a graph costs once."""
        env, recordings = self.env, dict[str, "simpy.Event"]()
        if not self.eager:
            yield env.timeout(to_ps(self.launch.graph_launch_s))
        for segment, iteration, step in program.steps():
            if self.eager:
                yield env.timeout(to_ps(self._launch_s(step)))
            item = Enqueued(step, segment, iteration, now_ps(env))
            if isinstance(step, RecordEvent):
                item.event = recordings[step.event] = env.event()
            elif isinstance(step, WaitEvent):
                item.event = recordings.get(step.event)
            self.queues[step.stream].push(item)
        for queue in self.queues.values():
            queue.close()

    def _launch_s(self, step: Kernel | RecordEvent | WaitEvent) -> float:
        if not isinstance(step, Kernel):
            return self.launch.eager_event_s
        if isinstance(step.op, AllReduce):
            beside = self.launch.eager_side_collective_s if step.stream == COMM_STREAM else 0.0
            return max(beside, self.launch.eager_collective_s)
        return self.launch.eager_kernel_s

    def _stream(self, stream: int) -> Generator[simpy.Event, object, None]:
        """Run the queue in order; two kernels of a stream are a gap apart."""
        env, queue = self.env, self.queues[stream]
        gap_s = self.launch.eager_kernel_gap_s if self.eager else self.launch.graph_node_gap_s
        gap_ps = to_ps(gap_s + self.launch.kernel_switch_s)
        edge_ps = to_ps(self.launch.graph_edge_s)
        ready_ps = 0
        while True:
            while not queue.items:
                if queue.closed:
                    return
                yield queue.wait()
            item = queue.items.popleft()
            step = item.step
            if isinstance(step, RecordEvent):
                if item.event is not None:
                    item.event.succeed(env.now)
                continue
            what = step.name if isinstance(step, Kernel) else f"event {step.event}"
            queue.waiting_for = f"{item.segment}[{item.iteration}] {what}"
            if isinstance(step, WaitEvent):
                ready_ps = max(ready_ps, (yield from self._wait(item, step)) + edge_ps)
            else:
                yield from self._kernel(item, step, ready_ps)
                ready_ps = now_ps(env) + gap_ps
            queue.waiting_for = None

    def _wait(self, item: Enqueued, step: WaitEvent) -> Generator[simpy.Event, object, int]:
        """Stand still until the event's recording has completed; returns when that was."""
        begin_ps = now_ps(self.env)
        if item.event is None:
            return 0
        if not item.event.processed:
            yield item.event
        if self.env.now > begin_ps:
            self._record(item, step.event, step.category, step.stream, begin_ps, SpanKind.WAIT)
        recorded_ps = item.event.value
        assert isinstance(recorded_ps, int)
        return recorded_ps

    def _kernel(self, item: Enqueued, step: Kernel, ready_ps: int) -> Generator[simpy.Event, object, None]:
        env = self.env
        if ready_ps > env.now:
            yield env.timeout(ready_ps - env.now)
        start_ps, priority = now_ps(env), PRIORITY[step.stream]
        kind, alone_s, detail = SpanKind.COMPUTE, 0.0, ""
        if isinstance(step.op, AllReduce):
            cost, joint = self.join(self.number, step.op)
            kind, alone_s, detail = SpanKind.COLLECTIVE, cost.busy_s, cost.detail
            dispatch_s = min(cost.busy_s, self.device.contention.collective_dispatch_s)
            yield env.timeout(to_ps(dispatch_s))
            self.device.launch_collective(cost, joint, priority)
            yield joint.finished
        else:
            kernel_cost = self.cost_of(step.op)
            alone_s, detail = kernel_cost.busy_s, kernel_cost.detail
            yield self.device.launch(kernel_cost, priority)
        self._record(item, step.name, step.category, step.stream, start_ps, kind, alone_s, detail, step.op)

    def _record(
        self,
        item: Enqueued,
        name: str,
        category: Category,
        stream: int,
        start_ps: int,
        kind: SpanKind,
        alone_s: float = 0.0,
        detail: str = "",
        op: Op | None = None,
    ) -> None:
        self.spans.append(
            Span(
                kind, name, category, self.number, stream, item.segment, item.iteration,
                start_ps, now_ps(self.env), item.queued_ps, alone_s, detail, op,
            )
        )  # fmt: skip
