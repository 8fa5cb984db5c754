"""How far predictions are off: the figures that no change may make worse unseen.

A change that is meant to move them writes them anew and says in its message why they moved:

    python tests/accuracy_today.py write       # tests/data/accuracy-today.csv
    python tests/accuracy_today.py check

Published tables are read where they are at hand (`validation/public_data.py`); without them their figures stay.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from kraken_sim.measurements.schema import read_measurements
from kraken_sim.profiles.load import load_profile
from kraken_sim.scenario.spec import Launch
from kraken_sim.validate.passes import validate_passes
from validation.accuracy import MEASUREMENTS
from validation.accuracy_elsewhere import elsewhere_section, fp8_section, llama_section
from validation.accuracy_left_out import attention_left_out, fp8_left_out, gemm_left_out
from validation.accuracy_passes import (
    eager_section,
    graph_section,
    interval_section,
    launched,
    sign_counts,
    speedup_section,
    with_ideal_overlap,
)
from validation.accuracy_public import (
    all_reduce_section,
    attention_section,
    gemm_section,
    quantised_section,
)
from validation.public_data import public_data_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from validation.accuracy_table import Line, Section

FILE = Path(__file__).parent / "data" / "accuracy-today.csv"
LLAMA_LIKE = ("h200-sxm-x1-llama-passes", "h200-sxm-x1-llama-passes-2", "h200-sxm-x1-lone-passes")
PUBLIC = "published "
"""What the names of figures on published tables begin with."""

MARGIN = 1.1
"""A tenth: less than any change of a model that is worth its name, more than another CPU or solver moves. A figure that
has become better by more is to be written down too, or the next change could lose it unseen."""
MANY = 30
"""Fewest passes of a group whose share outside of intervals is looked at."""
LEAST = 0.05
"""A figure of nearly nothing may move by so much."""


def figures_of_passes() -> dict[str, float]:
    """Errors on whole passes, which no calibration sees, per cent unless a name says otherwise."""
    measured = read_measurements(MEASUREMENTS / "h200-sxm-x2-passes.jsonl")
    result = validate_passes(measured)
    graph = launched(result, Launch.GRAPH)
    conditions, profile = measured.header.conditions, load_profile(result.hardware)
    ideal = with_ideal_overlap(graph, conditions, profile)
    right, telling = sign_counts(graph.speedups())
    points, ideal_points = (fmean(abs(s.error_points) for s in some.speedups()) for some in (graph, ideal))
    found = {name: value for name, value in _means(graph_section(graph), "two H200, graph") if ", all" in name}
    found["two H200, graph, worst"] = 100.0 * max(abs(c.error) for c in graph.comparisons)
    found["two H200, speed-up, passes with the wrong sign"] = float(telling - right)
    found["two H200, speed-up, of the error with ideal overlap"] = 100.0 * points / ideal_points
    found |= dict(_means(speedup_section(graph, ideal), "two H200, speed-up, points"))
    found |= dict(_means(eager_section(result), "two H200, eager"))
    found |= dict(_outside([line for line in interval_section(result).lines if line.labels[1] == "all"], "two H200"))
    names = ("h200-sxm-x1-passes", "h200-sxm-x1-passes-again", "h100-sxm-x1-passes")
    files = [read_measurements(MEASUREMENTS / f"{name}.jsonl") for name in names]
    llama = [read_measurements(MEASUREMENTS / f"{name}.jsonl") for name in LLAMA_LIKE]
    models = llama_section(llama)
    found |= dict(_means(models, "one H200, Llama-like"))
    found |= dict(_outside([line for line in models.lines if line.count >= MANY], "one H200, Llama-like"))
    fp8 = [read_measurements(MEASUREMENTS / "h200-sxm-x1-fp8-passes.jsonl")]
    found |= dict(_means(fp8_section(fp8), "one H200, fp8"))
    return found | dict(_means(elsewhere_section(files), "one"))


def figures_of_tables(folder: Path) -> dict[str, float]:
    """Mean errors on the rows of published kernels and collectives that no fit saw, per cent."""
    return {
        **dict(_means(gemm_section(folder), PUBLIC + "GEMM")),
        **dict(_means(quantised_section(folder), PUBLIC + "quantised GEMM")),
        **dict(_means(attention_section(folder), PUBLIC + "attention")),
        **dict(_means(all_reduce_section(folder), PUBLIC + "AllReduce")),
        **dict(_means(gemm_left_out(folder), PUBLIC + "GEMM of a card left out")),
        **dict(_means(fp8_left_out(folder), PUBLIC + "fp8 GEMM of a card left out")),
        **dict(_means(attention_left_out(folder), PUBLIC + "attention of a card left out")),
    }


def _means(section: Section, title: str) -> Iterator[tuple[str, float]]:
    for line in section.lines:
        yield ", ".join([title, *line.labels]), 100.0 * line.mean


def _outside(lines: Iterable[Line], title: str) -> Iterator[tuple[str, float]]:
    for line in lines:
        labels = ", ".join(label for label in line.labels if label != "all")
        yield f"{title}, {labels}, outside the 90 % interval", 100.0 - float(line.extra[0].removesuffix(" %"))


def moved(found: Mapping[str, float], written: Mapping[str, float]) -> list[str]:
    """Every figure that left its margin, and how."""
    problems = []
    for name in {**written, **found}:
        now, then = found.get(name), written.get(name)
        if now is None or then is None:
            problems.append(f"{name}: is {now}, was {then}")
        elif now > max(then * MARGIN, then + LEAST):
            problems.append(f"{name}: worse, {now:.2f} against {then:.2f}")
        elif now < min(then / MARGIN, then - LEAST):
            problems.append(f"{name}: better, {now:.2f} against {then:.2f}; write it down")
    return problems


def recorded(*, tables: bool) -> dict[str, float]:
    """The file's figures on passes, or on published `tables`."""
    with FILE.open(encoding="utf-8", newline="") as file:
        found = {row["figure"]: float(row["value"]) for row in csv.DictReader(file)}
    return {name: value for name, value in found.items() if name.startswith(PUBLIC) is tables}


def main() -> int:
    """Write the file or hold today's figures against it."""
    folder = public_data_folder()
    known = recorded(tables=True) if FILE.exists() else {}
    found = {**figures_of_passes(), **(figures_of_tables(folder) or known)}
    if sys.argv[1:] == ["write"]:
        with FILE.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("figure", "value"))
            writer.writerows((name, f"{value:.3f}") for name, value in found.items())
        return 0
    problems = moved(found, {**recorded(tables=False), **known})
    sys.stdout.write("\n".join([*problems, f"{len(problems)} of {len(found)} moved", ""]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
