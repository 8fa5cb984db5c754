"""Answers as pandas DataFrames, for notebooks; pandas is the user's own."""

from __future__ import annotations

from typing import Any, Protocol

from kraken_sim.errors import InputError


class HasRecords(Protocol):
    """An answer that can be written as flat rows."""

    def records(self) -> list[dict[str, Any]]:
        """One mapping of columns to values for each row."""


def dataframe(answer: HasRecords) -> Any:
    """The answer's rows as a `pandas.DataFrame`.

    Raises:
        InputError: pandas is not installed; `answer.records()` gives the same rows without it.
    """
    try:
        import pandas as pd
    except ImportError:
        message = "pandas is not installed; install it, or use answer.records()"
        raise InputError.single("dataframe", message) from None
    return pd.DataFrame(answer.records())
