"""A page as HTML: one template for every answer, in one file that needs no network."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from kraken_sim.files.ours import signature
from kraken_sim.files.printable import printable
from kraken_sim.report.figures import PALETTE, SYMBOLS, figure_json, script_json
from kraken_sim.report.glossary import terms_in
from kraken_sim.report.page import Bullets, Command, Details, Explorer, Facts, Page, PageBlock, Plot, Section, TextTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_CARDS: Final = 40
"""Rows of a table up to which a phone shows each as a card; longer ones are scrolled. A choice of ours."""


LONG_CELL: Final = 32
"""Characters from which a cell is text that wraps, and not a number or a name. A choice of ours."""


class PlotlySource(StrEnum):
    """Where a page has the library that draws its figures from."""

    EMBEDDED = "embedded"
    """In the page itself, which so is one file."""
    SHARED = "shared"
    """In a file beside it (`library_file`), once for all pages of a folder."""


def library_file() -> tuple[str, str]:
    """The name and the text of the library that shared pages ask for, of its version."""
    return f"plotly-{get_plotlyjs_version()}.min.js", get_plotlyjs()


def render(page: Page, *, command: str = "", library: PlotlySource = PlotlySource.EMBEDDED) -> str:
    """The page as HTML.

    Args:
        page: what it says.
        command: what repeats it; no section says so where it is empty.
        library: whether the page holds the library that draws, 5 MB, or shares it with its neighbours.
    """
    sections = [*page.sections]
    if command:
        sections.append(Section("Ask it again", ["This command writes this page anew:", Command(command)]))
    sections += _glossary(page, sections)
    blocks = list(_within([block for section in sections for block in section.blocks]))
    explores = any(isinstance(block, Explorer) for block in blocks)
    return _environment().get_template("page.html.j2").render(
        page=page,
        sections=sections,
        plotly=Markup(_plotly(library)),
        needs_plotly=explores or any(isinstance(block, Plot) for block in blocks),
        needs_explorer=explores,
        signature=signature(),
        css=_asset("page.css"),
        js=_asset("page.js"),
        explorer_js=_asset("explorer.js"),
    )  # fmt: skip


def _plotly(library: PlotlySource) -> str:
    name, text = library_file()
    return f'<script src="{name}"></script>' if library is PlotlySource.SHARED else f"<script>{text}</script>"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("kraken_sim.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.globals |= {
        "kind_of": lambda block: type(block).__name__,
        "figure_json": lambda figure: Markup(figure_json(figure)),
        "explorer_json": lambda block: Markup(script_json(_explorer_data(block))),
        "most_cards": MOST_CARDS,
        "wide_columns": wide_columns,
    }
    return environment


def wide_columns(table: TextTable) -> set[int]:
    """The columns of a table that hold text."""
    return {index for row in table.rows for index, cell in enumerate(row) if len(cell) > LONG_CELL}


def _asset(name: str) -> Markup:
    return Markup((files("kraken_sim.report") / "templates" / name).read_text(encoding="utf-8"))


def _explorer_data(block: Explorer) -> dict[str, Any]:
    return {
        "columns": {name: list(values) for name, values in block.columns.items()},
        "inputs": list(block.inputs),
        "outputs": list(block.outputs),
        "smaller": list(block.smaller_is_better),
        "palette": PALETTE,
        "symbols": SYMBOLS,
    }


def _within(blocks: Sequence[PageBlock]) -> Iterator[PageBlock]:
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from _within(block.blocks)


def _glossary(page: Page, sections: Sequence[Section]) -> list[Section]:
    """The words of the page that not everybody knows; no section where there is none."""
    said = [page.title, page.kind, *page.sentences]
    if page.headline is not None:
        said += [page.headline.what, page.headline.interval, page.headline.why]
    for section in sections:
        said += [section.title, *(text for block in _within(section.blocks) for text in _texts(block))]
    found = terms_in(" ".join(said))
    return [Section("Words on this page", [Facts(found, sentences=True)])] if found else []


def _texts(block: PageBlock) -> Iterator[str]:
    """What a reader reads of a block."""
    match block:
        case str():
            yield block
        case Facts():
            yield from (text for pair in block.pairs for text in pair)
        case Plot():
            yield block.label
            yield from (str(trace.name) for trace in block.figure.data if trace.name)
        case Details():
            yield block.summary
        case Explorer():
            yield from block.columns
        case TextTable():
            yield from _cells(block)
        case Bullets():
            yield from block.items
        case Command():
            pass


def _cells(table: TextTable) -> Iterator[str]:
    yield table.title
    yield from table.columns
    for row in table.rows:
        yield from row
