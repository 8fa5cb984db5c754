"""The waterfall from kernels alone to a pass: it ends at the prediction, and every cause makes passes longer."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from kraken_sim.measurements.schema import read_measurements
from kraken_sim.validate.passes import validate_passes
from validation.waterfall import CAUSES, HARDWARE, MEASUREMENTS, cells, main, markdown, rows

if TYPE_CHECKING:
    from pathlib import Path

    from validation.waterfall import Row

FILE = "h200-sxm-x2-passes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every thirteenth record of the passes on two H200: all architectures, conditions and sizes, few of each."""
    folder = tmp_path_factory.mktemp("some")
    header, *records = (MEASUREMENTS / f"{FILE}.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / f"{FILE}.jsonl").write_text("\n".join([header, *records[::13]]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[Row]:
    return rows([folder / f"{FILE}.jsonl"])


def test_the_last_row_is_the_prediction(found: list[Row], folder: Path) -> None:
    result = validate_passes(read_measurements(folder / f"{FILE}.jsonl"), HARDWARE)
    predicted = [c.error for c in result.comparisons if c.record.launch == "graph"]
    assert found[-1].errors == pytest.approx(predicted, rel=1e-9, abs=1e-12)


def test_every_cause_lengthens_passes_or_leaves_them(found: list[Row]) -> None:
    assert len(found) == len(CAUSES) + 1
    for before, row in pairwise(found):
        assert all(after >= error - 1e-9 for error, after in zip(before.errors, row.errors, strict=True)), row.name
        assert sum(row.errors) > sum(before.errors), row.name


def test_the_table_adds_up(found: list[Row]) -> None:
    lines = cells(found)
    biases = [float(line[2]) for line in lines]
    for before, bias, line in zip(biases, biases[1:], lines[1:], strict=False):
        assert float(line[3]) == pytest.approx(bias - before, abs=0.11)
    assert "| + contention | pairs of kernels and AllReduces |" in markdown([("two H200", found)])


def test_passes_of_one_s_own_are_held_against_one_s_own_machine(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "waterfall.md"
    asked = ["--passes", str(folder / f"{FILE}.jsonl"), "--hardware", "h200-sxm-x8", "--markdown", str(page)]
    assert main(asked) == 0
    assert "passes on h200-sxm-x8" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8").count("| + ") == len(CAUSES)


def test_files_without_passes_and_machines_that_nobody_knows_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--passes", str(MEASUREMENTS / "h200-sxm-x1-bursts.jsonl")]) == 2
    assert "no passes from CUDA graphs" in capsys.readouterr().err
    assert main(["--passes", str(MEASUREMENTS / f"{FILE}.jsonl"), "--hardware", "h201"]) == 2
    assert "h201" in capsys.readouterr().err
