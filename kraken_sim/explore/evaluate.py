"""The one door through which explorations predict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.predict.api import simulate
from kraken_sim.profiles.load import load_profile

if TYPE_CHECKING:
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.scenario.spec import Scenario


def predict(scenario: Scenario, profile: HardwareProfile | None = None) -> Prediction:
    """The prediction of one design, on `profile` where the machine is a what-if.

    Raises:
        InputError, InfeasibleError: see `simulate`.
    """
    return simulate(scenario, profile=load_profile(scenario.hardware) if profile is None else profile)
