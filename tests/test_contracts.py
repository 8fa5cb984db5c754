"""What others build on: names of the API, options of the CLI, and a core that needs no torch."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kraken_sim
from kraken_sim.cli import VERBS, build_parser, main

ROOT = Path(__file__).parent.parent

OPTIONS = {
    "": ["--version"],
    "run": ["--exact", "--html", "--json", "--trace", "SCENARIO"],
    "compare": ["--html", "--json", "SCENARIO"],
    "paper": ["--grid", "--html", "--json"],
    "profiles": ["VERB"],
    "profiles list": [],
    "profiles show": ["--html", "PROFILE"],
    "profiles check": ["PROFILE"],
    "profiles new": ["--from", "--out"],
    "calibrate": ["--base", "--name", "--out", "MEASUREMENTS"],
    "validate": ["--hardware", "--html", "--json", "MEASUREMENTS"],
    "collective": [
        "--against",
        "--algorithm",
        "--begin",
        "--channels",
        "--dtype",
        "--end",
        "--factor",
        "--hardware",
        "--html",
        "--json",
        "--library",
        "--nccl-version",
        "--num-devices",
        "--protocol",
        "--selection",
        "--step",
        "--transport",
        "--where",
        "OP",
    ],
    "sweep": ["--cluster", "--jobs", "--out", "--yes", "SCENARIO"],
    "explore": ["QUESTION"],
    "explore channels": [
        "--context-length",
        "--hardware",
        "--html",
        "--json",
        "--measured",
        "--model",
        "--num-devices",
        "SCENARIO",
    ],
    "explore design": ["--html", "--json", "--max-evaluations", "REQUEST"],
    "explore degree": ["--context-length", "--hardware", "--html", "--json", "--model", "--num-devices", "SCENARIO"],
    "explore interconnect": [
        "--context-length",
        "--hardware",
        "--html",
        "--json",
        "--model",
        "--num-devices",
        "--worth",
        "SCENARIO",
    ],
    "procure": ["--html", "--json", "REQUEST"],
    "schema": ["kind"],
}


def options_of(parser: argparse.ArgumentParser, name: str = "") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: []}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child, child_parser in action.choices.items():
                found |= options_of(child_parser, f"{name} {child}".strip())
            if name:
                found[name].append(str(action.metavar))
        elif "--help" not in action.option_strings:
            found[name].append((action.option_strings or [action.metavar or action.dest])[-1])
    found[name].sort()
    return found


def test_the_options_of_the_command_line_are_frozen():
    assert options_of(build_parser()) == OPTIONS


def test_the_core_imports_neither_torch_nor_anything_slow():
    code = (
        "import sys, kraken_sim, kraken_sim.cli\n"
        "slow = {'torch', 'numpy', 'scipy', 'pydantic', 'plotly', 'networkx', 'simpy', 'rich'}\n"
        "loaded = slow & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "from kraken_sim import Scenario, simulate, predict_op, load_scenario\n"
        "import kraken_sim.measurements.schema\n"
        "import kraken_sim.calibration.fit_profile, kraken_sim.profiles.carry_over\n"
        "import kraken_sim.paper, kraken_sim.report.html, kraken_sim.report.text\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_slow(option: str):
    code = (
        "import sys\n"
        "from kraken_sim.cli import main\n"
        "try:\n"
        f"    main({option.split()})\n"
        "except SystemExit as done:\n"
        "    assert done.code == 0\n"
        "slow = {'torch', 'numpy', 'scipy', 'pydantic', 'plotly', 'networkx', 'simpy', 'rich', 'pyarrow', 'yaml'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
        "ours = {name for name in sys.modules if name.startswith('kraken_sim.')}\n"
        "strange = {name for name in ours if not name.startswith('kraken_sim.cli')}\n"
        "assert not strange, strange\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_run_without_a_page_loads_neither_plotly_nor_what_sweeps_need():
    code = (
        "import sys\n"
        "from kraken_sim.cli import main\n"
        "assert main(['run', 'kraken-6.7b-on-two-h200']) == 0\n"
        "assert main(['compare', 'kraken-6.7b-on-two-h200']) == 0\n"
        "slow = {'torch', 'plotly', 'pyarrow', 'joblib', 'pandas', 'scipy'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_every_module_of_a_verb_is_one_that_the_command_line_lists():
    helpers = {"__init__", "__main__", "inputs", "output", "parser"}
    modules = {path.stem for path in (ROOT / "kraken_sim" / "cli").glob("*.py")} - helpers
    assert modules == VERBS.keys() == {name for name in OPTIONS if name and " " not in name}


def test_no_module_of_the_core_names_torch_in_an_import():
    pattern = re.compile(r"^\s*(import torch|from torch)", re.MULTILINE)
    modules = list((ROOT / "kraken_sim").rglob("*.py"))
    assert modules
    assert not [path for path in modules if pattern.search(path.read_text(encoding="utf-8"))]


def test_every_name_of_the_api_exists():
    for name in kraken_sim.__all__:
        assert getattr(kraken_sim, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kraken_sim.nothing  # noqa: B018


def readme_commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:console|sh)\n(.*?)```", text, re.DOTALL)
    lines = [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("kraken-sim ")]


def test_the_readme_shows_commands():
    assert len(readme_commands()) >= 5


def test_every_command_of_the_readme_runs_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("scenarios", "hardware_profiles", "validation", "tests"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for command in readme_commands():
        arguments = command.split("#", maxsplit=1)[0].split()[1:]
        assert main(arguments) == 0, command


def test_the_python_of_the_readme_runs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
