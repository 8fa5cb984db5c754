"""How every figure of a page looks: its colours, its layout, and as what a page's script gets it.

A page is light or dark as its reader's system is, and as wide as its screen. So a figure says nothing of background,
font or width: the page's script (`templates/page.js`) sets them. Figures may use the colours `INK`, `MUTED` and
`PAPER`, which the script replaces by those of text, lesser text and background.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go

from kraken_sim.engine.timeline import SpanKind
from kraken_sim.files.printable import printable
from kraken_sim.program.program import Category

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kraken_sim.engine.timeline import Span

INK: Final = "#010203"
"""Stands for the colour of text, which differs between light and dark."""

MUTED: Final = "#7f7f80"
"""Stands for the colour of lesser text."""

PAPER: Final = "#fdfdfe"
"""Stands for the colour of the background."""

PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7d5a3c", INK)
"""Colours of series that stay apart for colour-blind readers: those of Okabe and Ito (jfly.uni-koeln.de/color, 2008)
but their yellow, which nobody sees on white; in its place a brown."""

DASHES: Final = ("solid", "dash", "dot")
"""How lines of the first, second and third round of `PALETTE` are drawn."""

SYMBOLS: Final = ("circle", "square", "diamond", "x", "triangle-up", "cross", "star", "triangle-down", "pentagon")
"""Markers of series, so that none is told apart by its colour alone."""

WAITING: Final = "waiting"
"""What a stream's standing still is called in a figure."""

COLOURS: Final[Mapping[str, str]] = {
    Category.NORM: "#56b4e9",
    Category.GEMM: "#0072b2",
    Category.OVERLAPPED_GEMM: "#cc79a7",
    Category.ATTENTION: "#009e73",
    Category.LM_HEAD: "#e69f00",
    Category.ALL_REDUCE: "#d55e00",
    Category.OTHER: "#b5b5b5",
    WAITING: "#f0d9a8",
}
"""Of the breakdown's categories in every figure."""

PART_NAMES: Final[Mapping[str, str]] = {
    Category.NORM: "norms",
    Category.GEMM: "GEMM",
    Category.OVERLAPPED_GEMM: "overlapped GEMM",
    Category.ATTENTION: "attention",
    Category.LM_HEAD: "LM head",
    Category.ALL_REDUCE: "AllReduce",
    Category.OTHER: "other",
    WAITING: WAITING,
}
"""What they are called there."""

TEXTS: Final = frozenset({"categoryarray", "customdata", "name", "text", "ticktext", "x", "y"})
"""Where plotly takes strings of a figure for markup; its templates for hovering are ours, and hold no name."""

ROW_PX: Final = 64
"""Height of a row of horizontal bars with its name above it; a choice of ours."""


BAR_WIDTH: Final = 0.45
"""Of a bar in such a row, in rows."""


def series_style(index: int) -> dict[str, Any]:
    """Line and marker of the series with that number; different for the first 24, without colour for most."""
    colour, dash = PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)]
    return {
        "line": {"color": colour, "dash": dash},
        "marker": {"color": colour, "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 8},
    }


def row_figure(names: Sequence[str], **layout: Any) -> Any:
    """An empty figure of horizontal bars, one row for each of `names`, at the heights 0, 1, 2, ... from the top.

    The name stands above its bar instead of beside it, so that long ones leave a phone's width to the bars.
    """
    figure = go.Figure()
    for row, name in enumerate(names):
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", y=row, yanchor="bottom", yshift=15, text=name, showarrow=False
        )
    figure.update_layout(
        height=ROW_PX * len(names) + 70,
        yaxis={"visible": False, "range": [len(names) - 0.5, -0.75], "fixedrange": True},
        **layout,
    )
    return figure


def colour_of(span: Span) -> str:
    """The key in `COLOURS` of a span."""
    return WAITING if span.kind is SpanKind.WAIT else span.category.value


def figure_json(figure: Any) -> str:
    """A figure as JSON that may stand inside a script element."""
    return script_json(figure_data(figure))


def figure_data(figure: Any) -> dict[str, Any]:
    """A figure as plotly gets it: without plotly's own theme, and with every text shown as it is, whatever it holds.

    Only here text becomes markup: figures hold names as they are, and break lines by a newline. `asText` in
    `templates/page.js` does the same for what is drawn of a sweep.
    """
    data = json.loads(figure.to_json())
    data["layout"].pop("template", None)
    as_text: dict[str, Any] = _as_text(data)
    return as_text


def _as_text(value: Any, *, is_text: bool = False) -> Any:
    if isinstance(value, str):
        if not is_text:
            return value
        return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", "<br>")
    if isinstance(value, list):
        return [_as_text(item, is_text=is_text) for item in value]
    return (
        {key: _as_text(item, is_text=key in TEXTS) for key, item in value.items()} if isinstance(value, dict) else value
    )


def script_json(data: Any) -> str:
    """JSON that may stand inside a script element: no character in it can end that, or is obeyed by a browser."""
    text = json.dumps(_shown(data), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _shown(value: Any) -> Any:
    """The same with strings that a browser shows and does not obey."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    return {_shown(key): _shown(item) for key, item in value.items()} if isinstance(value, dict) else value
