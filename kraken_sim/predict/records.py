"""Answers as flat rows, for tables, CSV files and DataFrames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from typing import Self


class Records(list[dict[str, Any]]):
    """Rows of one kind: every one maps the same columns to plain values.

    Calling it gives itself, so that `answer.records` and `answer.records()` are the same.
    """

    def __call__(self) -> Self:
        """The rows themselves."""
        return self


class HasRecords(Protocol):
    """An answer that can be written as flat rows."""

    @property
    def records(self) -> Records:
        """One mapping of columns to values for each row."""
