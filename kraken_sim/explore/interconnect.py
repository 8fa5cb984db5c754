"""Below which bandwidth between the GPUs a Kraken is worth training: a sweep over links of a machine as a what-if."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import exp, log
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InputError
from kraken_sim.explore.evaluate import predict
from kraken_sim.explore.sensitivity import perturbed_residuals
from kraken_sim.hardware.load import load_profile
from kraken_sim.hardware.what_if import gpu_bandwidth_bytes_per_s, with_bandwidth_factor, with_time_factor
from kraken_sim.models.config import ArchitectureKind
from kraken_sim.scenario import with_architecture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.hardware.profile import HardwareProfile
    from kraken_sim.scenario import Scenario

FACTORS: Final = tuple(2.0 ** (step / 2.0) for step in range(-12, 5))
"""Link bandwidth over the machine's own: from a 64th to four times, two points an octave."""


@dataclass(frozen=True, slots=True)
class BandwidthPoint:
    """Both architectures with links of one bandwidth (line rate per GPU and direction)."""

    factor: float
    bandwidth_bytes_per_s: float
    standard_s: float
    kraken_s: float

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


@dataclass(frozen=True)
class InterconnectAnswer:
    """The speed-up by bandwidth, where it meets the threshold, and the same under each perturbed block."""

    scenario: Scenario
    worth: float
    num_devices: int
    points: tuple[BandwidthPoint, ...]
    own: BandwidthPoint
    crossing: Crossing
    perturbed: tuple[tuple[str, float, Crossing, float], ...]
    """Block, factor on its times, the crossing then, and the speed-up on the machine's own links then."""

    @property
    def last_range(self) -> tuple[float, float] | None:
        """Lowest and highest `last` over all perturbations; None where some perturbation has none."""
        found = [crossing.last_bytes_per_s for _, _, crossing, _ in self.perturbed] + [self.crossing.last_bytes_per_s]
        known = [value for value in found if value is not None]
        return (min(known), max(known)) if known and len(known) == len(found) else None

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
            "sure_below_bytes_per_s": self.crossing.sure_bytes_per_s,
            "never_above_bytes_per_s": self.crossing.last_bytes_per_s,
            "never_above_range_bytes_per_s": self.last_range,
            "points": [
                {
                    "factor": point.factor,
                    "bandwidth_bytes_per_s": point.bandwidth_bytes_per_s,
                    "standard_s": point.standard_s,
                    "kraken_s": point.kraken_s,
                    "speedup": point.speedup,
                }
                for point in self.points
            ],
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
    scenario: Scenario, worth: float = 0.1, factors: Sequence[float] = FACTORS, *, perturb: bool = True
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
    profile = load_profile(scenario.hardware)
    num_devices = scenario.num_devices or len(profile.topology.gpus)
    if worth < 0.0:
        raise InputError.single("--worth", "must not be negative", worth, "10")
    if num_devices < 2:
        raise InputError.single("num_devices", "one device has no interconnect", num_devices, "2")
    points = _points(scenario, profile, num_devices, factors)
    perturbed = []
    if perturb:
        for block, residual in perturbed_residuals(profile, scenario).items():
            for factor in (1.0 + residual, 1.0 / (1.0 + residual)):
                changed = with_time_factor(profile, block, factor)
                found = _points(scenario, changed, num_devices, factors)
                own = _point(scenario, changed, num_devices, 1.0)
                perturbed.append((block, factor, crossing_of(found, worth), own.speedup))
    own = _point(scenario, profile, num_devices, 1.0)
    return InterconnectAnswer(
        scenario, worth, num_devices, tuple(points), own, crossing_of(points, worth), tuple(perturbed)
    )


def crossing_of(points: Sequence[BandwidthPoint], worth: float) -> Crossing:
    """Where the curve meets the threshold, by linear interpolation over the logarithm of the bandwidth."""
    above = [point.speedup >= worth for point in points]
    if not any(above):
        return Crossing(None, None)
    downs = [
        _between(first, second, worth) for first, second in pairwise(points) if first.speedup >= worth > second.speedup
    ]
    fastest = points[-1].bandwidth_bytes_per_s
    last = fastest if above[-1] else downs[-1]
    sure = None if not above[0] else (downs[0] if downs else fastest)
    return Crossing(sure, last)


def _between(first: BandwidthPoint, second: BandwidthPoint, worth: float) -> float:
    share = (first.speedup - worth) / (first.speedup - second.speedup)
    low, high = log(first.bandwidth_bytes_per_s), log(second.bandwidth_bytes_per_s)
    return exp(low + share * (high - low))


def _points(
    scenario: Scenario, profile: HardwareProfile, num_devices: int, factors: Sequence[float]
) -> list[BandwidthPoint]:
    return [_point(scenario, profile, num_devices, factor) for factor in sorted(factors)]


def _point(scenario: Scenario, profile: HardwareProfile, num_devices: int, factor: float) -> BandwidthPoint:
    machine = profile if factor == 1.0 else with_bandwidth_factor(profile, factor)
    standard, kraken = (
        predict(with_architecture(scenario, kind), machine).latency_s
        for kind in (ArchitectureKind.STANDARD, ArchitectureKind.KRAKEN)
    )
    return BandwidthPoint(factor, gpu_bandwidth_bytes_per_s(machine, num_devices), standard, kraken)
