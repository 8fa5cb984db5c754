"""What a calibration found, as a table of errors on records that no fit saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kraken_sim.calibration.fit_profile import CalibrationResult


def calibration_report(result: CalibrationResult) -> RenderableType:
    """Errors by kernel and class, what was kept from the base, and warnings."""
    return Group(_errors(result), _notes(result))


def _errors(result: CalibrationResult) -> Table:
    table = Table(title="Errors on held-out records, |predicted / measured - 1|", title_justify="left")
    table.add_column("kernel")
    table.add_column("class")
    for column in ("records", "mean", "median", "worst", "bias"):
        table.add_column(column, justify="right")
    kernel = ""
    for error in result.errors:
        if error.kernel != kernel:
            table.add_section()
        sizes = [f"{100 * size:.1f} %" for size in (error.mean, error.median, error.worst)]
        first = error.kernel if error.kernel != kernel else ""
        table.add_row(first, error.name, str(error.count), *sizes, f"{100 * error.bias:+.1f} %")
        kernel = error.kernel
    return table


def _notes(result: CalibrationResult) -> Text:
    text = Text(f"{result.profile.name}, from {result.base.name} and {result.source}\n")
    for block, reason in result.kept.items():
        text.append(f"{block} is that of {result.base.name}: {reason}\n", style="yellow")
    for warning in result.warnings:
        text.append(f"warning: {warning}\n", style="yellow")
    return text
