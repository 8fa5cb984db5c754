"""Sweeps: which points they hold, that their rows are what single predictions say, and what is refused."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from kraken_sim import simulate, sweep
from kraken_sim.cli import main
from kraken_sim.errors import InputError
from kraken_sim.explore.sweep.plan import MOST_POINTS, load_plan, plan_of
from kraken_sim.explore.sweep.rows import Evaluator
from kraken_sim.explore.sweep.sweep import ASK_ABOVE, check
from kraken_sim.files.shipped import data_dir

if TYPE_CHECKING:
    from pathlib import Path

QUESTION: dict[str, Any] = {
    "hardware": "h200-sxm-x8",
    "model": {"preset": "1.3B"},
    "architecture": {"kind": "kraken"},
    "num_devices": 4,
    "context_length": 512,
}


def asked(**changes: Any) -> dict[str, Any]:
    return {**QUESTION, **changes}


def points(data: dict[str, Any]) -> list[dict[str, Any]]:
    plan = plan_of(data)
    return [dict(zip(plan.paths, plan.values(number), strict=True)) for number in range(plan.num_points)]


def flat(data: dict[str, Any], at: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        found |= flat(value, f"{at}{name}.") if isinstance(value, dict) else {f"{at}{name}": value}
    return found


def test_lists_and_ranges_multiply_and_the_first_changes_slowest() -> None:
    found = points(asked(batch_size=[1, 3], context_length={"start": 128, "stop": 513, "step": 128}))
    lengths = {"context_length": 128}, {"context_length": 256}, {"context_length": 384}, {"context_length": 512}
    assert found == [{"context_length": n["context_length"], "batch_size": b} for n in lengths for b in (1, 3)]


def test_a_range_excludes_its_stop_counts_down_and_has_step_one_by_default() -> None:
    assert [p["context_length"] for p in points(asked(context_length={"start": 3, "stop": 6}))] == [3, 4, 5]
    assert [p["context_length"] for p in points(asked(context_length={"start": 9, "stop": 0, "step": -4}))] == [9, 5, 1]


def test_zip_takes_the_nth_values_together() -> None:
    found = points(asked(batch_size=[1, 2], context_length=[64, 32], sweep={"combine": "zip"}))
    assert found == [{"context_length": 64, "batch_size": 1}, {"context_length": 32, "batch_size": 2}]


def test_alternatives_of_a_section_have_fields_of_their_own() -> None:
    kinds = [{"kind": "standard"}, {"kind": "kraken", "ways": [2, 4]}]
    assert points(asked(architecture=kinds)) == [
        {"architecture.kind": "standard", "architecture.ways": None},
        {"architecture.kind": "kraken", "architecture.ways": 2},
        {"architecture.kind": "kraken", "architecture.ways": 4},
    ]


def test_cases_of_a_csv_file_are_multiplied_with_the_lists(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("num_devices, architecture.ways\n2, 2\n4,\n", encoding="utf-8")
    data = asked(batch_size=[1, 2], sweep={"cases": "cases.csv"})
    del data["num_devices"]
    plan = plan_of(data, tmp_path)
    rows = [plan.values(number) for number in range(plan.num_points)]
    assert plan.paths == ("batch_size", "num_devices", "architecture.ways")
    assert rows == [(1, 2, 2), (1, 4, None), (2, 2, 2), (2, 4, None)]


SWEPT = asked(
    hardware=["h200-sxm-x8", "a100-sxm4-80gb-x8"],
    model=[{"preset": "125M"}, {"preset": "6.7B", "num_hidden_layers": 3}],
    architecture=[{"kind": "standard"}, {"kind": "parallel"}, {"kind": "kraken", "ways": [2, 8]}],
    num_devices=[1, 4],
    phase=["prefill", "decode"],
    context_length=[16, 700],
    runtime={"launch": ["graph", "eager"], "overlap": [True, False], "collective": {"channels": [None, 2]}},
)


def test_rows_are_what_single_predictions_say() -> None:
    plan = plan_of(SWEPT)
    records = sweep(SWEPT, jobs=1).records
    assert [record["point"] for record in records] == list(range(plan.num_points)) == list(range(1024))
    for record in records[::7]:
        data = asked(runtime={"collective": {}}, model={}, architecture={})
        for path in plan.paths:
            *sections, name = path.split(".")
            target = data
            for section in sections:
                target = target[section]
            if record[path] is not None:
                target[name] = record[path]
        expected = flat(simulate(data).as_dict())
        low, high = expected.pop("interval_s")
        expected |= {"interval_s.low": low, "interval_s.high": high}
        own = {name: value for name, value in record.items() if name in expected and name not in plan.paths}
        assert len(own) > 20
        for name, value in own.items():
            wanted = expected[name]
            close = wanted if wanted is None else pytest.approx(wanted, rel=1e-9, abs=1e-15)
            assert value == close, (name, data)


def test_a_point_without_an_answer_is_a_row_with_its_error() -> None:
    kinds = {"kind": ["standard", "kraken"], "ways": [2]}
    records = sweep(asked(architecture=kinds, model={"preset": ["1.3B", "175B"]}, num_devices=2), jobs=1).records
    assert [record["error_kind"] for record in records] == ["input", None, "input", "infeasible"]
    assert "architecture.ways: is for kind kraken or sub_layer_file only" in records[0]["error"]
    assert "limiting number" in records[3]["error"]
    assert records[0]["ttft_s"] is None
    assert records[1]["ttft_s"] > 0.0


def test_a_bug_in_one_point_does_not_cost_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from kraken_sim.predict.pipeline import Predictor

    predict = Predictor.predict

    def broken(self: Predictor, scenario: Any, **options: Any) -> Any:
        if scenario.batch_size == 2:
            raise ZeroDivisionError("of ours")
        return predict(self, scenario, **options)

    monkeypatch.setattr(Predictor, "predict", broken)
    records = sweep(asked(batch_size=[1, 2, 3]), jobs=1).records
    assert [record["error_kind"] for record in records] == [None, "internal", None]
    assert records[1]["error"] == "ZeroDivisionError: of ours"


def test_a_frame_has_the_columns_of_the_records() -> None:
    result = sweep(asked(batch_size=[1, 2]), jobs=1)
    frame = result.to_pandas()
    assert len(result) == len(frame) == 2
    assert list(frame.columns) == list(result.records[0])
    assert frame["ttft_s"].tolist() == [record["ttft_s"] for record in result.records]


REFUSED = [
    (asked(batch_size=[]), "batch_size: is an empty list"),
    (asked(context_length={"start": 1, "stop": 9, "step": 0}), "never ends"),
    (asked(context_length={"start": 1, "stop": 9, "step": -1}), "holds no value"),
    (asked(context_length={"start": 9, "stop": 9}), "holds no value"),
    (asked(context_length={"start": 9, "step": 2}), "no stop"),
    (asked(context_length={"start": 1, "stop": 9, "stride": 2}), "unknown keys stride"),
    (asked(context_length={"start": 1, "stop": float("inf")}), "finite number"),
    (asked(context_length={"start": "1", "stop": 2}), "finite number"),
    (asked(batch_size=[1, 2], context_length=[1, 2, 3], sweep={"combine": "zip"}), "batch_size: 2"),
    (asked(batch_size=[1, "two"]), "mixes kinds"),
    (asked(batch_size=[[1], [2]]), "holds lists"),
    (asked(name=["a", "b"]), "name: can't be swept"),
    (asked(contxt_length=[1, 2]), "did you mean 'context_length'"),
    (asked(runtime={"launhc": ["graph"]}), "did you mean 'launch'"),
    (asked(architecture=[{"kind": "kraken", "wasy": 2}]), "architecture.0.wasy: unknown field"),
    (asked(sweep={"combine": "cross"}), "product or zip"),
    (asked(sweep={"combin": "zip"}), "did you mean 'combine'"),
    (asked(sweep=3), "must be a mapping"),
]


@pytest.mark.parametrize(("data", "words"), REFUSED)
def test_wrong_axes_are_refused_and_named(data: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        plan_of(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (asked(batch_size=[1, 2], context_length=0), "context_length: must be at least 1"),
        (asked(batch_size=[0, -1]), "batch_size: must be at least 1"),
        (asked(batch_size=[1, 2], hardware="h200"), "unknown hardware profile"),
        (asked(hardware=["h200", "h300"]), "unknown hardware profile"),
        (asked(model={"num_hidden_layers": [1, 2]}), "is required without a preset"),
    ],
)
def test_a_sweep_of_which_no_point_can_have_an_answer_is_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        sweep(data)


def test_all_problems_are_named_at_once_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "hardware: h200-sxm-x8\nmodel: {preset: 1.3B}\ncontext_length: []\nbatch: [1, 2]\n", encoding="utf-8"
    )
    with pytest.raises(InputError) as caught:
        load_plan(file)
    assert "line 3" in str(caught.value)
    assert "line 4" in str(caught.value)


def test_millions_of_points_are_counted_and_asked_for() -> None:
    plan = plan_of(asked(context_length={"start": 1, "stop": 2001}, batch_size={"start": 1, "stop": 2001}))
    with pytest.raises(InputError, match=r"4,000,000 points: 2,000 \(context_length\) x 2,000 \(batch_size\); --yes"):
        check(plan, yes=False)
    check(plan, yes=True)
    assert plan.num_points > ASK_ABOVE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_device\n2\n", "did you mean 'num_devices'"),
        ("num_devices,batch_size\n2\n", "line 2: has 1 cells, the header 2"),
        ("batch_size,batch_size\n2,2\n", "appears twice"),
        ("batch_size\n", "no cases"),
        ("context_length\n2\n", "context_length: has a value of its own"),
    ],
)
def test_wrong_cases_are_refused_and_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "cases.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        plan_of(asked(sweep={"cases": "cases.csv"}), tmp_path)


def written(tmp_path: Path, data: dict[str, Any]) -> str:
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps(data), encoding="utf-8")
    return str(file)


def test_the_command_writes_a_file_and_says_what_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "r.parquet"
    question = written(tmp_path, asked(batch_size=[1, 2], num_devices=[2, 16]))
    assert main(["sweep", question, "--out", str(out), "--jobs", "1"]) == 0
    text = capsys.readouterr().out
    assert "4 points, 2 without an answer" in text
    assert "h200-sxm-x8 has 8 devices" in text
    assert pq.read_table(out).num_rows == 4
    assert not (tmp_path / "new" / "r.parquet.parts").exists()
    assert main(["sweep", question, "--out", str(out)]) == 0
    assert "4 of them found done" in capsys.readouterr().out


def test_another_sweeps_results_are_never_overwritten_or_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.parquet"
    assert main(["sweep", written(tmp_path, asked(batch_size=[1, 2])), "--out", str(out), "--jobs", "1"]) == 0
    before = out.read_bytes()
    assert main(["sweep", written(tmp_path, asked(batch_size=[1, 3])), "--out", str(out)]) == 2
    assert "another sweep" in capsys.readouterr().err
    assert out.read_bytes() == before
    out.write_text("mine", encoding="utf-8")
    assert main(["sweep", written(tmp_path, asked(batch_size=[1, 3])), "--out", str(out)]) == 2
    assert out.read_text(encoding="utf-8") == "mine"
    assert main(["sweep", written(tmp_path, asked(batch_size=[1, 3])), "--out", str(tmp_path)]) == 2


@pytest.mark.parametrize("path", sorted(data_dir("scenarios").glob("*-sweep.yaml")), ids=lambda path: path.stem)
def test_the_sweeps_that_ship_have_answers(path: Path) -> None:
    plan = load_plan(path)
    check(plan, yes=False)
    assert plan.name == path.stem
    evaluator = Evaluator(plan.fixed, plan.paths, plan.folder)
    sample = range(0, plan.num_points, plan.num_points // 20)
    assert all(row[-1] is None for row in evaluator.rows(plan.values(number) for number in sample))


def refused(data: dict[str, Any], *, yes: bool) -> str:
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        check(plan_of(data), yes=yes)
    assert time.monotonic() - began < 5.0  # a moment on an idle machine
    return str(caught.value)


THOUSAND = list(range(1, 1001))
BILLION = {"start": 1, "stop": 1_000_000_001}


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"context_length": BILLION, "batch_size": BILLION, "sweep": {"combine": "zip"}}, "1,000,000,000"),
        ({"context_length": THOUSAND, "batch_size": THOUSAND, "num_devices": THOUSAND}, "1,000,000,000"),
        ({"model": [{"hidden_size": THOUSAND, "head_dim": THOUSAND, "vocab_size": THOUSAND}]}, "1,000,000,000"),
        ({"context_length": {"start": 1, "stop": 1e15}, "batch_size": {"start": 1, "stop": 1e15}}, "more than 2^63"),
    ],
)
def test_a_sweep_is_counted_before_it_is_built(changes: dict[str, Any], count: str) -> None:
    # With --yes too: nobody runs a billion points.
    assert f"are {count} points" in refused(asked(**changes), yes=False)
    assert "are the most of one sweep" in refused(asked(**changes), yes=True)


def test_a_range_that_no_number_counts_is_refused() -> None:
    for stop, step in ((1e300, 1), (2, 1e-300), (-1e300, -1e-9), (1.7e308, 0.1)):
        found = refused(asked(context_length={"start": 1, "stop": stop, "step": step}), yes=True)
        assert "more values than anybody can run" in found
        assert "context_length" in found


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 10**400])
def test_whole_numbers_beyond_64_bits_are_refused_before_any_work(number: int, tmp_path: Path) -> None:
    for values in ([1, number], {"start": 1, "stop": number}, {"start": number, "stop": 1}):
        assert "context_length" in (found := refused(asked(context_length=values), yes=True))
        assert "64 bits" in found
    assert "model" in refused(asked(model=[{"preset": "125M"}, {"hidden_size": number}]), yes=True)
    (tmp_path / "cases.csv").write_text(f"num_devices\n{number}\n", encoding="utf-8")
    data = asked(sweep={"cases": "cases.csv"})
    del data["num_devices"]
    with pytest.raises(InputError, match=r"64 bits|must be a whole number"):  # or, of 401 digits, text
        check(plan_of(data, tmp_path), yes=True)


def test_points_that_are_only_counted_are_those_that_would_be_built() -> None:
    nested = {"kind": "kraken", "ways": [2, 4], "hidden_size": {"start": 256, "stop": 769, "step": 256}}
    data = asked(architecture=[{"kind": "standard"}, nested], context_length=[64, 32], batch_size=[3, 5])
    kinds = [("standard", None, None), *[("kraken", ways, size) for ways in (2, 4) for size in (256, 512, 768)]]
    expected = [(*kind, tokens, batch) for kind in kinds for tokens in (64, 32) for batch in (3, 5)]
    plan = plan_of(data)
    assert plan.paths[:3] == ("architecture.kind", "architecture.ways", "architecture.hidden_size")
    assert [plan.values(number) for number in range(plan.num_points)] == expected
    assert set(plan.column_values("architecture.hidden_size")) == {None, 256, 768}
    zipped = plan_of(asked(context_length=[1, 2, 3], batch_size={"start": 4, "stop": 7}, sweep={"combine": "zip"}))
    assert zipped.chunk(0) == [(1, 4), (2, 5), (3, 6)]
    assert set(zipped.column_values("batch_size")) == {4, 6}


def test_chunks_are_small_enough_that_something_is_saved_within_seconds() -> None:
    for count in (1, 10, 1_000, 100_000, 1_000_000, MOST_POINTS):
        plan = plan_of(asked(context_length={"start": 1, "stop": count + 1}))
        assert plan.num_points == count
        # A point is a millisecond or so; of few points, which may be large, a chunk has few.
        assert plan.chunk_size <= max(4, min(10_000, count // 60))
        assert plan.num_chunks <= max(2_100, count // 1_999)


def test_a_column_of_numbers_may_hold_whole_ones_that_no_float_is() -> None:
    found = sweep(asked(num_devices=4, runtime={"overlap": [True]}, context_length=[16, 2**60 + 1, 0.5]), jobs=1)
    assert [record["error_kind"] for record in found.records][1:] == ["input", "input"]
    assert found.records[1]["context_length"] == float(2**60)
