"""Passes of machines other than the one that was calibrated, and how well the same passes repeat."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final

from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.scenario.spec import Launch
from kraken_sim.validate.passes import validate_passes
from validation.accuracy_passes import EAGER_BAR, GRAPH_BAR, INSIDE, grouped, inside_cell
from validation.accuracy_table import Line, Section, line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.validate.passes import Comparison

AGAIN = "-again"
"""What the name of a second run of the same passes ends in."""

LLAMA_SUITE: Final = "llama-passes"
"""Suite of the passes of Llama- and Qwen-like models, which have a table of their own."""

FP8_SUITE: Final = "fp8-passes"
"""Suite of the passes in fp8, which have one too."""

IDLE_BEFORE: Final = "idle before"
"""The load of a card that did nothing between two passes."""


def elsewhere_section(files: Sequence[MeasurementFile]) -> Section:
    """Errors of the passes of every file by launch and architecture, each against the profile that ships for it.

    Raises:
        InputError: a file holds no passes, or no shipped profile fits its machine.
    """
    lines = [item for file in files for item in _lines(file)]
    note = (
        "No constant was fitted to these machines' passes. The H100 was not calibrated at all: its GEMM, attention and "
        "NCCL constants are from public tables, the rest is carried over from the H200."
    )
    labels = ("machine", "run", "launch", "architecture")
    return Section("elsewhere", "Whole passes on one GPU", labels, tuple(lines), INSIDE, note=note)


def _lines(file: MeasurementFile) -> Iterator[Line]:
    result = validate_passes(file)
    run = "second" if AGAIN in str(file.source) else "first"
    for launch, some in grouped(result.comparisons, lambda c: c.record.launch).items():
        bar = GRAPH_BAR if launch is Launch.GRAPH else EAGER_BAR
        labels = (file.header.device_name, run, str(launch))
        yield line((*labels, "all"), [c.error for c in some], bar, inside_cell(some))
        for architecture, own in grouped(some, lambda c: c.architecture).items():
            yield line((*labels, str(architecture)), [c.error for c in own], extra=inside_cell(own))


def llama_section(files: Sequence[MeasurementFile]) -> Section:
    """Errors of the passes of Llama- and Qwen-like models, those of all files together.

    Raises:
        InputError: a file holds no passes, or no shipped profile fits its machine.
    """
    note = (
        "Models of a few layers in fp16 and bf16, batches of 1 to 64, each predicted with its own kernel set and the "
        "state of its card."
    )
    labels = ("kernels", "launch", "load", "phase")
    lines = _by_condition(files, _conditions)
    return Section("llama", "Llama- and Qwen-like passes on one GPU", labels, lines, INSIDE, note=note)


def fp8_section(files: Sequence[MeasurementFile]) -> Section:
    """Errors of the passes of Llama-like models in fp8, beside the same in bf16.

    Raises:
        InputError: a file holds no passes, or no shipped profile fits its machine.
    """
    note = (
        "Llama 3.1 8B and an eighth of 70B, a few layers, with torch._scaled_mm: static scales a tensor, dynamic ones "
        "a token. No constant was fitted to these passes."
    )
    labels = ("format", "kernels", "load", "phase")
    return Section("fp8", "Passes in fp8 on one GPU", labels, _by_condition(files, _formats), INSIDE, note=note)


def _by_condition(
    files: Sequence[MeasurementFile], condition: Callable[[Comparison], tuple[str, ...]]
) -> tuple[Line, ...]:
    """One line a condition, those of all files together."""
    comparisons = [comparison for file in files for comparison in validate_passes(file).comparisons]
    groups = _groups(comparisons, condition)
    lines = (line(labels, [c.error for c in some], extra=inside_cell(some)) for labels, some in groups)
    return tuple(sorted(lines, key=lambda item: item.labels))


def _groups(
    comparisons: Sequence[Comparison], condition: Callable[[Comparison], tuple[str, ...]]
) -> Iterator[tuple[tuple[str, ...], list[Comparison]]]:
    for labels in dict.fromkeys(map(condition, comparisons)):
        yield labels, [comparison for comparison in comparisons if condition(comparison) == labels]


def _formats(comparison: Comparison) -> tuple[str, ...]:
    record = comparison.record
    scheme = "" if record.activation_scheme is None else f", {record.activation_scheme}"
    return f"{record.quantization or record.dtype}{scheme}", record.kernels, record.load or IDLE_BEFORE, record.phase


def _conditions(comparison: Comparison) -> tuple[str, ...]:
    record = comparison.record
    return record.kernels, record.launch, record.load or IDLE_BEFORE, record.phase


def repeatability_section(first: MeasurementFile, again: MeasurementFile) -> Section:
    """The second run over the first, minus one: what no prediction can know."""
    before = {record.key: record.time_s.median for record in first.select(PassRecord)}
    lines = []
    for launch in Launch:
        for tokens in (None, 128, 512, 2048):
            errors = [
                record.time_s.median / before[record.key] - 1.0
                for record in again.select(PassRecord)
                if record.key in before and record.launch is launch and tokens in (None, record.context_length)
            ]
            if errors:
                lines.append(line((str(launch), "all" if tokens is None else str(tokens)), errors))
    title = f"The same passes on two starts of a machine, {Path(first.source).stem}"
    return Section("repeatability", title, ("launch", "tokens"), tuple(lines), note=_spread_note(first, again))


def _spread_note(first: MeasurementFile, again: MeasurementFile) -> str:
    widths = [
        (record.time_s.q3 - record.time_s.q1) / record.time_s.median
        for file in (first, again)
        for record in file.select(PassRecord)
        if record.launch is Launch.GRAPH
    ]
    return (
        "Machines were started anew in between, so these may be two cards. Within a run the quartiles of a graph pass "
        f"are {100 * fmean(widths):.1f} % apart on average."
    )


def pairs_of_runs(folder: Path) -> list[tuple[Path, Path]]:
    """Files of passes in a folder that were measured twice."""
    again = sorted(folder.glob(f"*passes*{AGAIN}.jsonl"))
    return [(path.with_name(path.name.replace(AGAIN, "")), path) for path in again]
