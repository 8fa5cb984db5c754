"""A clock for short simulations: SimPy's order of events without what a window of a few kernels does not need.

`LightEnvironment` runs the same streams and devices as `simpy.Environment`, which stays the reference: it has
the same calls (`timeout`, `event`, `process`) and takes events in the same order, by time, then urgency
(a process starts before anything else of its instant), then the order in which they were scheduled. There are no
failures, interrupts or resources. Tests hold whole timelines of both against each other.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, TypeAlias

from simpy.core import EmptySchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import simpy

    Clock: TypeAlias = "simpy.Environment | LightEnvironment"
    Event: TypeAlias = "simpy.Event | LightEvent"
    Process: TypeAlias = "simpy.Process | LightProcess"

_URGENT, _NORMAL = 0, 1


class StandsStillError(Exception):
    """A clock that does not advance; the arguments are its time and the events so far."""


class LightEvent:
    """Something that happens once; `callbacks` is None after it has."""

    __slots__ = ("_env", "callbacks", "triggered", "value")

    def __init__(self, env: LightEnvironment) -> None:
        self._env = env
        self.callbacks: list[Callable[[LightEvent], object]] | None = []
        self.triggered = False
        self.value: Any = None

    @property
    def processed(self) -> bool:
        """Its callbacks have been called."""
        return self.callbacks is None

    def succeed(self, value: Any = None) -> None:
        """Let it happen at this instant, after what is scheduled already."""
        self.value = value
        self.triggered = True
        self._env.schedule(self, 0, _NORMAL)


class LightProcess:
    """A generator that is resumed by the events it yields."""

    __slots__ = ("_env", "_generator")

    def __init__(self, env: LightEnvironment, generator: Generator[LightEvent, object, None]) -> None:
        self._env = env
        self._generator = generator

    def resume(self, event: LightEvent) -> None:
        """Go on until an event that has not happened yet."""
        send = self._generator.send
        while True:
            try:
                event = send(event.value)
            except StopIteration:
                self._env.num_ended += 1
                return
            if event.callbacks is not None:
                event.callbacks.append(self.resume)
                return


class LightEnvironment:
    """The clock `now`, and the events to come; `num_ended` processes have ended."""

    __slots__ = ("_heap", "_number", "now", "num_ended")

    def __init__(self) -> None:
        self.now = self.num_ended = 0
        self._heap: list[tuple[int, int, int, LightEvent]] = []
        self._number = 0

    def schedule(self, event: LightEvent, delay: int, urgency: int) -> None:
        """Let an event happen `delay` from now."""
        self._number += 1
        heappush(self._heap, (self.now + delay, urgency, self._number, event))

    def timeout(self, delay: int) -> LightEvent:
        """An event that happens `delay` from now."""
        event = LightEvent(self)
        event.triggered = True
        self.schedule(event, delay, _NORMAL)
        return event

    def call_after(self, delay: int, action: Callable[[object], None]) -> None:
        """Call `action` when `delay` has passed."""
        event = LightEvent(self)
        event.callbacks = [action]
        self.schedule(event, delay, _NORMAL)

    def event(self) -> LightEvent:
        """An event that happens once it `succeed`s."""
        return LightEvent(self)

    def process(self, generator: Generator[LightEvent, object, None]) -> LightProcess:
        """Start a process, before anything else at this instant."""
        process = LightProcess(self, generator)
        start = LightEvent(self)
        start.callbacks = [process.resume]
        self.schedule(start, 0, _URGENT)
        return process

    def run(self, num_processes: int, most_per_instant: int) -> int:
        """Take events until this many processes have ended, and return how many events there were.

        Raises:
            simpy.core.EmptySchedule: nothing is left to happen.
            StandsStillError: more than `most_per_instant` events happened at one time.
        """
        heap, num_events, first = self._heap, 0, 0
        while self.num_ended < num_processes:
            if not heap:
                raise EmptySchedule
            time, _, _, event = heappop(heap)
            if time != self.now:
                self.now, first = time, num_events
            num_events += 1
            if num_events - first > most_per_instant:
                raise StandsStillError(self.now, num_events)
            callbacks, event.callbacks = event.callbacks, None
            for callback in callbacks or ():
                callback(event)
        return num_events
