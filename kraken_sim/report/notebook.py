"""Answers as figures, for notebooks: of each kind the one that its page begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from kraken_sim.errors import InputError
from kraken_sim.explore.architectures import ArchitectureAnswer
from kraken_sim.explore.channels import ChannelAnswer
from kraken_sim.explore.degree import DegreeAnswer
from kraken_sim.explore.design.search import SearchResult
from kraken_sim.explore.interconnect import InterconnectAnswer
from kraken_sim.explore.procure.candidates import Procurement
from kraken_sim.explore.sweep.sweep import SweepResult
from kraken_sim.predict.api import Predictions
from kraken_sim.predict.prediction import Prediction
from kraken_sim.report.design_html import front_figure
from kraken_sim.report.diff_trace_html import class_figure
from kraken_sim.report.explore_html import channels_figure
from kraken_sim.report.explore_machine_html import bandwidth_figure, degree_figure
from kraken_sim.report.figures import figure_data
from kraken_sim.report.gains_figure import gains_figure
from kraken_sim.report.prediction_figures import breakdown_figure
from kraken_sim.report.procure_html import cost_figure
from kraken_sim.report.serving_html import share_figure
from kraken_sim.serving.answer import ServeAnswer
from kraken_sim.traces.comparison import TraceComparison

if TYPE_CHECKING:
    from kraken_sim.predict.answer import Answer


def figure_of(answer: Answer) -> Any:
    """The figure of an answer, a `plotly.graph_objects.Figure`.

    Raises:
        InputError: there is none of such an answer.
    """
    figure = go.Figure(figure_data(_figure_of(answer)))
    # Pages set this by their script; a notebook has none.
    figure.update_layout(template="plotly_white")
    return figure


def _figure_of(answer: Answer) -> Any:
    match answer:
        case Prediction():
            return breakdown_figure([answer])
        case Predictions():
            return breakdown_figure(answer)
        case ArchitectureAnswer():
            return gains_figure(answer.rivals)
        case ChannelAnswer():
            return channels_figure([answer])
        case DegreeAnswer():
            return degree_figure(answer)
        case InterconnectAnswer():
            return bandwidth_figure(answer)
        case SearchResult():
            return front_figure(answer)
        case Procurement():
            return cost_figure(answer)
        case ServeAnswer():
            return share_figure(answer)
        case TraceComparison():
            return class_figure(answer)
        case SweepResult():
            return sweep_figure(answer)
        case _:
            message = f"there is no figure of a {type(answer).__name__}"
            raise InputError.single("answer", message, example="simulate(...).plot()")


def sweep_figure(answer: SweepResult) -> Any:
    """Latency of every point that has one: over the first swept field, a curve for each value of the others."""
    rows = [row for row in answer.records if row["latency_s"] is not None]
    swept = list(answer.table.column_names)[1 : answer.table.column_names.index("latency_s")]
    figure = go.Figure()
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        curves.setdefault(", ".join(f"{name} {row[name]}" for name in swept[1:]), []).append(row)
    for name, points in curves.items():
        x = [row[swept[0]] if swept else row["point"] for row in points]
        latencies = [1e3 * row["latency_s"] for row in points]
        figure.add_scatter(name=name, x=x, y=latencies, mode="lines+markers", showlegend=bool(name))
    figure.update_layout(height=420, xaxis_title=swept[0] if swept else "point", yaxis_title="latency, ms")
    return figure
