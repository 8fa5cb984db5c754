"""The predicted best number of channels against the measured best, on whole passes of overlapping Krakens."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kraken_sim.architectures.registry import overlapping
from kraken_sim.errors import InputError
from kraken_sim.explore.channels import DEFAULT, best_channels, channels_name
from kraken_sim.measurements.machine import machine_warnings, matching_profile
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.profiles.load import load_profile
from kraken_sim.validate.passes import scenario_of_pass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.explore.channels import ChannelAnswer
    from kraken_sim.measurements.records.base import Quartiles
    from kraken_sim.measurements.schema import MeasurementFile


@dataclass(frozen=True)
class ChannelComparison:
    """One Kraken, measured and predicted under several limits of channels."""

    answer: ChannelAnswer
    measured_s: Mapping[str, Quartiles]

    @property
    def measured_best(self) -> str:
        """The limit with the lowest measured median."""
        return min(self.measured_s, key=lambda name: self.measured_s[name].median)

    @property
    def agrees(self) -> bool:
        """Whether the predicted best is the measured best."""
        return self.answer.best == self.measured_best

    @property
    def regret(self) -> float:
        """How much longer the predicted best takes than the measured best, both measured, as a fraction."""
        return self._over_best(self.answer.best)

    @property
    def default_regret(self) -> float:
        """The same of leaving NCCL its own choice."""
        return self._over_best(DEFAULT)

    @property
    def advised_regret(self) -> float:
        """The same of the advice: the predicted best where it surely gains, else NCCL's own choice."""
        return self._over_best(self.answer.advice)

    @property
    def within_spread(self) -> bool:
        """Whether the quartiles of the predicted and of the measured best overlap."""
        return self.measured_s[self.answer.best].q1 <= self.measured_s[self.measured_best].q3

    def _over_best(self, name: str) -> float:
        return self.measured_s[name].median / self.measured_s[self.measured_best].median - 1.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self.answer.as_dict(),
            "measured_s": {name: time.median for name, time in self.measured_s.items()},
            "measured_best": self.measured_best,
            "agrees": self.agrees,
            "regret": self.regret,
            "default_regret": self.default_regret,
            "advised_regret": self.advised_regret,
        }


@dataclass(frozen=True)
class ChannelValidation:
    """All Krakens of a measurement file that were measured under more than one limit."""

    source: str
    hardware: str
    rows: tuple[ChannelComparison, ...]
    warnings: tuple[str, ...] = ()

    @property
    def num_agreeing(self) -> int:
        """Rows whose predicted best is the measured best."""
        return sum(row.agrees for row in self.rows)

    @property
    def expected_agreeing(self) -> float:
        """How many rows should agree if the stated probabilities are right."""
        return sum(row.answer.decision.probability[row.answer.best] for row in self.rows)

    @property
    def mean_regret(self) -> float:
        """Mean loss of following the prediction."""
        return fmean(row.regret for row in self.rows)

    @property
    def mean_default_regret(self) -> float:
        """Mean loss of leaving NCCL its own choice."""
        return fmean(row.default_regret for row in self.rows)

    @property
    def mean_advised_regret(self) -> float:
        """Mean loss of the advice."""
        return fmean(row.advised_regret for row in self.rows)

    def mean_fixed_regret(self) -> dict[str, float]:
        """Mean loss of one fixed limit for all, by limit, over the limits that every row was measured with."""
        shared = [name for name in self.rows[0].measured_s if all(name in row.measured_s for row in self.rows)]
        return {name: fmean(row._over_best(name) for row in self.rows) for name in shared}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "source": self.source,
            "hardware": self.hardware,
            "rows": [row.as_dict() for row in self.rows],
            "num_agreeing": self.num_agreeing,
            "expected_agreeing": self.expected_agreeing,
            "mean_regret": self.mean_regret,
            "mean_default_regret": self.mean_default_regret,
            "mean_advised_regret": self.mean_advised_regret,
            "mean_fixed_regret": self.mean_fixed_regret(),
            "warnings": list(self.warnings),
        }


def compare_channels(measurements: MeasurementFile, hardware: str | None = None) -> ChannelValidation:
    """Predicted against measured best number of channels, for every overlapping Kraken launched as a graph.

    Eager passes are left out: there the host's time decides, not the channels.

    Raises:
        InputError: no Kraken of the file was measured under two limits and NCCL's own choice, or the profile is wrong.
    """
    name = hardware or matching_profile(measurements)
    warnings = machine_warnings(measurements, load_profile(name))
    groups: dict[tuple[object, ...], dict[int | None, PassRecord]] = defaultdict(dict)
    for record in measurements.each(PassRecord):
        collective = measurements.header.conditions.get(record.condition)
        if collective is not None and _overlaps(record) and _only_limits_channels(collective):
            sizes = (str(sorted(record.model.items())), str(sorted(record.architecture.items())))
            key = (*sizes, record.num_devices, record.phase, record.batch_size, record.context_length, record.dtype)
            groups[key][collective.get("channels")] = record
    rows = tuple(_compare(records, name) for records in groups.values() if None in records and len(records) > 1)
    if not rows:
        message = "holds no overlapping Kraken measured under several limits of channels and without one"
        raise InputError.single("", message, source=measurements.source)
    return ChannelValidation(measurements.source, name, rows, tuple(warnings))


def _overlaps(record: PassRecord) -> bool:
    return record.architecture.get("kind") in overlapping() and record.overlap and record.launch == "graph"


def _only_limits_channels(collective: Mapping[str, Any]) -> bool:
    others = {key: value for key, value in collective.items() if key != "channels" and value is not None}
    return others in ({"library": "nccl", "transport": "auto"}, {"library": "nccl"})


def _compare(records: Mapping[int | None, PassRecord], hardware: str) -> ChannelComparison:
    scenario = scenario_of_pass(records[None], {}, hardware)
    measured = {channels_name(count): record.time_s for count, record in records.items()}
    return ChannelComparison(best_channels(scenario, list(records), perturb=False), measured)
