"""Predicted against measured, as parity plots."""

from __future__ import annotations

from itertools import cycle
from math import log10
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from kraken_sim.report.explore import percent
from kraken_sim.report.figures import MUTED, PALETTE
from kraken_sim.report.page import Headline, Page, Plot, Section
from kraken_sim.report.validation import launch_sentences
from kraken_sim.validate.passes import pass_names

if TYPE_CHECKING:
    from kraken_sim.validate.passes import Comparison, ValidationResult

LAUNCH_SYMBOLS = {"graph": "circle", "eager": "x"}


def validation_page(result: ValidationResult) -> Page:
    """Parity plots of latency and of speed-up."""
    times = Plot(parity_figure(result), "Predicted over measured time of each pass; dotted: 10 % off")
    speedups = Plot(speedup_figure(result), "Predicted over measured speed-up")
    sections = [Section("Time of a pass", [times]), Section("Kraken's speed-up over standard", [speedups])]
    note = f"{len(result.comparisons)} measured passes against the profile {result.hardware}"
    warnings = result.warnings[:1] if result.dry_run else []
    return Page(
        "Validation",
        "Predicted against measured",
        sections,
        _headline(result),
        [note, *launch_sentences(result)],
        warnings,
    )


def _headline(result: ValidationResult) -> Headline:
    """The mean error of all passes, the worst, and to which side they are off."""
    errors = next(iter(result.summary(lambda _: None).values()))
    side = "long" if errors.bias > 0.0 else "short"
    return Headline(
        percent(errors.mean),
        f"mean error of {errors.count} measured passes",
        f"worst {percent(errors.worst)}; {percent(errors.inside, 0)} lie in their 90 % intervals",
        f"On average predictions are {percent(abs(errors.bias))} too {side}.",
    )


def parity_figure(result: ValidationResult) -> Any:
    """Predicted over measured on logarithmic axes, with the diagonal and a band of 10 %."""
    figure = go.Figure()
    times = [1e3 * c.measured_s for c in result.comparisons] + [1e3 * c.predicted_s for c in result.comparisons]
    ends = [min(times) * 0.9, max(times) * 1.1]
    for factor, dash in ((1.0, "solid"), (1.1, "dot"), (0.9, "dot")):
        y = [end * factor for end in ends]
        line = {"color": MUTED, "dash": dash, "width": 1}
        figure.add_scatter(x=ends, y=y, mode="lines", line=line, showlegend=False, hoverinfo="skip")
    for architecture, colour in zip(pass_names(), cycle(PALETTE), strict=False):
        for launch, symbol in LAUNCH_SYMBOLS.items():
            chosen = [c for c in result.comparisons if (c.architecture, c.record.launch) == (architecture, launch)]
            if chosen:
                figure.add_scatter(
                    name=f"{architecture}, {launch}",
                    x=[1e3 * c.measured_s for c in chosen],
                    y=[1e3 * c.predicted_s for c in chosen],
                    mode="markers",
                    marker={"color": colour, "size": 7, "opacity": 0.7, "symbol": symbol},
                    text=[_label(c) for c in chosen],
                    hovertemplate="%{text}<br>measured %{x:.3f} ms, predicted %{y:.3f} ms<extra></extra>",
                )
    axis = {"type": "log", "range": [log10(end) for end in ends]}
    figure.update_layout(
        height=620,
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
    line = {"color": MUTED, "width": 1}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=line, showlegend=False, hoverinfo="skip")
    for index, condition in enumerate(dict.fromkeys(s.kraken.condition for s in speedups)):
        for launch, symbol in LAUNCH_SYMBOLS.items():
            chosen = [s for s in speedups if (s.kraken.condition, s.kraken.record.launch) == (condition, launch)]
            if chosen:
                figure.add_scatter(
                    name=f"{condition}, {launch}",
                    x=[s.measured_percent for s in chosen],
                    y=[s.predicted_percent for s in chosen],
                    mode="markers",
                    marker={"color": PALETTE[index % len(PALETTE)], "symbol": symbol},
                    text=[_label(s.kraken) for s in chosen],
                    hovertemplate="%{text}<br>measured %{x:.1f} %, predicted %{y:.1f} %<extra></extra>",
                )
    figure.update_layout(height=520, xaxis_title="measured, %", yaxis_title="predicted, %")
    return figure


def _label(comparison: Comparison) -> str:
    record = comparison.record
    where = f"{comparison.condition}, {record.launch}"
    return f"{comparison.architecture} {comparison.size}, {record.context_length} tokens, {where}"
