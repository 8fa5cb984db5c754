"""From kernels alone to a pass, cause by cause: what each adds, and how right the sum is.

    python -m validation.waterfall [--passes FILE ... --hardware PROFILE] [--markdown FILE]

Whole passes from CUDA graphs that were measured and never fitted. The first row adds kernels up as they are alone: at
the boost clock, back to back, their operands in L2, with overlap that costs neither side. Each further row adds one
cause, with the profile's constants, that a microbenchmark of its own tells; the last row is the prediction. Without
files of one's own (`validation.measure --suite passes`) they are those of two H200 and of one.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from kraken_sim.errors import InputError, KrakenSimError
from kraken_sim.files.whole import write_whole
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.predict import pipeline
from kraken_sim.predict.ideal_overlap import ideal_overlap
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.profiles.load import load_profile
from kraken_sim.scenario.spec import Launch
from kraken_sim.validate.passes import scenario_of_pass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.scenario.spec import Scenario

MEASUREMENTS: Final = Path(__file__).parent / "measurements"
HARDWARE: Final = "h200-sxm-x2"
GROUPS: Final = {
    "two H200": ("h200-sxm-x2-passes",),
    "one H200": ("h200-sxm-x1-passes", "h200-sxm-x1-llama-passes", "h200-sxm-x1-llama-passes-2"),
}
"""The files that are committed, by the machine they were measured on."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What one row adds: how the profile is without it."""

    name: str
    told_by: str
    without: Callable[[HardwareProfile], HardwareProfile] = lambda profile: profile


def _no_gaps(profile: HardwareProfile) -> HardwareProfile:
    launch = replace(profile.launch, graph_node_gap_s=0.0, graph_edge_s=0.0, graph_node_wait_s=0.0)
    return replace(profile, launch=launch)


def _no_power(profile: HardwareProfile) -> HardwareProfile:
    return replace(profile, power=None if profile.power is None else replace(profile.power, limit_w=1e5))


def _no_spread(profile: HardwareProfile) -> HardwareProfile:
    return replace(profile, power=None if profile.power is None else replace(profile.power, spread=0.0, unevenness=0.0))


def _no_eviction(profile: HardwareProfile) -> HardwareProfile:
    contention = replace(profile.contention, eviction_slowdown=0.0, evicted_memory_share=1.0)
    return replace(profile, contention=contention)


COLD: Final = "operands out of L2"
CONTENTION: Final = "contention"
CAUSES: Final = (
    Cause(COLD, "chains of unlike kernels"),
    Cause("gaps between nodes", "chains of small kernels in a graph", _no_gaps),
    Cause("the clock under load", "sustained loads", _no_power),
    Cause("waits for the slower card", "equal blocks, the same suites on several cards", _no_spread),
    Cause("LL buffers out of L2", "pairs of GEMMs and AllReduces", _no_eviction),
    Cause(CONTENTION, "pairs of kernels and AllReduces"),
)
"""In the order of the rows; what no profile says is switched where it is done."""


@dataclass(frozen=True, slots=True)
class Row:
    """Predicted / measured - 1 of every pass, with the causes up to this one."""

    name: str
    told_by: str
    errors: tuple[float, ...]


def rows(files: Sequence[Path], hardware: str = HARDWARE) -> list[Row]:
    """The rows of one group of passes on a machine, from kernels alone to the prediction.

    Raises:
        InputError: a file is missing or broken, or none holds a pass from a CUDA graph; the machine is unknown.
    """
    full = load_profile(hardware)
    passes = [one for file in files for one in _passes(file, hardware)]
    if not passes:
        message = "hold no passes from CUDA graphs"
        raise InputError.single("--passes", message, ", ".join(map(str, files)), "passes.jsonl")
    found = [Row("kernels alone", "each kernel in a chain of its like", _errors(passes, full, 0))]
    return found + [
        Row(cause.name, cause.told_by, _errors(passes, full, number)) for number, cause in enumerate(CAUSES, start=1)
    ]


def _passes(path: Path, hardware: str) -> list[tuple[Scenario, float]]:
    file = read_measurements(path)
    found = []
    for record in file.select(PassRecord):
        condition = file.header.conditions.get(record.condition)
        if record.launch is Launch.GRAPH and condition is not None:
            found.append((scenario_of_pass(record, condition, hardware), record.time_s.median))
    return found


def _errors(passes: Sequence[tuple[Scenario, float]], full: HardwareProfile, number: int) -> tuple[float, ...]:
    """With the first `number` causes."""
    profile = full
    for cause in CAUSES[number:]:
        profile = cause.without(profile)
    missing = {cause.name for cause in CAUSES[number:]}
    with ExitStack() as stack:
        if COLD in missing:
            stack.enter_context(patch.object(pipeline, "with_cold_operands", lambda program, _: program))
        predictor = Predictor(profile)
        errors = []
        for scenario, measured_s in passes:
            prepared = predictor.prepare(scenario)
            timeline = ideal_overlap(prepared) if CONTENTION in missing else prepared.run()
            errors.append(timeline.duration_s / measured_s - 1.0)
    return tuple(errors)


HEADERS: Final = ("with", "told by", "bias, %", "adds", "mean, %", "worst, %")


def cells(found: Sequence[Row]) -> list[tuple[str, ...]]:
    """The table, in per cent: a row's bias, what it adds to the one before, mean and worst size of the errors."""
    lines: list[tuple[str, ...]] = []
    for number, row in enumerate(found):
        bias = fmean(row.errors)
        added = "" if number == 0 else f"{100 * (bias - fmean(found[number - 1].errors)):+.1f}"
        sizes = [abs(error) for error in row.errors]
        name = row.name if number == 0 else f"+ {row.name}"
        mean, worst = (f"{100 * size:.1f}" for size in (fmean(sizes), max(sizes)))
        lines.append((name, row.told_by, f"{100 * bias:+.1f}", added, mean, worst))
    return lines


def markdown(groups: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """The tables for a page."""
    lines: list[str] = []
    for name, found in groups:
        lines += [f"{len(found[0].errors)} passes on {name}:", "", "| " + " | ".join(HEADERS) + " |"]
        lines += ["| --- | --- |" + " ---: |" * (len(HEADERS) - 2)]
        lines += ["| " + " | ".join(line) + " |" for line in cells(found)]
        lines.append("")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, and write them with `--markdown`."""
    parser = argparse.ArgumentParser(prog="validation.waterfall", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables as markdown")
    parser.add_argument("--passes", nargs="+", type=Path, default=[], metavar="FILE", help="passes that were measured")
    parser.add_argument("--hardware", default=HARDWARE, metavar="PROFILE", help="the machine they ran on")
    arguments = parser.parse_args(argv)
    committed = {name: [MEASUREMENTS / f"{file}.jsonl" for file in files] for name, files in GROUPS.items()}
    wanted = {arguments.hardware: arguments.passes} if arguments.passes else committed
    try:
        groups = [(name, rows(files, arguments.hardware)) for name, files in wanted.items()]
        if arguments.markdown is not None:
            write_whole(arguments.markdown, markdown(groups).encode())
    except KrakenSimError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    for name, found in groups:
        shown = Table(title=f"{len(found[0].errors)} passes on {name}")
        for index, header in enumerate(HEADERS):
            shown.add_column(header, justify="left" if index < 2 else "right")
        for line in cells(found):
            shown.add_row(*line)
        console.print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
