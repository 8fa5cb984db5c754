"""A whole answer: the prompt's prefill, then a decode step for every further token, on a cache that grows.

Only some decode steps are simulated, at most `MOST_ANCHORS`. In a step nothing but its attention kernels changes with
the cache, and these are priced at every length: between two simulated steps the time is a line, and upon it comes what
the price of attention there lies above or below its own line. So splits, waves and tiles, where that price jumps, are
where they are. How much of a second of attention the step feels (none where it waits for the host) is a line fitted to
the simulated steps. What is left out is how the clock under load changes from jump to jump.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kraken_sim.architectures.workload import Phase
from kraken_sim.predict.metrics import Totals
from kraken_sim.predict.prediction import Prediction
from kraken_sim.program.ops import Attention
from kraken_sim.program.program import Category

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from kraken_sim.predict.prepared import Prepared
    from kraken_sim.scenario.spec import Scenario

MOST_ANCHORS: Final = 9
"""Decode steps of an answer that are simulated; a choice of ours: with as many the sum is within 0.1 % of that of all
steps simulated (tests/test_generation.py)."""

MOST_PRICED: Final = 4096
"""Positions of an answer at which attention is priced, evenly spread; a choice of ours."""


@dataclass(frozen=True, repr=False)
class Generation(Prediction):
    """The answer to a scenario that generates; `latency_s`, the breakdown and the sums are of the whole answer.

    `prepared` and `timeline` are those of the prompt's prefill in one step. `prefill` has the steps that the prompt
    takes, `decode` the simulated decode steps with the cached tokens that each starts from.
    """

    prefill: tuple[Prediction, ...] = ()
    decode: tuple[tuple[int, Prediction], ...] = ()
    exact: bool = False

    @property
    def output_length(self) -> int:
        """Tokens a sequence answers with."""
        assert self.scenario.output_length is not None  # checked with the scenario
        return self.scenario.output_length

    @property
    def ttft_s(self) -> float:
        """From the request to the first token: all steps of the prompt."""
        return sum(step.latency_s for step in self.prefill)

    @property
    def tpot_s(self) -> float | None:
        """Mean time from token to token; None for a single one."""
        times = self.tpot_by_position_s
        return sum(times) / len(times) if times else None

    @property
    def e2e_s(self) -> float:
        """From the request to the last token."""
        return self.ttft_s + sum(self.tpot_by_position_s)

    @property
    def latency_s(self) -> float:
        """The whole answer."""
        return self.e2e_s

    @property
    def period_s(self) -> float:
        """The same: every step waits for the token of the one before."""
        return self.e2e_s

    @property
    def tokens_per_s(self) -> float:
        """Tokens of all sequences over the time of the whole answer."""
        return self.scenario.batch_size * self.output_length / self.e2e_s

    @cached_property
    def tpot_by_position_s(self) -> tuple[float, ...]:
        """The time of every token after the first."""
        if not self.decode:
            return ()
        return tuple((self._shares @ self._latencies_s + self._jumps_s).tolist())

    @cached_property
    def steps(self) -> Sequence[tuple[float, Prediction]]:
        """The simulated steps, each with how many it stands for."""
        weights = self._shares.sum(axis=0) if self.decode else ()
        return (
            *((1.0, step) for step in self.prefill),
            *((float(weight), step) for weight, (_, step) in zip(weights, self.decode, strict=True)),
        )

    @cached_property
    def totals(self) -> Totals:
        """All sums over all steps."""
        found = Totals()
        for weight, step in self.steps:
            _accumulate(found, step.totals, weight)
        jumps_s = float(self._jumps_s.sum())
        found.breakdown_s[Category.ATTENTION] += jumps_s
        found.blocks_s["attention"] += jumps_s
        return found

    @property
    def slowdown(self) -> float:
        """That of the steps, by the time they take."""
        return sum(weight * step.latency_s * step.slowdown for weight, step in self.steps) / self.e2e_s

    @cached_property
    def hosts_s(self) -> tuple[float, float] | None:
        """The latency on the fastest and on the slowest hosts, of all steps."""
        ends = [(weight, step.hosts_s) for weight, step in self.steps]
        if any(hosts is None for _, hosts in ends):
            return None
        low, high = (sum(weight * hosts[end] for weight, hosts in ends if hosts is not None) for end in (0, 1))
        return low, high

    def as_dict(self) -> dict[str, Any]:
        """The same under the same names, for JSON, with the times of the whole answer."""
        return {
            **super().as_dict(),
            "output_length": self.output_length,
            "e2e_s": self.e2e_s,
            "tokens_per_s": self.tokens_per_s,
            "num_prefill_steps": len(self.prefill),
            "tpot_by_position_s": list(self.tpot_by_position_s),
        }

    @cached_property
    def _positions(self) -> NDArray[np.int64]:
        """Cached tokens that each decode step starts from."""
        return np.arange(self.decode[0][0], self.decode[-1][0] + 1)

    @cached_property
    def _anchors(self) -> NDArray[np.int64]:
        """Those of the simulated ones."""
        return np.array([cached for cached, _ in self.decode])

    @cached_property
    def _latencies_s(self) -> NDArray[np.float64]:
        """Times of the simulated decode steps."""
        return np.array([step.latency_s for _, step in self.decode])

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        """[decode steps, simulated ones]: a line between two of them; rows add up to 1."""
        unit = np.eye(len(self._anchors))
        columns = [np.interp(self._positions, self._anchors, row).astype(np.float64) for row in unit]
        return np.stack(columns, axis=1)

    @cached_property
    def _jumps_s(self) -> NDArray[np.float64]:
        """How far each decode step is from the line between two simulated ones, as the price of attention is."""
        if not self.decode:
            return np.zeros(0)
        prices = _attention_s(self.decode[0][1].prepared, self._positions)
        at_anchors = prices[self._anchors - self._anchors[0]]
        spread = at_anchors - at_anchors.mean()
        if not np.any(spread):
            return np.zeros(len(prices))
        felt = float(spread @ self._latencies_s / (spread @ spread))
        jumps: NDArray[np.float64] = felt * (prices - self._shares @ at_anchors)
        return jumps


def answered(prepared: Prepared, *, exact: bool = False) -> Prediction:
    """The answer of a prepared question, a `Generation` where it generates; `exact` as in `Prepared.run`."""
    if prepared.scenario.phase is Phase.GENERATE:
        return generation(prepared, exact=exact)
    return Prediction(prepared, prepared.run(exact=exact))


def generation(prepared: Prepared, *, exact: bool = False, every_step: bool = False) -> Generation:
    """The answer to a scenario that generates.

    Args:
        prepared: what `Predictor.prepare` made of it.
        exact: see `Prepared.run`.
        every_step: simulate every decode step instead of some of them.
    """

    def step(scenario: Scenario) -> Prediction:
        ready = prepared.again(scenario)
        return Prediction(ready, ready.run(exact=exact))

    scenario = prepared.scenario
    prefill = tuple(step(chunk) for chunk in prefill_steps(scenario))
    first, last = scenario.context_length, scenario.context_length + (scenario.output_length or 1) - 2
    anchors = _anchors(first, last, last - first + 1 if every_step else MOST_ANCHORS)
    decode = tuple((cached, step(_single(scenario, Phase.DECODE, context_length=cached))) for cached in anchors)
    whole = prefill[0].timeline if len(prefill) == 1 else prepared.run(exact=exact)
    return Generation(prepared, whole, prefill=prefill, decode=decode, exact=exact)


def prefill_steps(scenario: Scenario) -> Iterator[Scenario]:
    """The prompt's steps: one, or chunks of at most `runtime.max_num_batched_tokens` tokens of all sequences."""
    start, end = scenario.prefix_length, scenario.context_length
    budget = scenario.runtime.max_num_batched_tokens
    chunk = end - start if budget is None else max(1, budget // scenario.batch_size)
    for before in range(start, end, chunk):
        yield _single(scenario, Phase.PREFILL, context_length=min(end, before + chunk), prefix_length=before)


def _single(scenario: Scenario, phase: Phase, **lengths: int) -> Scenario:
    """One step of a generation as a question of its own."""
    runtime = scenario.runtime
    if runtime.max_num_batched_tokens is not None:
        runtime = runtime.model_copy(update={"max_num_batched_tokens": None})
    return scenario.model_copy(update={"phase": phase, "output_length": None, "runtime": runtime, **lengths})


def _anchors(first: int, last: int, most: int) -> list[int]:
    """At most so many positions, the first and the last among them, evenly spread."""
    if last < first:
        return []
    count = min(most, last - first + 1)
    return sorted({round(value) for value in np.linspace(first, last, count)})


def _attention_s(prepared: Prepared, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Price of a decode step's attention kernels at every number of cached tokens, at the boost clock."""
    ops: dict[Attention, int] = {}
    for segment in prepared.program.segments:
        for kernel in segment.kernels:
            if isinstance(kernel.op, Attention):
                ops[kernel.op] = ops.get(kernel.op, 0) + segment.repeat
    stride = ceil(len(positions) / MOST_PRICED)
    some = sorted({*positions[::stride].tolist(), int(positions[-1])})
    prices = [
        sum(count * prepared.pricing.at_boost(replace(op, kv_len=cached + 1)).busy_s for op, count in ops.items())
        for cached in some
    ]
    return np.interp(positions, some, prices)


def _accumulate(found: Totals, more: Totals, weight: float) -> None:
    """Adds `weight` times the sums of a step."""
    for field in fields(Totals):
        ours, theirs = getattr(found, field.name), getattr(more, field.name)
        if isinstance(ours, dict):
            _add_weighted(ours, theirs, weight)
        else:
            setattr(found, field.name, ours + weight * theirs)


def _add_weighted(ours: dict[Any, Any], theirs: Mapping[Any, Any], weight: float) -> None:
    """Adds seconds by name, or by name and kernel."""
    for name, seconds in theirs.items():
        if isinstance(seconds, dict):
            _add_weighted(ours.setdefault(name, {}), seconds, weight)
        else:
            ours[name] = ours.get(name, 0.0) + weight * seconds
