"""What a sweep found, in a few lines: counts, errors, and the fastest and the slowest points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Group
from rich.text import Text

from kraken_sim.report.page import TextTable
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from rich.console import RenderableType

    from kraken_sim.explore.sweep.plan import Plan
    from kraken_sim.explore.sweep.sweep import SweepRun

SHOWN = 5
"""Fastest points that are listed."""

ERRORS_SHOWN = 3
"""Kinds of errors that are listed, most frequent first."""


def sweep_report(plan: Plan, run: SweepRun, out: Path, elapsed_s: float) -> RenderableType:
    """Counts and rate of the run, the fastest points of the file, and its errors by how often they occur."""
    table = pq.read_table(
        out, columns=["point", *plan.paths, "latency_s", "interval_s.low", "interval_s.high", "error_kind", "error"]
    )
    failed = table.filter(pc.is_valid(table["error"]))
    answered = table.filter(pc.is_null(table["error"]))
    found = f", {run.num_found:,} of them found done" if run.num_found else ""
    rate = f" ({run.num_run / elapsed_s:,.0f} points a second)" if run.num_run and elapsed_s > 0.0 else ""
    lines: list[RenderableType] = [
        Text(f"{plan.name}: {run.num_points:,} points{found}, {failed.num_rows:,} without an answer, in {out}"),
        Text(f"{run.num_run:,} points run in {elapsed_s:.1f} s{rate}"),
    ]
    if answered.num_rows:
        lines.append(fastest_table(plan, answered).rich())
    return Group(*lines, *(Text(sentence) for sentence in error_sentences(failed)))


def fastest_table(plan: Plan, answered: pa.Table) -> TextTable:
    """The fastest of the points that have an answer."""
    rows = []
    order = pc.select_k_unstable(answered, k=min(SHOWN, answered.num_rows), sort_keys=[("latency_s", "ascending")])
    for record in answered.take(order).to_pylist():
        swept = [str(record[path]) if record[path] is not None else "default" for path in plan.paths]
        low, high = (format_seconds(record[f"interval_s.{end}"], 3) for end in ("low", "high"))
        rows.append([str(record["point"]), *swept, format_seconds(record["latency_s"]), f"{low} to {high}"])
    columns = ["point", *plan.paths, "latency", "90 % interval"]
    return TextTable(f"The {len(rows)} fastest points", columns, rows)


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
