"""Predicted against measured, as tables."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.text import Text

from kraken_sim.report.explore import percent
from kraken_sim.report.page import TextTable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kraken_sim.report.terminal import Fitted
    from kraken_sim.validate.passes import ErrorSummary, ValidationResult


LAUNCH_WORDS: Final = {"graph": "CUDA graphs", "eager": "eager launches"}
"""What sentences call the ways to launch."""

SETS = ("launch", "kernels", "load", "phase")
"""Columns of the table by kernel set."""

LEAST_SETS = 3
"""Groups from which that table says something: graph and eager passes of one kind are two. A choice of ours."""


def validation_report(result: ValidationResult) -> RenderableType:
    """Errors by architecture and condition, by size, and Kraken's speed-up predicted and measured."""
    by_condition = _by_launch(result.summary(lambda c: (c.record.launch.value, c.condition, c.architecture)))
    by_kernels = _by_launch(
        result.summary(lambda c: (c.record.launch.value, c.record.kernels.value, c.record.load or "-", c.record.phase))
    )
    by_size = _by_launch(result.summary(lambda c: (c.record.launch.value, c.size, c.record.context_length)))
    banner = [Text(f"{result.warnings[0]}\n", style="bold yellow")] if result.dry_run else []
    return Group(
        *banner,
        *launch_sentences(result),
        _error_table("Errors by condition and architecture", ("launch", "condition", "architecture"), by_condition),
        *([] if len(by_kernels) < LEAST_SETS else [_error_table("Errors by kernel set and load", SETS, by_kernels)]),
        _error_table("Errors by size", ("launch", "model", "tokens"), by_size),
        _speedup_table(result),
        _notes(result),
    )


def launch_sentences(result: ValidationResult) -> list[str]:
    """How far off the passes of each launch are."""
    return [
        f"{LAUNCH_WORDS[launch]}: {errors.count} passes, mean error {percent(errors.mean)}, worst "
        f"{percent(errors.worst)}, {percent(errors.inside, 0)} in their 90 % intervals."
        for (launch, _), errors in _by_launch(result.summary(lambda c: (c.record.launch.value, ""))).items()
    ]


def _by_launch(groups: dict[Any, ErrorSummary]) -> dict[Any, ErrorSummary]:
    """Graphs before eager launches, conditions together; otherwise in order of appearance."""
    order = list(dict.fromkeys(key[1] for key in groups))
    return dict(sorted(groups.items(), key=lambda item: (item[0][0] != "graph", order.index(item[0][1]))))


def _error_table(title: str, columns: tuple[str, ...], groups: dict[Any, ErrorSummary]) -> Fitted:
    rows = []
    for key, summary in groups.items():
        cells = (f"{100 * summary.mean:.1f} %", f"{100 * summary.worst:.1f} %", f"{100 * summary.bias:+.1f} %")
        rows.append([*map(str, key), str(summary.count), *cells, f"{100 * summary.inside:.0f} %"])
    names = [*columns, "passes", "mean", "worst", "bias", "in 90 % interval"]
    return TextTable(title, names, rows, num_left=len(columns)).rich()


def _speedup_table(result: ValidationResult) -> Fitted:
    rows: list[list[str]] = []
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for speedup in result.speedups():
        key = (speedup.kraken.record.launch.value, speedup.kraken.condition)
        groups.setdefault(key, []).append((speedup.measured_percent, speedup.predicted_percent))
    for key, pairs in groups.items():
        errors = [abs(predicted - measured) for measured, predicted in pairs]
        telling = [(m, p) for m, p in pairs if abs(m) > 3.0]
        right = sum((m > 0) == (p > 0) for m, p in telling)
        points = (f"{fmean(errors):.1f} points", f"{max(errors):.1f} points")
        rows.append([*key, str(len(pairs)), *points, f"{right} of {len(telling)}"])
    columns = ["launch", "condition", "pairs", "mean error", "worst", "sign right beyond 3 %"]
    return TextTable("Kraken's speed-up over standard, in per cent", columns, rows, num_left=2).rich()


def _notes(result: ValidationResult) -> Text:
    text = Text(f"{len(result.comparisons)} passes of {result.source} against {result.hardware}\n")
    for warning in result.warnings[1:] if result.dry_run else result.warnings:
        text.append(f"warning: {warning}\n", style="yellow")
    for skipped in result.skipped:
        text.append(f"not predicted: {skipped}\n", style="yellow")
    return text
