"""Pictures of a grid: those of the paper's figures that show latency, drawn from predictions, and what-ifs."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kraken_sim.paper.experiment import geomean_percent
from kraken_sim.paper.grid import KINDS, KRAKEN, PARALLEL, STANDARD, LinkClass
from kraken_sim.paper.summary import speedups_percent
from kraken_sim.program.program import Category
from kraken_sim.report.figures import COLOURS, INK, MUTED, PALETTE, PART_NAMES, WAITING, row_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kraken_sim.paper.experiment import Cell, GridResult
    from kraken_sim.paper.grid import InterconnectSpec
    from kraken_sim.paper.summary import Effect
    from kraken_sim.predict.prediction import Prediction

KIND_COLOURS = {PARALLEL: PALETTE[1], KRAKEN: PALETTE[0]}
"""Of the bars of architectures; a choice of ours."""

DEVICE_RATES = "GB/s a GPU, one way"


def ttft_by_degree_figure(predictions: Mapping[tuple[int, int], Prediction]) -> Any:
    """The standard model's TTFT by devices, AllReduce apart; one panel a context length."""
    contexts = sorted({tokens for tokens, _ in predictions})
    figure = make_subplots(cols=len(contexts), subplot_titles=[f"{tokens} tokens" for tokens in contexts])
    for column, tokens in enumerate(contexts, start=1):
        degrees = sorted(degree for context, degree in predictions if context == tokens)
        chosen = [predictions[tokens, degree] for degree in degrees]
        reduce_ms = [1e3 * prediction.breakdown_s[Category.ALL_REDUCE] for prediction in chosen]
        other_ms = [1e3 * prediction.latency_s - ms for prediction, ms in zip(chosen, reduce_ms, strict=True)]
        names = [str(degree) for degree in degrees]
        for name, values, colour in (
            ("everything else", other_ms, COLOURS[Category.GEMM]),
            ("AllReduce", reduce_ms, COLOURS[Category.ALL_REDUCE]),
        ):
            figure.add_bar(name=name, x=names, y=values, marker_color=colour, showlegend=column == 1, row=1, col=column)
    figure.update_xaxes(title_text="devices", type="category")
    figure.update_yaxes(title_text="TTFT, ms", col=1)
    return _styled(figure, 380, barmode="stack")


def grid_speedup_figure(result: GridResult, num_devices: int) -> Any:
    """Kraken's and parallel's speed-ups on `num_devices`, one group of bars a cell, geometric means last."""
    cells = [cell for cell in result.cells if cell.num_devices == num_devices]
    names = [f"{cell.model}\n{cell.context_length}" for cell in cells] + ["geometric\nmean"]
    figure = go.Figure()
    for kind, colour in KIND_COLOURS.items():
        values = [*(cell.speedup_percent(kind) for cell in cells), geomean_percent(cells, kind)]
        text = [f"{value:.0f}" for value in values]
        figure.add_bar(name=kind, x=names, y=values, marker_color=colour, text=text, textposition="outside")
    if (reported := result.grid.reported) is not None:
        figure.add_hrect(
            y0=reported.min_speedup_percent,
            y1=reported.max_speedup_percent,
            fillcolor=MUTED,
            opacity=0.12,
            layer="below",
            line_width=0,
            annotation_text="Kraken's reported range of all 20 cells",
            annotation_position="top left",
        )
        mean = reported.geomean_speedup_percent
        figure.add_scatter(
            name=f"Kraken's reported mean of all 20 cells, {mean} %",
            x=[names[0], names[-1]],
            y=[mean, mean],
            mode="lines",
            line={"color": INK, "dash": "dash"},
        )
    figure.update_yaxes(title_text="speed-up over standard, %")
    return _styled(figure, 460, barmode="group")


def grid_breakdown_figure(cells: Sequence[Cell], num_devices: int) -> Any:
    """Shares of the categories for the three architectures of every cell on `num_devices`."""
    chosen = [(cell, kind) for cell in cells if cell.num_devices == num_devices for kind in KINDS]
    groups = [f"{cell.model}\n{cell.context_length}" for cell, _ in chosen]
    kinds = [kind for _, kind in chosen]
    figure = go.Figure()
    for category, colour in COLOURS.items():
        if category == WAITING:
            continue
        values = [100.0 * cell.breakdown_s[kind][category] / cell.ttft_s[STANDARD] for cell, kind in chosen]
        figure.add_bar(name=PART_NAMES[category], x=[groups, kinds], y=values, marker_color=colour)
    figure.update_yaxes(title_text="% of the standard model's TTFT")
    figure.update_xaxes(tickangle=-90, tickfont_size=10)
    return _styled(figure, 520, barmode="stack")


def effects_figure(result: GridResult, found: Sequence[Effect]) -> Any:
    """Mean and range of cells under the main set-up and every assumption, with what is reported."""
    each = speedups_percent(result.cells)
    rows = [("main prediction", min(each), result.geomean_kraken_speedup_percent, max(each))]
    rows += [(_named(effect), effect.min_percent, effect.mean_percent, effect.max_percent) for effect in found]
    means = [row[2] for row in rows]
    figure = row_figure([row[0] for row in rows], xaxis={"title": {"text": "Kraken over standard, %"}})
    heights = list(range(len(rows)))
    figure.add_bar(
        name="range of the cells",
        y=heights,
        x=[row[3] - row[1] for row in rows],
        base=[row[1] for row in rows],
        orientation="h",
        marker_color="#9fc3dc",
        width=0.35,
        customdata=[[row[1], row[3]] for row in rows],
        hovertemplate="%{customdata[0]:.1f} to %{customdata[1]:.1f} %<extra></extra>",
    )
    figure.add_scatter(
        name="geometric mean",
        y=heights,
        x=means,
        mode="markers+text",
        text=[f"{mean:.1f}" for mean in means],
        textposition="middle right",
        textfont={"color": "#10151a"},
        marker={"size": 10, "color": [PALETTE[1], *[PALETTE[0]] * (len(rows) - 1)]},
        hovertemplate="mean %{x:.1f} %<extra></extra>",
    )
    if (reported := result.grid.reported) is not None:
        figure.add_vline(
            x=reported.geomean_speedup_percent, line_dash="dash", line_color=INK, annotation_text="reported mean"
        )
    return figure


def cells_figure(result: GridResult, found: Sequence[Effect]) -> Any:
    """Kraken's speed-up in every cell under the main set-up and every assumption, as a map of numbers."""
    runs = {assumption.name: cells for assumption, cells in result.assumptions}
    rows = {"main prediction": result.cells, **{_named(effect): runs[effect.name] for effect in found}}
    values = [speedups_percent(cells) for cells in rows.values()]
    names = [f"{cell.model}\n{cell.context_length}\n{cell.num_devices}-way" for cell in result.cells]
    most = max(abs(value) for row in values for value in row)
    figure = go.Figure(
        go.Heatmap(
            x=names,
            y=list(rows),
            z=values,
            text=[[f"{value:.0f}" for value in row] for row in values],
            texttemplate="%{text}",
            hovertemplate="%{y}, %{x}: %{z:.1f} %<extra></extra>",
            colorscale="RdBu",
            zmin=-most,
            zmax=most,
            showscale=False,
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(side="top", tickfont_size=10)
    return _styled(figure, 150 + 30 * len(rows))


def _named(effect: Effect) -> str:
    return effect.name if effect.change_of is None else f"{effect.name} (from {effect.change_of})"


def interconnect_figure(result: GridResult) -> Any:
    """Kraken's speed-up against the rate of a GPU's links; a panel for every degree and context length."""
    panels = list(product(result.grid.num_devices, result.grid.context_lengths))
    columns = len(result.grid.context_lengths)
    titles = [f"{num_devices}-way, {tokens} tokens" for num_devices, tokens in panels]
    figure = make_subplots(
        rows=len(result.grid.num_devices),
        cols=columns,
        subplot_titles=titles,
        shared_xaxes=True,
        shared_yaxes=True,
        vertical_spacing=0.1,
        horizontal_spacing=0.04,
    )
    models = [model.preset for model in result.grid.models]
    for (index, panel), (colour, model), link in product(
        enumerate(panels), zip(PALETTE, models, strict=False), LinkClass
    ):
        points = _points(result.interconnects, link, model, *panel)
        figure.add_scatter(
            x=[rate for rate, _, _ in points],
            y=[speedup for _, speedup, _ in points],
            text=[name for _, _, name in points],
            name=model if link is LinkClass.NVLINK else f"{model}, PCIe alone",
            legendgroup=f"{model} {link}",
            showlegend=index == 0 and bool(points),
            mode="lines+markers",
            line={"color": colour, "dash": "solid" if link is LinkClass.NVLINK else "dot"},
            marker={"symbol": "circle" if link is LinkClass.NVLINK else "square-open", "size": 7},
            hovertemplate="%{text}: %{y:.1f} %",
            row=index // columns + 1,
            col=index % columns + 1,
        )
    figure.add_hline(y=0.0, line_color=INK, line_width=1)
    rates = sorted({spec.device_bytes_per_s * 1e-9 for spec, _ in result.interconnects})
    figure.update_xaxes(type="log", tickvals=rates, ticktext=[f"{rate:.4g}" for rate in rates], tickangle=-45)
    figure.update_xaxes(title_text=DEVICE_RATES, row=len(result.grid.num_devices))
    figure.update_yaxes(title_text="Kraken over standard, %", col=1)
    return _styled(figure, 760)


def _points(
    runs: Sequence[tuple[InterconnectSpec, Sequence[Cell]]],
    link: LinkClass,
    model: str,
    num_devices: int,
    context_length: int,
) -> list[tuple[float, float, str]]:
    """GB/s, speed-up in per cent and name of every interconnect of one kind, slowest first."""
    wanted = (model, num_devices, context_length)
    return sorted(
        (spec.device_bytes_per_s * 1e-9, cell.speedup_percent(KRAKEN), spec.name)
        for spec, cells in runs
        for cell in cells
        if spec.link is link and (cell.model, cell.num_devices, cell.context_length) == wanted
    )


def _styled(figure: Any, height: int, **layout: Any) -> Any:
    figure.update_layout(height=height, **layout)
    return figure
