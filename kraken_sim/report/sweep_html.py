"""A sweep as a page: its rows to filter, to draw any two columns of against each other, to map and to sort."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kraken_sim.report.page import Bullets, Explorer, Headline, Page, PageBlock, Section, table_section
from kraken_sim.report.sweep import error_sentences, fastest_table
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kraken_sim.explore.sweep.plan import Plan

MOST_ROWS: Final = 10_000
"""Rows of a page, which a browser draws and filters without a wait; a choice of ours."""

KEPT_FASTEST: Final = 1_000
"""Of these, the fastest that are there whatever is left out; a choice of ours."""

LARGER_IS_BETTER: Final = frozenset({"hidden_communication_s", "num_parameters"})
"""Columns of answers that one does not want small."""

_ABOUT: Final = frozenset({"point", "error", "error_kind", "num_events"})


def sweep_page(plan: Plan, out: Path) -> Page:
    """The finished file of a sweep.

    Args:
        plan: what was asked.
        out: the Parquet file.
    """
    table = pq.read_table(out)
    failed, answered = table.filter(pc.is_valid(table["error"])), table.filter(pc.is_null(table["error"]))
    sentences = [f"{table.num_rows:,} points, {failed.num_rows:,} of them without an answer."]
    sections: list[Section] = []
    headline = None
    if answered.num_rows:
        fastest = fastest_table(plan, answered)
        headline = _headline(plan, answered)
        sections = [
            Section("Look at it", list(_explorer(plan, answered))),
            table_section(fastest),
        ]
    if failed.num_rows:
        sections.append(Section("Points without an answer", [Bullets(error_sentences(failed))]))
    return Page("Sweep", plan.name, sections, headline, sentences)


def _headline(plan: Plan, answered: pa.Table) -> Headline:
    times = answered["latency_s"].to_numpy()
    best, worst = (answered.slice(int(row), 1).to_pylist()[0] for row in (np.argmin(times), np.argmax(times)))
    low, high = (format_seconds(best[f"interval_s.{end}"], 3) for end in ("low", "high"))
    return Headline(
        format_seconds(best["latency_s"], 3),
        f"the fastest of {answered.num_rows:,} points: {_asked(plan, best)}",
        f"90 % interval: {low} to {high}",
        f"The slowest takes {format_seconds(worst['latency_s'], 3)}: {_asked(plan, worst)}.",
    )


def _asked(plan: Plan, row: dict[str, Any]) -> str:
    return ", ".join(f"{path} {row[path] if row[path] is not None else 'default'}" for path in plan.paths)


def _explorer(plan: Plan, answered: pa.Table) -> Iterator[PageBlock]:
    shown = drawn_rows(answered)
    left_out = answered.num_rows - shown.num_rows
    yield "Times are in seconds, memory in bytes, as in the file."
    if left_out:
        yield (
            f"{left_out:,} of {answered.num_rows:,} rows are left out here: the page has the {KEPT_FASTEST:,} fastest, "
            "and of the others every so many. The file has them all."
        )
    outputs = [name for name in shown.column_names if name not in (*plan.paths, *_ABOUT) and _says(shown[name])]
    outputs.sort(key=lambda name: name != "latency_s")
    columns = {name: _values(shown[name]) for name in (*plan.paths, *outputs)}
    smaller = [name for name in outputs if name not in LARGER_IS_BETTER]
    yield Explorer(columns, list(plan.paths), outputs, smaller)


def drawn_rows(answered: pa.Table) -> pa.Table:
    """The rows that a page has: all, or of many the fastest and of the others every so many, in the file's order."""
    if answered.num_rows <= MOST_ROWS:
        return answered
    order = np.argsort(answered["latency_s"].to_numpy(), kind="stable")
    fastest, others = order[:KEPT_FASTEST], np.sort(order[KEPT_FASTEST:])
    picked = np.linspace(0, len(others) - 1, MOST_ROWS - KEPT_FASTEST).astype(np.int64)
    return answered.take(np.sort(np.concatenate([fastest, others[picked]])))


def _says(column: pa.ChunkedArray) -> bool:
    """Whether a column of answers has different numbers."""
    ends = pc.min_max(column) if column.null_count < len(column) else None
    numeric = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    return ends is not None and numeric and ends["min"] != ends["max"]


def _values(column: pa.ChunkedArray) -> list[Any]:
    """For JSON; floats with as many digits as anybody reads."""
    values = column.to_pylist()
    if pa.types.is_floating(column.type):
        return [None if value is None or not np.isfinite(value) else float(f"{value:.6g}") for value in values]
    return [value if value is None or isinstance(value, int | str) else str(value) for value in values]
