"""Answers about degree and interconnect as pages with curves."""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from kraken_sim.report.explore import percent, question, span_percent
from kraken_sim.report.explore_machine import (
    DEGREE_TITLE,
    INTERCONNECT_TITLE,
    degree_grid,
    degree_sentences,
    interconnect_grid,
    interconnect_sentences,
)
from kraken_sim.report.figures import INK, MUTED, PALETTE, series_style
from kraken_sim.report.headlines import most_often, prediction_headline
from kraken_sim.report.page import Bullets, Headline, Page, Plot, Section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.explore.degree import DegreeAnswer
    from kraken_sim.explore.interconnect import InterconnectAnswer


def degree_page(answers: Sequence[DegreeAnswer]) -> Page:
    """Every architecture on every degree as a page, with latency over GPUs by architecture."""
    sections = []
    for answer in answers:
        picture = Plot(degree_figure(answer), "Latency over GPUs, with 90 % intervals")
        sections.append(
            Section(
                question(answer.scenario),
                [Bullets(degree_sentences(answer)), picture, degree_grid(answer)._replace(title="")],
            )
        )
    return Page("Exploration", DEGREE_TITLE, sections, _degree_headline(answers))


def _degree_headline(answers: Sequence[DegreeAnswer]) -> Headline:
    """The fastest, and where its time goes; of several questions what most often is."""
    if len(answers) > 1:
        return most_often([answer.best for answer in answers])
    answer = answers[0]
    row = next(row for row in answer.rows if row.name == answer.best)
    chance = percent(answer.decision.probability[answer.best], 0)
    how = f"the fastest of {len(answer.rows)} with a probability of {chance}"
    on = f"{row.num_devices} GPU{'s' if row.num_devices != 1 else ''}"
    what = f"{row.prediction.metric} of {row.kind} on {on}: {how}"
    return prediction_headline(row.prediction, what)


def degree_figure(answer: DegreeAnswer) -> Any:
    """Latency over GPUs, a curve for each architecture, with its 90 % intervals."""
    figure = go.Figure()
    for index, kind in enumerate(answer.kinds):
        rows = [row for row in answer.rows if row.kind == kind]
        latencies = [row.prediction.latency_s for row in rows]
        ups = [1e3 * (row.prediction.interval.high_s - row.prediction.latency_s) for row in rows]
        downs = [1e3 * (row.prediction.latency_s - row.prediction.interval.low_s) for row in rows]
        figure.add_scatter(
            name=kind,
            x=[row.num_devices for row in rows],
            y=[1e3 * value for value in latencies],
            error_y={"type": "data", "symmetric": False, "array": ups, "arrayminus": downs},
            mode="lines+markers",
            **series_style(index),
        )
    ticks = sorted({row.num_devices for row in answer.rows})
    xaxis = {"title": "GPUs", "type": "log", "tickvals": ticks, "ticktext": [str(tick) for tick in ticks]}
    figure.update_layout(height=420, xaxis=xaxis)
    metric = "TPOT" if answer.scenario.phase.value == "decode" else "TTFT"
    figure.update_yaxes(rangemode="tozero", title=f"{metric}, ms")
    return figure


def interconnect_page(answers: Sequence[InterconnectAnswer]) -> Page:
    """The speed-up over bandwidth as a page, with the curve."""
    sections = []
    for answer in answers:
        picture = Plot(bandwidth_figure(answer), "Kraken's speed-up over the links' line rate, with its 90 % interval")
        heading = f"{question(answer.scenario)}, {answer.num_devices} GPUs"
        words = Bullets(interconnect_sentences(answer))
        sections.append(Section(heading, [words, picture, interconnect_grid(answer)._replace(title="")]))
    return Page("Exploration", INTERCONNECT_TITLE, sections, _interconnect_headline(answers))


def _interconnect_headline(answers: Sequence[InterconnectAnswer]) -> Headline:
    """The speed-up on the links as built, and how slow links make it worth it; of several questions its range."""
    owns = [100.0 * answer.own.speedup for answer in answers]
    if len(answers) > 1:
        return Headline(
            f"{min(owns):+.1f} to {max(owns):+.1f} %",
            f"Kraken over standard on the links of {len(answers)} machines as built",
        )
    answer = answers[0]
    return Headline(
        f"{owns[0]:+.1f} %",
        f"Kraken over standard on {answer.num_devices} x {answer.scenario.hardware} as built",
        f"90 % interval: {span_percent(answer.own.interval)}",
        interconnect_sentences(answer)[0],
    )


def bandwidth_figure(answer: InterconnectAnswer) -> Any:
    """The speed-up over the line rate of the links, with its interval and where it is worth it."""
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
            fillcolor="rgba(0,114,178,0.22)",
            showlegend=fill is not None,
            hoverinfo="skip",
        )
    figure.add_scatter(name="Kraken over standard", x=x, y=speedups, mode="lines+markers", line={"color": PALETTE[0]})
    figure.add_hline(y=100.0 * answer.worth, line_dash="dash", line_color=MUTED, annotation_text="worth it")
    own = 1e-9 * answer.own.bandwidth_bytes_per_s
    figure.add_vline(x=own, line_dash="dot", line_color=INK)
    # An annotation of add_vline would be misplaced on a logarithmic axis.
    figure.add_annotation(x=log10(own), y=1.0, yref="paper", text="as built", showarrow=False, xanchor="left")
    xaxis = {"title": "line rate a GPU and direction, GB/s", "type": "log"}
    figure.update_layout(height=420, xaxis=xaxis, yaxis_title="speed-up, %")
    return figure
