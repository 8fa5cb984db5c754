"""Predictions held against measured passes: errors by architecture and condition, and Kraken's speed-up."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kraken_sim.architectures.registry import architecture, architectures
from kraken_sim.errors import InputError, KrakenSimError
from kraken_sim.measurements.machine import machine_warnings, matching_profile
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.rehearsal import as_on_device, is_rehearsal
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.kernel_sets import CardLoad
from kraken_sim.scenario.fields import NAME_LIMIT
from kraken_sim.scenario.spec import scenario_from

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kraken_sim.architectures.architecture import Architecture
    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.predict.uncertainty import Interval
    from kraken_sim.scenario.host import HostSpec
    from kraken_sim.scenario.spec import Scenario

STANDARD_NAME, KRAKEN_NAME = "standard", "kraken"
"""What validation asks by name: how well Kraken's speed-up over standard is predicted."""


REHEARSED = "h200-sxm-x8"
"""The machine that a file of CPUs is held against unless one is named: a calibrated one that has devices enough."""


def name_of(record: Architecture[Any, Any], *, overlap: bool) -> str:
    """An architecture's name among passes: one that could overlap but blocked stands apart."""
    return f"{record.kind} (blocking)" if record.overlaps and not overlap else record.kind


def pass_names() -> tuple[str, ...]:
    """Every name that `name_of` gives, in the order of the architectures."""
    return tuple(
        dict.fromkeys(name_of(record, overlap=overlap) for record in architectures() for overlap in (True, False))
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measured pass and its prediction, in seconds."""

    record: PassRecord
    condition: str
    measured_s: float
    predicted_s: float
    interval: Interval

    @property
    def inside(self) -> bool:
        """Whether the measured time lies in the prediction's interval."""
        return self.interval.low_s <= self.measured_s <= self.interval.high_s

    @property
    def error(self) -> float:
        """Relative error, predicted / measured - 1."""
        return self.predicted_s / self.measured_s - 1.0

    @property
    def architecture(self) -> str:
        """Its architecture, one that could overlap but blocked apart from the overlapping one."""
        return name_of(architecture(str(self.record.architecture["kind"])), overlap=self.record.overlap)

    @property
    def overlaps(self) -> bool:
        """Whether its collectives ran beside compute."""
        return self.record.overlap and architecture(str(self.record.architecture["kind"])).overlaps

    @property
    def size(self) -> str:
        """The model's name, or its number of layers and width."""
        model = self.record.model
        return str(model.get("preset") or f"{model.get('num_hidden_layers')}x{model.get('hidden_size')}")

    @property
    def question(self) -> tuple[object, ...]:
        """Everything but the architecture: passes that answer the same question share it."""
        record = self.record
        layers = record.model.get("num_hidden_layers")
        sizes = (self.size, layers, record.num_devices, record.phase, record.batch_size)
        state = (record.kernels, record.load)
        return (*sizes, record.context_length, record.dtype, record.launch, self.condition, *state)


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """|predicted / measured - 1| over some passes."""

    count: int
    mean: float
    worst: float
    bias: float
    inside: float
    """Share of the passes that lie in the interval of their prediction."""


@dataclass(frozen=True, slots=True)
class Speedup:
    """Kraken against standard on one question, in per cent."""

    kraken: Comparison
    standard: Comparison

    @property
    def measured_percent(self) -> float:
        """Measured TTFT_standard / TTFT_kraken - 1."""
        return 100.0 * (self.standard.measured_s / self.kraken.measured_s - 1.0)

    @property
    def predicted_percent(self) -> float:
        """The same of the predictions."""
        return 100.0 * (self.standard.predicted_s / self.kraken.predicted_s - 1.0)

    @property
    def error_points(self) -> float:
        """Predicted minus measured, in points."""
        return self.predicted_percent - self.measured_percent


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """All passes of a file."""

    source: str
    hardware: str
    comparisons: tuple[Comparison, ...]
    skipped: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())
    dry_run: bool = False
    """Measured on CPUs: the first warning says so, and the errors say nothing of the hardware."""

    def summary(self, key: Callable[[Comparison], Any]) -> dict[Any, ErrorSummary]:
        """Errors grouped by `key`, groups in order of appearance."""
        groups: dict[Any, list[Comparison]] = defaultdict(list)
        for comparison in self.comparisons:
            groups[key(comparison)].append(comparison)
        return {name: summarise(group) for name, group in groups.items()}

    def speedups(self) -> list[Speedup]:
        """Overlapping Kraken against standard wherever both were measured."""
        standard = {c.question: c for c in self.comparisons if c.architecture == STANDARD_NAME}
        return [
            Speedup(comparison, standard[comparison.question])
            for comparison in self.comparisons
            if comparison.architecture == KRAKEN_NAME and comparison.question in standard
        ]

    def as_dict(self) -> dict[str, Any]:
        """Passes, errors and speed-ups, for JSON."""
        return {
            "source": self.source,
            "hardware": self.hardware,
            "passes": [
                {
                    "architecture": c.architecture,
                    "model": c.record.model,
                    "context_length": c.record.context_length,
                    "num_devices": c.record.num_devices,
                    "phase": c.record.phase,
                    "batch_size": c.record.batch_size,
                    "dtype": c.record.dtype.value,
                    "kernels": c.record.kernels.value,
                    "load": c.record.load.value if c.record.load is not None else None,
                    "launch": c.record.launch.value,
                    "condition": c.condition,
                    "measured_s": c.measured_s,
                    "predicted_s": c.predicted_s,
                    "interval_s": [c.interval.low_s, c.interval.high_s],
                    "error": c.error,
                }
                for c in self.comparisons
            ],
            "speedups": [
                {
                    "model": s.kraken.size,
                    "context_length": s.kraken.record.context_length,
                    "launch": s.kraken.record.launch.value,
                    "condition": s.kraken.condition,
                    "measured_percent": s.measured_percent,
                    "predicted_percent": s.predicted_percent,
                }
                for s in self.speedups()
            ],
            "skipped": list(self.skipped),
            "warnings": list(self.warnings),
            "dry_run": self.dry_run,
        }


def summarise(comparisons: Sequence[Comparison]) -> ErrorSummary:
    """Mean and worst absolute error, and the mean signed one."""
    errors = [comparison.error for comparison in comparisons]
    inside = fmean(comparison.inside for comparison in comparisons)
    return ErrorSummary(len(errors), fmean(map(abs, errors)), max(map(abs, errors)), fmean(errors), inside)


def validate_passes(
    measurements: MeasurementFile,
    hardware: str | None = None,
    host: HostSpec | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ValidationResult:
    """Predict every measured pass of a file with a profile; of more than `MOST_HELD` so many, drawn from all of them.

    Args:
        measurements: a file of `validation.measure`.
        hardware: the profile's name or path; default: the shipped one that fits the measured machine.
        host: the host that launched the passes; default: the profile's.
        progress: called with the passes done so far, and how many there are.

    Raises:
        InputError: the file has no passes, the profile is unknown or none fits, or it is another machine's.
    """
    passes = measurements.sample(PassRecord)
    source = measurements.source
    if not passes:
        message = "holds no whole passes; measure them with --suite passes"
        raise InputError.single("", message, source=source)
    name = hardware or (REHEARSED if is_rehearsal(measurements) else matching_profile(measurements))
    profile = load_profile(name)
    warnings = machine_warnings(measurements, profile, rehearse=True)
    if (count := measurements.drawn_from().get("pass")) is not None:
        warnings.append(f"of {count:,} passes {len(passes):,} are predicted, drawn from all of them")
    measurements = as_on_device(measurements)
    predictor = Predictor(profile)
    comparisons, skipped = [], []
    for done, record in enumerate(passes, start=1):
        try:
            comparisons.append(_compare(record, measurements.header.conditions, name, predictor, host))
        except KrakenSimError as error:
            skipped.append(f"{record.key}: {error}")
        if progress is not None:
            progress(done, len(passes))
    if not comparisons:
        raise InputError.single("", f"no pass could be predicted; the first: {skipped[0]}", source=source)
    dry_run = measurements.header.device_type != "cuda"
    return ValidationResult(source, name, tuple(comparisons), tuple(skipped), tuple(warnings), dry_run)


def _compare(
    record: PassRecord,
    conditions: Mapping[str, dict[str, Any] | None],
    name: str,
    predictor: Predictor,
    host: HostSpec | None,
) -> Comparison:
    collective = conditions.get(record.condition)
    if collective is None:
        raise InputError.single("condition", "no scenario describes this condition", record.condition)
    scenario = scenario_of_pass(record, collective, name)
    if host is not None:
        scenario = scenario.model_copy(update={"runtime": scenario.runtime.model_copy(update={"host": host})})
    prediction = predictor.predict(scenario)
    # Under load a record is the period of passes back to back.
    predicted_s = prediction.period_s if record.load is CardLoad.SUSTAINED else prediction.latency_s
    interval = prediction.interval.times(predicted_s / prediction.latency_s)
    if record.load is None:
        # The card was idle between passes, so its clock may lie anywhere between the two states.
        rested = scenario.model_copy(update={"runtime": scenario.runtime.model_copy(update={"load": CardLoad.RESTED})})
        interval = interval.joined(predictor.predict(rested).interval)
    return Comparison(record, record.condition, record.time_s.median, predicted_s, interval)


def _formats(record: PassRecord) -> dict[str, str]:
    if record.quantization is None:
        return {}
    scheme = {} if record.activation_scheme is None else {"activation_scheme": record.activation_scheme.value}
    return {"quantization": record.quantization.value, **scheme}


def scenario_of_pass(record: PassRecord, collective: Mapping[str, Any], hardware: str) -> Scenario:
    """The scenario that a measured pass answers.

    Args:
        record: the pass.
        collective: its condition, as `runtime.collective` of a scenario.
        hardware: the profile to predict with.

    Raises:
        InputError: the record is not of a scenario's shape.
    """
    runtime = {
        "launch": record.launch.value,
        "kernels": record.kernels.value,
        "overlap": record.overlap,
        "collective": collective,
    }
    if record.load is not None:
        runtime["load"] = record.load.value
    return scenario_from(
        {
            # A model given by its sizes has a long key, a name is at most as long as a scenario allows.
            "name": record.key[:NAME_LIMIT],
            "hardware": hardware,
            "model": record.model,
            "architecture": record.architecture,
            "num_devices": record.num_devices,
            "phase": record.phase,
            "batch_size": record.batch_size,
            "context_length": record.context_length,
            "dtype": record.dtype.value,
            **_formats(record),
            "runtime": runtime,
        }
    )
