"""The host of a rank, which enqueues a program, and the streams that run it, on SimPy's clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from kraken_sim.costs.host import host_share
from kraken_sim.engine.clock import set_timer, to_ps
from kraken_sim.engine.timeline import Span, SpanKind
from kraken_sim.program.ops import Collective
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Kernel, RecordEvent, WaitEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import simpy

    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.engine.clock import Clock
    from kraken_sim.engine.collective import JointCollective
    from kraken_sim.engine.device import DeviceState
    from kraken_sim.hardware.device import LaunchCosts
    from kraken_sim.program.ops import ComputeOp, Op
    from kraken_sim.program.program import Category, Program, Step


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


@dataclass(slots=True, eq=False)
class RankStream:
    """Runs in order what the host enqueues; two kernels are a gap apart.

    What it waits for calls the method that goes on from there: a SimPy process without its generator, which would cost
    more than what a kernel does.
    """

    rank: Rank
    number: int
    gap_ps: int
    edge_ps: int
    ready_ps: int
    """Its next kernel starts no earlier."""
    left: int
    """Steps that it has still to take."""
    items: deque[int] = field(default_factory=deque)
    """What is enqueued, by the numbers of their launches."""
    item: QueuedStep | None = None
    """The kernel or wait that it is at."""
    end_ps: int = 0
    """The last step that it ran had ended."""
    ended: bool = False
    """It has run all of its steps."""
    _asleep: bool = False
    """Nothing was enqueued when it asked; the next step wakes it."""
    _number: int = 0
    """Of the launch of the step that it has taken last."""
    _begin_ps: int = 0
    """Its kernel or wait began."""
    _cost: Any = None
    """Of its kernel."""
    _joint: JointCollective | None = None
    """Its kernel's collective."""

    @property
    def waiting_for(self) -> str | None:
        """What the stream is at, in words."""
        if self.item is None:
            return None
        step, segment, iteration, _ = self.item
        what = step.name if isinstance(step, Kernel) else f"event {step.event}"
        return f"{segment}[{iteration}] {what}"

    def push(self, number: int) -> None:
        """Enqueue one step."""
        self.items.append(number)
        if self._asleep:
            self._asleep = False
            set_timer(self.rank.env, 0, self.take)

    def take(self, _: simpy.Event | None = None) -> None:
        """Run steps until one takes time, or none is there."""
        rank, items = self.rank, self.items
        env = rank.env
        while items:
            self._number = number = items.popleft()
            self.left -= 1
            rank.asked_ps[number] = self.end_ps
            item, event = rank.launches[number], rank.events[number]
            step = item.step
            if isinstance(step, Kernel):
                self.item = item
                # Later even where it is now: the device may be in the midst of ending the kernel before it.
                set_timer(env, max(0, self.ready_ps - env.now), self._start)
                return
            if isinstance(step, WaitEvent):
                if event is not None and not event.processed:
                    self.item, self._begin_ps = item, env.now
                    event.callbacks.append(self._recorded)
                    return
                self._not_before(event)
            elif event is not None:
                event.succeed(env.now)
            self.end_ps = env.now
        self.ended = self.left == 0
        self._asleep = self.left > 0

    def _not_before(self, event: simpy.Event | None) -> None:
        recorded_ps: Any = 0 if event is None else event.value
        self.ready_ps = max(self.ready_ps, recorded_ps + self.edge_ps)

    def _recorded(self, event: simpy.Event) -> None:
        """What the stream waited for has completed."""
        now = self.rank.env.now
        if self.item is not None and now > self._begin_ps and self.number == MAIN_STREAM:
            step = self.item.step
            assert isinstance(step, WaitEvent)
            self._record(self.item, step.event, step.category, now, SpanKind.WAIT)
        self._not_before(event)
        self._go_on(now)

    def _start(self, _: simpy.Event) -> None:
        """Its kernel begins."""
        rank, op = self.rank, self._kernel.op
        self._begin_ps = rank.env.now
        if isinstance(op, Collective):
            self._cost, self._joint = rank.join(rank.number, op)
            dispatch_s = min(self._cost.busy_s, rank.device.contention.collective_dispatch_s)
            set_timer(rank.env, to_ps(dispatch_s), self._dispatched)
        else:
            self._cost = rank.cost_of(op)
            if rank.runs_alone(self):
                set_timer(rank.env, rank.device.shape_of(self._cost).alone_ps, self._finished)
            else:
                rank.device.launch(self._cost, self._finished)

    def _dispatched(self, _: simpy.Event) -> None:
        """Its collective may take SMs."""
        assert self._joint is not None
        self.rank.device.launch_collective(self._cost, self._joint)
        self._joint.finished.callbacks.append(self._finished)

    def _finished(self, _: simpy.Event | None = None) -> None:
        """Its kernel has ended."""
        now = self.rank.env.now
        kernel, cost = self._kernel, self._cost
        kind = SpanKind.COMPUTE if self._joint is None else SpanKind.COLLECTIVE
        assert self.item is not None
        self._record(self.item, kernel.name, kernel.category, now, kind, cost.busy_s, cost.detail, kernel.op)
        self._joint = None
        self.ready_ps = now + self.gap_ps
        self._go_on(now)

    @property
    def _kernel(self) -> Kernel:
        assert self.item is not None
        step = self.item.step
        assert isinstance(step, Kernel)
        return step

    def _go_on(self, now: int) -> None:
        self.item, self.end_ps = None, now
        self.take()

    def _record(
        self,
        item: QueuedStep,
        name: str,
        category: Category,
        end_ps: int,
        kind: SpanKind,
        busy_s: float = 0.0,
        detail: str = "",
        op: Op | None = None,
    ) -> None:
        _, segment, iteration, queued_ps = item
        span = Span(
            kind, name, category, self.rank.number, self.number, segment, iteration,
            self._begin_ps, end_ps, queued_ps, busy_s, detail, op,
        )  # fmt: skip
        self.rank.spans.append((self._number, span))


@dataclass(slots=True, eq=False)
class Rank:
    """One rank: its host, its streams and its device."""

    env: Clock
    number: int
    device: DeviceState
    launch: LaunchCosts
    eager: bool
    alone: bool
    """Kernels that nothing can come beside any more take their time alone, without the device's events."""
    cost_of: Callable[[ComputeOp], KernelCost]
    join: Callable[[int, Collective], tuple[CollectiveCost, JointCollective]]
    spans: list[tuple[int, Span]] = field(default_factory=list)
    """With the number of the launch they belong to."""
    asked_ps: list[int] = field(default_factory=list)
    """By launch, when its stream was ready to take it."""
    streams: dict[int, RankStream] = field(default_factory=dict)
    launches: Sequence[QueuedStep] = ()
    events: list[simpy.Event | None] = field(default_factory=list)
    """By launch, the recording that it makes or waits for."""
    _num_enqueued: int = 0

    def start(self, launches: Sequence[QueuedStep], ready_ps: Mapping[int, int]) -> None:
        """Start the host and the streams.

        Args:
            launches: what the host enqueues; see `QueuedStep`.
            ready_ps: by stream, when its first kernel may start; streams that have run nothing may at once.
        """
        gap_ps, edge_ps = node_gap_ps(self.launch, eager=self.eager), to_ps(self.launch.graph_edge_s)
        on_side = sum([launch.step.stream != MAIN_STREAM for launch in launches])
        self.streams = {
            stream: RankStream(self, stream, gap_ps, edge_ps, ready_ps.get(stream, 0), left)
            for stream, left in ((MAIN_STREAM, len(launches) - on_side), (COMM_STREAM, on_side))
        }
        self.launches, self.asked_ps = launches, [0] * len(launches)
        self.events = self._recordings(launches)
        self._enqueue()
        for stream in self.streams.values():
            stream.take()

    def _recordings(self, launches: Sequence[QueuedStep]) -> list[simpy.Event | None]:
        """What launches make, or wait for: a wait is for the last recording before it."""
        recordings: dict[str, simpy.Event] = {}
        found: list[simpy.Event | None] = [None] * len(launches)
        for number, launch in enumerate(launches):
            step = launch.step
            if isinstance(step, RecordEvent):
                found[number] = recordings[step.event] = self.env.event()
            elif isinstance(step, WaitEvent):
                found[number] = recordings.get(step.event)
        return found

    def _enqueue(self, _: simpy.Event | None = None) -> None:
        """Every step whose time has come."""
        launches, streams, now = self.launches, self.streams, self.env.now
        for number in range(self._num_enqueued, len(launches)):
            step, _segment, _iteration, queued_ps = launches[number]
            if queued_ps > now:
                self._num_enqueued = number
                set_timer(self.env, queued_ps - now, self._enqueue)
                return
            streams[step.stream].push(number)

    def runs_alone(self, stream: RankStream) -> bool:
        """Whether the next kernel of a stream starts on an idle device and no other stream has anything to come."""
        device = self.device
        if not self.alone or device.compute or device.collectives:
            return False
        return all(other.ended for other in self.streams.values() if other is not stream)
