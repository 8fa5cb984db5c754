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
    from kraken_sim.explore.channels import best_channels as best_channels
    from kraken_sim.explore.dataframe import dataframe as dataframe
    from kraken_sim.explore.degree import best_degree as best_degree
    from kraken_sim.explore.design_request import DesignRequest as DesignRequest
    from kraken_sim.explore.design_request import load_design_request as load_design_request
    from kraken_sim.explore.interconnect import worthwhile_bandwidth as worthwhile_bandwidth
    from kraken_sim.explore.procure import procure as procure
    from kraken_sim.explore.procure_request import ProcureRequest as ProcureRequest
    from kraken_sim.explore.procure_request import load_procure_request as load_procure_request
    from kraken_sim.explore.search import search_designs as search_designs
    from kraken_sim.explore.sweep import sweep as sweep
    from kraken_sim.prediction import Prediction as Prediction
    from kraken_sim.scenario import Scenario as Scenario
    from kraken_sim.scenario import load_scenario as load_scenario
    from kraken_sim.single_op import predict_op as predict_op

_HOMES = {
    "DesignRequest": "explore.design_request",
    "InfeasibleError": "errors",
    "InputError": "errors",
    "KrakenSimError": "errors",
    "Prediction": "prediction",
    "ProcureRequest": "explore.procure_request",
    "Scenario": "scenario",
    "best_channels": "explore.channels",
    "best_degree": "explore.degree",
    "compare": "api",
    "dataframe": "explore.dataframe",
    "load_design_request": "explore.design_request",
    "load_procure_request": "explore.procure_request",
    "load_scenario": "scenario",
    "procure": "explore.procure",
    "simulate": "api",
    "predict_op": "single_op",
    "link_traffic": "concurrent",
    "simulate_concurrent": "concurrent",
    "sweep": "explore.sweep",
    "search_designs": "explore.search",
    "worthwhile_bandwidth": "explore.interconnect",
}

__all__ = [
    "DesignRequest",
    "InfeasibleError",
    "InputError",
    "KrakenSimError",
    "Prediction",
    "ProcureRequest",
    "Scenario",
    "best_channels",
    "best_degree",
    "compare",
    "dataframe",
    "link_traffic",
    "load_design_request",
    "load_procure_request",
    "load_scenario",
    "predict_op",
    "procure",
    "search_designs",
    "simulate",
    "simulate_concurrent",
    "sweep",
    "worthwhile_bandwidth",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
