"""A measured step beside the predicted one, as one HTML file that needs no network."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go

from kraken_sim.report.diff_trace import diff_trace_sentences, diff_trace_tables
from kraken_sim.report.page import figures_html, render_page
from kraken_sim.traces.diff import node_name
from kraken_sim.traces.kernel_names import KernelClass, short_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kraken_sim.traces.comparison import TraceComparison
    from kraken_sim.traces.diff import NodePair
    from kraken_sim.traces.nodes import TraceNode

CLASS_COLOURS: Final[Mapping[KernelClass, str]] = {
    KernelClass.GEMM: "#4c72b0",
    KernelClass.ATTENTION: "#55a868",
    KernelClass.NORM: "#8da0cb",
    KernelClass.ROPE: "#dd8452",
    KernelClass.ACTIVATION: "#937860",
    KernelClass.ADD: "#da8bc3",
    KernelClass.COPY: "#64b5cd",
    KernelClass.COLLECTIVE: "#c44e52",
    KernelClass.EMBEDDING: "#8172b3",
}
_OTHER_COLOUR: Final = "#b8b8b8"
_MOST_BARS: Final = 400
"""Kernels of a side in the figure; a choice of ours: more can't be told apart."""
_LABELS: Final = ("predicted", "measured")


def diff_trace_html(comparison: TraceComparison) -> str:
    """The report as a string."""
    sentences = diff_trace_sentences(comparison)
    warnings = [f"Warning: {warning}" for warning in comparison.warnings]
    terms, classes, nodes, *rest = diff_trace_tables(comparison)
    by_class, layer = figures_html([class_figure(comparison), sequence_figure(layer_pairs(comparison.diff.pairs))])
    sections = [
        (terms.title, terms.html()),
        (classes.title, by_class + classes.html()),
        (nodes.title, nodes.html()),
        ("One layer, kernel by kernel", f"<p>{html.escape(_CAPTION)}</p>{layer}"),
    ]
    sections += [(table.title, table.html()) for table in rest]
    return render_page(sentences[0], [*sentences[1:], *warnings], sections)


_CAPTION: Final = "Each side begins at its own first kernel. Kernels of one class have one colour; hover for names."


def class_figure(comparison: TraceComparison) -> Any:
    """Exposed time by class, predicted and measured side by side."""
    rows = comparison.diff.by_class()
    figure = go.Figure()
    for label, colour, times in (
        ("predicted", "#4c72b0", [1e6 * row.ours_s for row in rows]),
        ("measured", "#dd8452", [1e6 * row.theirs_s for row in rows]),
    ):
        figure.add_bar(
            name=label, y=[row.name for row in rows], x=times, orientation="h", marker_color=colour,
            hovertemplate="%{y}: %{x:.1f} us",
        )  # fmt: skip
    figure.update_layout(
        template="plotly_white",
        height=120 + 32 * len(rows),
        margin={"l": 110, "r": 20, "t": 20, "b": 45},
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
    figure = go.Figure()
    shown: set[KernelClass] = set()
    for which, label in enumerate(_LABELS):
        sides = [(node_name(pair), pair[which]) for pair in pairs]
        nodes = [
            (name, node) for name, side in sides if side is not None and not isinstance(side, str) for node in side[0]
        ]
        begin_s = min((node.start_s for _, node in nodes), default=0.0)
        for kind in dict.fromkeys(node.kernel_class for _, node in nodes):
            chosen = [(name, node) for name, node in nodes if node.kernel_class is kind]
            _add_bars(figure, label, kind, chosen, begin_s, show=kind not in shown)
            shown.add(kind)
    figure.update_layout(
        barmode="overlay",
        template="plotly_white",
        height=300,
        legend={"orientation": "h", "y": -0.35},
        margin={"l": 90, "r": 20, "t": 20, "b": 90},
        xaxis_title="us",
        yaxis={"categoryorder": "array", "categoryarray": list(_LABELS)[::-1]},
    )
    return figure


def _add_bars(
    figure: Any, label: str, kind: KernelClass, nodes: Sequence[tuple[str, TraceNode]], begin_s: float, *, show: bool
) -> None:
    figure.add_bar(
        name=kind.value,
        legendgroup=kind.value,
        showlegend=show,
        y=[label for _ in nodes],
        x=[1e6 * node.duration_s for _, node in nodes],
        base=[1e6 * (node.start_s - begin_s) for _, node in nodes],
        orientation="h",
        marker={"color": CLASS_COLOURS.get(kind, _OTHER_COLOUR), "line": {"color": "white", "width": 1}},
        customdata=[[html.escape(name), html.escape(short_name(node.name))] for name, node in nodes],
        hovertemplate="%{customdata[0]}: %{x:.2f} us<br>%{customdata[1]}",
    )
