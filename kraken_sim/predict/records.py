"""Answers as flat rows, for tables, CSV files and DataFrames."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self


class Records(list[dict[str, Any]]):
    """Rows of one kind: every one maps the same columns to plain values.

    Calling it gives itself, so that `answer.records` and `answer.records()` are the same.
    """

    def __call__(self) -> Self:
        """The rows themselves."""
        return self


def flat_row(row: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """A row without rows in it: what is nested under its dotted path, a list as JSON."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= flat_row(value, f"{at}{name}.")
        else:
            found[f"{at}{name}"] = json.dumps(value) if isinstance(value, list | tuple) else value
    return found


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV: a header of all their columns, nothing where a row has no value."""
    flat = [flat_row(row) for row in rows]
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in flat for name in row))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in flat)
    return text.getvalue()


def _cell(value: object) -> object:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


class HasRecords(Protocol):
    """An answer that can be written as flat rows."""

    @property
    def records(self) -> Records:
        """One mapping of columns to values for each row."""
