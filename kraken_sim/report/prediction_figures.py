"""The figures of predictions: where the time goes, a layer of each on one scale, memory, communication, roofline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go

from kraken_sim.engine.timeline import SpanKind
from kraken_sim.predict.card_load import arithmetic_format
from kraken_sim.program.ops import Collective
from kraken_sim.program.program import MAIN_STREAM
from kraken_sim.report.figures import (
    BAR_WIDTH,
    COLOURS,
    INK,
    MUTED,
    PALETTE,
    PAPER,
    PART_NAMES,
    SYMBOLS,
    colour_of,
    row_figure,
)
from kraken_sim.report.labels import prediction_labels
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.engine.timeline import Span
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.program.ops import Op

STREAM_NAMES: Final = {0: "compute", 1: "communication"}
"""What a stream's number stands for in a figure."""

_EDGE: Final = {"color": PAPER, "width": 1}
"""Around a part of a bar, so that neighbours of one colour stay apart; a choice of ours."""


def breakdown_figure(predictions: Sequence[Prediction]) -> Any:
    """Stacked bars, one a prediction, in milliseconds."""
    labels = prediction_labels(predictions)
    names = [f"{name}: {format_seconds(p.latency_s, 3)}" for name, p in zip(labels, predictions, strict=True)]
    figure = row_figure(names, barmode="stack", xaxis={"title": {"text": "ms"}})
    for category, colour in COLOURS.items():
        values = [1e3 * prediction.breakdown_s.get(category, 0.0) for prediction in predictions]
        if any(value > 0.0 for value in values):
            _add_part(figure, PART_NAMES[category], colour, values, labels, "ms")
    return figure


def _add_part(figure: Any, name: str, colour: str, values: Sequence[float], rows: Sequence[str], unit: str) -> None:
    figure.add_bar(
        name=name,
        y=list(range(len(values))),
        x=list(values),
        orientation="h",
        width=BAR_WIDTH,
        marker={"color": colour, "line": _EDGE},
        customdata=list(rows),
        hovertemplate=f"%{{customdata}}<br>{name}: %{{x:.4g}} {unit}<extra></extra>",
    )


def memory_figure(predictions: Sequence[Prediction]) -> Any:
    """Bytes of a GPU by what they hold, with the GPU's capacity."""
    labels = prediction_labels(predictions)
    figure = row_figure(labels, barmode="stack", xaxis={"title": {"text": "GB a GPU"}})
    parts = {
        "weights": ("#0072b2", [prediction.memory.weights_bytes for prediction in predictions]),
        "KV cache": ("#e69f00", [prediction.memory.kv_cache_bytes for prediction in predictions]),
        "activations": ("#cc79a7", [prediction.memory.activation_bytes for prediction in predictions]),
    }
    for name, (colour, values) in parts.items():
        _add_part(figure, name, colour, [1e-9 * value for value in values], labels, "GB")
    capacity = 1e-9 * predictions[0].profile.device.hbm_capacity_bytes
    figure.add_scatter(
        name=f"the GPU's {capacity:.0f} GB",
        x=[capacity, capacity],
        y=[-0.5, len(labels) - 0.5],
        mode="lines",
        line={"color": INK, "dash": "dash", "width": 2},
        hoverinfo="skip",
    )
    return figure


def communication_figure(predictions: Sequence[Prediction]) -> Any:
    """Exposed and hidden communication."""
    labels = prediction_labels(predictions)
    figure = row_figure(labels, barmode="stack", xaxis={"title": {"text": "ms of communication"}})
    exposed = [1e3 * prediction.exposed_communication_s for prediction in predictions]
    hidden = [1e3 * prediction.hidden_communication_s for prediction in predictions]
    _add_part(figure, "exposed: the GPU waits", "#d55e00", exposed, labels, "ms")
    _add_part(figure, "hidden beside compute", "#56b4e9", hidden, labels, "ms")
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


def layers_figure(predictions: Sequence[Prediction]) -> Any:
    """One layer of every prediction on one scale, a track for each of its streams."""
    rows: list[tuple[str, list[Span], float]] = []
    for label, prediction in zip(prediction_labels(predictions), predictions, strict=True):
        spans = steady_layer(prediction)
        start_s = min(span.start_s for span in spans)
        for stream in sorted({span.stream for span in spans}):
            name = f"{label}: {STREAM_NAMES.get(stream, f'stream {stream}')}"
            rows.append((name, [span for span in spans if span.stream == stream], start_s))
    longest_us = max(1e6 * (span.end_s - start_s) for _, spans, start_s in rows for span in spans)
    axis = {"title": {"text": "us from the layer's first kernel"}, "range": [0, 1.01 * longest_us]}
    figure = row_figure([name for name, _, _ in rows], barmode="overlay", xaxis=axis)
    for key, colour in COLOURS.items():
        found = [
            (row, span, start_s)
            for row, (_, spans, start_s) in enumerate(rows)
            for span in spans
            if colour_of(span) == key
        ]
        if found:
            _add_spans(figure, PART_NAMES[key], colour, found)
    figure.update_layout(uniformtext={"minsize": 9, "mode": "hide"})
    return figure


def _add_spans(figure: Any, name: str, colour: str, found: Sequence[tuple[int, Span, float]]) -> None:
    figure.add_bar(
        name=name,
        y=[row for row, _, _ in found],
        x=[1e6 * span.duration_s for _, span, _ in found],
        base=[1e6 * (span.start_s - start_s) for _, span, start_s in found],
        orientation="h",
        width=BAR_WIDTH,
        marker={"color": colour, "line": _EDGE},
        text=[span.name for _, span, _ in found],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        customdata=[[1e6 * span.alone_s, span.detail] for _, span, _ in found],
        hovertemplate="%{text}: %{x:.2f} us (alone %{customdata[0]:.2f} us)<br>%{customdata[1]}<extra></extra>",
    )


def roofline_figure(predictions: Sequence[Prediction]) -> Any:
    """Compute kernels of a step by their arithmetic intensity and rate, below what the GPU's datasheet allows."""
    figure = go.Figure()
    device = predictions[0].profile.device
    found = [(label, _rates(p)) for label, p in zip(prediction_labels(predictions), predictions, strict=True)]
    formats = {dtype for _, rates in found for _, _, _, dtype in rates.values()}
    intensities = [intensity for _, rates in found for _, intensity, _, _ in rates.values()]
    ends = [min([0.5, *intensities]) / 1.5, max([1.0, *intensities])]
    for dtype in sorted(formats, key=str):
        peak = device.rate_flops(dtype)
        knee = peak / device.hbm_bandwidth_bytes_per_s
        x = [ends[0], knee, max(2.0 * ends[1], 4.0 * knee)]
        figure.add_scatter(
            name=f"datasheet, {dtype}",
            x=x,
            y=[1e-12 * min(peak, device.hbm_bandwidth_bytes_per_s * value) for value in x],
            mode="lines",
            line={"color": INK, "width": 2, "dash": "solid" if dtype == predictions[0].scenario.dtype else "dash"},
            hovertemplate="%{y:.4g} TFLOP/s at %{x:.4g} FLOP/byte<extra></extra>",
        )
    for index, (label, rates) in enumerate(found):
        figure.add_scatter(
            name=label,
            x=[intensity for _, intensity, _, _ in rates.values()],
            y=[1e-12 * rate for _, _, rate, _ in rates.values()],
            text=[name for name, _, _, _ in rates.values()],
            mode="markers",
            marker={
                "color": PALETTE[index % len(PALETTE)],
                "symbol": SYMBOLS[index % len(SYMBOLS)],
                "size": 9,
                "line": {"color": MUTED, "width": 1},
            },
            hovertemplate="%{text}: %{y:.4g} TFLOP/s at %{x:.4g} FLOP/byte",
        )
    figure.update_layout(
        height=420,
        xaxis={"type": "log", "dtick": 1, "title": {"text": "arithmetic intensity, FLOP/byte"}},
        yaxis={"type": "log", "dtick": 1, "title": {"text": "TFLOP/s"}},
    )
    return figure


def _rates(prediction: Prediction) -> dict[Op, tuple[str, float, float, Any]]:
    """Of each kernel with matrix products: its name, FLOPs a byte of HBM, FLOP/s alone, and its number format."""
    found: dict[Op, tuple[str, float, float, Any]] = {}
    for kernel in prediction.prepared.program.kernels():
        op = kernel.op
        if isinstance(op, Collective) or op in found or (dtype := arithmetic_format(op)) is None:
            continue
        cost = prediction.prepared.pricing.kernel(op)
        if cost.hbm_bytes > 0.0 and cost.flops > 0.0:
            found[op] = (kernel.name, cost.flops / cost.hbm_bytes, cost.flops / cost.busy_s, dtype)
    return found


def changes_figure(names: Sequence[str], percents: Sequence[float]) -> Any:
    """By how many per cent each change makes the answer take longer or shorter."""
    figure = row_figure(names, xaxis={"title": {"text": "change of the latency, %"}})
    figure.add_bar(
        y=list(range(len(names))),
        x=list(percents),
        orientation="h",
        width=BAR_WIDTH,
        marker_color=["#d55e00" if value > 0.0 else "#0072b2" for value in percents],
        text=[f"{value:+.1f} %" for value in percents],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{text}<extra></extra>",
    )
    most = max([1.0, *(abs(value) for value in percents)])
    lowest = min([0.0, *percents])
    figure.update_xaxes(
        range=[lowest - 0.35 * most if lowest < 0.0 else -0.02 * most, max([0.0, *percents]) + 0.35 * most]
    )
    return figure
