"""The Python API: a scenario in, a prediction out; or one op in, its seconds out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kraken_sim.architectures.registry import BASELINE, complete_kinds, kinds_named
from kraken_sim.errors import InfeasibleError, InputError, check_is, closest, one_line_of
from kraken_sim.predict.answer import Answer
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.predict.records import Records
from kraken_sim.profiles.profile import HardwareProfile
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.scenario.spec import as_scenario, with_architecture, with_kernels
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.scenario.spec import ScenarioSource


def simulate(
    scenario: ScenarioSource,
    *,
    exact: bool = False,
    profile: HardwareProfile | None = None,
) -> Prediction:
    """Predict one forward step.

    Args:
        scenario: a `Scenario`, a mapping of its shape, the path of a file or the name of one that ships.
        exact: simulate every rank and every layer instead of folding what repeats; the answer is the same.
        profile: the machine, instead of the one that the scenario names.

    Raises:
        InputError: the scenario is wrong, or does not fit its machine's profile.
        InfeasibleError: the model does not fit in the machine's memory.
    """
    _check_profile(profile)
    question = as_scenario(scenario, known_machine=profile is not None)
    return Predictor(profile).predict(question, exact=exact)


def _check_profile(profile: object) -> None:
    if profile is not None:
        check_is(profile, HardwareProfile, "profile", 'load_profile("h200-sxm-x2")')


class Predictions(Answer, list["Prediction"]):
    """Predictions of one question: every architecture with one kernel set, then with the next.

    `impossible` says why an architecture is not among them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.impossible: dict[str, str] = {}

    shown = ("architecture", "kernels", "latency_s", "interval_s.low", "interval_s.high", "speedup_percent")

    @property
    def headline(self) -> str:
        """The question, and who answers how fast."""
        if not self:
            return "no architecture"
        first, several = self[0], len(self.kernel_sets) > 1
        answers = ", ".join(
            f"{prediction.resolved.kind}{f' ({prediction.scenario.runtime.kernels})' if several else ''} "
            f"{format_seconds(prediction.latency_s)}" + (f" ({speedup:+.1f} %)" if prediction is not first else "")
            for prediction, speedup in zip(self, self.speedups_percent, strict=True)
        )
        return f"{first.metric} on {first.resolved.num_devices} x {first.scenario.hardware}: {answers}"

    @property
    def kernel_sets(self) -> tuple[KernelSet, ...]:
        """The kernel sets, in the order in which they were asked."""
        return tuple(dict.fromkeys(prediction.scenario.runtime.kernels for prediction in self))

    def with_kernels(self, kernels: KernelSet) -> Predictions:
        """Those with one kernel set."""
        found = Predictions()
        found.extend(prediction for prediction in self if prediction.scenario.runtime.kernels is kernels)
        return found

    @property
    def speedups_percent(self) -> list[float]:
        """How much faster each answers than the first one with the same kernel set."""
        first: dict[KernelSet, Prediction] = {}
        for prediction in self:
            first.setdefault(prediction.scenario.runtime.kernels, prediction)
        return [_faster_percent(first[prediction.scenario.runtime.kernels], prediction) for prediction in self]

    @property
    def kernels_speedups_percent(self) -> list[float]:
        """How much faster each answers than the same architecture with the first kernel set."""
        first: dict[str, Prediction] = {}
        for prediction in self:
            first.setdefault(prediction.resolved.kind, prediction)
        return [_faster_percent(first[prediction.resolved.kind], prediction) for prediction in self]

    @property
    def records(self) -> Records:
        """One flat row for each: architecture, kernel set, the columns of a sweep, the speed-ups."""
        return Records(
            prediction.records[0] | {"speedup_percent": speedup, "kernels_speedup_percent": by_kernels}
            for prediction, speedup, by_kernels in zip(
                self, self.speedups_percent, self.kernels_speedups_percent, strict=True
            )
        )


def _faster_percent(base: Prediction, prediction: Prediction) -> float:
    return 100.0 * (base.latency_s / prediction.latency_s - 1.0)


def compare(
    scenario: ScenarioSource,
    profile: HardwareProfile | None = None,
    *,
    kernels: Sequence[KernelSet | str] = (),
    architectures: Sequence[str] = (),
) -> Predictions:
    """The same model, machine and workload in every architecture, standard first.

    One that does not fit the question or the memory is left out, unless it is the scenario's own or was asked for.

    Args:
        scenario: a `Scenario`, a mapping of its shape, the path of a file or the name of one that ships.
        profile: the machine, instead of the one that the scenario names.
        kernels: kernel sets to ask for in turn, instead of the scenario's.
        architectures: those to compare, behind the standard one; default: all.

    Raises:
        InputError, InfeasibleError: see `simulate`; or a kernel set or an architecture that there is not.
    """
    _check_profile(profile)
    if isinstance(kernels, str) or not isinstance(kernels, Sequence):
        raise InputError.single("kernels", "must be a list of kernel sets", kernels, '["pytorch", "serving"]')
    scenario = as_scenario(scenario, known_machine=profile is not None)
    named = kinds_named(architectures, "architectures")
    asked_for = (BASELINE, *(named or (scenario.architecture.kind,)))
    predictor = Predictor(profile)
    predictions = Predictions()
    for kernel_set in dict.fromkeys(map(kernel_set_named, kernels)) or (scenario.runtime.kernels,):
        asked = with_kernels(scenario, kernel_set)
        for kind in dict.fromkeys(asked_for) if named else complete_kinds(scenario.architecture.kind):
            try:
                predictions.append(predictor.predict(with_architecture(asked, kind)))
            except (InputError, InfeasibleError) as error:
                if kind in asked_for:
                    raise
                predictions.impossible[kind] = one_line_of(error)
    return predictions


def kernel_set_named(name: KernelSet | str, path: str = "kernels") -> KernelSet:
    """The kernel set of that name; errors call its field `path`.

    Raises:
        InputError: there is none.
    """
    known = [kernels.value for kernels in KernelSet]
    if name not in known:
        guess = closest(name, known) if isinstance(name, str) else None
        raise InputError.single(path, f"must be one of {', '.join(known)}", name, known[0], guess)
    return KernelSet(name)
