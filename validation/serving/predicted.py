"""The server's steps predicted from microbenchmarks: a profile's, and those of its attention and its host.

No constant here was fitted to a step or a request of the server; that its host is taken to be the profile's, and that
long sequences are waited for, was chosen after a first comparison with them (docs/serving.md). What a profile predicts
of a step has its own attention taken out and the measured one put in; steps with prompts are launched kernel by kernel,
as the profile's host is; what the server's host does beside comes on top.

From 27 sequences on this attention no longer splits their caches (FlashAttention's `num_splits_heuristic`: CTAs are
enough), so that it waits for the longest: how much, follows from the spread of the requests' own lengths and from two
microbenchmarks, of a full batch (the pace of all) and of few rows behind a long cache (the pace of one).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.interpolate import RegularGridInterpolator

from kraken_sim.predict.pipeline import Predictor
from kraken_sim.scenario.spec import Launch, scenario_from
from kraken_sim.serving.captured import captured
from kraken_sim.serving.steps import PredictedSteps, Stretch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from kraken_sim.serving.arrivals import Requests
    from kraken_sim.serving.plan import Chunk

UNSPLIT = 27
"""Sequences from which caches are not split: 0.8 of two CTAs on each of 132 SMs, for 8 key/value heads
(`num_splits_heuristic` of FlashAttention-2's flash_api.cpp, as PyTorch calls it)."""

_DRAWS = 500

_STRETCH = 16
"""Steps in a row that one line stands for."""


@dataclass(slots=True)
class MeasuredAttention:
    """Seconds of the server's attention calls, between the measured shapes on lines in the logarithms of both sizes."""

    _decode: Any = None
    _chunk: Any = None
    _kept: dict[tuple[int, int, int], float] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]]) -> MeasuredAttention:
        """From the microbenchmarks' lines."""
        found = [line for line in lines if line["kind"] == "attention"]
        decode = {(line["batch"], line["cached"]): line["time_s"] for line in found if line["q_len"] == 1}
        chunk = {(line["q_len"], line["cached"]): line["time_s"] for line in found if line["q_len"] > 1}
        return cls(_grid(decode), _grid(chunk))

    def seconds(self, batch: int, q_len: int, cached: float) -> float:
        """One call: `batch` sequences of `q_len` new tokens behind so many cached ones each."""
        key = (batch, q_len, round(cached))
        if (time_s := self._kept.get(key)) is None:
            table, first = (self._decode, batch) if q_len == 1 else (self._chunk, q_len)
            time_s = self._kept[key] = float(np.exp(table([[np.log(first), np.log1p(max(cached, 0.0))]])[0]))
        return time_s


def _grid(times: Mapping[tuple[int, int], float]) -> Any:
    rows, columns = (sorted({key[place] for key in times}) for place in (0, 1))
    values = np.array(
        [[np.log(times[row, column]) if (row, column) in times else np.nan for column in columns] for row in rows]
    )
    # A corner that does not fit in the cache is as its neighbour.
    for index in range(1, len(columns)):
        lacking = np.isnan(values[:, index])
        values[lacking, index] = values[lacking, index - 1]
    return RegularGridInterpolator((np.log(rows), np.log1p(columns)), values, bounds_error=False, fill_value=None)


def cached_lengths(requests: Requests, count: int = 20_000) -> NDArray[np.int64]:
    """Cached tokens of sequences that decode at some moment, drawn: who answers longer is there longer."""
    random = np.random.default_rng(0)
    weights = requests.output_tokens / requests.output_tokens.sum()
    chosen = random.choice(len(requests), count, p=weights)
    done = random.random(count) * requests.output_tokens[chosen]
    lengths: NDArray[np.int64] = (requests.prompt_tokens[chosen] + done).astype(np.int64)
    return lengths


@dataclass(slots=True)
class Waiting:
    """How much longer attention takes where sequences differ and none is split, by the batch, per cached token.

    `pace_s` is a token of every sequence's cache, per sequence, where all compute; `alone_s` of one by itself.
    """

    pace_s: float
    alone_s: float
    lengths: NDArray[np.int64]
    _kept: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]], lengths: NDArray[np.int64]) -> Waiting:
        """From the microbenchmarks: the largest decode batch, and the shortest chunk."""
        found = [line for line in lines if line["kind"] == "attention"]
        batch = max(line["batch"] for line in found)
        chunk = min(line["q_len"] for line in found if line["q_len"] > 1)
        full = _slope([line for line in found if line["batch"] == batch])
        return cls(full / batch, _slope([line for line in found if line["q_len"] == chunk]), lengths)

    def seconds(self, batch: int, cached: float) -> float:
        """What a call takes more than one over caches that are alike."""
        if batch < UNSPLIT:
            return 0.0
        if batch not in self._kept:
            random = np.random.default_rng(batch)
            drawn = np.sort(random.choice(self.lengths, (_DRAWS, batch)), axis=1)
            left = np.arange(batch, 0, -1)
            steps = np.diff(drawn, axis=1, prepend=0)
            took = (steps * np.maximum(self.alone_s, self.pace_s * left)).sum(axis=1)
            alike = drawn.mean(axis=1) * max(self.alone_s, self.pace_s * batch)
            self._kept[batch] = float(((took - alike) / drawn.mean(axis=1)).mean())
        return self._kept[batch] * cached


def _slope(lines: Sequence[Mapping[str, Any]]) -> float:
    """Seconds a cached token between the shortest and the longest cache of some microbenchmarks."""
    ends = [(line["cached"], line["time_s"]) for line in lines]
    (first, first_s), (last, last_s) = min(ends), max(ends)
    return float((last_s - first_s) / (last - first))


@dataclass(slots=True)
class ServerSteps:
    """Steps of the server, as `kraken_sim.serving.steps.StepTimes`."""

    steps: PredictedSteps
    attention: MeasuredAttention
    num_layers: int
    waiting: Waiting

    @classmethod
    def of(
        cls, header: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], requests: Requests, hardware: str
    ) -> ServerSteps:
        """From the header and the microbenchmarks of a file; of the requests only their lengths."""
        scenario = scenario_from(
            {
                "hardware": hardware,
                "model": header["model"],
                "num_devices": 1,
                "context_length": 1,
                "dtype": header["dtype"],
                "runtime": {"kernels": header["kernels"]},
            }
        )
        batches = sorted({line["batch"] for line in lines if line["kind"] == "exchange"})
        middle = batches[len(batches) // 2]
        host_s = sum(
            line["time_s"] for line in lines if line["kind"] in ("exchange", "bookkeeping") and line["batch"] == middle
        )
        return cls(
            PredictedSteps(Predictor(), scenario, host_s, Launch.EAGER),
            MeasuredAttention.of(lines),
            header["model"]["num_hidden_layers"],
            Waiting.of(lines, cached_lengths(requests)),
        )

    def decode(self, batch: int, cache_tokens: int) -> Stretch:
        """See `StepTimes`."""
        line = self.steps.decode(batch, cache_tokens)
        count = min(line.steps, _STRETCH)
        first_s, last_s = (self._instead_s(batch, captured(batch), cache_tokens + batch * more) for more in (0, count))
        return Stretch(line.first_s + first_s, line.more_s + (last_s - first_s) / count, count, line.watts)

    def mixed(self, batch: int, cache_tokens: int, chunks: Sequence[Chunk]) -> tuple[float, float]:
        """See `StepTimes`."""
        seconds, watts = self.steps.mixed(batch, cache_tokens, chunks)
        more_s = self._instead_s(batch, batch, cache_tokens) if batch else 0.0
        for chunk in chunks:
            priced_s = self.steps.attention_s(1, chunk.num_tokens, chunk.start + chunk.num_tokens)
            more_s += self.num_layers * self.attention.seconds(1, max(2, chunk.num_tokens), chunk.start) - priced_s
        tokens = batch + sum(chunk.num_tokens for chunk in chunks)
        return seconds + self.steps.felt(tokens) * more_s, watts

    def _instead_s(self, batch: int, padded: int, cache_tokens: int) -> float:
        """What the measured attention of a decode batch takes more than the priced one."""
        cached = cache_tokens / padded
        own_s = self.attention.seconds(padded, 1, cached) + self.waiting.seconds(batch, cache_tokens / batch)
        return self.num_layers * own_s - self.steps.attention_s(padded, 1, 1 + round(cached))
