"""Rows of answers: chosen, sorted and cut off, and written as CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kraken_sim import sweep
from kraken_sim.cli import main
from kraken_sim.errors import InputError
from kraken_sim.explore.selection import condition_of, selection_of
from kraken_sim.predict.records import csv_text

PASSES = Path(__file__).parent.parent / "validation" / "measurements" / "h200-sxm-x2-passes.jsonl"
ROWS: list[dict[str, Any]] = [
    {"point": 0, "architecture.kind": "kraken", "latency_s": 0.3, "error": None, "exact": True},
    {"point": 1, "architecture.kind": "standard", "latency_s": 0.1, "error": None, "exact": False},
    {"point": 2, "architecture.kind": "kraken", "latency_s": None, "error": "too large"},
    {"point": 3, "architecture.kind": "ladder", "latency_s": 0.2, "error": None, "exact": True},
]
SHORT = ["--model", "125M", "1.3B", "--hardware", "h200-sxm-x2", "--context-length", "32", "64", "--jobs", "1"]


def chosen(*where: str, sort: str | None = None, top: int | None = None) -> list[int]:
    return selection_of(where, sort, top).of_records(ROWS)


def test_conditions_keep_the_rows_that_are_so() -> None:
    assert chosen("architecture.kind=kraken") == [0, 2]
    assert chosen("architecture.kind != kraken") == [1, 3]
    assert chosen("latency_s<=0.2") == [1, 3]
    assert chosen("latency_s>0.1", "latency_s<3e-1") == [3]
    assert chosen("exact=true") == [0, 3]
    assert chosen("point=2") == [2]
    assert chosen() == [0, 1, 2, 3]


def test_nothing_is_asked_for_by_name_and_is_neither_more_nor_less() -> None:
    assert chosen("error=null") == [0, 1, 3]
    assert chosen("error!=null") == [2]
    assert chosen("latency_s>0") == [0, 1, 3]
    assert chosen("latency_s!=0.1") == [0, 3]


def test_a_column_may_be_named_by_its_last_part_where_that_is_the_only_one() -> None:
    assert chosen("kind=ladder") == [3]
    with pytest.raises(InputError, match=r"may be a\.x, b\.x"):
        selection_of(["x=1"], None, None).of_records([{"a.x": 1, "b.x": 2}])
    with pytest.raises(InputError, match="did you mean 'latency_s'"):
        chosen("latency=1")


def test_rows_are_sorted_and_cut_off_and_those_without_a_value_come_last() -> None:
    assert chosen(sort="latency_s") == [1, 3, 0, 2]
    assert chosen(sort="latency_s:desc") == [0, 3, 1, 2]
    assert chosen(sort="kind", top=2) == [0, 2]
    assert chosen("kind=kraken", sort="point:desc", top=1) == [2]


@pytest.mark.parametrize("wrong", ["latency_s", "=3", "latency_s<null", "latency_s=fast", "kind<3", "a b=3"])
def test_a_condition_that_says_nothing_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="--where"):
        chosen(wrong)


def test_everything_wrong_with_a_choice_is_told_at_once() -> None:
    with pytest.raises(InputError) as refused:
        selection_of(["x", "y"], "z:up", 0)
    assert len(refused.value.problems) == 3


def test_a_value_may_hold_signs() -> None:
    assert condition_of("error=a<b=c").value == "a<b=c"


def test_csv_has_every_column_once_and_nothing_where_a_row_has_no_value() -> None:
    text = csv_text([{"a": 1, "b": {"c": None, "d": [1, 2]}}, {"a": 'x,"y"\n', "e": True}])
    assert list(csv.reader(io.StringIO(text))) == [
        ["a", "b.c", "b.d", "e"],
        ["1", "", "[1, 2]", ""],
        ['x,"y"\n', "", "", "true"],
    ]


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_a_comparison_as_csv_has_the_numbers_of_its_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, file = tmp_path / "rows.csv", tmp_path / "answer.json"
    question = ["--model", "1.3B", "--hardware", "h200-sxm-x2", "--context-length", "64", "--architectures", "kraken"]
    arguments = ["compare", *question, "--csv", str(out), "--json", str(file), "--quiet"]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert said.out == said.err == ""
    answer = json.loads(file.read_text(encoding="utf-8"))
    assert [float(row["ttft_s"]) for row in read(out)] == [item["ttft_s"] for item in answer]
    assert float(read(out)[1]["speedup_interval_percent.high"]) == answer[1]["speedup_interval_percent"][1]
    # A file with the same columns is one of ours.
    assert main(arguments) == 0
    out.write_text("mine\n1\n", encoding="utf-8")
    assert main(arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
    assert main([*arguments, "--csv", "-", "--json", "-"]) == 2
    assert "standard output is --json's already" in capsys.readouterr().err
    assert main([*arguments, "--csv", "-"]) == 0
    assert capsys.readouterr().out.startswith("architecture,kernels,latency_s,")


def test_a_sweep_into_csv_holds_what_its_parquet_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.csv"
    assert main(["sweep", *SHORT, "--out", str(out), "--quiet"]) == 0
    assert "points" not in capsys.readouterr().out
    table = pq.read_table(tmp_path / "r.parquet")
    assert [float(row["latency_s"]) for row in read(out)] == table["latency_s"].to_pylist()
    assert list(read(out)[0]) == table.column_names
    # The same again is found done; chosen rows replace the file.
    chosen = ["--where", "preset=1.3B", "--sort", "context_length:desc", "--top", "1"]
    assert main(["sweep", *SHORT, "--out", str(out), *chosen]) == 0
    said = capsys.readouterr().out
    assert "4 of them found done" in said
    assert "1 of 4 points" in said
    assert [(row["model.preset"], row["context_length"]) for row in read(out)] == [("1.3B", "64")]
    assert main(["sweep", *SHORT, "--out", str(out), "--where", "presets=x"]) == 2
    assert "is no column" in capsys.readouterr().err
    out.write_text("mine\n", encoding="utf-8")
    assert main(["sweep", *SHORT, "--out", str(out)]) == 2
    assert out.read_text(encoding="utf-8") == "mine\n"


def test_a_sweep_from_python_writes_csv_under_such_a_name(tmp_path: Path) -> None:
    question = {"hardware": "h200-sxm-x2", "model": {"preset": "125M"}, "context_length": [16, 32]}
    result = sweep(question, out=tmp_path / "r.csv", jobs=1)
    assert [float(row["ttft_s"]) for row in read(tmp_path / "r.csv")] == [row["ttft_s"] for row in result.records]


def test_answers_of_explore_are_chosen_in_table_and_csv_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.csv"
    question = ["--model", "1.3B", "--hardware", "h100-sxm-x8", "--context-length", "64", "128"]
    choice = ["--where", "num_devices=8", "--sort", "latency_s", "--top", "1"]
    asked = ["explore", "degree", *question, "--architectures", "standard,kraken", *choice, "--csv", str(out)]
    assert main(asked) == 0
    rows = read(out)
    assert [(row["context_length"], row["num_devices"]) for row in rows] == [("64", "8"), ("128", "8")]
    text = capsys.readouterr().out
    drawn = [line for line in text.splitlines() if line.startswith("│")]
    assert len(drawn) == 2
    assert all(row["architecture"] in line for row, line in zip(rows, drawn, strict=True))


CHOSEN = ["--where", "channels!=default", "--sort", "latency_s", "--top", "2"]


def test_limits_of_channels_are_chosen_in_table_and_csv_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.csv"
    question = ["--model", "125M", "--hardware", "h200-sxm-x2", "--context-length", "64"]
    assert main(["explore", "channels", *question, *CHOSEN, "--csv", str(out)]) == 0
    rows = read(out)
    assert len(rows) == 2
    assert all(row["channels"] != "default" for row in rows)
    times = [float(row["latency_s"]) for row in rows]
    assert times == sorted(times)
    drawn = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [(line[5], line[7]) for line in drawn] == [(row["context_length"], row["channels"]) for row in rows]


def test_cases_with_measured_limits_are_chosen_in_table_and_csv_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, passes = tmp_path / "rows.csv", tmp_path / "passes.jsonl"
    first, *records = PASSES.read_text(encoding="utf-8").splitlines(keepends=True)
    few = [line for line in records if '"1.3B"' in line and '"context_length":2048' not in line]
    passes.write_text("".join([first, *few]), encoding="utf-8")
    asked = ["explore", "channels", "--measured", str(passes), "--csv", str(out)]
    assert main([*asked, "--where", "preset=1.3B", "--sort", "regret:desc", "--top", "1"]) == 0
    (row,) = read(out)
    drawn = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [(line[1], line[3]) for line in drawn] == [(row["model.preset"], row["context_length"])]
    assert float(row["advised_regret"]) >= 0.0
