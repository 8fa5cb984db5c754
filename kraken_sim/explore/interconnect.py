"""Below which bandwidth between the GPUs a Kraken is worth training: a sweep over links of a machine as a what-if."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, log
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.architectures.registry import BASELINE
from kraken_sim.errors import InputError
from kraken_sim.explore.sensitivity import perturbed_residuals, speedup_interval
from kraken_sim.predict.answer import Answer
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.predict.records import Records
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.what_if import gpu_bandwidth_bytes_per_s, with_bandwidth_factor, with_time_factor
from kraken_sim.scenario.resolve import asked_devices
from kraken_sim.scenario.spec import as_scenario, with_architecture
from kraken_sim.units import format_bandwidth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.scenario.spec import Scenario, ScenarioSource

FACTORS: Final = tuple(2.0 ** (step / 2.0) for step in range(-12, 5))
"""Link bandwidth over the machine's own: from a 64th to four times, two points an octave."""

MOST_FACTOR: Final = 1e3
"""Most times the machine's own bandwidth, and one over the least; a limit of ours, where only a slip goes."""


@dataclass(frozen=True, slots=True)
class BandwidthPoint:
    """Both architectures with links of one bandwidth (line rate per GPU and direction)."""

    factor: float
    bandwidth_bytes_per_s: float
    standard_s: float
    kraken_s: float
    interval: tuple[float, float]
    """Where the speed-up lies with a probability of 90 % (`speedup_interval`)."""

    @property
    def speedup(self) -> float:
        """How much faster Kraken answers, as a fraction: standard / Kraken - 1."""
        return self.standard_s / self.kraken_s - 1.0


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where the speed-up meets the threshold.

    Kraken is worth it at all bandwidths tried below `sure_bytes_per_s` and at none above `last_bytes_per_s`; between
    them it goes back and forth, because NCCL changes its algorithm and its channels. None: it never is (`last`), or
    not even on the slowest links tried (`sure`).
    """

    sure_bytes_per_s: float | None
    last_bytes_per_s: float | None


@dataclass(frozen=True, repr=False)
class InterconnectAnswer(Answer):
    """The speed-up by bandwidth, where it meets the threshold, and the same under each perturbed block."""

    scenario: Scenario
    worth: float
    num_devices: int
    points: tuple[BandwidthPoint, ...]
    own: BandwidthPoint
    crossing: Crossing
    crossing_range: tuple[Crossing, Crossing]
    """The crossing of the low and of the high ends of the points' intervals."""
    perturbed: tuple[tuple[str, float, Crossing, float], ...]
    """Block, factor on its times, the crossing then, and the speed-up on the machine's own links then."""

    @property
    def headline(self) -> str:
        """The speed-up on the machine's links, and up to which links it is worth it."""
        low, high = (f"{100.0 * end:+.1f}" for end in self.own.interval)
        where = f"{self.num_devices} x {self.scenario.hardware}"
        own = f"Kraken {100.0 * self.own.speedup:+.1f} % ({low} to {high}) on {where}"
        last = self.crossing.last_bytes_per_s
        until = "at no bandwidth tried" if last is None else f"up to {format_bandwidth(last)} a GPU"
        return f"{own}; {100.0 * self.worth:g} % or more {until}"

    @property
    def records(self) -> Records:
        """One flat row for each bandwidth."""
        return Records(
            {
                "factor": point.factor,
                "bandwidth_bytes_per_s": point.bandwidth_bytes_per_s,
                "standard_s": point.standard_s,
                "kraken_s": point.kraken_s,
                "speedup": point.speedup,
                "low": point.interval[0],
                "high": point.interval[1],
            }
            for point in self.points
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "hardware": self.scenario.hardware,
            "model": self.scenario.model.model_dump(exclude_none=True),
            "num_devices": self.num_devices,
            "context_length": self.scenario.context_length,
            "worth": self.worth,
            "own_bandwidth_bytes_per_s": self.own.bandwidth_bytes_per_s,
            "own_speedup": self.own.speedup,
            "own_speedup_interval": list(self.own.interval),
            "sure_below_bytes_per_s": self.crossing.sure_bytes_per_s,
            "never_above_bytes_per_s": self.crossing.last_bytes_per_s,
            "never_above_range_bytes_per_s": [crossing.last_bytes_per_s for crossing in self.crossing_range],
            "points": self.records,
            "perturbed": [
                {
                    "block": block,
                    "factor": factor,
                    "never_above_bytes_per_s": at.last_bytes_per_s,
                    "own_speedup": speedup,
                }
                for block, factor, at, speedup in self.perturbed
            ],
        }


def worthwhile_bandwidth(
    scenario: ScenarioSource, worth: float = 0.1, factors: Sequence[float] = FACTORS, *, perturb: bool = True
) -> InterconnectAnswer:
    """Kraken against standard over the bandwidth of the machine's links.

    Args:
        scenario: machine, model and workload; its architecture is replaced, Kraken's own fields are kept.
        worth: the speed-up from which Kraken is worth it, as a fraction.
        factors: bandwidths to try, over the machine's own, ascending.
        perturb: whether to ask again with every block of constants perturbed.

    Raises:
        InputError: fewer than two devices, a threshold below zero, or any other fault of the scenario.
        InfeasibleError: the model does not fit in memory.
    """
    scenario = as_scenario(scenario)
    profile = load_profile(scenario.hardware)
    num_devices = asked_devices(scenario) or len(profile.topology.gpus)
    if not (isinstance(worth, int | float) and 0.0 <= worth < inf):
        raise InputError.single("--worth", "must be a number, not negative", worth, "10")
    if num_devices < 2:
        raise InputError.single("num_devices", "one device has no interconnect", num_devices, "2")
    _check_factors(factors)
    factors = sorted(factors)
    points = [_point(scenario, profile, factor) for factor in factors]
    bandwidths = [point.bandwidth_bytes_per_s for point in points]
    perturbed = []
    residuals = perturbed_residuals(profile, scenario) if perturb else {}
    for block, residual in residuals.items():
        for scale in (1.0 + residual, 1.0 / (1.0 + residual)):
            changed = with_time_factor(profile, block, scale)
            speedups = [_speedup(scenario, changed, factor) for factor in factors]
            crossing = crossing_of(bandwidths, speedups, worth)
            perturbed.append((block, scale, crossing, _speedup(scenario, changed, 1.0)))
    own = _point(scenario, profile, 1.0)
    low, high = (crossing_of(bandwidths, [point.interval[end] for point in points], worth) for end in (0, 1))
    crossing = crossing_of(bandwidths, [point.speedup for point in points], worth)
    return InterconnectAnswer(scenario, worth, num_devices, tuple(points), own, crossing, (low, high), tuple(perturbed))


def _check_factors(factors: object) -> None:
    right = isinstance(factors, list | tuple) and all(
        isinstance(factor, int | float) and 1.0 / MOST_FACTOR <= factor <= MOST_FACTOR for factor in factors
    )
    if not right or not factors:
        message = f"must be a list of numbers from {1.0 / MOST_FACTOR:g} to {MOST_FACTOR:g}"
        raise InputError.single("factors", message, factors, "[0.5, 1.0, 2.0]")


def crossing_of(bandwidths_bytes_per_s: Sequence[float], speedups: Sequence[float], worth: float) -> Crossing:
    """Where a curve meets the threshold, by linear interpolation over the logarithm of the bandwidth.

    Args:
        bandwidths_bytes_per_s: ascending.
        speedups: one a bandwidth.
        worth: the threshold.
    """
    above = [speedup >= worth for speedup in speedups]
    if not any(above):
        return Crossing(None, None)
    points = list(zip(bandwidths_bytes_per_s, speedups, strict=True))
    downs = [_between(first, second, worth) for first, second in pairwise(points) if first[1] >= worth > second[1]]
    fastest = bandwidths_bytes_per_s[-1]
    last = fastest if above[-1] else downs[-1]
    sure = None if not above[0] else (downs[0] if downs else fastest)
    return Crossing(sure, last)


def _between(first: tuple[float, float], second: tuple[float, float], worth: float) -> float:
    share = (first[1] - worth) / (first[1] - second[1])
    low, high = log(first[0]), log(second[0])
    return exp(low + share * (high - low))


def _point(scenario: Scenario, profile: HardwareProfile, factor: float) -> BandwidthPoint:
    standard, kraken = _both(scenario, profile, factor)
    bandwidth = gpu_bandwidth_bytes_per_s(kraken.profile, kraken.resolved.num_devices)
    interval = speedup_interval(standard, kraken)
    return BandwidthPoint(factor, bandwidth, standard.latency_s, kraken.latency_s, interval)


def _speedup(scenario: Scenario, profile: HardwareProfile, factor: float) -> float:
    standard, kraken = _both(scenario, profile, factor)
    return standard.latency_s / kraken.latency_s - 1.0


def _both(scenario: Scenario, profile: HardwareProfile, factor: float) -> tuple[Prediction, Prediction]:
    """Standard and Kraken with `factor` times the bandwidth between the GPUs."""
    machine = profile if factor == 1.0 else with_bandwidth_factor(profile, factor)
    predictor = Predictor(machine)
    standard = predictor.predict(with_architecture(scenario, BASELINE))
    return standard, predictor.predict(with_architecture(scenario, "kraken"))
