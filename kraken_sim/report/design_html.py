"""The Pareto front of a search as a page, with a picture of every design."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go

from kraken_sim.architectures.registry import kinds
from kraken_sim.explore.design.request import Objective
from kraken_sim.report.design import front_grid, search_sentences
from kraken_sim.report.figures import INK, PALETTE, SYMBOLS
from kraken_sim.report.page import Headline, Page, Plot, Section
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.explore.design.evaluate import Evaluated
    from kraken_sim.explore.design.search import SearchResult

_AXES: Final = {
    Objective.TTFT: ("TTFT, ms", 1e3),
    Objective.TPOT: ("TPOT, ms", 1e3),
    Objective.GOODPUT: ("requests/s a GPU within the limits", 1.0),
    Objective.ENERGY: ("energy of the GPUs, J a step", 1.0),
    Objective.COST: ("cost a million tokens", 1.0),
    Objective.MEMORY: ("memory a device, GB", 1e-9),
    Objective.GPUS: ("GPUs", 1.0),
    Objective.PARAMETERS: ("parameters, B", 1e-9),
    Objective.WIDTH: ("hidden_size", 1.0),
    Objective.DEPTH: ("layers", 1.0),
}
"""The title of an objective's axis, and what its SI values are multiplied by there."""

_TIMES: Final = (Objective.TTFT, Objective.TPOT)
"""Objectives in seconds."""


def design_page(result: SearchResult) -> Page:
    """The front as a page, with every design that was evaluated."""
    picture = Plot(front_figure(result), "Every design that was tried, the Pareto front ringed")
    sections = [
        Section("Every design that keeps the constraints", [picture]),
        Section("The front", [front_grid(result)]),
    ]
    title = f"Designs: {result.request.name}"
    return Page("Design search", title, sections, _headline(result), search_sentences(result))


def _headline(result: SearchResult) -> Headline:
    """The best by the first objective, and the best of the other architectures beside it."""
    best, objective = result.best, result.request.objectives[0]
    what = objective.value.upper() if objective in _TIMES else _AXES[objective][0]
    is_latency = objective in _TIMES and best.value(objective) == best.latency_s
    span = f"{format_seconds(best.low_s, 3)} to {format_seconds(best.high_s, 3)}"
    return Headline(
        _value_text(best, objective),
        f"{what} of {best.design.label}: the best of {len(result.evaluated):,} designs that keep the constraints",
        f"90 % interval: {span}" if is_latency else "",
        _why(result, objective),
    )


def _why(result: SearchResult, objective: Objective) -> str:
    chosen = result.best.design.kind
    others = [item for item in result.evaluated if item.design.kind != chosen]
    if not others:
        return f"Every design that keeps the constraints is {chosen}."
    worst_first = sorted(others, key=lambda item: -item.minimised(objective))
    firsts = {item.design.kind: _value_text(item, objective) for item in worst_first}
    return f"The best of the other architectures: {', '.join(f'{kind} {value}' for kind, value in firsts.items())}."


def _value_text(item: Evaluated, objective: Objective) -> str:
    """An objective's value with its unit where that is time, else in the unit of its axis."""
    if objective in _TIMES:
        return format_seconds(item.value(objective), 3)
    return f"{_AXES[objective][1] * item.value(objective):.3g}"


def front_figure(result: SearchResult) -> Any:
    """Designs over the first two objectives, by architecture, and the front through them."""
    objectives = (*result.request.objectives, Objective.PARAMETERS, Objective.MEMORY)
    x_axis = objectives[0]
    y_axis = next(objective for objective in objectives[1:] if objective is not x_axis)
    figure = go.Figure()
    for index, kind in enumerate(kinds()):
        chosen = [item for item in result.evaluated if item.design.kind == kind]
        if chosen:
            marker = {"color": PALETTE[index % len(PALETTE)], "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 8}
            _add_points(figure, kind, chosen, x_axis, y_axis, {"mode": "markers", "marker": marker})
    front = sorted(result.front, key=lambda item: item.value(x_axis))
    ring = {"color": "rgba(0,0,0,0)", "size": 13, "line": {"color": INK, "width": 1.5}}
    style = {"mode": "lines+markers", "marker": ring, "line": {"color": INK, "width": 1, "dash": "dot"}}
    _add_points(figure, "front", front, x_axis, y_axis, style)
    figure.update_layout(
        height=520,
        showlegend=True,
        xaxis_title=_AXES[x_axis][0],
        yaxis_title=_AXES[y_axis][0],
    )
    return figure


def _add_points(
    figure: Any, name: str, items: Sequence[Evaluated], x_axis: Objective, y_axis: Objective, style: dict[str, Any]
) -> None:
    figure.add_scatter(
        name=name,
        x=[item.value(x_axis) * _AXES[x_axis][1] for item in items],
        y=[item.value(y_axis) * _AXES[y_axis][1] for item in items],
        text=[item.design.label for item in items],
        hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}",
        **style,
    )
