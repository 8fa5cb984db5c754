"""A grid as one HTML file that needs no network: its figures, each with what it shows and how it is known."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from kraken_sim.paper.experiment import tensor_parallel_predictions
from kraken_sim.paper.summary import effects
from kraken_sim.report.paper import grid_headline, in_order, what_it_rests_on, where_it_pays
from kraken_sim.report.paper_figures import (
    cells_figure,
    effects_figure,
    grid_breakdown_figure,
    grid_speedup_figure,
    interconnect_figure,
    ttft_by_degree_figure,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.paper.experiment import GridResult

SPEEDUP_FIGURES, BREAKDOWN_FIGURES = {4: 4, 8: 5}, {4: 6, 8: 7}
"""The paper's figures by devices; figures 1 and 3 draw layers and hold no measurements."""

FIGURE_2_MODEL, FIGURE_2_DEGREES = "6.7B", (1, 2, 4, 8)
"""The model and the devices of the paper's figure 2."""

NOTE = (
    "Bars are this simulator's predictions. What each figure of the paper shows is known from descriptions of it; "
    "its bars are not, so the reported range and mean are all there is to compare with."
)
_STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:1200px;margin:2rem auto;padding:0 1rem;color:#222}"
    "h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2.5rem}p{line-height:1.5}p.note{color:#666}"
)


def paper_html(result: GridResult) -> str:
    """Every figure of a grid in one page."""
    parts = []
    for index, (title, text, figure) in enumerate(_figures(result)):
        body = figure.to_html(full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        parts.append(f"<h2>{html.escape(title)}</h2><p>{text}</p>{body}")
    title = html.escape(f"{result.grid.name} on {result.grid.hardware}")
    note = f"<p class='note'>{NOTE}</p>" if result.grid.reported is not None else ""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<title>{title}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{title}</h1><p>{_lines(grid_headline(result))}</p>{note}{''.join(parts)}</body></html>"
    )


def _lines(lines: list[str]) -> str:
    return "<br>".join(html.escape(line) for line in lines)


def _figures(result: GridResult) -> Iterator[tuple[str, str, Any]]:
    """Title, text as HTML, and figure."""
    if result.interconnects:
        text = (
            "The same GPUs and host, other links between them. Solid lines change the bandwidth of NVLinks to an "
            "NVSwitch alone. Dotted lines are the same GPUs without NVLink, meeting over PCIe at host bridges that "
            "they share: there the nominal rate on the axis is far from what a GPU gets."
        )
        pays = _lines(where_it_pays(result))
        yield "Speed-up against the bandwidth between GPUs", f"{text}<br>{pays}", interconnect_figure(result)
    if result.assumptions:
        found = in_order(effects(result))
        text = _lines(what_it_rests_on(result))
        yield "What the result rests on", text, effects_figure(result, found)
        cells = "Kraken over standard, per cent, in every cell under every assumption."
        yield "Every cell under every assumption", cells, cells_figure(result, found)
    yield from _paper_figures(result)


def _paper_figures(result: GridResult) -> Iterator[tuple[str, str, Any]]:
    grid = result.grid
    if any(model.preset == FIGURE_2_MODEL for model in grid.models):
        degrees = [degree for degree in FIGURE_2_DEGREES if degree <= len(result.profile.topology.gpus)]
        text = "More devices shorten the time to first token although the model fits on one; AllReduce takes its share."
        predictions = tensor_parallel_predictions(result, FIGURE_2_MODEL, degrees)
        title = f"TTFT of the standard {FIGURE_2_MODEL} model by tensor parallelism"
        yield _titled(result, 2, title), text, ttft_by_degree_figure(predictions)
    for num_devices in grid.num_devices:
        title = f"Speed-up in TTFT over the standard model, {num_devices}-way"
        text = "By model and tokens of the prompt."
        number = SPEEDUP_FIGURES.get(num_devices)
        yield _titled(result, number, title), text, grid_speedup_figure(result, num_devices)
    for num_devices in grid.num_devices:
        title = f"Breakdown of the forward pass, {num_devices}-way"
        text = (
            "Overlapped GEMM is the GEMMs, copies and waiting between the launch of an AllReduce beside them and its "
            "synchronisation. Bars are scaled to the standard model's; the scale of the paper's is not known."
        )
        number = BREAKDOWN_FIGURES.get(num_devices)
        yield _titled(result, number, title), text, grid_breakdown_figure(result.cells, num_devices)


def _titled(result: GridResult, number: int | None, title: str) -> str:
    """The title, with the number of the paper's figure where the grid is the paper's."""
    of_the_paper = result.grid.reported is not None and number is not None
    return f"After figure {number} of the paper: {title}" if of_the_paper else title
