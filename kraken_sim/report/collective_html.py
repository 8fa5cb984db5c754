"""A collective's table as a page with plots."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from kraken_sim.report.collective import collective_text
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from kraken_sim.standalone.collective_table import CollectiveTable

PREDICTED, MEASURED, LIKELY = "#4c72b0", "#c44e52", "rgba(76, 114, 176, 0.2)"


def collective_html(table: CollectiveTable) -> str:
    """One page that needs no network: time and bus bandwidth by size, then the table."""
    title = html.escape(f"{table.op} on {table.num_devices} GPUs of {table.hardware}")
    figures = [time_figure(table), busbw_figure(table)]
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        for index, figure in enumerate(figures)
    ]
    worst, note = table.worst, ""
    if table.mean_error is not None and worst is not None and worst.error is not None:
        note = (
            f"<p>Mean error {100 * table.mean_error:.1f} % of {len(table.errors)} measurements, worst "
            f"{100 * worst.error:+.1f} % at {worst.size_bytes} bytes ({format_seconds(worst.time_s)} predicted).</p>"
        )
    style = "body{font-family:system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#222}"
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title><style>{style}</style>"
        f"</head><body><h1>{title}</h1>{note}{''.join(parts)}"
        f"<pre>{html.escape(collective_text(table))}</pre></body></html>"
    )


def time_figure(table: CollectiveTable) -> Any:
    """Time over size, both logarithmic."""
    times = [row.time_s * 1e6 for row in table.rows]
    measured = [None if row.measured_s is None else row.measured_s * 1e6 for row in table.rows]
    ends = [row.low_s * 1e6 for row in table.rows], [row.high_s * 1e6 for row in table.rows]
    return _figure(table, times, measured, ends, "time (us)", "log")


def busbw_figure(table: CollectiveTable) -> Any:
    """Bus bandwidth over size."""
    rates = [row.busbw_gb_per_s for row in table.rows]
    measured = [
        None if row.measured_s is None else row.busbw_gb_per_s * row.time_s / row.measured_s for row in table.rows
    ]
    ends = tuple(
        [row.busbw_gb_per_s * row.time_s / end if end else 0.0 for row, end in zip(table.rows, times, strict=True)]
        for times in ([row.high_s for row in table.rows], [row.low_s for row in table.rows])
    )
    return _figure(table, rates, measured, (ends[0], ends[1]), "bus bandwidth (GB/s)", "linear")


def _figure(
    table: CollectiveTable,
    predicted: list[float],
    measured: list[float | None],
    ends: tuple[list[float], list[float]],
    label: str,
    scale: str,
) -> Any:
    sizes = [row.size_bytes for row in table.rows]
    ran = [f"{row.algorithm} {row.protocol}, {row.channels} channels" for row in table.rows]
    figure: Any = go.Figure()
    figure.add_scatter(x=sizes, y=ends[0], mode="lines", line={"width": 0}, showlegend=False, hoverinfo="skip")
    figure.add_scatter(
        x=sizes, y=ends[1], mode="lines", line={"width": 0}, fill="tonexty", name="90 %", fillcolor=LIKELY
    )
    figure.add_scatter(
        x=sizes, y=predicted, text=ran, name="predicted", mode="lines+markers", line={"color": PREDICTED},
        marker={"size": 5},
    )  # fmt: skip
    if any(value is not None for value in measured):
        marker = {"color": MEASURED, "size": 8, "symbol": "x"}
        figure.add_scatter(x=sizes, y=measured, name="measured", mode="markers", marker=marker)
    figure.update_layout(
        template="plotly_white", height=360, margin={"l": 70, "r": 20, "t": 20, "b": 50}, showlegend=True,
        legend={"x": 0.02, "y": 0.98}, yaxis={"title": label, "type": scale, "rangemode": "tozero"},
        xaxis={"title": "message (bytes)", "type": "log", "tickvals": _ticks(sizes), "ticktext": _tick_names(sizes)},
    )  # fmt: skip
    return figure


def _ticks(sizes: list[int]) -> list[int]:
    """Powers of 16 between the ends, or few sizes as they are."""
    powers = [2**power for power in range(0, 64, 4) if min(sizes) <= 2**power <= max(sizes)]
    return powers if len(powers) > 1 else sorted(set(sizes))[:8]


def _tick_names(sizes: list[int]) -> list[str]:
    names = []
    for size in _ticks(sizes):
        power = min(3, (size.bit_length() - 1) // 10)
        names.append(f"{size / 1024**power:g} {('B', 'KiB', 'MiB', 'GiB')[power]}")
    return names
