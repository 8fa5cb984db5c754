"""What every answer of the Python API has in a notebook: one line, a table, a DataFrame, a figure."""

from __future__ import annotations

import html
from importlib import import_module
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Final

from kraken_sim.errors import InputError
from kraken_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    import pandas as pd

    from kraken_sim.predict.records import Records

MOST_ROWS: Final = 20
"""Rows of an answer that a notebook shows; a limit of ours, for the reader."""


class Answer:
    """An answer: `headline` in one line, `records` as flat rows.

    A notebook shows both; `shown` are the columns that it shows, all if it is empty.
    """

    __slots__ = ()

    shown: ClassVar[tuple[str, ...]] = ()

    @property
    def headline(self) -> str:
        """The answer in one line."""
        raise NotImplementedError

    @property
    def records(self) -> Records:
        """One mapping of columns to plain values for each row."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.headline}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the line, and the first rows as a table."""
        rows = self.records
        columns = [name for name in self.shown or rows[0] if name in rows[0]] if rows else []
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        body = "".join(f"<tr>{_cells(row, columns)}</tr>" for row in rows[:MOST_ROWS])
        more = f"<p>and {len(rows) - MOST_ROWS:,} more rows</p>" if len(rows) > MOST_ROWS else ""
        return f"<p><b>{html.escape(self.headline)}</b></p><table><tr>{head}</tr>{body}</table>{more}"

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a `pandas.DataFrame` (extra `pandas`).

        Raises:
            InputError: pandas is not installed; `records` gives the same rows without it.
        """
        return frame_of(self.records)

    def plot(self) -> Any:
        """The answer as a `plotly` figure, which a notebook shows.

        Raises:
            InputError: there is no figure of such an answer.
        """
        # The one door from below to the reports: figures need plotly, which takes its time, and only who asks waits.
        return import_module("kraken_sim.report.notebook").figure_of(self)


def frame_of(records: Records) -> pd.DataFrame:
    """Flat rows as a `pandas.DataFrame`.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        message = "pandas is not installed; install it, or use answer.records"
        raise InputError.single("dataframe", message) from None
    return pd.DataFrame(records)


def _cells(row: dict[str, Any], columns: list[str]) -> str:
    return "".join(f"<td>{html.escape(cell(name, row.get(name)))}</td>" for name in columns)


def cell(name: str, value: object) -> str:
    """A value of a column as a table shows it, in the unit that the column's name ends in."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not isfinite(value):
        return str(value)
    stem = name.partition(".")[0]
    if name.endswith("_s") or (stem.endswith("_s") and not stem.endswith("per_s")):
        return f"{value:.4g} /s" if name.endswith("per_s") else format_seconds(value)
    if name.endswith("_bytes") or stem.endswith("_bytes"):
        return format_bytes(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
