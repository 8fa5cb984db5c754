"""Over how many GPUs of a machine one model should be spread, and wired how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kraken_sim.architectures.registry import BASELINE, kinds_named, searched
from kraken_sim.errors import InfeasibleError, InputError, one_line_of
from kraken_sim.explore.sensitivity import Alternative, decide, lowest, weighted
from kraken_sim.predict.answer import Answer
from kraken_sim.predict.energy import step_energy
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.predict.records import Records
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.placement import gpu_numbers
from kraken_sim.scenario.resolve import asked_devices
from kraken_sim.scenario.spec import as_scenario, with_architecture
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kraken_sim.explore.sensitivity import Decision
    from kraken_sim.predict.energy import StepEnergy
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.scenario.spec import Scenario, ScenarioSource


@dataclass(frozen=True)
class DegreeRow:
    """One architecture on one number of GPUs."""

    name: str
    kind: str
    num_devices: int
    num_replicas: int
    """Groups of `num_devices` that the machine, or the GPUs of its placement, have room for."""
    prediction: Prediction
    energy: StepEnergy

    @property
    def sequences_per_s(self) -> float:
        """Prompts (or tokens, in decode) a second of the whole machine, its replicas all busy."""
        return self.num_replicas * self.prediction.scenario.batch_size / self.prediction.latency_s

    @property
    def joules_per_sequence(self) -> float:
        """Energy of the GPUs for one prompt."""
        return self.energy.energy_j / self.prediction.scenario.batch_size

    def as_dict(self) -> dict[str, Any]:
        """For JSON and tables."""
        interval = self.prediction.interval
        return {
            "name": self.name,
            "architecture": self.kind,
            "num_devices": self.num_devices,
            "num_replicas": self.num_replicas,
            "latency_s": self.prediction.latency_s,
            "interval_s": [interval.low_s, interval.high_s],
            "exposed_communication_s": self.prediction.exposed_communication_s,
            "memory_bytes": self.prediction.memory.total_bytes,
            "sequences_per_s": self.sequences_per_s,
            "joules_per_sequence": self.joules_per_sequence,
            "energy_basis": self.energy.basis,
        }


@dataclass(frozen=True, repr=False)
class DegreeAnswer(Answer):
    """Every architecture on every degree that works, and why the others don't."""

    scenario: Scenario
    rows: tuple[DegreeRow, ...]
    impossible: Mapping[str, str]
    decision: Decision
    kinds: tuple[str, ...]
    """The architectures that were tried."""

    @property
    def headline(self) -> str:
        """The fastest, and the one with the most throughput."""
        latency_s = self.decision.latencies_s[self.best]
        throughput = f"most sequences a second: {self.best_throughput}"
        return f"on {self.scenario.hardware}: fastest {self.best}, {format_seconds(latency_s)}; {throughput}"

    @property
    def best(self) -> str:
        """The row with the lowest latency."""
        return self.decision.best

    def best_of(self, kind: str) -> str | None:
        """The row of one architecture with the lowest latency; None where it has none."""
        weights = self.latency_weights(kind)
        return lowest(weighted(self.decision.latencies_s, weights)) if weights else None

    @property
    def best_throughput(self) -> str:
        """The row with the most sequences a second on the whole machine."""
        return lowest(weighted(self.decision.latencies_s, self.throughput_weights()))

    def latency_weights(self, kind: str) -> dict[str, float]:
        """One for each row of an architecture."""
        return {row.name: 1.0 for row in self.rows if row.kind == kind}

    def throughput_weights(self) -> dict[str, float]:
        """By row, what turns its latency into machine-seconds a sequence."""
        return {row.name: 1.0 / row.num_replicas for row in self.rows}

    @property
    def records(self) -> Records:
        """One flat row for each architecture and degree."""
        return Records(
            {key: value for key, value in row.as_dict().items() if key != "interval_s"}
            | {"low_s": row.prediction.interval.low_s, "high_s": row.prediction.interval.high_s}
            for row in self.rows
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "hardware": self.scenario.hardware,
            "model": self.scenario.model.model_dump(exclude_none=True),
            "context_length": self.scenario.context_length,
            "best": self.best,
            "best_by_architecture": {kind: self.best_of(kind) for kind in self.kinds},
            "best_throughput": self.best_throughput,
            "rows": [row.as_dict() for row in self.rows],
            "impossible": dict(self.impossible),
            "decision": self.decision.as_dict(),
        }


def best_degree(scenario: ScenarioSource, *, perturb: bool = True, architectures: Sequence[str] = ()) -> DegreeAnswer:
    """Predicts the scenario's model on every power of two of its machine's GPUs, as each architecture.

    With `architectures` as those named, otherwise as those that searches try.

    `scenario.num_devices` is the most GPUs to use; default: all of the machine. A placement says which GPUs there are
    to use, and in which order: two ranks sit on its first two.

    Raises:
        InputError: the scenario is wrong, whatever the degree.
        InfeasibleError: the model fits on no number of GPUs.
    """
    scenario = as_scenario(scenario)
    named = kinds_named(architectures, "architectures")
    profile = load_profile(scenario.hardware)
    predictor = Predictor(profile)
    available = len(gpu_numbers(scenario.placement)) if scenario.placement else len(profile.topology.gpus)
    alternatives, impossible = [], {}
    fault: InputError | InfeasibleError | None = None
    for num_devices in degrees(profile, asked_devices(scenario)):
        for kind in named or searched() if num_devices > 1 else (BASELINE,):
            name = f"{kind} x{num_devices}"
            asked = _on(with_architecture(scenario, kind), num_devices)
            try:
                predictor.prepare(asked)
            except (InputError, InfeasibleError) as error:
                impossible[name] = one_line_of(error)
                # Out of memory on the most devices says most; a wrong model is wrong on any.
                fault = error
            else:
                alternatives.append(Alternative(name, asked, profile))
    if not alternatives:
        raise fault or InputError.single("num_devices", "no number of GPUs to try", scenario.num_devices, "8")
    decision = decide(alternatives, perturb=perturb)
    rows = tuple(_row(name, prediction, available) for name, prediction in decision.predictions.items())
    return DegreeAnswer(scenario, rows, impossible, decision, named or searched())


def _on(scenario: Scenario, num_devices: int) -> Scenario:
    """The scenario on fewer devices, the first ones of its placement."""
    placement = scenario.placement
    if placement is not None:
        placement = ",".join(map(str, gpu_numbers(placement)[:num_devices]))
    return scenario.model_copy(update={"num_devices": num_devices, "placement": placement})


def degrees(profile: HardwareProfile, most: int | None = None) -> list[int]:
    """Powers of two up to the machine's GPUs, or up to `most` of them; that number itself too.

    Raises:
        InputError: the machine has fewer GPUs.
    """
    available = len(profile.topology.gpus)
    if most is not None and most > available:
        raise InputError.single("num_devices", f"{profile.name} has {available} devices", most, str(available))
    limit = most or available
    return sorted({1 << power for power in range(limit.bit_length()) if 1 << power <= limit} | {limit})


def _row(name: str, prediction: Prediction, available: int) -> DegreeRow:
    resolved = prediction.resolved
    replicas = available // resolved.num_devices
    return DegreeRow(name, resolved.kind, resolved.num_devices, replicas, prediction, step_energy(prediction))
