"""A replica as a SimPy process: it takes step after step, steps alike at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, Final

from simpy import Interrupt

from kraken_sim.errors import KrakenSimError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from simpy import Environment, Event, Process

    from kraken_sim.serving.plan import Sequence, StepPlan
    from kraken_sim.serving.scheduler import Scheduler
    from kraken_sim.serving.steps import StepTimes, Stretch

MOST_SAMPLES: Final = 4096
"""Points of the queue over time that are kept, then every other one goes; a choice of ours."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step, or several alike in a row: what was planned by the requests' numbers, and when it was done."""

    start_s: float
    end_s: float
    count: int
    decoding: tuple[int, ...]
    chunks: tuple[tuple[int, int, int], ...]
    """Of each chunk the request, the tokens before it, its tokens."""


@dataclass(slots=True)
class Samples:
    """The queue over time: waiting, running, used blocks at some moments."""

    times_s: list[float] = field(default_factory=list)
    states: list[tuple[int, int, int]] = field(default_factory=list)
    _every: int = 1
    _seen: int = 0

    def take(self, time_s: float, scheduler: Scheduler) -> None:
        """Keeps the moment, or leaves it out for there are enough."""
        self._seen += 1
        if self._seen % self._every:
            return
        self.times_s.append(time_s)
        self.states.append((len(scheduler.waiting), scheduler.num_running, scheduler.used_blocks))
        if len(self.times_s) >= MOST_SAMPLES:
            self.times_s, self.states = self.times_s[::2], self.states[::2]
            self._every *= 2


@dataclass(slots=True)
class Account:
    """What a replica did: seconds and joules of its steps, their number, tokens computed and generated.

    `prompt_s` of the seconds are for prompts: what steps with them take more than without.
    """

    busy_s: float = 0.0
    energy_j: float = 0.0
    steps: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    swap_s: float = 0.0
    prompt_s: float = 0.0


@dataclass(slots=True)
class Replica:
    """One replica of a service. `done` is told of every sequence that finishes, with its time.

    `swap_s_per_token` is what a token's cache takes to the host or back. With `record` every step is kept.
    """

    env: Environment
    scheduler: Scheduler
    times: StepTimes
    done: Callable[[Sequence, float], None]
    swap_s_per_token: float = 0.0
    record: list[StepRecord] | None = None
    samples: Samples = field(default_factory=Samples)
    account: Account = field(default_factory=Account)
    process: Process | None = None
    failure: KrakenSimError | None = None
    _idle: Event | None = None
    _stretch: tuple[float, Stretch, int] | None = None
    """Start, line and number of the steps under way at once."""

    def start(self) -> None:
        """Begins to serve."""
        self.process = self.env.process(self._watched())

    def _watched(self) -> Generator[Event, Any, None]:
        """Serves until there is nothing to do, or a step cannot be."""
        try:
            yield from self._serve()
        except KrakenSimError as error:
            # SimPy would raise another one of its kind, made of its words alone.
            self.failure = error

    def submit(self, sequence: Sequence) -> None:
        """A sequence arrives: it joins at the end of the step under way."""
        scheduler = self.scheduler
        first = not scheduler.waiting
        scheduler.submit(sequence)
        if self._idle is not None:
            self._idle.succeed()
            self._idle = None
        elif self._stretch is not None and first and scheduler.can_admit(sequence):
            assert self.process is not None
            self._stretch = None
            self.process.interrupt()

    def _serve(self) -> Generator[Event, Any, None]:
        scheduler, env = self.scheduler, self.env
        while True:
            plan = scheduler.plan()
            self.samples.take(env.now, scheduler)
            if plan is None:
                self._idle = env.event()
                yield self._idle
                continue
            start_s = env.now
            if plan.swapped_tokens:
                pause_s = plan.swapped_tokens * self.swap_s_per_token
                self.account.swap_s += pause_s
                if pause_s:
                    yield env.timeout(pause_s)
            if plan.chunks:
                seconds, watts = self.times.mixed(plan.batch, plan.cache_tokens, plan.chunks)
                yield env.timeout(seconds)
                self._finish(plan, start_s, 1, seconds, watts)
            elif plan.batch:
                yield from self._decode(plan, start_s)

    def _decode(self, plan: StepPlan, start_s: float) -> Generator[Event, Any, None]:
        """Steps of decoding sequences alone, until one finishes, blocks run out or a sequence comes."""
        env = self.env
        line = self.times.decode(plan.batch, plan.cache_tokens)
        count, begin_s = min(self.scheduler.stretch(), line.steps), env.now
        if count == 1:
            yield env.timeout(line.first_s)
        else:
            self._stretch = (begin_s, line, count)
            try:
                yield env.timeout(line.seconds(count))
                self._stretch = None
            except Interrupt:
                count = min(count, steps_in(line, env.now - begin_s))
                yield env.timeout(max(0.0, begin_s + line.seconds(count) - env.now))
        self._finish(plan, start_s, count, line.seconds(count), line.watts)

    def _finish(self, plan: StepPlan, start_s: float, count: int, seconds: float, watts: float) -> None:
        account, now = self.account, self.env.now
        account.busy_s += seconds
        account.energy_j += seconds * watts
        account.steps += count
        account.computed_tokens += sum(chunk.num_tokens for chunk in plan.chunks)
        if plan.chunks:
            without_s = self.times.decode(plan.batch, plan.cache_tokens).first_s if plan.batch else 0.0
            account.prompt_s += max(0.0, seconds - without_s)
        if self.record is not None:
            chunks = tuple((chunk.sequence.index, chunk.start, chunk.num_tokens) for chunk in plan.chunks)
            decoding = tuple(self.scheduler.decoding)[: plan.batch] if plan.batch else ()
            self.record.append(StepRecord(start_s, now, count, decoding, chunks))
        first, finished = self.scheduler.complete(plan, count)
        account.generated_tokens += count * plan.batch
        for sequence in first:
            sequence.first_token_s = now
        account.generated_tokens += sum(chunk.sequence.computed >= chunk.sequence.to_compute for chunk in plan.chunks)
        for sequence in finished:
            self.done(sequence, now)


def steps_in(line: Stretch, seconds: float) -> int:
    """The steps of a line that have begun by then: at the end of the last of them something new may join."""
    if seconds <= 0.0:
        return 1
    first, more = line.first_s, line.more_s
    if more <= 0.0:
        return max(1, ceil(seconds / first - 1e-9))
    middle = first - 0.5 * more
    count = max(1, int((-middle + sqrt(middle * middle + 2.0 * more * seconds)) / more))
    while line.seconds(count) < seconds * (1.0 - 1e-12):
        count += 1
    return count
