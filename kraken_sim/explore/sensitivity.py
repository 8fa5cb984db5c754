"""Which of some alternatives is fastest, and whether the doubt about the fitted constants changes that.

Two views, both from the residuals of the profile's blocks (mean relative error on records no fit saw):

- **Perturbation**: every block in turn is made slower and faster by its residual, everything is simulated again, and
  the fastest alternative is read off.
- **Probability**: a kernel's error is a normal draw of its own and one of its block, with the block's residual as mean
  absolute value, as in `kraken_sim.predict.uncertainty`; so is that of the card, and of its clock. Alternatives share
  the draws of the kernels, blocks and cards that they share, which cancel where both have as much of them. The
  contention block's residual is that of a pair of overlapping kernels, so it counts on all the time in which a
  collective runs beside compute.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import exp, pi, sqrt
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kraken_sim.engine.timeline import SpanKind
from kraken_sim.predict.api import simulate
from kraken_sim.predict.metrics import constants_of_op, totals
from kraken_sim.predict.uncertainty import (
    CARD_RESIDUAL,
    GRAPH_LAUNCH_RESIDUAL,
    HOST_RESIDUAL,
    NORMAL_QUANTILE,
    RANKS_APART,
    block_residuals,
    clock_residual,
    residual_of,
    shared_square,
)
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.what_if import PERTURBED_BLOCKS, with_time_factor
from kraken_sim.program.program import MAIN_STREAM

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.scenario.spec import Scenario

DRAWS: Final = 20_000
"""Draws of the residuals: a probability of a half is known to 0.4 %."""

SEED: Final = 20240814
"""Seed of the draws: the same question gives the same answer."""

Terms = dict[str, dict[object, float]]


@dataclass(frozen=True, slots=True)
class Alternative:
    """One of the choices; `profile` where its machine is a what-if."""

    name: str
    scenario: Scenario
    profile: HardwareProfile

    @classmethod
    def of(cls, name: str, scenario: Scenario) -> Alternative:
        """An alternative on the machine that its scenario names."""
        return cls(name, scenario, load_profile(scenario.hardware))


@dataclass(frozen=True, slots=True)
class Perturbation:
    """What comes out with one block's times multiplied by `factor`."""

    block: str
    residual: float
    factor: float
    latencies_s: Mapping[str, float]


@dataclass(frozen=True)
class Decision:
    """The alternatives in the order given, and how sure their ranking is."""

    predictions: Mapping[str, Prediction]
    probability: Mapping[str, float]
    """By name: the probability that it is the fastest."""
    perturbations: tuple[Perturbation, ...]

    @property
    def latencies_s(self) -> dict[str, float]:
        """Latency by name."""
        return {name: prediction.latency_s for name, prediction in self.predictions.items()}

    @property
    def best(self) -> str:
        """The fastest; of equals the first."""
        return lowest(self.latencies_s)

    @property
    def flips(self) -> tuple[tuple[Perturbation, str], ...]:
        """Perturbations under which another alternative is the fastest, and which."""
        return self.flips_of(dict.fromkeys(self.predictions, 1.0))

    def flips_of(self, weights: Mapping[str, float]) -> tuple[tuple[Perturbation, str], ...]:
        """The same among the alternatives that have a weight, the lowest latency times weight being best."""
        best = lowest(weighted(self.latencies_s, weights))
        found = ((item, lowest(weighted(item.latencies_s, weights))) for item in self.perturbations)
        return tuple((item, name) for item, name in found if name != best)

    def probability_of(self, weights: Mapping[str, float]) -> dict[str, float]:
        """The probability of being best among the alternatives that have a weight."""
        chosen = [self.predictions[name] for name in weights]
        return dict(zip(weights, probability_best(chosen, list(weights.values())), strict=True))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "best": self.best,
            "latency_s": self.latencies_s,
            "interval_s": {
                name: [prediction.interval.low_s, prediction.interval.high_s]
                for name, prediction in self.predictions.items()
            },
            "probability_best": dict(self.probability),
            "perturbations": [
                {"block": p.block, "residual": p.residual, "factor": p.factor, "best": lowest(p.latencies_s)}
                for p in self.perturbations
            ],
        }


def lowest(values: Mapping[str, float]) -> str:
    """The name with the lowest value; of equals the first."""
    return min(values, key=values.__getitem__)


def weighted(latencies_s: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Latency times weight of every alternative that has a weight."""
    return {name: latencies_s[name] * weight for name, weight in weights.items()}


def decide(alternatives: Sequence[Alternative], *, perturb: bool = True) -> Decision:
    """Predicts every alternative and says how sure the ranking is.

    Raises:
        InputError, InfeasibleError: see `simulate`.
        ValueError: no alternatives, or two of one name.
    """
    names = [item.name for item in alternatives]
    if not names or len(set(names)) != len(names):
        message = f"alternatives need names of their own, not {names}"
        raise ValueError(message)
    predictions = {item.name: simulate(item.scenario, profile=item.profile) for item in alternatives}
    probability = probability_best(list(predictions.values()))
    perturbations = tuple(_perturbations(alternatives)) if perturb else ()
    return Decision(predictions, dict(zip(names, probability, strict=True)), perturbations)


def _perturbations(alternatives: Sequence[Alternative]) -> Iterator[Perturbation]:
    residuals: dict[str, float] = {}
    for item in alternatives:
        for block, residual in perturbed_residuals(item.profile, item.scenario).items():
            residuals[block] = max(residuals.get(block, 0.0), residual)
    for block, residual in residuals.items():
        for factor in (1.0 + residual, 1.0 / (1.0 + residual)):
            latencies = {
                item.name: simulate(item.scenario, profile=with_time_factor(item.profile, block, factor)).latency_s
                for item in alternatives
            }
            yield Perturbation(block, residual, factor, latencies)


def perturbed_residuals(profile: HardwareProfile, scenario: Scenario) -> dict[str, float]:
    """The blocks worth perturbing and by how much: the residual of a fit, for launch costs as in `uncertainty`."""
    found = block_residuals(profile.provenance)
    eager = scenario.runtime.launch.value == "eager"
    found["launch"] = HOST_RESIDUAL if eager else GRAPH_LAUNCH_RESIDUAL
    return {block: found[block] for block in PERTURBED_BLOCKS if found.get(block, 0.0) > 0.0}


def probability_best(predictions: Sequence[Prediction], weights: Sequence[float] | None = None) -> list[float]:
    """For each prediction, the probability that its latency (times weight) is the lowest; they add up to one."""
    latencies = np.array([prediction.latency_s for prediction in predictions])
    covariance = error_covariance(predictions)
    draws = np.random.default_rng(SEED).multivariate_normal(latencies, covariance, DRAWS, method="eigh")
    draws = draws * (np.ones(len(latencies)) if weights is None else np.array(weights))
    # Rounding to a millionth keeps alternatives that are one and the same from winning by the last digit.
    draws = np.round(draws / latencies.min(), 6)
    counts = np.bincount(np.argmin(draws, axis=1), minlength=len(latencies))
    return [float(count) / DRAWS for count in counts]


def speedup_interval(slower: Prediction, faster: Prediction) -> tuple[float, float]:
    """Where slower / faster - 1 lies with a probability of 90 %, from the same errors.

    The logarithm of the ratio is taken to be normal, its variance to first order in the relative errors.
    """
    covariance = error_covariance([slower, faster])
    first, second = slower.latency_s, faster.latency_s
    variance = covariance[0, 0] / first**2 + covariance[1, 1] / second**2
    variance -= 2.0 * covariance[0, 1] / (first * second)
    half = NORMAL_QUANTILE * sqrt(max(0.0, float(variance)))
    return first / second * exp(-half) - 1.0, first / second * exp(half) - 1.0


def error_covariance(predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """Covariance of the predictions' errors, seconds squared."""
    covariance = np.zeros((len(predictions), len(predictions)))
    terms = [_weighted_terms(prediction) for prediction in predictions]
    for i, first in enumerate(terms):
        for j, second in enumerate(terms[: i + 1]):
            shared = sum(shared_square(own, second[name]) for name, own in first.items() if name in second)
            covariance[i, j] = covariance[j, i] = pi / 2.0 * shared
    return covariance


def _weighted_terms(prediction: Prediction) -> dict[tuple[str, str], dict[object, float]]:
    """Mean absolute errors in seconds by machine, by what they are errors of, and by kernel."""
    machine, residuals = prediction.scenario.hardware, prediction.prepared.described.residuals
    cards_s = CARD_RESIDUAL * prediction.latency_s
    clocks_s = clock_residual(residuals, prediction.slowdown) * prediction.latency_s
    found: dict[tuple[str, str], dict[object, float]] = {
        (machine, "card"): {machine: cards_s},
        (machine, "clock"): {machine: clocks_s},
        (machine, "ranks"): dict(_awaited(prediction)),
    }
    for name, seconds in error_terms(prediction).items():
        residual = HOST_RESIDUAL if name == "launch" and prediction.prepared.eager else residual_of(name, residuals)
        found[machine, name] = {kernel: residual * own for kernel, own in seconds.items()}
    return found


def _awaited(prediction: Prediction) -> Iterator[tuple[object, float]]:
    """What collectives may wait for other ranks, which is its own for those of a stream; shared by what waits alike."""
    stages = {span.stream for span in prediction.timeline.simulated if span.kind is SpanKind.COLLECTIVE}
    for stream in stages:
        seconds = prediction.totals.compute_s / len(stages)
        yield stream, RANKS_APART / (NORMAL_QUANTILE * sqrt(pi / 2.0)) * seconds


def error_terms(prediction: Prediction) -> Terms:
    """Seconds by what prices them and, within that, by the kernel whose error they carry."""
    timeline = prediction.timeline
    terms: Terms = defaultdict(lambda: defaultdict(float))
    for span in timeline.simulated:
        if span.rank != 0 or span.op is None:
            continue
        weight, kernel = timeline.weight(span), (span.op, span.detail)
        if span.stream == MAIN_STREAM:
            terms[constants_of_op(span.op)][kernel] += min(span.alone_s, span.duration_s) * weight
        elif span.kind is SpanKind.COLLECTIVE:
            terms["contention"][kernel] += span.duration_s * weight
    terms["launch"]["launch"] = totals(timeline).blocks_s["launch"]
    return terms
