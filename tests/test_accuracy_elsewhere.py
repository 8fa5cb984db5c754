from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from measurement_support import header, pass_record

from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.schema import MeasurementFile, read_measurements
from validation.accuracy import MEASUREMENTS
from validation.accuracy_elsewhere import (
    elsewhere_section,
    llama_section,
    pairs_of_runs,
    repeatability_section,
)
from validation.accuracy_table import markdown_table

if TYPE_CHECKING:
    from pathlib import Path


def file_of(name: str, factor: float) -> MeasurementFile:
    records = [pass_record(kind, factor * time_s) for kind, time_s in (("standard", 0.01), ("parallel", 0.02))]
    return MeasurementFile(name, header(), tuple(records))


def test_repeatability_is_the_second_run_over_the_first() -> None:
    section = repeatability_section(file_of("a.jsonl", 1.0), file_of("a-again.jsonl", 1.05))
    everything = section.lines[0]
    assert (everything.labels, everything.count) == (("graph", "all"), 2)
    assert everything.bias == pytest.approx(0.05)


def test_runs_are_paired_by_name(tmp_path: Path) -> None:
    for name in ("x-passes", "x-passes-again", "y-passes", "z-passes", "z-passes-2", "z-passes-2-again"):
        (tmp_path / f"{name}.jsonl").touch()
    assert [(a.stem, b.stem) for a, b in pairs_of_runs(tmp_path)] == [
        ("x-passes", "x-passes-again"),
        ("z-passes-2", "z-passes-2-again"),
    ]


def test_every_second_run_of_the_measured_passes_repeats_some_of_its_first() -> None:
    for paths in pairs_of_runs(MEASUREMENTS):
        section = repeatability_section(*map(read_measurements, paths))
        assert section.lines, paths


def test_passes_of_llama_like_models_are_compared_by_their_kernels_and_load() -> None:
    file = read_measurements(MEASUREMENTS / "h200-sxm-x1-llama-passes-2-again.jsonl")
    section = llama_section([file])
    assert sum(line.count for line in section.lines) == len(file.select(PassRecord))
    assert {line.labels[0] for line in section.lines} == {record.kernels for record in file.select(PassRecord)}


def test_every_pass_of_the_other_machines_is_compared() -> None:
    names = ("h200-sxm-x1-passes", "h200-sxm-x1-passes-again", "h100-sxm-x1-passes")
    section = elsewhere_section([read_measurements(MEASUREMENTS / f"{name}.jsonl") for name in names])
    for launch in ("graph", "eager"):
        assert [line.count for line in section.lines if line.labels[2:] == (launch, "all")] == [45, 45, 36]


def test_a_table_in_markdown_has_a_bar_only_where_something_is_judged() -> None:
    text = markdown_table(repeatability_section(file_of("a.jsonl", 1.0), file_of("b.jsonl", 1.1)))
    head, rule, first = text.splitlines()[2:5]
    assert head == "| launch | tokens | count | mean | worst | bias |"
    assert rule.count("|") == head.count("|")
    assert first == "| graph | all | 2 | 10.0 | 10.0 | +10.0 |"
