"""Predicts how fast Transformers answer on several GPUs, and why.

The API is loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kraken_sim.api import compare as compare
    from kraken_sim.api import simulate as simulate
    from kraken_sim.concurrent import link_traffic as link_traffic
    from kraken_sim.concurrent import simulate_concurrent as simulate_concurrent
    from kraken_sim.errors import InfeasibleError as InfeasibleError
    from kraken_sim.errors import InputError as InputError
    from kraken_sim.errors import KrakenSimError as KrakenSimError
    from kraken_sim.explore.sweep import sweep as sweep
    from kraken_sim.prediction import Prediction as Prediction
    from kraken_sim.scenario import Scenario as Scenario
    from kraken_sim.scenario import load_scenario as load_scenario
    from kraken_sim.single_op import predict_op as predict_op

_HOMES = {
    "InfeasibleError": "errors",
    "InputError": "errors",
    "KrakenSimError": "errors",
    "Prediction": "prediction",
    "Scenario": "scenario",
    "load_scenario": "scenario",
    "compare": "api",
    "simulate": "api",
    "predict_op": "single_op",
    "link_traffic": "concurrent",
    "simulate_concurrent": "concurrent",
    "sweep": "explore.sweep",
}

__all__ = [
    "InfeasibleError",
    "InputError",
    "KrakenSimError",
    "Prediction",
    "Scenario",
    "compare",
    "link_traffic",
    "load_scenario",
    "predict_op",
    "simulate",
    "simulate_concurrent",
    "sweep",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
