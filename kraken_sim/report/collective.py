"""A collective's table as nccl-tests prints it, and as a page with plots."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from kraken_sim.standalone.collective_table import CollectiveRow, CollectiveTable

PREDICTED, MEASURED = "#4c72b0", "#c44e52"
_HEAD = (
    f"#{'size':>11}{'count':>14}{'type':>10}{'redop':>8}{'root':>8}{'time':>9}{'algbw':>8}{'busbw':>8}"
    f"  {'algorithm':<10}{'protocol':<9}{'channels':>8}"
)
_UNITS = f"#{'(B)':>11}{'(elements)':>14}{'':>26}{'(us)':>9}{'(GB/s)':>8}{'(GB/s)':>8}"


def collective_text(table: CollectiveTable) -> str:
    """The table; every line that is no row starts with #, as nccl-tests' do, so that its readers read this too."""
    measured = bool(table.errors)
    lines = [
        f"# {table.op} on {table.num_devices} GPUs of {table.hardware}, {table.library}: predicted",
        "#",
        _HEAD + (f"{'measured':>10}{'error':>9}" if measured else ""),
        _UNITS + (f"{'':>29}{'(us)':>10}{'(%)':>9}" if measured else ""),
        *(_line(row) for row in table.rows),
        f"# Avg bus bandwidth    : {table.average_busbw_gb_per_s:.4g}",
    ]
    worst = table.worst
    if table.mean_error is not None and worst is not None and worst.error is not None:
        lines.append(
            f"# Mean error           : {100 * table.mean_error:.1f} % of {len(table.errors)} measurements, "
            f"worst {100 * worst.error:+.1f} % at {worst.size_bytes} B"
        )
    return "\n".join(lines) + "\n"


def _line(row: CollectiveRow) -> str:
    text = (
        f"{row.size_bytes:>12}{row.count:>14}{row.type:>10}{row.redop:>8}{row.root:>8}"
        f"{_short(row.time_s * 1e6):>9}{row.algbw_gb_per_s:>8.2f}{row.busbw_gb_per_s:>8.2f}"
        f"  {row.algorithm:<10}{row.protocol:<9}{row.channels:>8}"
    )
    if row.measured_s is not None and row.error is not None:
        text += f"{_short(row.measured_s * 1e6):>10}{100 * row.error:>+9.1f}"
    return text


def _short(number: float) -> str:
    """Four digits or more, and no more than the column holds."""
    return f"{number:.2f}" if number < 1000 else f"{number:.1f}" if number < 100_000 else f"{number:.0f}"


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
    return _figure(table, times, measured, "time (us)", "log")


def busbw_figure(table: CollectiveTable) -> Any:
    """Bus bandwidth over size."""
    rates = [row.busbw_gb_per_s for row in table.rows]
    measured = [
        None if row.measured_s is None else row.busbw_gb_per_s * row.time_s / row.measured_s for row in table.rows
    ]
    return _figure(table, rates, measured, "bus bandwidth (GB/s)", "linear")


def _figure(
    table: CollectiveTable, predicted: list[float], measured: list[float | None], label: str, scale: str
) -> Any:
    import plotly.graph_objects as go

    sizes = [row.size_bytes for row in table.rows]
    ran = [f"{row.algorithm} {row.protocol}, {row.channels} channels" for row in table.rows]
    figure: Any = go.Figure()
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
