"""Rows of a sweep's file: those that are asked for, and as CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kraken_sim.explore.selection import RowChoice

BATCH: Final = 20_000
"""Rows that are in memory at once where all are written; a choice of ours."""


def column_names(file: Path) -> list[str]:
    """The columns of a sweep's file."""
    return list(pq.read_schema(file).names)


def chosen_rows(file: Path, selection: RowChoice, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows that a selection leaves, in its order.

    Raises:
        InputError: see `RowChoice.indices`.
    """
    count = pq.read_metadata(file).num_rows

    def values_of(name: str) -> list[object]:
        return list(pq.read_table(file, columns=[name]).column(0).to_pylist())

    rows = selection.indices(column_names(file), values_of, count)
    return pq.read_table(file, columns=None if columns is None else list(columns)).take(pa.array(rows, pa.int64()))


def csv_of(file: Path, selection: RowChoice) -> Iterator[bytes]:
    """The rows as CSV, a part after the other: a header of the columns' names, nothing where there is no value."""
    yield header_of(column_names(file))
    if selection.is_whole:
        with pq.ParquetFile(file) as whole:
            yield from _csv(pa.Table.from_batches([batch]) for batch in whole.iter_batches(BATCH))
    else:
        yield from _csv(iter([chosen_rows(file, selection)]))


def header_of(columns: Sequence[str]) -> bytes:
    """The first line of a CSV file."""
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(columns)
    return header.getvalue().encode()


def _csv(tables: Iterator[pa.Table]) -> Iterator[bytes]:
    options = pa_csv.WriteOptions(include_header=False, quoting_style="needed")
    for table in tables:
        text = io.BytesIO()
        pa_csv.write_csv(table, text, options)
        yield text.getvalue()
