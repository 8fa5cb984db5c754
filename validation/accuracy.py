"""How far predictions are off, from the committed measurements: `python -m validation.accuracy`.

Calibration reads microbenchmarks only, so every whole pass is new to the profile it is compared with. Errors are
predicted / measured - 1. Microbenchmarks are judged on the records that a fit did not see, public tables of kernels
(where they are at hand) on the shapes that no fit has seen. No torch here.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.text import Text

from kraken_sim.calibration.fit_profile import calibrate
from kraken_sim.errors import KrakenSimError
from kraken_sim.measurements.machine import matching_profile
from kraken_sim.measurements.schema import MeasurementFile, read_measurements
from kraken_sim.profiles.load import load_profile
from kraken_sim.report.page import Page, Plot
from kraken_sim.report.page import Section as PageSection
from kraken_sim.report.render import render
from kraken_sim.report.validation_html import parity_figure, speedup_figure
from kraken_sim.scenario.spec import Launch
from kraken_sim.validate.passes import ValidationResult, validate_passes
from validation.accuracy_causes import bias_section, explained_section, gemm_section
from validation.accuracy_elsewhere import (
    FP8_SUITE,
    LLAMA_SUITE,
    elsewhere_section,
    fp8_section,
    llama_section,
    pairs_of_runs,
    repeatability_section,
)
from validation.accuracy_kernels import kernels_section
from validation.accuracy_passes import (
    eager_section,
    graph_section,
    interval_section,
    launched,
    speedup_section,
    with_ideal_overlap,
)
from validation.accuracy_public import public_sections
from validation.accuracy_table import Bar, Line, Report, Section, markdown_table, rich_table, text_table
from validation.public_data import add_public_data_option, folder_of_option

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kraken_sim.calibration.errors import ClassError

ROOT: Final = Path(__file__).resolve().parent.parent
MEASUREMENTS: Final = ROOT / "validation" / "measurements"
PIPE_WIDTH: Final = 150

MICROBENCH_BARS: Final = {
    ("gemm", "all"): Bar(mean=0.06),
    ("attention", "prefill"): Bar(mean=0.08),
    ("attention", "decode"): Bar(mean=0.08),
    ("all_reduce", "all"): Bar(mean=0.08),
}
"""What is good enough, by kernel and class; other classes have no bar."""

_STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:1050px;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;font-size:.85rem}td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;"
    "text-align:left}tr.missed td{background:#fff3e0}"
)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The tables, and the passes they are made of for the plots."""

    report: Report
    passes: ValidationResult


def pass_sections(measurements: MeasurementFile, microbench: MeasurementFile) -> tuple[list[Section], ValidationResult]:
    """Everything about whole passes against the shipped profile of the measured machine.

    Raises:
        InputError: the file has no passes, or no shipped profile fits its machine.
    """
    name = matching_profile(measurements)
    profile, conditions = load_profile(name), measurements.header.conditions
    result = validate_passes(measurements, name)
    graph = launched(result, Launch.GRAPH)
    sections = []
    if graph.comparisons:
        sections.append(graph_section(graph))
        if graph.speedups():
            sections.append(speedup_section(graph, with_ideal_overlap(graph, conditions, profile)))
        sections += [explained_section(graph), bias_section(graph, "tokens"), bias_section(graph, "size")]
        sections.append(gemm_section(graph, conditions, profile, microbench))
    if launched(result, Launch.EAGER).comparisons:
        sections.append(eager_section(result))
    return [*sections, interval_section(result)], result


def microbench_section(errors: Iterable[ClassError]) -> Section:
    """Errors of microbenchmarks on the records that no fit saw."""
    lines = tuple(
        Line((e.kernel, e.name), e.count, e.mean, e.worst, e.bias, MICROBENCH_BARS.get((e.kernel, e.name), Bar()))
        for e in errors
    )
    note = (
        "The fits run anew on 70 % of the shapes of each kind of record, CUDA graphs only; these are the other 30 %, "
        "which a fit has seen in no form: number format, chain, start order, channels, transport. What a "
        "kernel's record means is settled before: large GEMMs count at the clock of a card at rest. The "
        "dispatch time of pairs is not fitted here but read off timelines, without holding pairs out."
    )
    return Section("microbench", "Microbenchmarks held out of the fits", ("kernel", "class"), lines, note=note)


def accuracy(passes: MeasurementFile, microbench: MeasurementFile, public_data: Path) -> Accuracy:
    """All tables.

    Raises:
        InputError: a file does not hold what it should, or is of no machine that ships.
    """
    sections, result = pass_sections(passes, microbench)
    fitted = calibrate(microbench, load_profile(matching_profile(microbench)))
    sections.append(microbench_section(fitted.errors))
    sections += _elsewhere(Path(passes.source))
    sections += public_sections(public_data)
    headline = f"{len(result.comparisons)} passes of {Path(result.source).name} against {result.hardware}"
    notes = [f"warning: {warning}" for warning in result.warnings]
    notes += [f"not predicted: {skipped}" for skipped in result.skipped]
    return Accuracy(Report("\n".join([headline, *notes]), tuple(sections)), result)


def _elsewhere(passes: Path) -> list[Section]:
    """Tables of the other passes that lie beside a file."""
    # Without the ending the first run of a machine comes before its second.
    found_files = sorted(passes.parent.glob("*-passes*.jsonl"), key=lambda path: path.stem)
    others = [path for path in found_files if path.name != passes.name]
    if not others:
        return []
    files = {path: read_measurements(path) for path in others}
    llama = [file for file in files.values() if file.header.suite == LLAMA_SUITE]
    fp8 = [file for file in files.values() if file.header.suite == FP8_SUITE]
    found = [elsewhere_section([file for file in files.values() if file not in llama and file not in fp8])]
    found += [llama_section(llama), kernels_section(llama)] if llama else []
    found += [fp8_section(fp8)] if fp8 else []
    runs = [(files[first], files[again]) for first, again in pairs_of_runs(passes.parent)]
    return found + [repeatability_section(first, again) for first, again in runs]


def page(found: Accuracy) -> str:
    """The tables and the parity plots in one file that needs no network."""
    shown = [PageSection(title, [Plot(figure, "Predicted over measured")]) for title, figure in figures(found.passes)]
    for section in found.report.sections:
        unit = "per cent" if section.unit == "%" else section.unit
        table = [text_table(section)] if section.lines else []
        note = [section.note] if section.note else []
        shown.append(PageSection(f"{section.title}, in {unit}", [*table, *note]))
    return render(Page("Accuracy", "Predicted against measured", shown, sentences=[found.report.headline]))


def figures(result: ValidationResult) -> list[tuple[str, Any]]:
    """Titles and plots: time of passes by launch, and Kraken's speed-up where both sides were measured."""
    graph, eager = launched(result, Launch.GRAPH), launched(result, Launch.EAGER)
    found = []
    if graph.comparisons:
        found.append(("Whole passes, CUDA graph", parity_figure(graph)))
    if graph.speedups():
        found.append(("Kraken's speed-up over standard, CUDA graph", speedup_figure(graph)))
    if eager.comparisons:
        found.append(("Whole passes, eager launch", parity_figure(eager)))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        folder = folder_of_option(options.public_data)
        found = accuracy(read_measurements(options.passes), read_measurements(options.microbench), folder)
    except KrakenSimError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(Text(found.report.headline))
    for section in found.report.sections:
        console.print(rich_table(section) if section.lines else Text(section.note))
    if options.json is not None:
        _write(options.json, json.dumps(found.report.as_dict(), indent=1, ensure_ascii=False) + "\n")
    if options.markdown is not None:
        parts = [f"# Accuracy tables\n\n{found.report.headline}\n", *map(markdown_table, found.report.sections)]
        _write(options.markdown, "\n".join(parts))
    if options.html is not None:
        _write(options.html, page(found))
    return 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    sys.stderr.write(f"written: {path}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m validation.accuracy", description="How far predictions are off.")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with tables and parity plots")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    passes, microbench = (MEASUREMENTS / f"h200-sxm-x2-{name}.jsonl" for name in ("passes", "microbench"))
    parser.add_argument("--passes", type=Path, metavar="FILE", default=passes, help="measured whole passes")
    parser.add_argument("--microbench", type=Path, metavar="FILE", default=microbench, help="measured microbenchmarks")
    add_public_data_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
