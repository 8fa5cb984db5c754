"""What a page of HTML is made of: a headline, and sections of sentences, facts, tables, plots and commands.

These are plain values; `kraken_sim.report.render` makes HTML of them with one template. All text in them is text:
markup in it is shown, not obeyed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kraken_sim.report.terminal import Fitted, TableText

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class TextTable(TableText):
    """A table as text, for the terminal and for a page alike."""

    __slots__ = ()

    def rich(self) -> Fitted:
        """For the terminal, in whatever width it has."""
        return Fitted(self)

    def with_rows(self, numbers: Sequence[int]) -> TextTable:
        """The table with some of its rows, in this order."""
        return self._replace(rows=[self.rows[number] for number in numbers], total=False, groups=())


@dataclass(frozen=True, slots=True)
class Bullets:
    """Sentences, one below the other."""

    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and what they are, in pairs; what takes `sentences` to say has a line to itself."""

    pairs: Sequence[tuple[str, str]]
    sentences: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """Something to type, or a text whose lines have columns and must not wrap."""

    text: str
    keeps_lines: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """A plotly figure; `label` says what it shows to those who do not see it.

    On screens narrower than `min_width_px` the figure is scrolled sideways within its frame; 0: it shrinks with the
    screen.
    """

    figure: Any
    label: str
    min_width_px: int = 0


@dataclass(frozen=True, slots=True)
class Details:
    """Blocks behind a line that one opens."""

    summary: str
    blocks: Sequence[PageBlock]
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class Explorer:
    """Rows to filter, to draw any two columns of against each other, to map, and to find the Pareto front of.

    `columns` has every column's values by its name, all of one length; `inputs` names those that were asked, `outputs`
    those that are answers, and `smaller_is_better` those of them that one wants small.
    """

    columns: Mapping[str, Sequence[str | float | None]]
    inputs: Sequence[str]
    outputs: Sequence[str]
    smaller_is_better: Sequence[str]


PageBlock = str | TextTable | Bullets | Facts | Command | Plot | Details | Explorer
"""What a section holds; a string is a paragraph."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[PageBlock]


def table_section(table: TextTable, *above: PageBlock) -> Section:
    """A table below its own title, of which what follows a semicolon is a sentence.

    Args:
        table: with a title.
        above: what stands between the title and the table.
    """
    title, _, further = table.title.partition("; ")
    sentence = [f"{further[:1].upper()}{further[1:]}."] if further else []
    return Section(title, [*sentence, *above, table._replace(title="")])


@dataclass(frozen=True, slots=True)
class Headline:
    """The answer in a figure: `9.6 ms`, what that is, how sure it is, and in one sentence why."""

    figure: str
    what: str
    interval: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page. `kind` says in a word or two what it is, as a line above the title."""

    kind: str
    title: str
    sections: Sequence[Section]
    headline: Headline | None = None
    sentences: Sequence[str] = ()
    warnings: Sequence[str] = field(default=())
