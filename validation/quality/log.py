"""A run's log: JSON Lines, one line a logged step, validations among them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kraken_sim.files.whole import write_whole

if TYPE_CHECKING:
    from pathlib import Path

NAME = "log.jsonl"


def read_log(run: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's log; a line that a killed process began is left out."""
    path = run / NAME
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        lines.append(line)
    return lines


def cut_log(run: Path, step: int) -> None:
    """Forgets what comes after a step: a run that goes on from there writes it again."""
    kept = [line for line in read_log(run) if line["step"] <= step]
    write_whole(run / NAME, "".join(json.dumps(line) + "\n" for line in kept).encode())


def append(run: Path, line: dict[str, Any]) -> None:
    """One line more."""
    with (run / NAME).open("a") as file:
        file.write(json.dumps(line) + "\n")
