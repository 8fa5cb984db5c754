"""A grid as tables: every cell, what the result rests on, and what other links would make of it."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from kraken_sim.paper.experiment import geomean_percent
from kraken_sim.paper.grid import KINDS, KRAKEN, PARALLEL
from kraken_sim.paper.summary import (
    bracket,
    effects,
    gemm_error_points,
    host_bound_share,
    mean_by_degree,
    mean_without_all_reduce,
    paying_cells,
    speedups_percent,
)
from kraken_sim.report.explore import span_percent
from kraken_sim.report.page import TextTable
from kraken_sim.units import format_bandwidth, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from kraken_sim.paper.experiment import Cell, GridResult
    from kraken_sim.paper.summary import Bracket, Effect
    from kraken_sim.report.terminal import Fitted


def paper_report(result: GridResult) -> RenderableType:
    """Every cell's TTFT and speed-ups, the reported figures beside the predicted, and what they rest on."""
    parts: list[RenderableType] = [_cells_table(result), Text("\n".join(grid_headline(result)), style="bold"), Text()]
    if result.assumptions:
        parts += [_effects_table(effects(result)), Text("\n".join(what_it_rests_on(result)))]
    if result.interconnects:
        parts += [_interconnect_table(result), Text("\n".join(where_it_pays(result)))]
    return Group(*parts)


def _cells_table(result: GridResult) -> Fitted:
    columns = ["model", "devices", "tokens", "width a sub-layer", *(f"{kind} TTFT" for kind in KINDS)]
    for kind in (PARALLEL, KRAKEN):
        columns += [f"{kind} speed-up", f"{kind}, 90 % interval"]
    columns += ["AllReduce of standard", *(f"{name} speed-up" for name in result.cells[0].others)]
    rows = []
    for cell in result.cells:
        gains = [
            [f"{cell.speedup_percent(kind):+.1f} %", span_percent(cell.speedup_interval(kind))]
            for kind in (PARALLEL, KRAKEN)
        ]
        rows.append(
            [
                cell.model,
                str(cell.num_devices),
                str(cell.context_length),
                str(cell.predictions[KRAKEN].resolved.layout.block.hidden_size),
                *(format_seconds(cell.ttft_s[kind]) for kind in KINDS),
                *(text for gain in gains for text in gain),
                f"{100 * cell.all_reduce_share:.0f} %",
                *(f"{cell.speedup_percent(kind):+.1f} %" for kind in cell.others),
            ]
        )
    return TextTable(f"{result.grid.name} on {result.grid.hardware}", columns, rows, num_left=3).rich()


def grid_headline(result: GridResult) -> list[str]:
    """The prediction in a line, and what the publication reports in another."""
    each = speedups_percent(result.cells)
    degrees = ", ".join(f"{n}-way {mean:.1f} %" for n, mean in mean_by_degree(result.cells).items())
    lines = [
        f"Kraken over standard, predicted: {min(each):.1f} to {max(each):.1f} %, "
        f"geometric mean {result.geomean_kraken_speedup_percent:.1f} % ({degrees})"
    ]
    if (reported := result.grid.reported) is not None:
        lines.append(
            f"Kraken over standard, reported:  {reported.min_speedup_percent:.1f} to "
            f"{reported.max_speedup_percent:.1f} %, geometric mean {reported.geomean_speedup_percent:.1f} % "
            f"({reported.source})"
        )
    return lines


def _effects_table(found: Sequence[Effect]) -> Fitted:
    rows = [
        [
            effect.name,
            f"{effect.points:+.1f}",
            f"{effect.mean_percent:.1f} %",
            f"{effect.min_percent:.1f} to {effect.max_percent:.1f} %",
            effect.change_of or "the main set-up",
            effect.description,
        ]
        for effect in in_order(found)
    ]
    columns = ["assumption", "points", "mean", "cells", "changes", "in words"]
    return TextTable("What it rests on: each assumption changes one thing", columns, rows).rich()


def in_order(found: Sequence[Effect]) -> list[Effect]:
    """Changes of the main set-up by size, then changes of those."""
    return sorted(found, key=lambda effect: (effect.change_of is not None, -abs(effect.points)))


def what_it_rests_on(result: GridResult) -> list[str]:
    """The largest single changes, what a GEMM error would do, and where the reported figures lie."""
    single = [effect for effect in in_order(effects(result)) if effect.change_of is None]
    moved = ", ".join(f"{effect.name} {effect.points:+.1f}" for effect in single[:4])
    residual, points = gemm_error_points(result)
    lines = [
        f"The mean rests on, in points: {moved}.",
        hiding_words(result),
        f"A GEMM error of {100 * residual:.1f} % (the fit's residual) in the standard model's shapes alone would "
        f"move it by {points:+.1f}.",
        f"The device waits for its host for at most {100 * host_bound_share(result.cells):.1f} % of a pass.",
        f"One change at a time spans {_span(bracket(result, single_changes=True))}.",
    ]
    if len(single) < len(result.assumptions):
        lines.append(f"With changes on top of each other, {_span(bracket(result))}.")
    return lines + list(_against_reported(result))


def hiding_words(result: GridResult) -> str:
    """The most that hiding AllReduces can give, in a sentence."""
    return (
        f"If AllReduces took no time the standard model would be {mean_without_all_reduce(result.cells):.1f} % faster "
        "in the mean: hiding them can give Kraken no more."
    )


def _span(span: Bracket) -> str:
    return (
        f"means of {span.low_percent:.1f} to {span.high_percent:.1f} %, "
        f"cells of {span.lowest_cell_percent:.1f} to {span.highest_cell_percent:.1f} %"
    )


def _against_reported(result: GridResult) -> Iterator[str]:
    """Whether the reported mean and range lie in the brackets, and which assumptions reach the mean."""
    reported = result.grid.reported
    if reported is None:
        return
    mean = reported.geomean_speedup_percent
    single, whole = bracket(result, single_changes=True), bracket(result)
    inside = [_inside(span.contains(mean)) for span in (single, whole)]
    yield f"The reported mean of {mean:.1f} % lies {inside[0]} the first bracket and {inside[1]} the second."
    low, high = reported.min_speedup_percent, reported.max_speedup_percent
    inside = [_inside(span.contains_cells(low, high)) for span in (single, whole)]
    yield f"The reported range of {low:.1f} to {high:.1f} % lies {inside[0]} the first and {inside[1]} the second."
    reaching = [effect.name for effect in effects(result) if effect.mean_percent >= mean]
    yield f"Assumptions that reach the reported mean: {', '.join(reaching) or 'none'}."


def _inside(inside: bool) -> str:
    return "inside" if inside else "outside"


def _interconnect_table(result: GridResult) -> Fitted:
    groups = list(product(result.grid.num_devices, result.grid.context_lengths))
    columns = ["interconnect", "a GPU, one way", *(f"{devices}-way {tokens} tokens" for devices, tokens in groups)]
    rows = []
    for spec, cells in result.interconnects:
        each, shares = speedups_percent(cells), [cell.all_reduce_share for cell in cells]
        chosen = [[cell for cell in cells if (cell.num_devices, cell.context_length) == group] for group in groups]
        rows.append(
            [
                spec.name,
                format_bandwidth(spec.device_bytes_per_s),
                *(f"{geomean_percent(group):+.1f} %" for group in chosen),
                f"{geomean_percent(cells):+.1f} %",
                f"{min(each):.0f} to {max(each):.0f} %",
                f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %",
            ]
        )
    title = "Other links between the same GPUs: Kraken's speed-up, geometric mean"
    return TextTable(title, [*columns, "all cells", "range", "AllReduce of standard"], rows).rich()


def where_it_pays(result: GridResult) -> list[str]:
    """Over which interconnects Kraken is faster, in how many cells, and where it is not."""
    lines = []
    for spec, cells in result.interconnects:
        paying = paying_cells(cells)
        losing = [cell for cell in cells if cell not in paying]
        if losing:
            where = ", ".join(label(cell) for cell in losing)
            lines.append(f"{spec.name}: Kraken is faster in {len(paying)} of {len(cells)} cells, not in {where}.")
    everywhere = [spec.name for spec, cells in result.interconnects if len(paying_cells(cells)) == len(cells)]
    if everywhere:
        lines.insert(0, f"Kraken is faster in every cell over {', '.join(everywhere)}.")
    return lines


def label(cell: Cell) -> str:
    """A cell in a few characters."""
    return f"{cell.model}/{cell.context_length} {cell.num_devices}-way"
