"""A measured step beside the predicted one, as one HTML file that needs no network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go

from kraken_sim.program.program import Category
from kraken_sim.report.diff_trace import diff_trace_sentences, diff_trace_tables, step_error_percent
from kraken_sim.report.figures import BAR_WIDTH, COLOURS, PALETTE, PAPER, WAITING, row_figure
from kraken_sim.report.page import Headline, Page, Plot, Section, table_section
from kraken_sim.traces.diff import node_name
from kraken_sim.traces.kernel_names import KernelClass, short_name
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kraken_sim.traces.comparison import TraceComparison
    from kraken_sim.traces.diff import NodePair
    from kraken_sim.traces.nodes import TraceNode

CLASS_COLOURS: Final[Mapping[KernelClass, str]] = {
    KernelClass.GEMM: COLOURS[Category.GEMM],
    KernelClass.ATTENTION: COLOURS[Category.ATTENTION],
    KernelClass.NORM: COLOURS[Category.NORM],
    KernelClass.ROPE: "#f0c95a",
    KernelClass.ACTIVATION: COLOURS[Category.LM_HEAD],
    KernelClass.ADD: "#7d5a3c",
    KernelClass.COPY: COLOURS[WAITING],
    KernelClass.COLLECTIVE: COLOURS[Category.ALL_REDUCE],
    KernelClass.EMBEDDING: COLOURS[Category.OVERLAPPED_GEMM],
}
_OTHER_COLOUR: Final = COLOURS[Category.OTHER]
_MOST_BARS: Final = 400
"""Kernels of a side in the figure; a choice of ours: more can't be told apart."""
_LABELS: Final = ("predicted", "measured")


def diff_trace_page(comparison: TraceComparison) -> Page:
    """The report as a page."""
    sentences = diff_trace_sentences(comparison)
    terms, classes, nodes, *rest = diff_trace_tables(comparison)
    by_class = Plot(class_figure(comparison), "Exposed time by class of kernels")
    layer = Plot(sequence_figure(layer_pairs(comparison.diff.pairs)), _CAPTION)
    sections = [
        table_section(terms),
        table_section(classes, by_class),
        table_section(nodes),
        Section("One layer, kernel by kernel", [layer]),
    ]
    sections += [table_section(table) for table in rest]
    title, head = comparison.ours.name, _headline(comparison)
    return Page("Trace against prediction", title, sections, head, sentences[1:], comparison.warnings)


def _headline(comparison: TraceComparison) -> Headline:
    """The error of the step, and what most of it consists of."""
    ours_s, theirs_s = comparison.diff.ours_s, comparison.diff.theirs_s
    largest = max(comparison.diff.terms(), key=lambda term: abs(term.seconds))
    whole, part = (f"{1e6 * seconds:+,.1f} us" for seconds in (theirs_s - ours_s, largest.seconds))
    return Headline(
        f"{step_error_percent(comparison):+.1f} %",
        "error of the predicted step, from the first kernel to the last",
        f"predicted {format_seconds(ours_s)}, measured {format_seconds(theirs_s)}",
        f"Measured minus predicted is {whole}; the largest part of it is {part}: {largest.text}.",
    )


_CAPTION: Final = "Each side begins at its own first kernel. Kernels of one class have one colour; hover for names."


def class_figure(comparison: TraceComparison) -> Any:
    """Exposed time by class, predicted and measured side by side."""
    rows = comparison.diff.by_class()
    figure = go.Figure()
    for label, colour, times in (
        ("predicted", PALETTE[0], [1e6 * row.ours_s for row in rows]),
        ("measured", PALETTE[1], [1e6 * row.theirs_s for row in rows]),
    ):
        figure.add_bar(
            name=label, y=[row.name for row in rows], x=times, orientation="h", marker_color=colour,
            hovertemplate="%{y}: %{x:.1f} us<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=120 + 32 * len(rows),
        xaxis_title="us",
        yaxis={"autorange": "reversed"},
    )
    return figure


def layer_pairs(pairs: Sequence[NodePair]) -> list[NodePair]:
    """The kernels of one layer in the middle of the step; of a step without layers, the first ones."""
    layers: dict[int, list[int]] = {}
    for index, pair in enumerate(pairs):
        if pair.ours is not None and pair.theirs is not None and pair.ours.node.segment == "layer":
            layers.setdefault(pair.ours.node.iteration, []).append(index)
    if not layers:
        return list(pairs[:_MOST_BARS])
    middle = layers[sorted(layers)[len(layers) // 2]]
    return list(pairs[middle[0] : middle[-1] + 1][:_MOST_BARS])


def sequence_figure(pairs: Sequence[NodePair]) -> Any:
    """Both sides as a row of bars on one axis of time."""
    figure = row_figure(_LABELS, barmode="overlay", xaxis={"title": {"text": "us"}})
    shown: set[KernelClass] = set()
    for which in range(len(_LABELS)):
        sides = [(node_name(pair), pair[which]) for pair in pairs]
        nodes = [
            (name, node) for name, side in sides if side is not None and not isinstance(side, str) for node in side[0]
        ]
        begin_s = min((node.start_s for _, node in nodes), default=0.0)
        for kind in dict.fromkeys(node.kernel_class for _, node in nodes):
            chosen = [(name, node) for name, node in nodes if node.kernel_class is kind]
            _add_bars(figure, which, kind, chosen, begin_s, show=kind not in shown)
            shown.add(kind)
    return figure


def _add_bars(
    figure: Any, row: int, kind: KernelClass, nodes: Sequence[tuple[str, TraceNode]], begin_s: float, *, show: bool
) -> None:
    figure.add_bar(
        name=kind.value,
        legendgroup=kind.value,
        showlegend=show,
        y=[row for _ in nodes],
        width=BAR_WIDTH,
        x=[1e6 * node.duration_s for _, node in nodes],
        base=[1e6 * (node.start_s - begin_s) for _, node in nodes],
        orientation="h",
        marker={"color": CLASS_COLOURS.get(kind, _OTHER_COLOUR), "line": {"color": PAPER, "width": 1}},
        customdata=[[name, short_name(node.name)] for name, node in nodes],
        hovertemplate="%{customdata[0]}: %{x:.2f} us<br>%{customdata[1]}<extra></extra>",
    )
