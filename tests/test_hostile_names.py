"""Names are text: markup, escapes and control characters in them are shown or dropped, and never obeyed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kraken_sim.cli import main
from kraken_sim.files.printable import printable

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "[bold red]x[/] [link=file:///e]y[/link] :smile: \x1b[31mred\x1b]0;title\x07 \u202eevil <script>z</script>"
SHOWN = "[bold red]x[/] [link=file:///e]y[/link] :smile: [31mred]0;title evil <script>z</script>"


def scenario(folder: Path, name: str) -> str:
    file = folder / "scenario.yaml"
    question = {
        "name": name, "hardware": "h200-sxm-x2", "model": {"preset": "125M"}, "context_length": 128, "num_devices": 2,
    }  # fmt: skip
    file.write_text(json.dumps(question), encoding="utf-8")
    return str(file)


def test_only_what_is_obeyed_is_dropped() -> None:
    assert printable(HOSTILE) == SHOWN
    assert printable("a\tb\nµ → 模型 ─│") == "a\tb\nµ → 模型 ─│"


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_hostile_name_of_a_scenario_is_shown_as_it_is_written(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "r.html"
    assert main([command, scenario(tmp_path, HOSTILE), "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert "".join(SHOWN.split()) in "".join(said.split())
    html = page.read_text(encoding="utf-8")
    assert "<script>z" not in html
    assert not any(character in said + html for character in "\x1b\x07\u202e")


def test_a_hostile_name_of_a_file_is_shown_as_it_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "[red]\x1b[2J.yaml"
    path.write_text("nonsense: 1\n\x1b: 2", encoding="utf-8")
    for command in (["run", str(path)], ["profiles", "check", str(path)], ["sweep", str(path)], ["procure", str(path)]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "[red][2J.yaml" in said
        assert "\x1b" not in said


def test_thousands_of_unknown_keys_are_cut_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text("".join(f"key{number}: 1\n" for number in range(10_000)), encoding="utf-8")
    for command in ("run", "sweep", "procure"):
        assert main([command, str(path)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 22
        assert lines[-1].startswith("  - and ")
        assert lines[-1].endswith(" more")
