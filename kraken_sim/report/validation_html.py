"""Predicted against measured, as parity plots."""

from __future__ import annotations

import html
from itertools import cycle
from math import log10
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from kraken_sim.report.page import PALETTE
from kraken_sim.validate.passes import pass_names

if TYPE_CHECKING:
    from kraken_sim.validate.passes import Comparison, ValidationResult

CONDITION_COLOURS = ("#4c72b0", "#55a868", "#8172b3", "#dd8452", "#64b5cd", "#da8bc3")
SYMBOLS = {"graph": "circle", "eager": "x-thin-open"}


def validation_html(result: ValidationResult) -> str:
    """Parity plots of latency and of speed-up in one file that needs no network."""
    figures = [("Time of a pass", parity_figure(result)), ("Kraken's speed-up over standard", speedup_figure(result))]
    parts = []
    for index, (title, figure) in enumerate(figures):
        body = figure.to_html(full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        parts.append(f"<h2>{html.escape(title)}</h2>{body}")
    style = "body{font-family:system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#222}"
    note = html.escape(f"{len(result.comparisons)} measured passes against the profile {result.hardware}")
    if result.dry_run:
        note = f"<strong>{html.escape(result.warnings[0])}</strong></p><p>{note}"
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Predicted against measured</title>"
        f"<style>{style}</style></head><body><h1>Predicted against measured</h1><p>{note}</p>"
        f"{''.join(parts)}</body></html>"
    )


def parity_figure(result: ValidationResult) -> Any:
    """Predicted over measured on logarithmic axes, with the diagonal and a band of 10 %."""
    figure = go.Figure()
    times = [1e3 * c.measured_s for c in result.comparisons] + [1e3 * c.predicted_s for c in result.comparisons]
    ends = [min(times) * 0.9, max(times) * 1.1]
    for factor, dash in ((1.0, "solid"), (1.1, "dot"), (0.9, "dot")):
        y = [end * factor for end in ends]
        line = {"color": "#999", "dash": dash, "width": 1}
        figure.add_scatter(x=ends, y=y, mode="lines", line=line, showlegend=False, hoverinfo="skip")
    for architecture, colour in zip(pass_names(), cycle(PALETTE), strict=False):
        for launch, symbol in SYMBOLS.items():
            chosen = [c for c in result.comparisons if (c.architecture, c.record.launch) == (architecture, launch)]
            if chosen:
                figure.add_scatter(
                    name=f"{architecture}, {launch}",
                    x=[1e3 * c.measured_s for c in chosen],
                    y=[1e3 * c.predicted_s for c in chosen],
                    mode="markers",
                    marker={"color": colour, "size": 7, "opacity": 0.7, "symbol": symbol},
                    text=[_label(c) for c in chosen],
                    hovertemplate="%{text}<br>measured %{x:.3f} ms, predicted %{y:.3f} ms",
                )
    axis = {"type": "log", "range": [log10(end) for end in ends]}
    figure.update_layout(
        template="plotly_white",
        height=620,
        margin={"t": 20},
        xaxis={**axis, "title": "measured, ms"},
        yaxis={**axis, "title": "predicted, ms"},
    )
    return figure


def speedup_figure(result: ValidationResult) -> Any:
    """Predicted against measured speed-up, one colour a condition."""
    figure = go.Figure()
    speedups = result.speedups()
    values = [s.measured_percent for s in speedups] + [s.predicted_percent for s in speedups] + [0.0]
    ends = [min(values) - 2, max(values) + 2]
    line = {"color": "#999", "width": 1}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=line, showlegend=False, hoverinfo="skip")
    for index, condition in enumerate(dict.fromkeys(s.kraken.condition for s in speedups)):
        for launch, symbol in SYMBOLS.items():
            chosen = [s for s in speedups if (s.kraken.condition, s.kraken.record.launch) == (condition, launch)]
            if chosen:
                figure.add_scatter(
                    name=f"{condition}, {launch}",
                    x=[s.measured_percent for s in chosen],
                    y=[s.predicted_percent for s in chosen],
                    mode="markers",
                    marker={"color": CONDITION_COLOURS[index % len(CONDITION_COLOURS)], "symbol": symbol},
                    text=[_label(s.kraken) for s in chosen],
                    hovertemplate="%{text}<br>measured %{x:.1f} %, predicted %{y:.1f} %",
                )
    figure.update_layout(
        template="plotly_white", height=520, margin={"t": 20}, xaxis_title="measured, %", yaxis_title="predicted, %"
    )
    return figure


def _label(comparison: Comparison) -> str:
    record = comparison.record
    where = f"{comparison.condition}, {record.launch}"
    return f"{comparison.architecture} {comparison.size}, {record.context_length} tokens, {where}"
