"""How long a step of a service takes, and what it draws, from few simulated ones.

A step of decoding sequences is simulated at a few lengths of the cache for each batch (that of the captured graph it is
padded to), and is a line between them. A step that computes prompts is simulated for its number of tokens, rounded up
a little, as one prompt; what attention and the logits of its own sequences cost instead is priced kernel by kernel, and
counts as far as such a step does not wait for its host. Attention reads all caches of a batch at their mean length, and
takes one chunk of a prompt after the other.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from kraken_sim.architectures.workload import Phase
from kraken_sim.predict.energy import step_energy
from kraken_sim.program.ops import Attention, Gemm
from kraken_sim.program.program import Category
from kraken_sim.scenario.spec import Launch
from kraken_sim.serving.captured import captured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.predict.pipeline import Predictor
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.predict.prepared import Prepared
    from kraken_sim.scenario.spec import Scenario
    from kraken_sim.serving.plan import Chunk

CACHE_NODES: Final = tuple(round(2.0 ** (half / 2.0)) for half in range(8, 49))
"""Cached tokens a sequence at which decode steps are simulated, half a doubling apart; a choice of ours: a line between
them is within 1 % of the step (tests/test_serving_steps.py)."""


class End(StrEnum):
    """Which end of the predictions' 90 % intervals, or their middle."""

    LOW = "low"
    MIDDLE = "middle"
    HIGH = "high"


class Stretch(NamedTuple):
    """Decode steps one after the other: the first one's seconds, how much each takes more than the one before.

    At most `steps` of them are on this line; each draws `watts`.
    """

    first_s: float
    more_s: float
    steps: int
    watts: float

    def seconds(self, count: int) -> float:
        """Time of the first `count` steps."""
        return count * self.first_s + 0.5 * count * (count - 1) * self.more_s


class StepTimes(Protocol):
    """What a replica asks of time."""

    def decode(self, batch: int, cache_tokens: int) -> Stretch:
        """Steps of `batch` sequences whose caches hold so many tokens in all before the first."""
        ...

    def mixed(self, batch: int, cache_tokens: int, chunks: Sequence[Chunk]) -> tuple[float, float]:
        """Seconds and watts of a step that computes chunks of prompts beside them."""
        ...


@dataclass(slots=True)
class _Node:
    seconds: float
    watts: float


@dataclass(slots=True)
class _Base:
    """A step that computes one prompt of so many tokens, and what is priced in it."""

    seconds: float
    watts: float
    felt: float
    """Share of the time in which the device does not wait for its host."""
    prepared: Prepared
    attention: dict[Attention, int]
    heads: dict[Gemm, int]


@dataclass(slots=True)
class PredictedSteps:
    """Steps of one replica, predicted for `scenario`, whose lengths and batch do not matter.

    `host_s` is what the host adds to every step: scheduling, inputs, sampling, answers. `launch_mixed` is how steps
    with prompts are launched. `num_devices` draw what `watts` say together.
    """

    predictor: Predictor
    scenario: Scenario
    host_s: float = 0.0
    launch_mixed: Launch = Launch.GRAPH
    end: End = End.MIDDLE
    max_batch: int = 256
    _decode: dict[tuple[int, int], _Node] = field(default_factory=dict)
    _bases: dict[tuple[int, Launch], _Base] = field(default_factory=dict)
    _prices: dict[tuple[int, int, int], float] = field(default_factory=dict)
    _logits: dict[int, float] = field(default_factory=dict)
    _lines: dict[tuple[int, int], tuple[float, float, float]] = field(default_factory=dict)

    def decode(self, batch: int, cache_tokens: int) -> Stretch:
        """See `StepTimes`."""
        mean = cache_tokens / batch
        place = bisect_right(CACHE_NODES, mean)
        padded = captured(batch) if self.scenario.runtime.launch is Launch.GRAPH else batch
        key = (padded, place)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = self._line(padded, place)
        at, slope, watts = line
        first_s = at + slope * mean
        steps = max(1, int(CACHE_NODES[place] - mean) + 1) if place < len(CACHE_NODES) else 1 << 30
        return Stretch(first_s, slope, steps, watts)

    def _line(self, batch: int, place: int) -> tuple[float, float, float]:
        """Seconds without a cache, seconds a cached token, and watts, between the nodes around a place."""
        right = min(max(place, 1), len(CACHE_NODES) - 1)
        low, high = CACHE_NODES[right - 1], CACHE_NODES[right]
        first, second = self._node(batch, low), self._node(batch, high)
        slope = (second.seconds - first.seconds) / (high - low)
        return self.host_s + first.seconds - slope * low, slope, 0.5 * (first.watts + second.watts)

    def _node(self, batch: int, cached: int) -> _Node:
        if (found := self._decode.get((batch, cached))) is None:
            found = self._decode[batch, cached] = self._simulated(
                self.scenario.model_copy(update={"phase": Phase.DECODE, "batch_size": batch, "context_length": cached})
            )[1]
        return found

    def mixed(self, batch: int, cache_tokens: int, chunks: Sequence[Chunk]) -> tuple[float, float]:
        """See `StepTimes`."""
        tokens = batch + sum(chunk.num_tokens for chunk in chunks)
        own_s = sum(self.attention_s(1, chunk.num_tokens, chunk.start + chunk.num_tokens) for chunk in chunks)
        if batch:
            own_s += self.attention_s(batch, 1, 1 + cache_tokens // batch)
        own_s += self._logits_s(batch + len(chunks)) - self._logits_s(1)
        seconds, watts = self._with(rounded(tokens), own_s)
        return self.host_s + seconds + self._launches_s(rounded(tokens), len(chunks) + bool(batch) - 1), watts

    def felt(self, tokens: int) -> float:
        """Share of its time in which a step of so many tokens does not wait for its host."""
        return self._base(rounded(tokens), self.launch_mixed).felt

    def _launches_s(self, tokens: int, groups: int) -> float:
        """What a host adds that launches attention of so many further groups, as far as the step waits for it."""
        if self.launch_mixed is not Launch.EAGER or groups < 1:
            return 0.0
        base = self._base(tokens, self.launch_mixed)
        launches = groups * sum(base.attention.values())
        return (1.0 - base.felt) * launches * base.prepared.machine.launch.eager_kernel_s

    def _with(self, tokens: int, own_s: float) -> tuple[float, float]:
        """A step of so many tokens whose attention and further logits take `own_s`, as far as it waits for them."""
        base = self._base(tokens, self.launch_mixed)
        return base.seconds + base.felt * (own_s - self.attention_s(1, tokens, tokens)), base.watts

    def _base(self, tokens: int, launch: Launch) -> _Base:
        if (found := self._bases.get((tokens, launch))) is None:
            runtime = self.scenario.runtime.model_copy(update={"launch": launch})
            changes = {"phase": Phase.PREFILL, "batch_size": 1, "context_length": tokens, "runtime": runtime}
            prediction, node = self._simulated(self.scenario.model_copy(update=changes))
            attention: dict[Attention, int] = {}
            heads: dict[Gemm, int] = {}
            for segment in prediction.prepared.program.segments:
                for kernel in segment.kernels:
                    op = kernel.op
                    if isinstance(op, Attention):
                        attention[op] = attention.get(op, 0) + segment.repeat
                    elif isinstance(op, Gemm) and kernel.category is Category.LM_HEAD:
                        heads[op] = heads.get(op, 0) + segment.repeat
            found = self._bases[tokens, launch] = _Base(
                node.seconds,
                node.watts,
                1.0 - prediction.host_wait_s / prediction.latency_s,
                prediction.prepared,
                attention,
                heads,
            )
        return found

    def attention_s(self, batch: int, q_len: int, kv_len: int) -> float:
        """Attention of a group of sequences, in all layers of a device."""
        key = (batch, q_len, kv_len)
        if (found := self._prices.get(key)) is None:
            if len(self._prices) > 200_000:
                self._prices.clear()
            base = self._base(rounded(q_len if q_len > 1 else batch), Launch.GRAPH)
            price = base.prepared.pricing.kernel
            found = self._prices[key] = sum(
                count * price(replace(op, batch=batch, q_len=q_len, kv_len=kv_len)).busy_s
                for op, count in base.attention.items()
            )
        return found

    def _logits_s(self, rows: int) -> float:
        if (found := self._logits.get(rows)) is None:
            base = self._base(rounded(1), Launch.GRAPH)
            price = base.prepared.pricing.kernel
            found = self._logits[rows] = sum(
                count * price(replace(op, m=rows)).busy_s for op, count in base.heads.items()
            )
        return found

    def _simulated(self, scenario: Scenario) -> tuple[Prediction, _Node]:
        # A step between two that are simulated may fit where the larger one does not; the replica's memory is checked.
        prediction = self.predictor.predict(scenario, fits=False)
        interval = prediction.interval
        seconds = {End.LOW: interval.low_s, End.MIDDLE: prediction.latency_s, End.HIGH: interval.high_s}[self.end]
        return prediction, _Node(seconds, step_energy(prediction).device_w * prediction.resolved.num_devices)


def rounded(tokens: int) -> int:
    """The number of tokens that a step with prompts is simulated at: the next of a grid, as GEMMs fill whole tiles."""
    granule = 16
    while tokens > 128 * granule:
        granule *= 2
    return -(-tokens // granule) * granule
