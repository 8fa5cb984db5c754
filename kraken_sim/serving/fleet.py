"""Several replicas behind a router, and prefill on machines of its own where a service is split."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np
from simpy import Environment, Resource
from simpy.core import EmptySchedule

from kraken_sim.serving.plan import Sequence
from kraken_sim.serving.replica import Replica, StepRecord
from kraken_sim.serving.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Generator
    from collections.abc import Sequence as Many
    from typing import Any

    from numpy.typing import NDArray
    from simpy import Event

    from kraken_sim.serving.arrivals import Requests
    from kraken_sim.serving.plan import SchedulerRules
    from kraken_sim.serving.replica import Account, Samples
    from kraken_sim.serving.steps import StepTimes


TOLD_EVERY: Final = 20_000
"""Events after which it is told how many requests are answered, some tenths of a second; a choice of ours."""

Tell = Callable[[int, int], None]
"""Who is told of how far a simulation is: requests that are answered, and all of them."""

Done = Callable[[Sequence, float], None]
"""Who is told of a sequence that finishes, and when."""


class Routing(StrEnum):
    """Which replica a request goes to: one after the other, or the one with the fewest unfinished requests."""

    ROUND_ROBIN = "round_robin"
    LEAST_LOAD = "least_load"


@dataclass(frozen=True, slots=True)
class ReplicaPool:
    """Replicas alike."""

    times: StepTimes
    rules: SchedulerRules
    count: int = 1
    swap_s_per_token: float = 0.0


@dataclass(frozen=True, slots=True)
class Handover:
    """A link on which a prefill replica sends caches, one after the other: seconds of each, and of each token."""

    latency_s: float
    token_s: float


@dataclass(frozen=True, slots=True)
class Served:
    """What became of the requests, in the order of arrival, and of the replicas, those of prefill first."""

    requests: Requests
    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    preemptions: int
    accounts: tuple[Account, ...]
    samples: tuple[Samples, ...]
    num_prefill: int = 0
    steps: tuple[tuple[StepRecord, ...], ...] = ()

    @property
    def ttft_s(self) -> NDArray[np.float64]:
        """From arrival to the first token."""
        return self.first_token_s - self.requests.arrival_s

    @property
    def e2e_s(self) -> NDArray[np.float64]:
        """From arrival to the last token."""
        return self.finish_s - self.requests.arrival_s

    @property
    def tpot_s(self) -> NDArray[np.float64]:
        """Mean time from token to token of each request; not a number where there is one token."""
        further = np.maximum(self.requests.output_tokens - 1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(further > 0, (self.finish_s - self.first_token_s) / further, np.nan)

    @property
    def span_s(self) -> float:
        """From the first arrival to the last token."""
        return float(self.finish_s.max() - self.requests.arrival_s[0])


def serve_requests(
    requests: Requests,
    pool: ReplicaPool,
    routing: Routing = Routing.ROUND_ROBIN,
    prefill: ReplicaPool | None = None,
    handover: Handover | None = None,
    *,
    record: bool = False,
    tell: Tell | None = None,
) -> Served:
    """Simulates the requests on the replicas of a pool; with `prefill` these only decode what that pool hands over.

    `tell` is called now and then with how many of how many requests are answered.
    """
    return _Fleet(requests, pool, routing, prefill, handover, record, tell).run()


@dataclass(slots=True)
class _Group:
    """Replicas alike, and how many requests each of them has not finished."""

    routing: Routing
    unfinished: list[int]
    replicas: list[Replica] = field(default_factory=list)
    turn: int = 0

    def from_the_first(self) -> _Group:
        """The same replicas and their counts, with turns of one's own."""
        return replace(self, turn=0)

    def submit(self, sequence: Sequence) -> None:
        """To the replica whose turn it is, or to the first of those with the fewest unfinished requests."""
        if self.routing is Routing.ROUND_ROBIN:
            at, self.turn = self.turn, (self.turn + 1) % len(self.replicas)
        else:
            at = self.unfinished.index(min(self.unfinished))
        self.unfinished[at] += 1
        self.replicas[at].submit(sequence)

    def counting(self, index: int, tell: Done) -> Done:
        """What a replica tells of a sequence that finishes there."""

        def done(sequence: Sequence, now: float) -> None:
            self.unfinished[index] -= 1
            tell(sequence, now)

        return done


@dataclass(slots=True)
class _Fleet:
    requests: Requests
    pool: ReplicaPool
    routing: Routing
    prefill: ReplicaPool | None
    handover: Handover | None
    record: bool
    tell: Tell | None = None
    env: Environment = field(default_factory=Environment)
    front: _Group = field(init=False)
    back: _Group = field(init=False)

    def run(self) -> Served:
        number = len(self.requests.arrival_s)
        first, finish = np.zeros(number), np.zeros(number)
        preemptions = answered = 0

        def finished(sequence: Sequence, now: float) -> None:
            nonlocal preemptions, answered
            answered += 1
            first[sequence.index], finish[sequence.index] = sequence.first_token_s, now
            preemptions += sequence.preemptions

        self.back = self.front = self._group(self.pool, [finished] * self.pool.count)
        if self.prefill is not None:
            links = [Resource(self.env) for _ in range(self.prefill.count)]
            self.front = self._group(self.prefill, [self._hand_over(link, finished) for link in links])
        before = self.front.replicas if self.prefill is not None else []
        replicas = [*before, *self.back.replicas]
        for replica in replicas:
            replica.start()
        self.env.process(self._arrive(self.front))
        self._until_all_is_done(lambda: answered)
        for replica in replicas:
            if replica.failure is not None:
                raise replica.failure
        return Served(
            self.requests,
            first,
            finish,
            preemptions,
            tuple(replica.account for replica in replicas),
            tuple(replica.samples for replica in replicas),
            len(before),
            tuple(tuple(replica.record or ()) for replica in replicas),
        )

    def _until_all_is_done(self, answered: Callable[[], int]) -> None:
        """Takes every event, and tells now and then."""
        with suppress(EmptySchedule):
            while True:
                for _ in range(TOLD_EVERY):
                    self.env.step()
                if self.tell is not None:
                    self.tell(answered(), len(self.requests.arrival_s))

    def _group(self, pool: ReplicaPool, done: Many[Done]) -> _Group:
        group = _Group(self.routing, [0] * pool.count)
        group.replicas = [self._replica(pool, group.counting(index, tell)) for index, tell in enumerate(done)]
        return group

    def _replica(self, pool: ReplicaPool, done: Done) -> Replica:
        record: list[StepRecord] | None = [] if self.record else None
        return Replica(self.env, Scheduler(pool.rules), pool.times, done, pool.swap_s_per_token, record)

    def _arrive(self, group: _Group) -> Generator[Event, Any, None]:
        env, requests = self.env, self.requests
        prompts, outputs = requests.prompt_tokens.tolist(), requests.output_tokens.tolist()
        for index, arrival_s in enumerate(requests.arrival_s.tolist()):
            if arrival_s > env.now:
                yield env.timeout(arrival_s - env.now)
            sequence = Sequence(index, prompts[index], outputs[index], arrival_s)
            group.submit(sequence)

    def _hand_over(self, link: Resource, finished: Done) -> Done:
        turns = self.back.from_the_first()

        def send(sequence: Sequence) -> Generator[Event, Any, None]:
            assert self.handover is not None
            with link.request() as turn_on_link:
                yield turn_on_link
                yield self.env.timeout(self.handover.latency_s + sequence.prompt * self.handover.token_s)
            sequence.cached, sequence.to_compute = True, sequence.prompt
            turns.submit(sequence)

        def done(sequence: Sequence, now: float) -> None:
            if sequence.generated >= sequence.output:
                finished(sequence, now)
            else:
                self.env.process(send(sequence))

        return done
