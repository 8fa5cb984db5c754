"""What somebody else wrote stays: outputs replace files of our own, and none that was read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kraken_sim.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent
PASSES = ROOT / "validation" / "measurements" / "h200-sxm-x1-passes-again.jsonl"
THEIRS = b"somebody's work\n"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}
QUESTION = "name: q\nhardware: mine.yaml\nmodel: {config: config.json}\ncontext_length: 128\nnum_devices: 2\n"
SHEET = "name: mine\ndescription: the same again\nbase: h200-sxm-x2\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(SHEET, encoding="utf-8")
    (tmp_path / "q.yaml").write_text(QUESTION, encoding="utf-8")
    (tmp_path / "s.yaml").write_text(QUESTION.replace("128", "[128, 256]"), encoding="utf-8")
    shutil.copy(PASSES, "measured.jsonl")
    return tmp_path


WRITERS = {
    "run --json": ("out.json", ["run", "q.yaml", "--json", "out.json"]),
    "run --html": ("out.html", ["run", "q.yaml", "--html", "out.html"]),
    "run --trace": ("rank0.pt.trace.json", ["run", "q.yaml", "--trace", "."]),
    "compare": ("out.json", ["compare", "q.yaml", "--json", "out.json"]),
    "sweep": ("out.parquet", ["sweep", "s.yaml", "--out", "out.parquet", "--jobs", "1"]),
    "explore": ("out.json", ["explore", "degree", "q.yaml", "--json", "out.json"]),
    "collective": (
        "out.html",
        ["collective", "all_reduce", "--hardware", "mine.yaml", "-e", "1K", "--html", "out.html"],
    ),
    "profiles new": ("out.yaml", ["profiles", "new", "--from", "mine.yaml", "--out", "out.yaml"]),
    "profiles show": ("out.html", ["profiles", "show", "mine.yaml", "--html", "out.html"]),
    "paper": ("out.html", ["paper", "--html", "out.html"]),
    "procure": ("out.json", ["procure", "assistant_purchase", "--json", "out.json"]),
    "design": ("out.json", ["explore", "design", "13b-on-h100_design", "--json", "out.json"]),
    "validate": ("out.json", ["validate", "measured.jsonl", "--json", "out.json"]),
    "calibrate": ("out.yaml", ["calibrate", "measured.jsonl", "--base", "mine.yaml", "--out", "out.yaml"]),
}
SLOW = ("paper", "procure", "design", "validate", "calibrate")
"""Of these only the refusal is tried, which comes before any work; they write by the functions that others write by."""


@pytest.mark.parametrize("command", WRITERS)
def test_a_file_of_somebody_else_stays_without_force(
    command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, arguments = WRITERS[command]
    (place / name).write_bytes(THEIRS)
    assert main(arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert (place / name).read_bytes() == THEIRS


@pytest.mark.parametrize("command", [name for name in WRITERS if name not in SLOW])
def test_what_we_wrote_is_replaced_and_with_force_anything(command: str, place: Path) -> None:
    name, arguments = WRITERS[command]
    (place / name).write_bytes(THEIRS)
    assert main([*arguments, "--force"]) == 0
    assert (place / name).read_bytes() != THEIRS
    assert main(arguments) == 0


READERS: Sequence[tuple[str, Sequence[str]]] = [
    ("q.yaml", ["run", "q.yaml", "--json", "q.yaml"]),
    ("config.json", ["run", "q.yaml", "--json", "config.json"]),
    ("mine.yaml", ["run", "q.yaml", "--html", "mine.yaml"]),
    ("s.yaml", ["sweep", "s.yaml", "--out", "s.yaml", "--jobs", "1"]),
    ("mine.yaml", ["profiles", "new", "--from", "mine.yaml", "--out", "mine.yaml"]),
    ("measured.jsonl", ["validate", "measured.jsonl", "--json", "measured.jsonl"]),
    ("mine.yaml", ["collective", "all_reduce", "--hardware", "mine.yaml", "-e", "1K", "--json", "mine.yaml"]),
]


@pytest.mark.parametrize(("name", "arguments"), READERS)
@pytest.mark.parametrize("through", ["its name", "a link", "a hard link"])
def test_what_was_read_is_not_written_even_with_force(
    name: str, arguments: Sequence[str], through: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (place / name).read_bytes()
    words = list(arguments)
    if through != "its name":
        other = "other" + Path(name).suffix
        (os.symlink if through == "a link" else os.link)(place / name, place / other)
        words[-1 if words[-1] == name else words.index("--out") + 1] = other
    assert main([*words, "--force"]) == 2
    assert "was read for this answer" in capsys.readouterr().err
    assert (place / name).read_bytes() == before
    # Machines are kept in memory from one command of a process to the next; what they were read from still counts.
    assert main([*words, "--force"]) == 2


def test_another_sweep_is_replaced_by_force_alone(place: Path) -> None:
    arguments = ["sweep", "s.yaml", "--out", "out.parquet", "--jobs", "1"]
    assert main(arguments) == 0
    first = (place / "out.parquet").read_bytes()
    (place / "s.yaml").write_text(QUESTION.replace("128", "[128, 512]"), encoding="utf-8")
    assert main(arguments) == 2
    assert (place / "out.parquet").read_bytes() == first
    assert main([*arguments, "--force"]) == 0
    assert (place / "out.parquet").read_bytes() != first
