"""A grid as one HTML file that needs no network: its figures, each with what it shows and how it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.paper.experiment import tensor_parallel_predictions
from kraken_sim.paper.summary import effects, speedups_percent
from kraken_sim.report.page import Bullets, Headline, Page, Plot, Section
from kraken_sim.report.paper import grid_headline, hiding_words, in_order, what_it_rests_on, where_it_pays
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


def paper_page(result: GridResult) -> Page:
    """Every figure of a grid in one page."""
    note = [NOTE] if result.grid.reported is not None else []
    return Page(
        "Experiment",
        f"{result.grid.name} on {result.grid.hardware}",
        list(_sections(result)),
        _headline(result),
        [*grid_headline(result), *note],
    )


def _headline(result: GridResult) -> Headline:
    each = speedups_percent(result.cells)
    reported = result.grid.reported
    return Headline(
        f"{result.geomean_kraken_speedup_percent:+.1f} %",
        f"Kraken over standard, geometric mean of {len(each)} cell{'s' if len(each) != 1 else ''}",
        f"from {min(each):+.1f} to {max(each):+.1f} %"
        + ("" if reported is None else f"; reported: {reported.geomean_speedup_percent:+.1f} %"),
        hiding_words(result),
    )


def _sections(result: GridResult) -> Iterator[Section]:
    if result.interconnects:
        text = (
            "The same GPUs and host, other links between them. Solid lines change the bandwidth of NVLinks to an "
            "NVSwitch alone. Dotted lines are the same GPUs without NVLink, meeting over PCIe at host bridges that "
            "they share: there the nominal rate on the axis is far from what a GPU gets."
        )
        picture = Plot(interconnect_figure(result), "Kraken over standard, by model", min_width_px=700)
        yield Section("Speed-up against the bandwidth between GPUs", [text, Bullets(where_it_pays(result)), picture])
    if result.assumptions:
        found = in_order(effects(result))
        picture = Plot(effects_figure(result, found), "Kraken's speed-up under the main set-up and every assumption")
        yield Section("What the result rests on", [Bullets(what_it_rests_on(result)), picture])
        label = "Kraken over standard, per cent, in every cell under every assumption"
        yield Section("Every cell under every assumption", [Plot(cells_figure(result, found), label, min_width_px=960)])
    yield from _paper_figures(result)


def _paper_figures(result: GridResult) -> Iterator[Section]:
    grid = result.grid
    if any(model.preset == FIGURE_2_MODEL for model in grid.models):
        degrees = [degree for degree in FIGURE_2_DEGREES if degree <= len(result.profile.topology.gpus)]
        text = "More devices shorten the time to first token although the model fits on one; AllReduce takes its share."
        predictions = tensor_parallel_predictions(result, FIGURE_2_MODEL, degrees)
        title = f"TTFT of the standard {FIGURE_2_MODEL} model by tensor parallelism"
        picture = Plot(ttft_by_degree_figure(predictions), "TTFT by devices and tokens of the prompt", min_width_px=560)
        yield Section(_titled(result, 2, title), [text, picture])
    for num_devices in grid.num_devices:
        title = f"Speed-up in TTFT over the standard model, {num_devices}-way"
        picture = Plot(grid_speedup_figure(result, num_devices), "By model and tokens of the prompt", min_width_px=700)
        yield Section(_titled(result, SPEEDUP_FIGURES.get(num_devices), title), [picture])
    for num_devices in grid.num_devices:
        title = f"Breakdown of the forward pass, {num_devices}-way"
        text = (
            "Overlapped GEMM is the GEMMs, copies and waiting between the launch of an AllReduce beside them and its "
            "synchronisation. Bars are scaled to the standard model's; the scale of the paper's is not known."
        )
        label = "Shares of the standard model's TTFT, by model, tokens and architecture"
        picture = Plot(grid_breakdown_figure(result.cells, num_devices), label, min_width_px=900)
        yield Section(_titled(result, BREAKDOWN_FIGURES.get(num_devices), title), [text, picture])


def _titled(result: GridResult, number: int | None, title: str) -> str:
    """The title, with the number of the paper's figure where the grid is the paper's."""
    of_the_paper = result.grid.reported is not None and number is not None
    return f"After figure {number} of the paper: {title}" if of_the_paper else title
