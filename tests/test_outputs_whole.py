"""Outputs appear whole or not at all, wherever they go; standard output may be narrow, closed, full or cut off."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from process_support import files_limited_to

from kraken_sim.cli import main
from kraken_sim.files.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

SCENARIO = """
name: {name}
hardware: h200-sxm-x2
model: {{preset: 125M}}
context_length: 128
num_devices: 2
"""
BASE = "h100-sxm-x8"
MEASUREMENTS = Path(__file__).parent.parent / "validation" / "measurements"
PASSES = MEASUREMENTS / "h200-sxm-x1-passes-again.jsonl"
MEASURED = MEASUREMENTS / "h200-sxm-x2-quick.jsonl"


def scenario(folder: Path, name: str = "small") -> str:
    file = folder / "scenario.yaml"
    file.write_text(SCENARIO.format(name=name), encoding="utf-8")
    return str(file)


def part_of(measured: Path, folder: Path, *kinds: str) -> str:
    """The header of a measurement file and its first records of these kinds: enough for an output to be written."""
    header, *lines = measured.read_text(encoding="utf-8").splitlines(keepends=True)
    wanted = [line for line in lines if line.startswith(tuple(f'{{"kind":"{kind}"' for kind in kinds))]
    file = folder / "measured.jsonl"
    file.write_text("".join([header, *wanted[:50]]), encoding="utf-8")
    return str(file)


def datasheet(folder: Path) -> str:
    file = folder / "sheet.yaml"
    file.write_text(f"description: the same again\nbase: {BASE}\n", encoding="utf-8")
    return str(file)


COMMANDS = {
    "run --json": lambda folder: ["run", scenario(folder), "--json", str(folder / "out" / "r.json")],
    "run --html": lambda folder: ["run", scenario(folder), "--html", str(folder / "out" / "r.html")],
    "run --trace": lambda folder: ["run", scenario(folder), "--trace", str(folder / "out")],
    "compare": lambda folder: ["compare", scenario(folder), "--html", str(folder / "out" / "r.html")],
    "profiles new": lambda folder: [
        "profiles",
        "new",
        "--from",
        datasheet(folder),
        "--out",
        str(folder / "out/p.yaml"),
    ],
    "profiles show": lambda folder: ["profiles", "show", BASE, "--html", str(folder / "out" / "p.html")],
    "paper": lambda folder: ["paper", "--json", str(folder / "out" / "p.json")],
    "procure": lambda folder: ["procure", "assistant_purchase", "--json", str(folder / "out" / "p.json")],
    "design": lambda folder: [
        *("explore", "design", "13b-on-h100_design", "--max-evaluations", "3"),
        *("--json", str(folder / "out" / "d.json")),
    ],
    "validate": lambda folder: [
        *("validate", part_of(PASSES, folder, "pass"), "--json", str(folder / "out" / "v.json")),
    ],
    "calibrate": lambda folder: [
        *("calibrate", part_of(MEASURED, folder, "memory_bound"), "--base", "h200-sxm-x2"),
        *("--out", str(folder / "out" / "c.yaml")),
    ],
    "collective": lambda folder: [
        *("collective", "all_reduce", "--hardware", BASE, "--html", str(folder / "out" / "c.html")),
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_an_error_that_says_so_and_leaves_nothing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = COMMANDS[command](tmp_path)
    with files_limited_to(500):
        assert main(arguments) == 2
    assert "cannot be written: File too large" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_cannot_be_replaced_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b"before")
    path.chmod(0o640)
    with files_limited_to(500), pytest.raises(OSError, match="too large"):
        write_whole(path, b"x" * 1000)
    assert path.read_bytes() == b"before"
    write_whole(path, b"after")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"after", 0o640)
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: Path) -> None:
    target, link = tmp_path / "there" / "r.json", tmp_path / "r.json"
    link.symlink_to(target)
    write_whole(link, b"1")
    assert link.is_symlink()
    assert target.read_bytes() == b"1"
    write_whole(Path("/dev/null"), b"1")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(OSError, match="name"):
        write_whole(tmp_path / "\0", b"1")


@pytest.mark.parametrize("name", ["\0.json", "x" * 300, "folder"])
def test_places_that_no_file_can_have_are_errors(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    assert main(["run", scenario(tmp_path), "--json", str(tmp_path / name)]) == 2
    assert "--json: cannot be written" in capsys.readouterr().err
    assert main(["sweep", scenario(tmp_path), "--out", str(tmp_path / name), "--jobs", "1"]) == 2
    assert "--out:" in capsys.readouterr().err


def test_a_pipe_that_nobody_reads_is_an_error_and_nothing_to_wait_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["run", scenario(tmp_path), "--json", str(tmp_path / "pipe")]) == 2
    assert "--json: cannot be written" in capsys.readouterr().err
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", b"read")
    assert os.read(reader, 10) == b"read"
    os.close(reader)


def test_a_pipe_is_no_place_for_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["sweep", scenario(tmp_path), "--out", str(tmp_path / "pipe"), "--jobs", "1"]) == 2
    assert "no regular file" in capsys.readouterr().err


def ran(arguments: Sequence[str], redirect: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = " ".join(f"'{word}'" for word in (sys.executable, "-m", "kraken_sim.cli", *arguments))
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words} {redirect}"],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_standard_output_may_be_narrow(tmp_path: Path) -> None:
    file = scenario(tmp_path, name='"µ → 模型"')
    done = ran(["run", file], "", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xb5 \\u2192 \\u6a21\\u578b" in done.stdout


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-", "| head -c 1", "| true"])
def test_standard_output_may_be_closed_or_cut_off(redirect: str, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    done = ran(["run", scenario(tmp_path), "--html", str(page)], redirect)
    assert done.returncode == 0
    assert done.stderr in ("", f"report: {page}\n")
    assert page.read_text(encoding="utf-8").endswith("</html>")


def test_a_standard_output_without_a_buffer_drops_nothing_in_silence(tmp_path: Path) -> None:
    # A disk that has room for a part: write(2) takes that part and says so.
    words = f"ulimit -f 4; '{sys.executable}' -m kraken_sim.cli schema > '{tmp_path / 'out'}'"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(["bash", "-c", words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "standard output: cannot be written: File too large" in done.stderr


def test_a_full_standard_output_is_an_error() -> None:
    for arguments in (["profiles", "list"], ["schema"], ["--help"], ["--version"]):
        done = ran(arguments, "> /dev/full")
        assert (done.returncode, done.stderr.count("\n")) == (2, 2)
        assert "standard output: cannot be written: No space left on device" in done.stderr
