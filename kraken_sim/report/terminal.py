"""Tables that fit a terminal of any width: whole where they can be, otherwise closer set, turned or in bands.

No word is ever cut. A table that is too wide is drawn without its frame, its headers broken at their spaces and columns
of prose below it; if that is still too wide, it is turned (rows become columns) or goes on below itself with its first
column repeated, whichever takes fewer lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType

PROSE: Final = 36
"""Characters from which a cell is prose, which stands below a table that has no room for it; a choice of ours."""

_FRAME: Final = 3
"""Characters that the frame and the padding of a whole table add to a column; one more at its end."""

_GAP: Final = 2
"""Characters between the columns of a table without a frame."""


class TableText(NamedTuple):
    """A table as text; the first `num_left` columns tell its rows apart and are left-aligned."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_left: int = 1
    total: bool = False
    """The last row sums up the others."""
    groups: Collection[int] = ()
    """Rows that begin a group."""
    missed: Collection[int] = ()
    """Rows that a page marks because they miss their bar."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A table that takes the form that the terminal has room for."""

    table: TableText

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Title, table or tables, prose that had no room; between blank lines."""
        yield Text()
        if not self.table.rows:
            yield Text(f"{self.table.title}: none" if self.table.title else "none")
            return
        if self.table.title:
            yield Text(self.table.title, style="italic")
        yield from _layout(self.table, options.max_width)
        yield Text()


def _layout(table: TableText, room: int) -> Iterator[RenderableType]:
    if sum(_natural(table)) + _FRAME * len(table.columns) + 1 <= room:
        yield _framed(table)
        return
    close, prose = _without_prose(table)
    bands = _bands(close, room)
    turned = _turned(close)
    if len(bands) == 1:
        yield _close(close, _least(close), room)
    elif turned.rows and _fits(turned, room) and len(turned.rows) < len(bands) * (len(close.rows) + 2):
        yield _close(turned, _least(turned), room)
    elif bands:
        for number, band in enumerate(bands):
            yield from [Text()] * (number > 0)
            yield _close(band, _least(band), room)
    else:
        yield from _records(close)
    yield from prose


def _natural(table: TableText) -> list[int]:
    """The width of each column with its header and its cells in a line each."""
    return [max(map(cell_len, cells)) for cells in _columns(table)]


def _columns(table: TableText) -> list[tuple[str, ...]]:
    """Each column with its header first."""
    return list(zip(table.columns, *table.rows, strict=True))


def _least(table: TableText) -> list[int]:
    """The least width of each column: headers and labels may break at spaces, figures may not."""
    widths = []
    for index, (header, *cells) in enumerate(_columns(table)):
        breaks = [header, *cells] if index < table.num_left else [header]
        words = [word for text in breaks for word in text.split()]
        figures = [] if index < table.num_left else cells
        widths.append(max(map(cell_len, [*words, *figures, ""])))
    return widths


def _fits(table: TableText, room: int) -> bool:
    return sum(_least(table)) + _GAP * (len(table.columns) - 1) <= room


def _without_prose(table: TableText) -> tuple[TableText, list[RenderableType]]:
    """The table without its columns of prose, and these as paragraphs, a line a row."""
    first = max(1, table.num_left)
    long = [index >= first and max(map(cell_len, cells), default=0) > PROSE for index, (_, *cells) in _numbered(table)]
    if not any(long):
        return table, []
    kept = [index for index, is_long in enumerate(long) if not is_long]
    prose: list[RenderableType] = []
    for index in (index for index, is_long in enumerate(long) if is_long):
        prose += [Text(), Text(table.columns[index], style="italic")]
        labelled = zip(_labels(table), table.rows, strict=True)
        prose += [_indented(f"{label}: {row[index]}") for label, row in labelled if row[index]]
    return _picked(table, kept), prose


def _labels(table: TableText) -> list[str]:
    """What tells each row from others; a row that leaves its group's name out has it from the row above."""
    labels, group = [], ""
    for row in table.rows:
        group = row[0] or group
        labels.append(", ".join(filter(None, (group, *row[1 : table.num_left]))))
    return labels


def _indented(text: str) -> Padding:
    return Padding(Text(text), (0, 0, 0, 2), expand=False)


def _numbered(table: TableText) -> Iterator[tuple[int, tuple[str, ...]]]:
    return enumerate(_columns(table))


def _picked(table: TableText, kept: Sequence[int]) -> TableText:
    """The table with some of its columns."""
    return table._replace(
        columns=[table.columns[index] for index in kept],
        rows=[[row[index] for index in kept] for row in table.rows],
        num_left=sum(index < table.num_left for index in kept),
    )


def _turned(table: TableText) -> TableText:
    """Rows as columns; what tells them apart becomes the header."""
    labels = [", ".join(table.columns[: table.num_left]), *_labels(table)]
    return table._replace(columns=labels, rows=_columns(table)[table.num_left :], num_left=1, total=False, groups=())


def _bands(table: TableText, room: int) -> list[TableText]:
    """The table cut into tables that fit, each with what tells rows apart; none where that leaves no room."""
    least = _least(table)
    keys = list(range(table.num_left))
    narrow = sum(least[: table.num_left]) + _GAP * (table.num_left - 1)
    bands, used = [list(keys)], narrow
    for index in range(table.num_left, len(least)):
        if used + _GAP + least[index] > room:
            bands.append(list(keys))
            used = narrow
        if used + _GAP + least[index] > room:
            return []
        used += _GAP + least[index]
        bands[-1].append(index)
    silent = {number for number, row in enumerate(table.rows) if not any(row[table.num_left :])}
    return [_telling(_picked(table, band), silent if band is bands[0] else frozenset()) for band in bands]


def _telling(table: TableText, also: Collection[int]) -> TableText:
    """The table without the rows that say nothing in it, but for those that begin a group and those of `also`."""
    last = len(table.rows) - 1
    kept = [
        number
        for number, row in enumerate(table.rows)
        if any(row[table.num_left :]) or number in also or number in table.groups or (table.total and number == last)
    ]
    groups = [place for place, number in enumerate(kept) if number in table.groups]
    return table._replace(rows=[table.rows[number] for number in kept], groups=groups)


def _framed(table: TableText) -> Table:
    """The table whole, as rich draws it."""
    return _filled(table, Table())


def _close(table: TableText, widths: Sequence[int], room: int) -> Table:
    """The table without its frame, in the width there is."""
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    spare = room - sum(widths) - _GAP * (len(widths) - 1)
    given = []
    for least, natural in zip(widths, _natural(table), strict=True):
        more = min(natural - least, max(0, spare))
        spare -= more
        given.append(least + more)
    return _filled(table, grid, given)


def _filled(table: TableText, grid: Table, widths: Sequence[int] | None = None) -> Table:
    for index, column in enumerate(table.columns):
        is_prose = max((cell_len(row[index]) for row in table.rows), default=0) > PROSE
        justify = "left" if index < table.num_left or is_prose else "right"
        width = None if widths is None else max(1, widths[index])
        grid.add_column(Text(column), justify=justify, width=width, overflow="fold")  # type: ignore[arg-type]
    last = len(table.rows) - 1
    for number, row in enumerate(table.rows):
        if number and (number in table.groups or (table.total and number == last)):
            grid.add_section()
        grid.add_row(*map(Text, row), style="bold" if table.total and number == last else None)
    return grid


def _records(table: TableText) -> Iterator[RenderableType]:
    """A paragraph a row, where not even two columns fit beside each other."""
    for label, row in zip(_labels(table), table.rows, strict=True):
        yield Text(label, style="bold")
        for column, cell in zip(table.columns[table.num_left :], row[table.num_left :], strict=True):
            if cell:
                yield _indented(f"{column}: {cell}")
