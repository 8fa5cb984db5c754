"""A collective's table as a page with plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from kraken_sim.report.collective import collective_text
from kraken_sim.report.figures import PALETTE
from kraken_sim.report.page import Command, Headline, Page, Plot, Section
from kraken_sim.units import format_bandwidth, format_bytes, format_seconds

if TYPE_CHECKING:
    from kraken_sim.standalone.collective_table import CollectiveTable

PREDICTED, MEASURED, LIKELY = PALETTE[0], PALETTE[1], "rgba(0, 114, 178, 0.22)"
"""Colours of lines and points, and of the interval; the last is the first, see-through. A choice of ours."""


def collective_page(table: CollectiveTable) -> Page:
    """Time and bus bandwidth by size, then the table."""
    sections = [
        Section("Time", [Plot(time_figure(table), "Time over the size of the message, with its 90 % interval")]),
        Section(
            "Bus bandwidth", [Plot(busbw_figure(table), "Bus bandwidth, which compares with the links' line rate")]
        ),
        Section("The table", [Command(collective_text(table), keeps_lines=True)]),
    ]
    title = f"{table.op} on {table.num_devices} GPUs of {table.hardware}"
    return Page("Collective", title, sections, _headline(table))


def _headline(table: CollectiveTable) -> Headline:
    """How far predictions are off, where there are measurements; else the bus bandwidth of the largest message."""
    worst = table.worst
    if table.mean_error is None or worst is None or worst.error is None:
        return _busbw_headline(table)
    return Headline(
        f"{100 * table.mean_error:.1f} %",
        f"mean error of {len(table.errors)} measurements",
        f"worst {100 * worst.error:+.1f} % at {worst.size_bytes} bytes ({format_seconds(worst.time_s)} predicted)",
    )


def _busbw_headline(table: CollectiveTable) -> Headline:
    least, most = table.rows[0], max(table.rows, key=lambda row: row.size_bytes)
    rate = most.busbw_gb_per_s * 1e9
    low, high = (format_bandwidth(rate * most.time_s / end_s, 3) for end_s in (most.high_s, most.low_s))
    ran = f"{most.algorithm} {most.protocol} on {most.channels} channels"
    return Headline(
        format_bandwidth(rate, 3),
        f"bus bandwidth of {format_bytes(most.size_bytes)}, which take {format_seconds(most.time_s, 3)}",
        f"90 % interval: {low} to {high}",
        f"They go by {ran}; {format_bytes(least.size_bytes)} take {format_seconds(least.time_s, 3)}.",
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
        height=360, showlegend=True, yaxis={"title": label, "type": scale, "rangemode": "tozero"},
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
