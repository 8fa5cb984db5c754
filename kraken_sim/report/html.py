"""Predictions as one HTML file that needs no network: breakdowns, and the timeline of a layer."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from kraken_sim.engine.timeline import SpanKind
from kraken_sim.explore.quality import quality_of
from kraken_sim.predict.host_bound import host_bound
from kraken_sim.program.program import MAIN_STREAM, Category
from kraken_sim.report.labels import prediction_labels
from kraken_sim.report.text import load_words, metric_of
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.engine.timeline import Span
    from kraken_sim.predict.prediction import Prediction

COLOURS = {
    Category.NORM: "#8da0cb",
    Category.GEMM: "#4c72b0",
    Category.OVERLAPPED_GEMM: "#64b5cd",
    Category.ATTENTION: "#55a868",
    Category.LM_HEAD: "#937860",
    Category.ALL_REDUCE: "#c44e52",
    Category.OTHER: "#b8b8b8",
}
WAIT_COLOUR = "#f0c27b"
STREAM_NAMES = {0: "compute stream", 1: "communication stream"}
"""What a stream's number stands for in a figure."""


def render_html(predictions: Sequence[Prediction]) -> str:
    """The report as a string; architectures are told apart by their kernel sets where there are several."""
    names = prediction_labels(predictions)
    parts = [_figure(breakdown_figure(predictions), first=True)]
    layers = [steady_layer(prediction) for prediction in predictions]
    longest_s = max((spans[-1].end_s - spans[0].start_s for spans in layers if spans), default=0.0)
    for name, prediction, spans in zip(names, predictions, layers, strict=True):
        parts.append(f"<h2>One layer: {html.escape(name)}</h2>")
        parts.append(f"<p>{html.escape(_layer_caption(prediction, spans))}</p>")
        parts.append(_figure(layer_figure(spans, longest_s), first=False))
    title = html.escape(predictions[0].scenario.name)
    summary = "".join(f"<li>{html.escape(_summary(prediction, predictions[0]))}</li>" for prediction in predictions)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<title>{title}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{title}</h1><ul>{summary}</ul><h2>Where the time goes</h2>{''.join(parts)}</body></html>"
    )


_STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#222}"
    "h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}p,li{line-height:1.5}"
)


def _summary(prediction: Prediction, base: Prediction) -> str:
    scenario = prediction.scenario
    metric = metric_of(prediction)
    text = (
        f"{prediction.resolved.kind} on {prediction.resolved.num_devices} x {scenario.hardware}, "
        f"{scenario.runtime.kernels} kernels: "
        f"{metric} {format_seconds(prediction.latency_s)}, "
        f"exposed communication {format_seconds(prediction.exposed_communication_s)}, "
        f"hidden {format_seconds(prediction.hidden_communication_s)}"
    )
    if prediction is not base:
        text += f", {100 * (base.latency_s / prediction.latency_s - 1):+.1f} % against {base.resolved.kind}"
        if base.scenario.runtime.kernels is not scenario.runtime.kernels:
            text += f" with {base.scenario.runtime.kernels} kernels"
        if prediction.resolved.kind != base.resolved.kind:
            text += f"; quality: {quality_of(prediction)}"
    text += f"; {load_words(prediction)}"
    found = host_bound(prediction)
    return text if found is None else f"{text}; {found.sentence()}"


def _figure(figure: Any, *, first: bool) -> str:
    """A figure as a div; the first one brings the script library along."""
    text: str = figure.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False})
    return text


def breakdown_figure(predictions: Sequence[Prediction]) -> Any:
    """Stacked bars, one an architecture, in milliseconds."""
    names = prediction_labels(predictions)
    figure = go.Figure()
    for category, colour in COLOURS.items():
        values = [1e3 * prediction.breakdown_s[category.value] for prediction in predictions]
        if any(value > 0.0 for value in values):
            label = category.value.replace("_", " ")
            figure.add_bar(name=label, y=names, x=values, orientation="h", marker_color=colour)
    figure.update_layout(
        barmode="stack",
        template="plotly_white",
        height=140 + 60 * len(names),
        margin={"l": 30 + 8 * max(map(len, names)), "r": 20, "t": 35, "b": 45},
        xaxis_title="ms",
        yaxis={"autorange": "reversed"},
        legend={"traceorder": "normal"},
    )
    return figure


def steady_layer(prediction: Prediction) -> list[Span]:
    """Spans of rank 0 in one layer of the steady state, by start; idle time of the other streams is left out."""
    shown = [
        span
        for span in prediction.timeline.simulated
        if span.rank == 0 and (span.stream == MAIN_STREAM or span.kind is not SpanKind.WAIT)
    ]
    spans = [span for span in shown if span.segment == "layer"] or shown
    iterations = sorted({span.iteration for span in spans})
    folded = [fold.iteration for fold in prediction.timeline.folds if fold.segment == "layer"]
    chosen = folded[0] if folded else iterations[len(iterations) // 2]
    return sorted((span for span in spans if span.iteration == chosen), key=lambda span: span.start_ps)


def _layer_caption(prediction: Prediction, spans: Sequence[Span]) -> str:
    length = max(span.end_s for span in spans) - min(span.start_s for span in spans)
    times = 1 + sum(fold.count for fold in prediction.timeline.folds if fold.segment == spans[0].segment)
    others = f"; {times} layers run exactly like it" if times > 1 else ""
    return f"{format_seconds(length)} from its first kernel to its last{others}."


def layer_figure(spans: Sequence[Span], longest_s: float) -> Any:
    """One track a stream, microseconds from the layer's first kernel; all layers share `longest_s`."""
    start_s = min(span.start_s for span in spans)
    figure = go.Figure()
    for label, colour in [*((c.value, COLOURS[c]) for c in Category), ("waiting", WAIT_COLOUR)]:
        chosen = [span for span in spans if _label(span) == label]
        if not chosen:
            continue
        figure.add_bar(
            name=label.replace("_", " "),
            y=[STREAM_NAMES[span.stream] for span in chosen],
            x=[1e6 * span.duration_s for span in chosen],
            base=[1e6 * (span.start_s - start_s) for span in chosen],
            orientation="h",
            marker={"color": colour, "line": {"color": "white", "width": 1}},
            text=[span.name for span in chosen],
            textposition="inside",
            insidetextanchor="middle",
            customdata=[[1e6 * span.alone_s, span.detail] for span in chosen],
            hovertemplate="%{text}: %{x:.2f} us (alone %{customdata[0]:.2f} us)<br>%{customdata[1]}",
        )
    streams = [STREAM_NAMES[stream] for stream in sorted({span.stream for span in spans})]
    figure.update_layout(
        barmode="overlay",
        template="plotly_white",
        height=145 + 60 * len(streams),
        margin={"l": 150, "r": 20, "t": 35, "b": 45},
        xaxis={"title": "us", "range": [0, 1e6 * longest_s * 1.02]},
        yaxis={"categoryorder": "array", "categoryarray": streams[::-1]},
        uniformtext={"minsize": 8, "mode": "hide"},
    )
    return figure


def _label(span: Span) -> str:
    return "waiting" if span.kind is SpanKind.WAIT else span.category.value
