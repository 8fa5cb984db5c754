"""What a calibration found, as tables: what moved and what was kept, and errors on records that no fit saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.text import Text

from kraken_sim.calibration.kept import CALIBRATED, Change, changes_of
from kraken_sim.profiles.write import numbers_of
from kraken_sim.report.page import TextTable
from kraken_sim.units import Dimension, dimension_of_field, format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from kraken_sim.calibration.result import CalibrationResult
    from kraken_sim.report.terminal import Fitted

MOST_CHANGES: Final = 5
"""Constants of a block that the table shows, those that moved most; a choice of ours, launch costs are all shown."""


def calibration_report(result: CalibrationResult) -> RenderableType:
    """What became of every block, errors by kernel and class, what was kept from the base, and warnings."""
    banner = [Text(f"{result.warnings[0]}\n", style="bold yellow")] if result.dry_run else []
    return Group(*banner, _changes(result), _errors(result), _notes(result))


def _changes(result: CalibrationResult) -> Fitted:
    rows: list[tuple[str, ...]] = []
    groups = []
    for name in CALIBRATED:
        groups.append(len(rows))
        rows += _launch_rows(result) if name == "launch" else _block_rows(result, name)
    columns = ["block", "constant", "old -> new", "records", "held-out error", "what became of it"]
    return TextTable(f"{result.base.name} -> {result.profile.name}", columns, rows, num_left=2, groups=groups).rich()


def _launch_rows(result: CalibrationResult) -> Iterator[tuple[str, ...]]:
    if "launch" in result.kept_blocks:
        yield "launch", "all", "", "", "", f"kept: {result.kept['launch']}"
        return
    moved = {change.path: change for change in changes_of("launch", result.base, result.profile)}
    first = "launch"
    for item, value in numbers_of(result.profile.launch):
        count = result.records.get(item)
        why = result.kept.get(f"launch.{item}", result.kept.get(f"launch.{item.partition('.')[0]}"))
        change = moved.get(item)
        text = _arrow(change) if change is not None else _number(item, value)
        fate = f"kept: {why}" if why is not None else "measured" if count else "kept"
        yield first, item, text, "" if count is None else str(count), "", fate
        first = ""


def _block_rows(result: CalibrationResult, name: str) -> Iterator[tuple[str, ...]]:
    judged = result.judged.get(name)
    errors = ""
    if judged is not None:
        errors = " -> ".join(
            "none" if error is None else f"{100 * error:.2f} %" for error in (judged.before, judged.after)
        )
    why = result.kept.get(name)
    fate = f"kept: {why}" if why is not None else "refitted" if name in result.blocks else "kept"
    yield name, "all", "", "" if judged is None else str(judged.records), errors, fate
    if name not in result.blocks:
        return
    moved = changes_of(name, result.base, result.profile)
    for change in moved[:MOST_CHANGES]:
        yield "", change.path, _arrow(change), "", "", ""
    if len(moved) > MOST_CHANGES:
        yield "", f"and {len(moved) - MOST_CHANGES} more", "", "", "", ""
    reasons: dict[str, list[str]] = {}
    for path, reason in result.kept.items():
        if path.startswith(f"{name}."):
            reasons.setdefault(reason, []).append(path.partition(".")[2])
    for reason, parts in reasons.items():
        yield "", ", ".join(parts), "", "", "", f"kept: {reason}"


def _arrow(change: Change) -> str:
    old = "none" if change.old is None else _number(change.path, change.old)
    return f"{old} -> {_number(change.path, change.new)}"


def _number(path: str, value: float) -> str:
    """A number with its unit, which the innermost field of its path names."""
    for part in reversed(path.split(".")):
        dimension = dimension_of_field(part)
        if dimension is not Dimension.DIMENSIONLESS:
            return format_quantity(value, dimension)
    return f"{value:.4g}"


def _errors(result: CalibrationResult) -> Fitted:
    rows: list[list[str]] = []
    groups, kernel = [], ""
    for error in result.errors:
        first = error.kernel if error.kernel != kernel else ""
        if first:
            groups.append(len(rows))
        sizes = [f"{100 * size:.1f} %" for size in (error.mean, error.median, error.worst)]
        rows.append([first, error.name, str(error.count), *sizes, f"{100 * error.bias:+.1f} %"])
        kernel = error.kernel
    columns = ["kernel", "class", "records", "mean", "median", "worst", "bias"]
    title = "Errors on held-out records, |predicted / measured - 1|"
    return TextTable(title, columns, rows, num_left=2, groups=groups).rich()


def _notes(result: CalibrationResult) -> Text:
    text = Text(f"{result.profile.name}, from {result.base.name} and {result.source}\n")
    for warning in result.warnings[1:] if result.dry_run else result.warnings:
        text.append(f"warning: {warning}\n", style="yellow")
    return text
