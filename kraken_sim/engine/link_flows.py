"""Collectives and transfers that start when they like and share links while they last, by events.

A job waits out its latency, then its bytes flow at the max-min fair rate, which changes whenever another job's
bytes begin or end to flow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import simpy

from kraken_sim.engine.clock import set_timer, to_ps, to_s
from kraken_sim.engine.resident import DONE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from kraken_sim.costs.fair import Flow
    from kraken_sim.engine.clock import Clock


@dataclass(frozen=True, slots=True)
class LinkJob:
    """One thing to move: it starts at `start_s`, and alone it takes `latency_s` and then `transfer_s`."""

    start_s: float
    latency_s: float
    transfer_s: float
    flow: Flow


@dataclass(slots=True, eq=False)
class _Moving:
    flow: Flow
    finished: simpy.Event
    remaining_s: float
    """Transfer time left, at the pace alone."""
    speed: float = 1.0


@dataclass(slots=True)
class _Links:
    """The transfers under way and a timer set to the end of the first of them."""

    env: Clock
    speeds: Callable[[Sequence[Flow]], Sequence[float]]
    moving: list[_Moving] = field(default_factory=list)
    _updated_ps: int = 0
    _timer: int = 0

    def begin(self, job: LinkJob) -> simpy.Event:
        """Bytes begin to flow; the event succeeds when the last has arrived."""
        self._advance()
        entry = _Moving(job.flow, self.env.event(), job.transfer_s)
        self.moving.append(entry)
        self._settle()
        return entry.finished

    def _advance(self) -> None:
        now = self.env.now
        for entry in self.moving:
            entry.remaining_s -= to_s(now - self._updated_ps) * entry.speed
        self._updated_ps = now

    def _settle(self) -> None:
        """Retire what has ended, divide the links among the rest and set the timer anew."""
        for entry in [entry for entry in self.moving if entry.remaining_s <= DONE_S]:
            self.moving.remove(entry)
            entry.finished.succeed()
        self._timer += 1
        if not self.moving:
            return
        for entry, speed in zip(self.moving, self.speeds([entry.flow for entry in self.moving]), strict=True):
            entry.speed = speed
        # At least one tick, or the rounding of a time to come could keep the clock where it is.
        delay_ps = max(1, to_ps(min(entry.remaining_s / entry.speed for entry in self.moving)))
        set_timer(self.env, delay_ps, partial(self._expire, self._timer))

    def _expire(self, timer: int, _: simpy.Event) -> None:
        if timer == self._timer:
            self._advance()
            self._settle()


def run_link_jobs(jobs: Sequence[LinkJob], speeds: Callable[[Sequence[Flow]], Sequence[float]]) -> list[float]:
    """When each job ends, in seconds; `speeds` says what each of several flows at once keeps of its pace alone."""
    env: Any = simpy.Environment(initial_time=0)
    links = _Links(env, speeds)

    ends_s = [0.0] * len(jobs)

    def process(index: int, job: LinkJob) -> Generator[simpy.Event, object, None]:
        yield env.timeout(to_ps(job.start_s) + to_ps(job.latency_s))
        if job.transfer_s > DONE_S:
            yield links.begin(job)
        ends_s[index] = to_s(env.now)

    processes = [env.process(process(index, job)) for index, job in enumerate(jobs)]
    env.run(until=env.all_of(processes))
    return ends_s
