"""Requests: when they come, how long their prompts and answers are; drawn, or read from a trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests in the order of arrival: seconds, tokens of the prompt, tokens of the answer; arrays of one length."""

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def rate_per_s(self) -> float:
        """Mean rate of arrivals."""
        span_s = float(self.arrival_s[-1] - self.arrival_s[0])
        return (len(self) - 1) / span_s if span_s > 0.0 else float("inf")

    def part(self, count: int) -> Requests:
        """The first so many."""
        return Requests(self.arrival_s[:count], self.prompt_tokens[:count], self.output_tokens[:count])


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a prompt or an answer: `mean`, spread lognormally with a coefficient of variation, within limits."""

    mean: float
    variation: float = 0.0
    least: int = 1
    most: int = 1 << 24

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        """So many lengths; all the mean where nothing varies."""
        if self.variation == 0.0:
            drawn = np.full(count, self.mean)
        else:
            sigma_squared = np.log1p(self.variation**2)
            drawn = random.lognormal(np.log(self.mean) - sigma_squared / 2.0, np.sqrt(sigma_squared), count)
        lengths: NDArray[np.int64] = np.clip(np.rint(drawn), self.least, self.most).astype(np.int64)
        return lengths


@dataclass(frozen=True, slots=True)
class Bursts:
    """For `busy_s` of every `period_s` requests come `factor` times as often as in the rest."""

    factor: float
    busy_s: float
    period_s: float


def poisson_arrivals(
    count: int, rate_per_s: float, random: np.random.Generator, bursts: Bursts | None = None
) -> NDArray[np.float64]:
    """Arrivals of a Poisson process of that mean rate, which the bursts speed up and the rest slows down."""
    unit = np.cumsum(random.exponential(1.0, count))
    if bursts is None:
        return unit / rate_per_s
    # Expected arrivals grow on a line of two slopes in every period; its inverse says when the n-th comes.
    quiet = rate_per_s * bursts.period_s / (bursts.factor * bursts.busy_s + bursts.period_s - bursts.busy_s)
    a_period = rate_per_s * bursts.period_s
    in_burst = bursts.factor * quiet * bursts.busy_s
    periods, rest = np.divmod(unit, a_period)
    within = np.where(rest < in_burst, rest / (bursts.factor * quiet), bursts.busy_s + (rest - in_burst) / quiet)
    arrivals: NDArray[np.float64] = periods * bursts.period_s + within
    return arrivals


def drawn_requests(
    count: int,
    rate_per_s: float,
    prompt: Lengths,
    output: Lengths,
    seed: int,
    bursts: Bursts | None = None,
) -> Requests:
    """Requests of a Poisson process; the same seed draws the same."""
    random = np.random.default_rng(seed)
    arrivals = poisson_arrivals(count, rate_per_s, random, bursts)
    return Requests(arrivals, prompt.draw(count, random), output.draw(count, random))
