"""Rested and sustained: how far the ratio of the two, the clock and the latencies are off, and what each term is worth.

    python -m validation.load_accuracy [--markdown FILE]

Passes of the same model that were measured on a rested card and back to back are held against predictions, without a
fit to any of them. Each further row switches one term off; where that is one of power, its constants are fitted anew to
the same sustained loads. Ratios are in points: predicted minus measured time of the rested pass over that of the
sustained one. The clock is that of prefills of `LARGE` tokens and more, whose sensor reading is one of ten a second.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from kraken_sim.calibration.overlap import sustained_samples
from kraken_sim.calibration.power import REFERENCE, fit_power
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.kernel_sets import CardLoad
from kraken_sim.scenario.spec import Launch
from kraken_sim.validate.passes import scenario_of_pass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kraken_sim.profiles.profile import HardwareProfile

MEASUREMENTS: Final = Path(__file__).parent / "measurements"
HARDWARE: Final = "h200-sxm-x2"
LOADS: Final = "h200-sxm-x1-power.jsonl"
PASSES: Final = tuple(
    f"h200-sxm-x1-{name}.jsonl" for name in ("llama-passes", "llama-passes-2", "fp8-passes", "lone-passes")
)
LARGE: Final = 2048
"""Tokens from which a prefill keeps the card at its power limit, measured."""
GROUPS: Final = ("prefill of 2,048 tokens and more", "prefill of fewer", "decode")


@dataclass(frozen=True, slots=True)
class Pair:
    """The same pass in both states: measured, and as predicted."""

    rested: PassRecord
    sustained: PassRecord
    rested_s: float
    sustained_s: float
    clock_hz: float

    @property
    def points(self) -> float:
        """Predicted minus measured ratio of rested over sustained, in points."""
        measured = self.rested.time_s.median / self.sustained.time_s.median
        return 100.0 * (self.rested_s / self.sustained_s - measured)

    @property
    def error(self) -> float:
        """Predicted / measured - 1 of the sustained pass."""
        return self.sustained_s / self.sustained.time_s.median - 1.0

    @property
    def clock_error(self) -> float | None:
        """Predicted / measured - 1 of the clock; None where it was not read."""
        measured = self.sustained.sm_clock_hz
        return None if measured is None else self.clock_hz / measured - 1.0

    @property
    def group(self) -> str:
        """Which of `GROUPS` it is."""
        if self.rested.phase == "decode":
            return GROUPS[2]
        return GROUPS[0] if self.rested.context_length >= LARGE else GROUPS[1]


def variants() -> Iterator[tuple[str, HardwareProfile]]:
    """The shipped profile, and it without one term after the other."""
    full = load_profile(HARDWARE)
    assert full.power is not None
    yield "full model", full
    samples = sustained_samples(read_measurements(MEASUREMENTS / LOADS), full)
    alike = [
        replace(sample, formats=tuple(None if dtype is None else REFERENCE for dtype in sample.formats))
        for sample in samples
    ]
    start = replace(full.power, tensor_formats={})
    yield "power by number format", replace(full, power=fit_power(alike, full.device, start).constants)
    yield "a clock that has settled (tenth step)", replace(full, power=replace(full.power, repeats=10.0))
    yield "first launch after a rest", replace(full, launch=replace(full.launch, graph_launch_rested_s=0.0))
    yield "power limit", replace(full, power=None)


def pairs(profile: HardwareProfile) -> list[Pair]:
    """Every pass that was measured in both states, as graphs on one device; most of them on two cards of a kind."""
    predictor = Predictor(profile)
    records: dict[str, dict[CardLoad, PassRecord]] = {}
    for name in PASSES:
        for record in read_measurements(MEASUREMENTS / name).select(PassRecord):
            if record.launch is Launch.GRAPH and record.load is not None:
                key = record.model_copy(update={"load": None}).key
                records.setdefault(key, {})[record.load] = record
    return [_pair(both, predictor) for both in records.values() if len(both) == len(CardLoad)]


def _pair(both: Mapping[CardLoad, PassRecord], predictor: Predictor) -> Pair:
    rested, sustained = both[CardLoad.RESTED], both[CardLoad.SUSTAINED]
    alone, busy = (predictor.predict(scenario_of_pass(record, {}, HARDWARE)) for record in (rested, sustained))
    return Pair(rested, sustained, alone.latency_s, busy.period_s, busy.clock_hz)


def table(rows: Sequence[tuple[str, Sequence[Pair]]]) -> list[list[str]]:
    """A row each: mean and bias of the ratio by group, of the clock and of sustained large prefills."""
    heads = [f"{group}: ratio, points" for group in GROUPS]
    lines = [["without", *heads, "clock, %", "sustained large prefill, %"]]
    for label, found in rows:
        by_group = {group: [pair for pair in found if pair.group == group] for group in GROUPS}
        large = by_group[GROUPS[0]]
        cells = [_mean_and_bias([pair.points for pair in some]) for some in by_group.values()]
        clocks = [100.0 * error for pair in large if (error := pair.clock_error) is not None]
        lines.append([label, *cells, _mean_and_bias(clocks), _mean_and_bias([100.0 * pair.error for pair in large])])
    return lines


def _mean_and_bias(errors: Sequence[float]) -> str:
    return f"{fmean(map(abs, errors)):.1f} ({fmean(errors):+.1f})" if errors else ""


def by_format(found: Sequence[Pair]) -> list[list[str]]:
    """Measured and predicted ratio and clock by group and number format."""
    lines = [["passes", "format", "count", "measured", "predicted", "clock, MHz", "predicted clock"]]
    formats = sorted({_format(pair) for pair in found})
    for group in GROUPS:
        for dtype in formats:
            some = [pair for pair in found if (pair.group, _format(pair)) == (group, dtype)]
            if some:
                lines.append([group, dtype, str(len(some)), *_means(some)])
    return lines


def _format(pair: Pair) -> str:
    return str(pair.rested.quantization or pair.rested.dtype)


def _means(some: Sequence[Pair]) -> list[str]:
    measured = fmean(pair.rested.time_s.median / pair.sustained.time_s.median for pair in some)
    predicted = fmean(pair.rested_s / pair.sustained_s for pair in some)
    clocks = [(pair.sustained.sm_clock_hz, pair.clock_hz) for pair in some if pair.sustained.sm_clock_hz is not None]
    read, said = (f"{fmean(clock[index] for clock in clocks) / 1e6:.0f}" for index in (0, 1))
    return [f"{measured:.3f}", f"{predicted:.3f}", read, said]


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table of text cells."""
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, f"| --- |{' ---: |' * (len(lines[0]) - 1)}", *rest]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m validation.load_accuracy")
    parser.add_argument("--markdown", type=Path, help="write the tables here too")
    options = parser.parse_args(arguments)
    rows = [(label, pairs(profile)) for label, profile in variants()]
    tables = [by_format(rows[0][1]), table(rows)]
    for lines in tables:
        shown = Table(*lines[0])
        for line in lines[1:]:
            shown.add_row(*line)
        Console().print(shown)
    if options.markdown is not None:
        options.markdown.write_text("\n".join(map(markdown, tables)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
