from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from kraken_sim.architectures.registry import kinds
from kraken_sim.cli import main

ROOT = Path(__file__).parent.parent
KRAKEN = ROOT / "scenarios" / "kraken-6.7b-on-two-h200.yaml"


def scenario(tmp_path: Path, **changes: Any) -> str:
    data = yaml.safe_load(KRAKEN.read_text(encoding="utf-8"))
    for path, value in changes.items():
        target = data
        *parents, last = path.split("__")
        for parent in parents:
            target = target[parent]
        target[last] = value
    file = tmp_path / "scenario.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    return str(file)


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def test_run_prints_where_the_time_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(KRAKEN)]) == 0
    text = capsys.readouterr().out
    for word in ("TTFT", "overlapped_gemm", "gemm_qkv", "price of the overlap", "Constants used"):
        assert word in text


def test_json_carries_the_names_of_the_api_and_a_breakdown_that_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "run", str(KRAKEN))
    assert result["tpot_s"] is None
    assert sum(result["breakdown_s"].values()) == pytest.approx(result["ttft_s"], rel=1e-9)
    assert set(result["breakdown_s"]) == {
        "norm", "gemm", "overlapped_gemm", "attention", "lm_head", "all_reduce", "other",
    }  # fmt: skip
    assert all(record["source"] and record["kind"] for record in result["provenance"].values())


def test_exact_and_folded_runs_agree(capsys: pytest.CaptureFixture[str]) -> None:
    folded = run_json(capsys, "run", str(KRAKEN))
    exact = run_json(capsys, "run", str(KRAKEN), "--exact")
    assert exact["ttft_s"] == pytest.approx(folded["ttft_s"], rel=1e-9)
    assert exact["num_events"] > 5 * folded["num_events"]
    for key in ("exposed_communication_s", "hidden_communication_s"):
        assert exact[key] == pytest.approx(folded[key], rel=1e-9)
    assert exact["breakdown_s"] == pytest.approx(folded["breakdown_s"], rel=1e-9)


def test_a_scenario_that_ships_is_found_by_name_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_json(capsys, "run", "kraken-6.7b-on-two-h200")["ttft_s"] > 0
    assert main(["run", "kraken-6.7b-on-two-h20"]) == 2
    assert "did you mean 'kraken-6.7b-on-two-h200'" in capsys.readouterr().err


def test_compare_puts_all_architectures_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    results = run_json(capsys, "compare", str(KRAKEN))
    assert [result["architecture"] for result in results] == [
        kind for kind in kinds() if kind not in ("domino", "file", "sub_layer_file")
    ]
    assert results[0]["speedup_percent"] == 0.0


def test_compare_takes_the_architectures_by_name_and_standard_first(capsys: pytest.CaptureFixture[str]) -> None:
    results = run_json(capsys, "compare", str(KRAKEN), "--architectures", "ladder,kraken")
    assert [result["architecture"] for result in results] == ["standard", "ladder", "kraken"]
    assert main(["compare", str(KRAKEN), "--architectures", "ladder,krakn"]) == 2
    assert "did you mean 'kraken'" in capsys.readouterr().err
    assert main(["compare", str(KRAKEN), "--architectures", "domino"]) == 2
    assert "domino cuts the sequences" in capsys.readouterr().err


def test_html_and_traces_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "new" / "report.html"
    assert main(["compare", str(KRAKEN), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "One layer: kraken" in text
    assert "https://cdn" not in text.split("<body>")[0]
    assert main(["run", str(KRAKEN), "--trace", str(tmp_path / "trace")]) == 0
    trace = json.loads((tmp_path / "trace" / "rank0.pt.trace.json").read_text(encoding="utf-8"))
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X" and event["cat"] != "user_annotation"]
    for track in {event["tid"] for event in slices}:
        own = sorted((event["ts"], event["dur"]) for event in slices if event["tid"] == track)
        for (start, duration), (following, _) in pairwise(own):
            assert following >= start + duration - 1e-6
    capsys.readouterr()


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"hardware": "h200-sxm-x3"}, 2, "did you mean 'h200-sxm-x"),
        ({"model__preset": "6.8B"}, 2, "did you mean '6.7B'"),
        ({"architecture__kind": "krakn"}, 2, "did you mean 'kraken'"),
        ({"architecture__ways": 3}, 2, "architecture.ways"),
        ({"num_devices": 16}, 2, "num_devices"),
        ({"batch_size": 0}, 2, "batch_size"),
        ({"batch_size": "many"}, 2, "batch_size"),
        ({"contxt_length": 5}, 2, "did you mean 'context_length'"),
        ({"dtype": "float8"}, 2, "dtype"),
        ({"runtime__collective__channels": 0}, 2, "runtime.collective.channels"),
        ({"context_length": 1_000_000}, 2, "context_length"),
        ({"architecture": {"kind": "standard"}, "model": {"preset": "175B"}}, 3, "limiting number"),
    ],
)
def test_bad_input_is_named_and_never_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], code: int, words: str
) -> None:
    assert main(["run", scenario(tmp_path, **changes)]) == code
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_several_problems_are_reported_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = scenario(tmp_path, batch_size=-1, dtype="int3", runtime__launch="warp")
    assert main(["run", path]) == 2
    error = capsys.readouterr().err
    for field in ("batch_size", "dtype", "runtime.launch"):
        assert field in error


def test_files_that_are_missing_or_no_yaml_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "nothing.yaml")]) == 2
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: [", encoding="utf-8")
    assert main(["run", str(broken)]) == 2
    doubled = tmp_path / "doubled.yaml"
    doubled.write_text("name: a\nname: b\n", encoding="utf-8")
    assert main(["run", str(doubled)]) == 2
    assert "name" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_an_error_of_the_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for option in ("--json", "--html", "--trace"):
        assert main(["run", str(KRAKEN), option, str(tmp_path / "file" / "below")]) == 2
        assert option in capsys.readouterr().err


def test_profiles_are_listed_shown_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "list"]) == 0
    assert "a100-sxm4-40gb-x8" in capsys.readouterr().out
    assert main(["profiles", "show", "l40s-x8"]) == 0
    assert "datasheet" in capsys.readouterr().out
    assert main(["profiles", "check", "h100-sxm-x8"]) == 0
    assert main(["profiles", "check", "h100-sxm-x9"]) == 2


def test_schemas_are_json_schemas(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {"scenario": "context_length", "profile": "device", "design": "objectives", "purchase": "candidates"}
    for kind, field in kinds.items():
        assert main(["schema", kind]) == 0
        assert field in json.loads(capsys.readouterr().out)["properties"]


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["runn"])
    assert stop.value.code == 2
    assert "did you mean 'run'" in capsys.readouterr().err


def test_a_sweep_given_to_run_is_sent_to_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "architectures-sweep"]) == 2
    told = capsys.readouterr().err
    assert "is a sweep of" in told
    assert "kraken-sim sweep architectures-sweep" in told
