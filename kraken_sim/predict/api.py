"""The Python API: a scenario in, a prediction out; or one op in, its seconds out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.architectures.registry import BASELINE, kinds
from kraken_sim.errors import InputError, check_is
from kraken_sim.predict.columns import prediction_columns, prediction_row
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.predict.records import Records
from kraken_sim.profiles.profile import HardwareProfile
from kraken_sim.scenario.spec import as_scenario, with_architecture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.scenario.spec import Scenario


def simulate(
    scenario: Scenario | Mapping[str, object],
    *,
    exact: bool = False,
    profile: HardwareProfile | None = None,
) -> Prediction:
    """Predict one forward step.

    Args:
        scenario: a `Scenario`, or a mapping of its shape.
        exact: simulate every rank and every layer instead of folding what repeats; the answer is the same.
        profile: the machine, instead of the one that the scenario names.

    Raises:
        InputError: the scenario is wrong, or does not fit its machine's profile.
        InfeasibleError: the model does not fit in the machine's memory.
    """
    _check_profile(profile)
    return Predictor(profile).predict(as_scenario(scenario), exact=exact)


def _check_profile(profile: object) -> None:
    if profile is not None:
        check_is(profile, HardwareProfile, "profile", 'load_profile("h200-sxm-x2")')


class Predictions(list["Prediction"]):
    """Predictions of one question, each against the first."""

    @property
    def speedups_percent(self) -> list[float]:
        """How much faster each answers than the first."""
        return [100.0 * (self[0].latency_s / prediction.latency_s - 1.0) for prediction in self]

    @property
    def records(self) -> Records:
        """One flat row for each prediction: its architecture, the columns of a sweep, the speed-up over the first."""
        names = [name for name, _ in prediction_columns()]
        return Records(
            {
                "architecture": prediction.resolved.kind,
                **dict(zip(names, prediction_row(prediction), strict=True)),
                "speedup_percent": speedup,
            }
            for prediction, speedup in zip(self, self.speedups_percent, strict=True)
        )


def compare(scenario: Scenario | Mapping[str, object], profile: HardwareProfile | None = None) -> Predictions:
    """The same model, machine and workload in every architecture, standard first.

    One that the question does not fit is left out, unless it is the scenario's own.

    Raises:
        InputError, InfeasibleError: see `simulate`.
    """
    _check_profile(profile)
    scenario = as_scenario(scenario)
    predictor = Predictor(profile)
    predictions = Predictions()
    for kind in kinds():
        try:
            predictions.append(predictor.predict(with_architecture(scenario, kind)))
        except InputError:
            if kind in (BASELINE, scenario.architecture.kind):
                raise
    return predictions
