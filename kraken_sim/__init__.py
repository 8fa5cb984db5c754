"""Predicts how fast Transformers answer on several GPUs, and why.

The API is loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from kraken_sim.errors import InfeasibleError as InfeasibleError
    from kraken_sim.errors import InputError as InputError
    from kraken_sim.errors import KrakenSimError as KrakenSimError
    from kraken_sim.explore.architectures import best_architecture as best_architecture
    from kraken_sim.explore.channels import best_channels as best_channels
    from kraken_sim.explore.dataframe import dataframe as dataframe
    from kraken_sim.explore.degree import best_degree as best_degree
    from kraken_sim.explore.design.request import DesignRequest as DesignRequest
    from kraken_sim.explore.design.request import load_design_request as load_design_request
    from kraken_sim.explore.design.search import search_designs as search_designs
    from kraken_sim.explore.interconnect import worthwhile_bandwidth as worthwhile_bandwidth
    from kraken_sim.explore.procure.candidates import procure as procure
    from kraken_sim.explore.procure.request import ProcureRequest as ProcureRequest
    from kraken_sim.explore.procure.request import load_procure_request as load_procure_request
    from kraken_sim.explore.sweep.sweep import sweep as sweep
    from kraken_sim.predict.api import compare as compare
    from kraken_sim.predict.api import simulate as simulate
    from kraken_sim.predict.prediction import Prediction as Prediction
    from kraken_sim.scenario.spec import Scenario as Scenario
    from kraken_sim.scenario.spec import load_scenario as load_scenario
    from kraken_sim.serving.answer import serve as serve
    from kraken_sim.serving.request import ServeRequest as ServeRequest
    from kraken_sim.serving.request import load_serve_request as load_serve_request
    from kraken_sim.standalone.concurrent import link_traffic as link_traffic
    from kraken_sim.standalone.concurrent import simulate_concurrent as simulate_concurrent
    from kraken_sim.standalone.one_op import predict_op as predict_op
    from kraken_sim.traces.comparison import diff_trace as diff_trace

_HOMES = {
    "DesignRequest": "explore.design.request",
    "InfeasibleError": "errors",
    "InputError": "errors",
    "KrakenSimError": "errors",
    "Prediction": "predict.prediction",
    "ProcureRequest": "explore.procure.request",
    "Scenario": "scenario.spec",
    "ServeRequest": "serving.request",
    "best_channels": "explore.channels",
    "best_architecture": "explore.architectures",
    "best_degree": "explore.degree",
    "compare": "predict.api",
    "dataframe": "explore.dataframe",
    "diff_trace": "traces.comparison",
    "load_design_request": "explore.design.request",
    "load_procure_request": "explore.procure.request",
    "load_scenario": "scenario.spec",
    "load_serve_request": "serving.request",
    "procure": "explore.procure.candidates",
    "serve": "serving.answer",
    "simulate": "predict.api",
    "predict_op": "standalone.one_op",
    "link_traffic": "standalone.concurrent",
    "simulate_concurrent": "standalone.concurrent",
    "sweep": "explore.sweep.sweep",
    "search_designs": "explore.design.search",
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
    "best_architecture",
    "best_channels",
    "best_degree",
    "compare",
    "dataframe",
    "diff_trace",
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
    if name == "__version__":
        return import_module("importlib.metadata").version("kraken_sim")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
