"""Every command line that a guide names is run, or it is listed here with the reason why not and understood."""

from __future__ import annotations

import re
import runpy
import shlex
from typing import TYPE_CHECKING, Final

import pytest
from test_contracts import GUIDES, OPTIONS, PAGES, ROOT, commands_of

from kraken_sim.cli import build_parser, main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOT_RUN: Final = {
    "diff-trace mine.yaml trace.pt.trace.json.gz --html out/diff.html": "a trace of the reader's",
    "paper --grid paper_grid_interconnects": "seconds; tests/test_paper_grid.py predicts what it does",
    "paper": "make demo runs it",
}
"""What stands for itself in guides and is run by no test of this file or of test_contracts.py, and why."""

PLACEHOLDER: Final = re.compile(r"(?<![\w-])[A-Z]{3,}(?![\w-])")
"""A word that stands for a name or a file of the reader's."""

WITH_TORCH: Final = frozenset(
    f"validation.{name}"
    for name in (
        "measure",
        "traces",
        "serving",
        "quality.benchmark",
        "quality.corpus",
        "quality.parity",
        "quality.train",
    )
)
"""Modules that run models, or import what does."""

FENCED: Final = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
QUOTED: Final = re.compile(r"kraken-sim ([^>|)]*)")
MODULE: Final = re.compile(r"python -m (validation[\w.]*)([^`\n#]*)")


def documented() -> Iterator[tuple[str, str]]:
    """The guide and the words after `kraken-sim` of each of its command lines, in blocks and between backticks."""
    for page in GUIDES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for block in FENCED.findall(text):
            for line in block.splitlines():
                if match := re.match(r" *(?:\.venv/bin/)?kraken-sim (.*)", line):
                    yield page, shlex.join(shlex.split(match[1], comments=True))
        for quoted in re.findall(r"`([^`\n]+)`", FENCED.sub("", text)):
            for words in QUOTED.findall(quoted):
                yield page, shlex.join(words.split())


def told_apart() -> dict[str, set[str]]:
    """Command lines by how they are known to work."""
    in_blocks = {shlex.join(shlex.split(line, comments=True)[1:]) for page in PAGES for line in commands_of(page)}
    found: dict[str, set[str]] = {"run": set(), "run here": set(), "parsed": set(), "named": set()}
    for _, words in documented():
        if words in in_blocks:
            found["run"].add(words)
        elif words in NOT_RUN or PLACEHOLDER.search(words):
            found["parsed"].add(words)
        elif OPTIONS.get(words):
            # The verb alone, in a sentence about it; it cannot run without what it takes.
            found["named"].add(words)
        else:
            found["run here"].add(words)
    return found


COMMANDS: Final = told_apart()


def test_guides_name_many_commands_and_every_exception_is_one_of_them() -> None:
    assert len(COMMANDS["run"]) > 40
    assert NOT_RUN.keys() <= COMMANDS["parsed"]
    assert len(COMMANDS["parsed"]) < 12
    for words in COMMANDS["named"]:
        required = [name for name in OPTIONS[words] if not name.startswith("--")]
        assert required, f"{words} runs as it is: a test should run it"


@pytest.mark.parametrize("words", sorted(COMMANDS["run here"]))
def test_a_command_in_a_sentence_runs(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(words)) == 0


@pytest.mark.parametrize("words", sorted(COMMANDS["parsed"]))
def test_a_command_that_no_test_runs_is_understood(words: str) -> None:
    arguments = build_parser().parse_args(shlex.split(words))
    assert arguments.handler is not None


def modules() -> dict[str, set[str]]:
    """The options that guides name, by the module that `python -m` runs."""
    found: dict[str, set[str]] = {}
    for page in GUIDES:
        for module, words in MODULE.findall((ROOT / page).read_text(encoding="utf-8")):
            found.setdefault(module, set()).update(re.findall(r"(?<!\S)\[?(--[a-z][a-z-]+)", words))
    return found


def test_guides_run_many_modules() -> None:
    assert len(modules()) > 12


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(("module", "options"), sorted(modules().items()))
def test_a_module_that_guides_run_has_the_options_they_name(
    module: str, options: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if module in WITH_TORCH:
        pytest.importorskip("torch")
    monkeypatch.setattr("sys.argv", [module, "--help"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module(module, run_name="__main__")
    assert done.value.code == 0
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert options <= known, options - known
