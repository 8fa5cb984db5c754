"""Errors in lines and sections, and a section as a rich table, as HTML, as Markdown and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.table import Table

from kraken_sim.report.page import TextTable

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Bar:
    """The largest mean and the largest single error that are good enough; None: no bar."""

    mean: float | None = None
    worst: float | None = None

    def __str__(self) -> str:
        parts = [("mean", self.mean), ("worst", self.worst)]
        return ", ".join(f"{name} ≤ {100 * value:g}" for name, value in parts if value is not None)


NO_BAR = Bar()


@dataclass(frozen=True, slots=True)
class Line:
    """Errors of one group: a fraction of what was measured, or hundredths for points of per cent.

    `bias` is the mean with its sign; `extra` are further cells, one for each of the section's extra columns.
    """

    labels: tuple[str, ...]
    count: int
    mean: float
    worst: float
    bias: float
    bar: Bar = NO_BAR
    extra: tuple[str, ...] = ()

    @property
    def mean_met(self) -> bool | None:
        """Whether the mean is within the bar; None without one."""
        return None if self.bar.mean is None else self.mean <= self.bar.mean

    @property
    def worst_met(self) -> bool | None:
        """Whether the worst is within the bar; None without one."""
        return None if self.bar.worst is None else self.worst <= self.bar.worst

    @property
    def met(self) -> bool | None:
        """Whether the errors are within the bar; None without one."""
        judged = [met for met in (self.mean_met, self.worst_met) if met is not None]
        return all(judged) if judged else None


@dataclass(frozen=True, slots=True)
class Section:
    """A table of errors; `note` says what else a reader must know."""

    key: str
    title: str
    labels: tuple[str, ...]
    lines: tuple[Line, ...] = ()
    extra: tuple[str, ...] = ()
    unit: str = "%"
    note: str = ""

    @property
    def header(self) -> tuple[str, ...]:
        """The column heads."""
        return (*self.labels, "count", "mean", "worst", "bias", f"bar, {self.unit}", "met", *self.extra)

    def as_dict(self) -> dict[str, Any]:
        """The section for JSON; errors in per cent or points, as printed."""
        return {
            "key": self.key,
            "title": self.title,
            "unit": self.unit,
            "note": self.note,
            "lines": [
                {
                    **dict(zip(self.labels, line.labels, strict=True)),
                    "count": line.count,
                    "mean": 100 * line.mean,
                    "worst": 100 * line.worst,
                    "bias": 100 * line.bias,
                    "bar_mean": None if line.bar.mean is None else 100 * line.bar.mean,
                    "bar_worst": None if line.bar.worst is None else 100 * line.bar.worst,
                    "met": line.met,
                    **dict(zip(self.extra, line.extra, strict=True)),
                }
                for line in self.lines
            ],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All sections and, first, what was compared with what."""

    headline: str
    sections: tuple[Section, ...]

    def section(self, key: str) -> Section:
        """The section of this key.

        Raises:
            KeyError: there is none.
        """
        return {section.key: section for section in self.sections}[key]

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {"headline": self.headline, "sections": [section.as_dict() for section in self.sections]}


def line(labels: tuple[str, ...], errors: Sequence[float], bar: Bar = NO_BAR, extra: tuple[str, ...] = ()) -> Line:
    """The line of signed errors."""
    sizes = [abs(error) for error in errors]
    return Line(labels, len(errors), fmean(sizes), max(sizes), fmean(errors), bar, extra)


def cells(section: Section, line: Line) -> tuple[str, ...]:
    """One line as texts, in the order of `Section.header`."""
    met = {True: "yes", False: "no", None: ""}[line.met]
    errors = (f"{100 * line.mean:.1f}", f"{100 * line.worst:.1f}", f"{100 * line.bias:+.1f}")
    extra = line.extra or ("",) * len(section.extra)
    return (*line.labels, str(line.count), *errors, str(line.bar), met, *extra)


def rich_table(section: Section) -> Table:
    """A table for terminals; its caption is the note."""
    title = f"{section.title}, in {'per cent' if section.unit == '%' else section.unit}"
    table = Table(title=title, title_justify="left", caption=section.note or None, caption_justify="left")
    for name in section.header:
        table.add_column(name, justify="left" if name in (*section.labels, *section.extra) else "right")
    for item in section.lines:
        style = "yellow" if item.met is False else None
        table.add_row(*cells(section, item), style=style)
    return table


def text_table(section: Section) -> TextTable:
    """The same for a page, which marks what misses its bar."""
    missed = [index for index, item in enumerate(section.lines) if item.met is False]
    rows = [cells(section, item) for item in section.lines]
    return TextTable("", section.header, rows, num_left=len(section.labels), missed=missed)


def markdown_table(section: Section) -> str:
    """The same in Markdown, with the note below."""
    judged = any(item.met is not None for item in section.lines)
    shown = [name for name in section.header if judged or not name.startswith(("bar,", "met"))]
    keep = [index for index, name in enumerate(section.header) if name in shown]
    rows = [[cells(section, item)[index] for index in keep] for item in section.lines]
    unit = "per cent" if section.unit == "%" else section.unit
    lines = [f"## {section.title}, in {unit}", ""]
    if rows:
        left = (*section.labels, *section.extra)
        rule = ["---" if name in left else "---:" for name in shown]
        lines += [f"| {' | '.join(row)} |" for row in (shown, rule, *rows)]
        lines.append("")
    return "\n".join([*lines, *([section.note, ""] if section.note else [])])
