"""Commands that are stopped: one line that says how to go on, no process left behind, and what was done is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from process_support import ENOUGH_S, family_of, wait_for

from kraken_sim.cli import main

MEASURED = Path(__file__).parent.parent / "validation" / "measurements" / "h200-sxm-x2-quick.jsonl"


def long_sweep(folder: Path) -> list[str]:
    question = {
        "hardware": ["h200-sxm-x8", "h100-sxm-x8"],
        "model": {"preset": ["125M", "1.3B", "6.7B"]},
        "context_length": {"start": 16, "stop": 16016, "step": 1},
        "num_devices": [2, 4, 8],
    }
    file = folder / "question.yaml"
    file.write_text(json.dumps(question), encoding="utf-8")
    out = str(folder / "r.parquet")
    return [sys.executable, "-m", "kraken_sim.cli", "sweep", str(file), "--yes", "--out", out, "--jobs", "2"]


def started(command: list[str]) -> subprocess.Popen[str]:
    """A command that leads a group of its own, and hears Ctrl-C even where whoever started the tests does not."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_parallel_sweep_leaves_no_process_and_keeps_its_work(how: signal.Signals, tmp_path: Path) -> None:
    process = started(long_sweep(tmp_path))
    try:
        wait_for(lambda: len(list((tmp_path / "r.parquet.parts").glob("*.part"))) >= 2)
        assert len(family_of(process.pid)) >= 3
        os.kill(process.pid, how)
        # Ends of the pipes that a worker kept open would hold this up.
        _, said = process.communicate(timeout=ENOUGH_S)
        wait_for(lambda: not family_of(process.pid))
    finally:
        if family_of(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    assert list((tmp_path / "r.parquet.parts").glob("*.part"))
    assert "Traceback" not in said, said
    if how != signal.SIGKILL:
        assert process.returncode == 128 + how
        # A machine that is slow today has said how far it is.
        *progress, line = said.splitlines()
        assert all(" points, " in text for text in progress)
        assert line.endswith("what is done is kept, and the same command goes on")


COMMANDS = {
    "serve": ("serve", "chat_service", "--json"),
    "procure": ("procure", "chat_purchase", "--json"),
    "calibrate": ("calibrate", str(MEASURED), "--base", "h200-sxm-x2", "--out"),
}
STOPPED = (
    "import os, signal, sys, threading, time\nfrom kraken_sim.cli import main\n"
    "def stop():\n"
    "    while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:\n"
    "        time.sleep(0.01)\n"
    "    time.sleep(0.4)\n"
    "    os.kill(os.getpid(), int(sys.argv[1]))\n"
    "threading.Thread(target=stop, daemon=True).start()\nsys.exit(main(sys.argv[2:]))"
)
"""A command that is stopped while it reads or computes, wherever it happens to be; but not before it hears signals."""


@pytest.mark.parametrize(
    ("command", "goes_on"),
    [
        ("sweep s.yaml", True),
        ("explore design s.yaml --out x.parquet", True),
        ("explore design s.yaml --out=x.parquet", True),
        ("explore design s.yaml", False),
        ("explore degree s.yaml", False),
        ("serve s.yaml", False),
        ("", False),
    ],
)
def test_what_is_said_of_a_stopped_command_is_what_it_does(
    command: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("kraken_sim.cli._run", stop)
    assert main(command.split()) == 130
    assert ("the same command goes on" in capsys.readouterr().err) is goes_on


@pytest.mark.parametrize(
    ("command", "how", "word"),
    [
        ("serve", signal.SIGTERM, "terminated"),
        ("procure", signal.SIGINT, "interrupted"),
        ("calibrate", signal.SIGTERM, "terminated"),
        ("calibrate", signal.SIGKILL, None),
    ],
)
def test_any_command_that_is_stopped_says_one_line_and_leaves_nothing(
    command: str, how: signal.Signals, word: str | None, tmp_path: Path
) -> None:
    arguments = [str(int(how)), *COMMANDS[command], str(tmp_path / "out.yaml")]
    process = started([sys.executable, "-c", STOPPED, *arguments])
    _, said = process.communicate(timeout=ENOUGH_S)
    assert process.returncode == (-how if word is None else 128 + how), said
    assert said == ("" if word is None else f"{word}: no file is half written; the same command starts again\n")
    assert not family_of(process.pid)
    assert list(tmp_path.iterdir()) == []
