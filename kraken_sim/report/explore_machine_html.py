"""Answers about degree and interconnect as pages with curves."""

from __future__ import annotations

from html import escape
from math import log10
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from kraken_sim.report.explore import question
from kraken_sim.report.explore_machine import (
    DEGREE_TITLE,
    INTERCONNECT_TITLE,
    degree_grid,
    degree_sentences,
    interconnect_grid,
    interconnect_sentences,
)
from kraken_sim.report.page import PALETTE, figures_html, render_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.explore.degree import DegreeAnswer
    from kraken_sim.explore.interconnect import InterconnectAnswer


def degree_html(answers: Sequence[DegreeAnswer]) -> str:
    """Every architecture on every degree as a page, with latency over GPUs by architecture."""
    figures = figures_html([_degree_figure(answer) for answer in answers])
    sections = []
    for answer, figure in zip(answers, figures, strict=True):
        words = "".join(f"<li>{sentence}</li>" for sentence in map(escape, degree_sentences(answer)))
        sections.append((question(answer.scenario), f"{degree_grid(answer).html()}<ul>{words}</ul>{figure}"))
    return render_page(DEGREE_TITLE, [], sections)


def _degree_figure(answer: DegreeAnswer) -> Any:
    figure = go.Figure()
    for kind, colour in zip(answer.kinds, PALETTE, strict=False):
        rows = [row for row in answer.rows if row.kind == kind]
        latencies = [row.prediction.latency_s for row in rows]
        highs = [row.prediction.interval.high_s for row in rows]
        figure.add_scatter(
            name=kind,
            x=[row.num_devices for row in rows],
            y=[1e3 * value for value in latencies],
            error_y={"type": "data", "array": [1e3 * (h - v) for h, v in zip(highs, latencies, strict=True)]},
            mode="lines+markers",
            line={"color": colour},
        )
    ticks = sorted({row.num_devices for row in answer.rows})
    xaxis = {"title": "GPUs", "type": "log", "tickvals": ticks, "ticktext": [str(tick) for tick in ticks]}
    figure.update_layout(template="plotly_white", height=420, margin={"t": 30}, xaxis=xaxis)
    metric = "TPOT" if answer.scenario.phase.value == "decode" else "TTFT"
    figure.update_yaxes(rangemode="tozero", title=f"{metric}, ms")
    return figure


def interconnect_html(answers: Sequence[InterconnectAnswer]) -> str:
    """The speed-up over bandwidth as a page, with the curve."""
    figures = figures_html([_interconnect_figure(answer) for answer in answers])
    sections = []
    for answer, figure in zip(answers, figures, strict=True):
        words = "".join(f"<p>{sentence}</p>" for sentence in map(escape, interconnect_sentences(answer)))
        heading = f"{question(answer.scenario)}, {answer.num_devices} GPUs"
        sections.append((heading, f"{words}{figure}{interconnect_grid(answer).html()}"))
    return render_page(INTERCONNECT_TITLE, [], sections)


def _interconnect_figure(answer: InterconnectAnswer) -> Any:
    figure = go.Figure()
    x = [1e-9 * point.bandwidth_bytes_per_s for point in answer.points]
    speedups = [100.0 * point.speedup for point in answer.points]
    for end, fill in ((0, None), (1, "tonexty")):
        figure.add_scatter(
            name="90 % interval",
            x=x,
            y=[100.0 * point.interval[end] for point in answer.points],
            mode="lines",
            line={"width": 0},
            fill=fill,
            fillcolor="rgba(76,114,176,0.18)",
            showlegend=fill is not None,
            hoverinfo="skip",
        )
    figure.add_scatter(name="Kraken over standard", x=x, y=speedups, mode="lines+markers", line={"color": PALETTE[0]})
    figure.add_hline(y=100.0 * answer.worth, line_dash="dash", line_color="#999", annotation_text="worth it")
    own = 1e-9 * answer.own.bandwidth_bytes_per_s
    figure.add_vline(x=own, line_dash="dot", line_color="#999")
    # An annotation of add_vline would be misplaced on a logarithmic axis.
    figure.add_annotation(x=log10(own), y=1.0, yref="paper", text="as built", showarrow=False, xanchor="left")
    xaxis = {"title": "line rate a GPU and direction, GB/s", "type": "log"}
    figure.update_layout(template="plotly_white", height=420, margin={"t": 30}, xaxis=xaxis, yaxis_title="speed-up, %")
    return figure
