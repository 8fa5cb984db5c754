"""`kraken-sim diff-trace`: its page and data, a step of ours beside itself, and input that it names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from diff_support import STEP
from trace_support import DATA, FIRST, repeated, written

from kraken_sim.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def committed(name: str = "h200-llama-8b-decode") -> str:
    return str(DATA / f"{name}.trace.json")


def run(*arguments: str) -> int:
    return main(["diff-trace", *arguments])


def test_names_in_a_trace_are_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "<script>alert(1)</script>gemm[bold]\x1b[2J"
    text = (
        (DATA / "h200-llama-8b-decode.trace.json").read_text(encoding="utf-8").replace('"Memset', '"Memset \\u001b[2J')
    )
    events = json.loads(text)["traceEvents"]
    for event in events:
        event["name"] = event["name"].replace("nvjet", f"nvjet {hostile}").replace("triton", f"triton{hostile}")
    path = written(tmp_path / "<b>a.json", events, device="NVIDIA H200 <img src=x>")
    page = tmp_path / "page.html"
    assert run(f"{FIRST}#2", str(path), "--html", str(page)) == 0
    shown, html = capsys.readouterr().out, page.read_text(encoding="utf-8")
    assert "\x1b" not in shown + html
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "<b>a" not in html


def test_more_layers_than_can_be_lined_up_are_infeasible(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = tmp_path / "s.yaml"
    model = "model: {num_hidden_layers: 200000, hidden_size: 64, num_attention_heads: 1, vocab_size: 100}"
    lines = ("hardware: h200-sxm-x2", model, "context_length: 128", "num_devices: 1")
    scenario.write_text("\n".join(lines), encoding="utf-8")
    code = run(str(scenario), committed())
    assert (code, "too many to line up" in capsys.readouterr().err) == (3, True)


class TestCommand:
    def test_the_question_of_a_measured_pass_against_its_trace(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page, data = tmp_path / "page.html", tmp_path / "data.json"
        assert run(f"{FIRST}#2", committed(), "--html", str(page), "--json", str(data)) == 0
        shown = capsys.readouterr().out
        assert "39 matched, 0 missing, 0 surplus; 9 more are part of another" in shown
        assert "layer: gemm_down" in shown
        found = json.loads(data.read_text(encoding="utf-8"))
        assert found["difference_s"] == pytest.approx(sum(term["seconds"] for term in found["terms"]))
        classes_s = {side: sum(row[f"{side}_s"] for row in found["classes"]) for side in ("ours", "theirs")}
        for side, total_s in classes_s.items():
            assert total_s + found["gaps_s"][side] == pytest.approx(found[f"{side}_s"])
        assert found["device"] == "NVIDIA H200"
        assert found["unprofiled_step_s"] == pytest.approx(8.1536e-4)
        text = page.read_text(encoding="utf-8")
        assert "What the difference consists of" in text
        assert "https://cdn" not in text.split("<body>")[0]

    @pytest.mark.parametrize("kind", ["standard", "kraken"])
    @pytest.mark.parametrize("launch", ["graph", "eager"])
    def test_a_trace_that_was_written_is_the_step_that_was_predicted(
        self, kind: str, launch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scenario = tmp_path / "s.yaml"
        lines = ("hardware: h200-sxm-x2", "model: {preset: 125M}", "context_length: 512", "dtype: bfloat16")
        more = (f"architecture: {{kind: {kind}}}", f"runtime: {{launch: {launch}}}")
        scenario.write_text("\n".join((*lines, *more)), encoding="utf-8")
        assert main(["run", str(scenario), "--trace", str(tmp_path / "out")]) == 0
        for ours in (str(scenario), str(tmp_path / "out")):
            capsys.readouterr()
            assert run(ours, str(tmp_path / "out"), "--json", "-") == 0
            found = json.loads(capsys.readouterr().out)
            assert (found["missing"], found["surplus"], found["warnings"]) == (0, 0, [])
            assert max(abs(term["seconds"]) for term in found["terms"]) < 1e-11
            assert max(abs(node["difference_s"]) for node in found["nodes"]) < 1e-11
            assert [rank["rank"] for rank in found["ranks"]] == [0, 1]

    def test_of_a_folder_only_the_rank_that_is_asked_for_is_read(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for rank in range(3):
            events = repeated([STEP]) if rank == 1 else [{"cat": "cpu_op"}]
            written(tmp_path / f"{rank}.json", events, distributedInfo={"rank": rank, "world_size": 3})
        assert run(f"{FIRST}#2", str(tmp_path), "--rank", "1", "--json", "-") == 0
        assert json.loads(capsys.readouterr().out)["rank"] == 1
        assert run(f"{FIRST}#2", str(tmp_path), "--rank", "7") == 2
        assert "none of the traces is of this rank" in capsys.readouterr().err
        assert run(f"{FIRST}#2", str(tmp_path)) == 2
        assert "none of a GPU" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ((committed(), committed()), "none that kraken-sim run --trace has written"),
            (("kraken-6.7b-on-two-h200", "no-such-file.json"), "there is no file of this name"),
            (("kraken-6.7b-on-two-h200", committed(), "--rank", "x"), "must be a number or all"),
            (("kraken-6.7b-on-two-h200", committed(), "--rank", "5"), "there is none"),
            (("kraken-6.7b-on-two-h200", committed(), "--step", "5"), "there is no such step"),
            (("kraken-6.7b-on-two-h200", str(FIRST)), "27 of its profiled passes"),
            (("kraken-6.7b-on-two-h200", str(DATA.parent)), "holds no trace"),
        ],
    )
    def test_bad_input_is_named(
        self, arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(*arguments) == 2
        assert words in capsys.readouterr().err
