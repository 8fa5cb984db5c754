"""What a sweep found, in a few lines: counts, errors, and the fastest and the slowest points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Group
from rich.text import Text

from kraken_sim.explore.selection import RowChoice, column_named
from kraken_sim.explore.sweep.table import chosen_rows, column_names
from kraken_sim.report.page import TextTable
from kraken_sim.units import dimension_of_field, format_quantity, format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pyarrow as pa
    from rich.console import RenderableType

    from kraken_sim.explore.sweep.plan import Plan
    from kraken_sim.explore.sweep.sweep import SweepRun

SHOWN = 5
"""Fastest points that are listed."""

LISTED = 50
"""Points that are listed of those that were asked for; --csv has all."""

ALL = RowChoice()

_TIMES: Final = ("latency_s", "interval_s.low", "interval_s.high")
_COLUMNS: Final = ("latency", "90 % interval")

ERRORS_SHOWN = 3
"""Kinds of errors that are listed, most frequent first."""


def sweep_report(plan: Plan, run: SweepRun, out: Path, elapsed_s: float, chosen: RowChoice = ALL) -> RenderableType:
    """Counts and rate of the run, the fastest points of the file or those chosen, its errors by how often they occur.

    Raises:
        InputError: see `RowChoice.indices`.
    """
    failed = pq.read_table(out, columns=["point", "error_kind", "error"])
    failed = failed.filter(pc.is_valid(failed["error"]))
    found = f", {run.num_found:,} of them found done" if run.num_found else ""
    rate = f" ({run.num_run / elapsed_s:,.0f} points a second)" if run.num_run and elapsed_s > 0.0 else ""
    lines: list[RenderableType] = [
        Text(f"{plan.name}: {run.num_points:,} points{found}, {failed.num_rows:,} without an answer, in {out}"),
        Text(f"{run.num_run:,} points run in {elapsed_s:.1f} s{rate}"),
    ]
    if not chosen.is_whole:
        lines.append(_chosen_table(plan, out, chosen).rich())
    elif failed.num_rows < run.num_points:
        answered = pq.read_table(out, columns=["point", *plan.paths, *_TIMES])
        lines.append(fastest_table(plan, answered.filter(pc.is_valid(answered["latency_s"]))).rich())
    return Group(*lines, *(Text(sentence) for sentence in error_sentences(failed)))


def fastest_table(plan: Plan, answered: pa.Table) -> TextTable:
    """The fastest of the points that have an answer."""
    order = pc.select_k_unstable(answered, k=min(SHOWN, answered.num_rows), sort_keys=[("latency_s", "ascending")])
    rows = [_row(plan, record) for record in answered.take(order).to_pylist()]
    return TextTable(f"The {len(rows)} fastest points", ["point", *plan.paths, *_COLUMNS], rows)


def _chosen_table(plan: Plan, out: Path, chosen: RowChoice) -> TextTable:
    """The points chosen, the first of them where they are many, with the columns that the choice is about."""
    names = column_names(out)
    asked = [column_named(name, names, "--where") for name in chosen.columns]
    extra = [name for name in dict.fromkeys(asked) if name not in ("point", *plan.paths, *_TIMES)]
    found = chosen_rows(out, chosen, ["point", *plan.paths, *_TIMES, *extra])
    records = found.slice(0, LISTED).to_pylist()
    rows = [[*_row(plan, record), *(_plain(name, record[name]) for name in extra)] for record in records]
    title = f"{found.num_rows:,} of {plan.num_points:,} points"
    title += f", the first {len(rows)}" if len(rows) < found.num_rows else ""
    return TextTable(title, ["point", *plan.paths, *_COLUMNS, *extra], rows)


def _row(plan: Plan, record: Mapping[str, Any]) -> list[str]:
    """A point: its swept fields, its latency and the interval of that."""
    swept = [str(record[path]) if record[path] is not None else "default" for path in plan.paths]
    if record["latency_s"] is None:
        return [str(record["point"]), *swept, "", ""]
    low, high = (format_seconds(record[f"interval_s.{end}"], 3) for end in ("low", "high"))
    return [str(record["point"]), *swept, format_seconds(record["latency_s"]), f"{low} to {high}"]


def _plain(name: str, value: object) -> str:
    if value is None:
        return ""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return format_quantity(float(value), dimension_of_field(name)) if is_number else str(value)  # type: ignore[arg-type]


def error_sentences(failed: pa.Table) -> list[str]:
    """Why points have no answer, the most frequent reason first."""
    counts = failed.group_by(["error_kind", "error"]).aggregate([("point", "count"), ("point", "min")])
    ordered = sorted(counts.to_pylist(), key=lambda row: (-row["point_count"], row["point_min"]))
    sentences = []
    for row in ordered[:ERRORS_SHOWN]:
        where = f"{row['point_count']:,} points, first {row['point_min']}"
        sentences.append(f"{row['error_kind']} ({where}): {row['error']}")
    if len(ordered) > ERRORS_SHOWN:
        sentences.append(f"and {len(ordered) - ERRORS_SHOWN} other errors: column error of the file")
    return sentences
