"""Questions asked on the command line: options alone, standard input, and what `--set` changes of a file."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kraken_sim.cli import main
from kraken_sim.cli.completers import completions_of
from kraken_sim.errors import InputError, Problem
from kraken_sim.files.strict_yaml import parse_yaml
from kraken_sim.scenario.changes import as_said, change_of, with_changes

ROOT = Path(__file__).parent.parent
SHORT = ["--model", "1.3B", "--hardware", "h200-sxm-x2", "--context-length", "64"]
FILE = """\
# a question
hardware: h200-sxm-x2
model: {preset: 1.3B}
architecture: {kind: kraken, hidden_size: 1536, num_attention_heads: 24}
context_length: 64
"""


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json", "-"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def problems(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    return capsys.readouterr().err


@pytest.fixture
def question(tmp_path: Path) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(FILE, encoding="utf-8")
    return str(file)


def test_options_alone_ask_what_a_file_asks(capsys: pytest.CaptureFixture[str], question: str) -> None:
    from_file = answer(capsys, "run", question, "--set", "architecture={kind: parallel}")
    from_options = answer(capsys, "run", *SHORT, "--architecture", "parallel")
    assert from_options["ttft_s"] == from_file["ttft_s"]
    assert from_options["architecture"] == "parallel"


def test_an_option_that_a_verb_means_otherwise_is_no_field_there(capsys: pytest.CaptureFixture[str]) -> None:
    sets = answer(capsys, "compare", *SHORT, "--architectures", "parallel", "--kernels", "pytorch,serving")
    assert [item["kernels_speedup_percent"] == 0 for item in sets] == [True, True, False, False]


def test_standard_input_is_a_file(
    capsys: pytest.CaptureFixture[str], question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_file = answer(capsys, "run", question)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FILE.encode())))
    assert answer(capsys, "run", "-")["ttft_s"] == from_file["ttft_s"]
    for wrong, message in ((b"\xff", "no UTF-8 text"), (b"", "empty"), (b"a: [", "standard input")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(wrong)))
        assert message in problems(capsys, "run", "-")


def test_an_option_and_a_path_change_the_same_field(capsys: pytest.CaptureFixture[str], question: str) -> None:
    by_option = answer(capsys, "run", question, "--batch-size", "3", "--launch", "eager")
    by_path = answer(capsys, "run", question, "--set", "batch_size=3", "--set", "runtime.launch=eager")
    assert by_option["ttft_s"] == by_path["ttft_s"]
    assert "is given by --batch-size already" in problems(
        capsys, "run", question, "--batch-size", "3", "--set", "batch_size=4"
    )


def test_another_model_leaves_the_widths_of_the_files_kraken_behind(
    capsys: pytest.CaptureFixture[str], question: str
) -> None:
    other = answer(capsys, "run", question, "--model", "6.7B")
    fresh = answer(capsys, "run", *SHORT, "--model", "6.7B", "--architecture", "kraken")
    assert other["architecture"] == "kraken"
    assert other["ttft_s"] == fresh["ttft_s"]


def test_all_problems_are_told_at_once_under_the_names_they_were_given(
    capsys: pytest.CaptureFixture[str], question: str
) -> None:
    text = problems(
        capsys, "run", question, "--batch-size", "0", "--set", "channels=8", "--set", "dtype=float61", "--hardware", "x"
    )
    assert "5 problems" not in text
    assert "4 problems" in text
    assert "--batch-size: must be at least 1 (got 0)" in text
    assert "--set channels: unknown field" in text
    assert "did you mean 'runtime.collective.channels'?" in text
    assert "--set dtype: must be one of" in text
    assert "did you mean 'float16'?" in text
    assert "--hardware: unknown hardware profile" in text
    # What the file says wrongly keeps its line.
    Path(question).write_text(FILE + "batchsize: 3\n", encoding="utf-8")
    text = problems(capsys, "run", question, "--batch-size", "zero")
    assert "batchsize: line 6: unknown field" in text
    assert "--batch-size: must be a whole number (got 'zero')" in text


def test_what_is_missing_without_a_file_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    text = problems(capsys, "compare", "--phase", "generate", "--hardware", "h200-sxm-x2", "--context-length", "8")
    assert "--model: is required without a SCENARIO; for example --model 6.7B" in text
    text = problems(capsys, "run", *SHORT, "--phase", "generate")
    assert "--output-length: is required where phase is generate; for example --output-length 256" in text


@pytest.mark.parametrize("wrong", ["context_length", "=3", "a={", "context_length.x.y=3"])
def test_a_change_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], question: str, wrong: str) -> None:
    assert "--set" in problems(capsys, "run", question, "--set", wrong)


def test_values_are_read_as_in_a_file() -> None:
    document = parse_yaml("a: {b: [1, 2]}\nc: x\n")
    new = with_changes(document, [change_of(text) for text in ("a.b.1=true", "d.e=[1, {f: null}]", "c='7'", "g=")])
    assert new.data == {"a": {"b": [1, True]}, "c": "7", "d": {"e": [1, {"f": None}]}, "g": None}
    assert document.data == {"a": {"b": [1, 2]}, "c": "x"}
    assert new.line_of("a.b.0") == 1
    with pytest.raises(InputError, match="none of the 2 places") as refused:
        with_changes(document, [change_of("a.b.2=0"), change_of("c.d=0")])
    assert len(refused.value.problems) == 2


def test_a_problem_is_told_under_the_change_that_holds() -> None:
    error = InputError([Problem("model.head_dim", "must be at least 1"), Problem("name", "is long")])
    said = as_said(error, [change_of("model={preset: x}"), change_of("model.head_dim=0")])
    assert [problem.path for problem in said.problems] == ["--set model.head_dim", "name"]
    error = InputError([Problem("sequences.0.x", "is required"), Problem("a", "unknown field")])
    said = as_said(error, [change_of("sequences=[{}]"), change_of("a.b.c=1")])
    assert [problem.path for problem in said.problems] == ["--set sequences.0.x", "--set a.b.c"]


def test_a_path_of_an_option_is_the_shells_and_one_of_a_file_the_files(
    capsys: pytest.CaptureFixture[str], question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "own.yaml").write_text((ROOT / "hardware_profiles" / "l4-x8.yaml").read_text(), encoding="utf-8")
    monkeypatch.chdir(here)
    assert answer(capsys, "run", question, "--hardware", "./own.yaml", "--num-devices", "2")["ttft_s"] > 0
    assert answer(capsys, "run", question, "--set", "hardware=./own.yaml", "--num-devices", "2")["ttft_s"] > 0


def test_explore_asks_every_combination_of_options_on_top_of_a_file(
    capsys: pytest.CaptureFixture[str], question: str
) -> None:
    answers = answer(
        capsys, *("explore", "architecture", question, "--architectures", "kraken"),
        *("--context-length", "32", "64", "--batch-size", "1", "2", "--set", "runtime.launch=eager"),
    )  # fmt: skip
    assert [(item["batch_size"], item["context_length"]) for item in answers] == [(1, 32), (1, 64), (2, 32), (2, 64)]


def test_standard_input_answers_every_combination_of_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FILE.encode())))
    asked = ("explore", "architecture", "-", "--architectures", "kraken", "--context-length", "32", "64")
    assert [item["context_length"] for item in answer(capsys, *asked)] == [32, 64]


def test_a_list_makes_a_sweep_which_is_no_one_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a sweep of 2 points" in problems(capsys, "run", *SHORT, "--set", "batch_size=[1, 2]")


def test_several_values_of_an_option_are_swept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    lengths = ["--context-length", "32", "64", "--architecture", "standard", "kraken"]
    assert main(["sweep", *SHORT[:4], *lengths, "--jobs", "1", "--out", str(out)]) == 0
    assert "4 points, 0 without an answer" in capsys.readouterr().out
    text = problems(capsys, "sweep", *SHORT[:4], "--context-length", "x", "y", "--out", str(tmp_path / "no.parquet"))
    assert "--context-length: must be a whole number (got 'x')" in text


def test_a_request_is_changed_by_its_paths(capsys: pytest.CaptureFixture[str]) -> None:
    text = problems(capsys, "serve", "chat_service", "--set", "replicas=0", "--set", "sla.ttft_s=soon")
    assert "--set replicas: must be at least 1" in text
    assert "--set sla.ttft_s: unknown field" in text
    assert "--set bdget" in problems(capsys, "explore", "design", "13b-on-h100_design", "--set", "bdget=3")
    assert "--set currency" in problems(capsys, "procure", "chat_purchase", "--set", "currency=3")


def test_what_ships_is_listed_shown_copied_and_checked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["scenarios", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(path.stem in shown for path in (ROOT / "scenarios").glob("*.yaml"))
    assert main(["scenarios", "show", "chat_service"]) == 0
    assert capsys.readouterr().out == (ROOT / "scenarios" / "chat_service.yaml").read_text(encoding="utf-8")
    # With what it extends, so that the copy runs.
    assert main(["scenarios", "copy", "paper_grid_l40s", "mine"]) == 0
    assert {path.name for path in Path("mine").iterdir()} == {
        "paper_grid_l40s.yaml", "paper_grid_h100.yaml", "paper_grid.yaml",
    }  # fmt: skip
    assert main(["scenarios", "copy", "paper_grid_h100", "mine"]) == 2
    assert main(["scenarios", "copy", "paper_grid_h100", "mine", "--force"]) == 0
    assert main(["scenarios", "check", "kraken-6.7b-on-two-h200"]) == 0
    assert main(["scenarios", "check", "kraken-6.7b-on-two-h200", "--set", "batch_size=4000"]) == 3
    assert "did you mean 'chat_service'" in problems(capsys, "scenarios", "show", "chat_servce")
    assert main(["models", "list"]) == 0
    shown = capsys.readouterr().out
    assert "6.7B" in shown
    assert "llama" in shown


TYPED = "kraken-sim run --hardware h200-sxm-"
SHELLS = {
    "bash": ["--norc", "-c", f"""eval "$(kraken-sim completion bash)"; COMP_LINE="{TYPED}"; COMP_POINT={len(TYPED)}
COMP_TYPE=9; _python_argcomplete kraken-sim; printf '%s\\n' "${{COMPREPLY[@]}}\""""],
    "zsh": ["-f", "-c", f"""eval "$(kraken-sim completion zsh)"; _describe() {{ print -l ${{(P)2}} }}
BUFFER="{TYPED}"; CURSOR={len(TYPED)}; words=({TYPED}); _python_argcomplete"""],
    "fish": ["--no-config", "-c", f'kraken-sim completion fish | source; complete -C "{TYPED}"'],
}  # fmt: skip
"""By shell, what takes the lines it is given and completes `TYPED`, one word a line."""


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_takes_its_lines_and_completes_names(tmp_path: Path, shell: str) -> None:
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"needs {shell}")
    command = tmp_path / "kraken-sim"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kraken_sim.cli "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    said = subprocess.run(
        [program, *SHELLS[shell]], env=environment, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert sorted(said.stdout.replace(":", "").split()) == ["h200-sxm-x2", "h200-sxm-x8"]
    assert said.stderr == ""


def test_a_shell_is_told_what_may_follow(tmp_path: Path) -> None:
    out = tmp_path / "words"
    line = "kraken-sim run --hardware h200-sxm-"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(out)}
    asked |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    subprocess.run([sys.executable, "-m", "kraken_sim.cli"], env=os.environ | asked, check=True, cwd=tmp_path)
    assert out.read_text(encoding="utf-8").split() == ["h200-sxm-x2", "h200-sxm-x8"]


def test_the_words_of_a_field_are_those_that_it_takes() -> None:
    assert completions_of("dtype") == ["float16", "bfloat16", "float32"]
    assert "serving_fused" in completions_of("runtime.kernels")
    assert completions_of("phase") == ["prefill", "decode", "generate"]
    assert completions_of("quantization") == ["fp8", "fp8_block", "nvfp4"]
    assert completions_of("batch_size") == []
    assert "kraken" in completions_of("architecture")
    assert "6.7B" in completions_of("model")
    assert "chat_service" in completions_of("scenarios")
