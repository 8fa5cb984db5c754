"""One HTML file that needs no network: a title, sentences, tables and plotly figures."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.report.terminal import Fitted, TableText

if TYPE_CHECKING:
    from collections.abc import Sequence

PALETTE: Final = (
    "#4c72b0",
    "#dd8452",
    "#55a868",
    "#c44e52",
    "#8172b3",
    "#937860",
    "#da8bc3",
    "#64b5cd",
    "#ccb974",
    "#8c8c8c",
    "#2f2f2f",
)

_STYLE: Final = (
    "body{font-family:system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#222}"
    "h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}p,li{line-height:1.5}"
    "table{border-collapse:collapse;font-size:.9rem}td,th{padding:.25rem .7rem;border-bottom:1px solid #ddd;"
    "text-align:right}.left{text-align:left}"
)


def render_page(title: str, sentences: Sequence[str], sections: Sequence[tuple[str, str]]) -> str:
    """A page: title, sentences as paragraphs, then sections of a heading and ready HTML."""
    text = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    body = "".join(f"<h2>{html.escape(heading)}</h2>{content}" for heading, content in sections)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1>{text}{body}</body></html>"
    )


def figures_html(figures: Sequence[Any]) -> list[str]:
    """Plotly figures as divs; the first one brings the script library along."""
    return [
        figure.to_html(full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        for index, figure in enumerate(figures)
    ]


class TextTable(TableText):
    """A table as text, for the terminal and for a page alike."""

    __slots__ = ()

    def rich(self) -> Fitted:
        """For the terminal, in whatever width it has."""
        return Fitted(self)

    def html(self) -> str:
        """For a page."""
        return f"<table><thead>{self._row(self.columns, 'th')}</thead><tbody>{self._body()}</tbody></table>"

    def _body(self) -> str:
        return "".join(self._row(row, "td") for row in self.rows)

    def _row(self, cells: Sequence[str], tag: str) -> str:
        styles = [' class="left"' if index < self.num_left else "" for index in range(len(cells))]
        inner = "".join(f"<{tag}{style}>{html.escape(cell)}</{tag}>" for style, cell in zip(styles, cells, strict=True))
        return f"<tr>{inner}</tr>"
