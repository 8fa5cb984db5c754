"""Answers as pandas DataFrames, for notebooks; pandas is the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kraken_sim.errors import InputError
from kraken_sim.predict.answer import frame_of

if TYPE_CHECKING:
    from kraken_sim.predict.records import HasRecords


def dataframe(answer: HasRecords) -> Any:
    """The rows of any answer (of a sweep, a comparison, an exploration, a purchase) as a `pandas.DataFrame`.

    Raises:
        InputError: pandas is not installed; `answer.records` gives the same rows without it.
    """
    if not hasattr(answer, "records"):
        message = "must be an answer of this package, which has records"
        raise InputError.single("answer", message, answer, "sweep(...)")
    # A sweep knows the types of its columns, also of those that are empty.
    typed = getattr(answer, "to_pandas", None)
    return frame_of(answer.records) if typed is None else typed()
