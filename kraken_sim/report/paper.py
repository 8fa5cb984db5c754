"""The paper's grid as a table and as a picture."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kraken_sim.models.config import ArchitectureKind
from kraken_sim.paper import geomean_percent
from kraken_sim.report.html import COLOURS
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from kraken_sim.paper import Cell, GridResult

STANDARD, PARALLEL, KRAKEN = ArchitectureKind.STANDARD, ArchitectureKind.PARALLEL, ArchitectureKind.KRAKEN


def paper_report(result: GridResult) -> RenderableType:
    """Every cell's TTFT and speed-ups, and the reported figures beside the predicted."""
    table = Table(title=f"{result.grid.name} on {result.grid.hardware}", title_justify="left")
    columns = ("model", "devices", "tokens", "width", "standard", "parallel", "kraken", "parallel", "kraken")
    units = ("", "", "", "a sub-layer", "TTFT", "TTFT", "TTFT", "speed-up", "speed-up")
    for column, unit in zip(columns, units, strict=True):
        table.add_column(f"{column}\n{unit}", justify="left" if column == "model" else "right")
    for cell in result.cells:
        shape = cell.predictions[KRAKEN].resolved.kraken
        table.add_row(
            cell.model,
            str(cell.num_devices),
            str(cell.context_length),
            str(shape.hidden_size) if shape else "",
            *(format_seconds(cell.predictions[kind].latency_s) for kind in (STANDARD, PARALLEL, KRAKEN)),
            *(f"{cell.speedup_percent(kind):+.1f} %" for kind in (PARALLEL, KRAKEN)),
        )
    return Group(table, _summary(result))


def _summary(result: GridResult) -> Text:
    speedups = [cell.speedup_percent(KRAKEN) for cell in result.cells]
    text = Text()
    text.append(
        f"Kraken over standard, predicted: {min(speedups):.1f} to {max(speedups):.1f} %, "
        f"geometric mean {result.geomean_kraken_speedup_percent:.1f} %\n",
        style="bold",
    )
    reported = result.grid.reported
    if reported is not None:
        text.append(
            f"Kraken over standard, reported:  {reported.min_speedup_percent:.1f} to "
            f"{reported.max_speedup_percent:.1f} %, geometric mean {reported.geomean_speedup_percent:.1f} % "
            f"({reported.source})\n"
        )
    descriptions = {assumption.name: assumption.description for assumption in result.grid.assumptions}
    for name, cells in result.assumptions:
        text.append(f"  {name}: geometric mean {geomean_percent(cells):.1f} %; {descriptions[name]}\n")
    return text


def paper_html(result: GridResult) -> str:
    """Speed-ups of every cell, and the breakdown of every forward pass, in one file."""
    figures = [speedup_figure(result), *(breakdown_figure(result.cells, n) for n in result.grid.num_devices)]
    titles = ["Speed-up over standard", *(f"Breakdown on {n} devices" for n in result.grid.num_devices)]
    parts = []
    for index, (title, figure) in enumerate(zip(titles, figures, strict=True)):
        body = figure.to_html(full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        parts.append(f"<h2>{html.escape(title)}</h2>{body}")
    summary = html.escape(_summary(result).plain).replace("\n", "<br>")
    style = "body{font-family:system-ui,sans-serif;max-width:1200px;margin:2rem auto;padding:0 1rem;color:#222}"
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<title>{html.escape(result.grid.name)}</title><style>{style}</style></head><body>"
        f"<h1>{html.escape(result.grid.name)} on {html.escape(result.grid.hardware)}</h1>"
        f"<p>{summary}</p>{''.join(parts)}</body></html>"
    )


def speedup_figure(result: GridResult) -> Any:
    """Kraken's and parallel's speed-ups, one group of bars a cell, with the reported range behind them."""
    import plotly.graph_objects as go

    labels = [_label(cell) for cell in result.cells]
    figure = go.Figure()
    for kind, colour in ((PARALLEL, "#dd8452"), (KRAKEN, "#4c72b0")):
        values = [cell.speedup_percent(kind) for cell in result.cells]
        figure.add_bar(name=kind.value, x=labels, y=values, marker_color=colour)
    reported = result.grid.reported
    if reported is not None:
        figure.add_hrect(
            y0=reported.min_speedup_percent, y1=reported.max_speedup_percent, fillcolor="#999", opacity=0.15
        )
        figure.add_hline(
            y=reported.geomean_speedup_percent,
            line_dash="dash",
            annotation_text=f"reported mean {reported.geomean_speedup_percent} %",
        )
    figure.update_layout(
        template="plotly_white", height=420, barmode="group", yaxis_title="speed-up, %", margin={"t": 20}
    )
    return figure


def breakdown_figure(cells: Sequence[Cell], num_devices: int) -> Any:
    """Shares of the categories for the three architectures of every cell on `num_devices`."""
    import plotly.graph_objects as go

    kinds_shown = (STANDARD, PARALLEL, KRAKEN)
    chosen = [(cell, kind) for cell in cells if cell.num_devices == num_devices for kind in kinds_shown]
    groups = [f"{cell.model}<br>{cell.context_length} tokens" for cell, _ in chosen]
    kinds = [kind.value for _, kind in chosen]
    figure = go.Figure()
    for category, colour in COLOURS.items():
        standard = [cell.predictions[STANDARD].latency_s for cell, _ in chosen]
        parts = [cell.predictions[kind].breakdown_s[category.value] for cell, kind in chosen]
        values = [100.0 * part / whole for part, whole in zip(parts, standard, strict=True)]
        figure.add_bar(name=category.value.replace("_", " "), x=[groups, kinds], y=values, marker_color=colour)
    figure.update_layout(
        template="plotly_white", height=480, barmode="stack", yaxis_title="% of standard's TTFT", margin={"t": 20}
    )
    return figure


def _label(cell: Cell) -> str:
    return f"{cell.model} {cell.context_length} x{cell.num_devices}"
