"""What others build on: names of the API, options of the CLI, and a core that needs no torch."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import kraken_sim
from kraken_sim.cli import VERBS, build_parser, main

ROOT = Path(__file__).parent.parent

QUESTION = [
    *("--architecture", "--batch-size", "--context-length", "--dtype", "--hardware", "--kernels", "--kv-cache-dtype"),
    *("--launch", "--load", "--model", "--num-devices", "--output-length", "--phase", "--placement"),
    *("--prefix-length", "--quantization", "--set", "SCENARIO"),
]
"""Of every verb that asks about a scenario."""

OUTPUTS = ["--csv", "--force", "--html", "--json", "--plotly", "--quiet"]
"""Of every verb that answers with tables."""

ROWS = ["--sort", "--top", "--where"]
"""Of every verb whose answer has many rows."""

OPTIONS = {
    "": ["--version"],
    "run": sorted(["--exact", *OUTPUTS, "--trace", *QUESTION]),
    "compare": sorted(["--architectures", *OUTPUTS, *QUESTION]),
    "paper": sorted(["--grid", *OUTPUTS]),
    "profiles": ["VERB"],
    "profiles list": [],
    "profiles show": ["--force", "--html", "--plotly", "PROFILE"],
    "profiles check": ["PROFILE"],
    "profiles new": ["--force", "--from", "--out"],
    "calibrate": ["--base", "--force", "--name", "--out", "--write-dry-run", "MEASUREMENTS"],
    "validate": sorted(["--hardware", "--host", *OUTPUTS, "MEASUREMENTS"]),
    "diff-trace": sorted([*OUTPUTS, "--rank", "--step", "OURS", "THEIRS"]),
    "collective": sorted(
        [
            *(
                "--against",
                "--algorithm",
                "--begin",
                "--channels",
                "--dtype",
                "--end",
                "--factor",
                "--hardware",
                "--library",
            ),
            *("--nccl-version", "--num-devices", "--protocol", "--selection", "--step", "--transport", "--where", "OP"),
            *OUTPUTS,
        ]
    ),
    "sweep": sorted(
        ["--cluster", "--jobs", "--out", "--yes", *(name for name in OUTPUTS if name != "--json"), *ROWS, *QUESTION]
    ),
    "explore": ["QUESTION"],
    "explore channels": sorted(["--measured", *OUTPUTS, *ROWS, *QUESTION]),
    "explore design": sorted(
        [*OUTPUTS, *ROWS, "--cluster", "--jobs", "--max-evaluations", "--out", "--set", "REQUEST"]
    ),
    "explore architecture": sorted(["--architectures", *OUTPUTS, *ROWS, *QUESTION]),
    "explore degree": sorted(["--architectures", *OUTPUTS, *ROWS, *QUESTION]),
    "explore interconnect": sorted(["--worth", *OUTPUTS, *ROWS, *QUESTION]),
    "serve": sorted([*OUTPUTS, "--set", "REQUEST"]),
    "procure": sorted([*OUTPUTS, "--set", "REQUEST"]),
    "schema": ["kind"],
    "scenarios": ["VERB"],
    "scenarios list": [],
    "scenarios show": ["NAME"],
    "scenarios copy": ["--force", "FOLDER", "NAME"],
    "scenarios check": ["--set", "SCENARIO"],
    "models": ["VERB"],
    "models list": [],
    "completion": ["SHELL"],
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
            words = action.option_strings or [str(action.metavar or action.dest)]
            found[name].append(words[-1])
    found[name].sort()
    return found


def test_the_options_of_the_command_line_are_frozen() -> None:
    assert options_of(build_parser()) == OPTIONS


def test_the_core_imports_neither_torch_nor_anything_slow() -> None:
    code = (
        "import sys, kraken_sim, kraken_sim.cli\n"
        "slow = {'torch', 'numpy', 'scipy', 'pydantic', 'plotly', 'jinja2', 'networkx', 'simpy', 'rich'}\n"
        "loaded = slow & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "from kraken_sim import Scenario, simulate, predict_op, load_scenario\n"
        "import kraken_sim.measurements.schema\n"
        "import kraken_sim.calibration.fit_profile, kraken_sim.profiles.from_datasheet\n"
        "import kraken_sim.paper, kraken_sim.report.html, kraken_sim.report.text\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_slow(option: str) -> None:
    code = (
        "import sys\n"
        "from kraken_sim.cli import main\n"
        "try:\n"
        f"    main({option.split()})\n"
        "except SystemExit as done:\n"
        "    assert done.code == 0\n"
        "slow = {'torch', 'numpy', 'scipy', 'pydantic', 'plotly', 'jinja2', 'networkx', 'simpy', 'rich', 'pyarrow'}\n"
        "slow |= {'yaml'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
        "ours = {name for name in sys.modules if name.startswith('kraken_sim.')}\n"
        "strange = {name for name in ours if not name.startswith('kraken_sim.cli')}\n"
        "assert strange <= {'kraken_sim.files', 'kraken_sim.files.garbage', 'kraken_sim.files.printable'}, strange\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_run_without_a_page_loads_neither_plotly_nor_what_sweeps_need() -> None:
    code = (
        "import sys\n"
        "from kraken_sim.cli import main\n"
        "assert main(['run', 'kraken-6.7b-on-two-h200']) == 0\n"
        "assert main(['compare', 'kraken-6.7b-on-two-h200']) == 0\n"
        "slow = {'torch', 'plotly', 'jinja2', 'pyarrow', 'joblib', 'pandas', 'scipy'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_every_module_of_a_verb_is_one_that_the_command_line_lists() -> None:
    folder = ROOT / "kraken_sim" / "cli"
    helpers = {"__init__", "__main__", "completers", "inputs", "output", "parser", "process", "progress"}
    helpers |= {"question", "settings", "streams"}
    modules = {path.stem.replace("_", "-") for path in folder.glob("*.py") if path.stem not in helpers}
    assert modules == VERBS.keys() == {name for name in OPTIONS if name and " " not in name}


def test_no_module_of_the_core_names_torch_in_an_import() -> None:
    pattern = re.compile(r"^\s*(import torch|from torch)", re.MULTILINE)
    modules = list((ROOT / "kraken_sim").rglob("*.py"))
    assert modules
    assert not [path for path in modules if pattern.search(path.read_text(encoding="utf-8"))]


def test_every_name_of_the_api_exists() -> None:
    for name in kraken_sim.__all__:
        assert getattr(kraken_sim, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kraken_sim.nothing  # noqa: B018


PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
GUIDES = (*PAGES, "CONTRIBUTING.md", "validation/README.md", "validation/measurements/README.md")
OTHER_COMMAND = re.compile(r"^ *(?:\.venv/bin/)?(make|torchrun|python|kraken-sim) (.*)", re.MULTILINE)
"""Lines that are commands: those of pages that are not run, because they take minutes, GPUs, tables or a network."""


def blocks_of(page: str, *languages: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for language, block in found if language in languages]


def commands_of(page: str) -> list[str]:
    lines = [line.strip() for block in blocks_of(page, "sh", "console") for line in block.splitlines()]
    return [line for line in lines if line.startswith("kraken-sim ")]


def files_of(page: str) -> dict[str, str]:
    """Files that a page has its reader write: blocks of YAML that begin with their name."""
    found = (re.match(r"# ([\w-]+\.yaml)\n", block) for block in blocks_of(page, "yaml"))
    return {match[1]: match.string for match in found if match}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like a checkout, which commands may write into."""
    monkeypatch.chdir(tmp_path)
    for folder in ("scenarios", "hardware_profiles", "validation", "tests"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    return tmp_path


def test_the_glossary_is_that_of_reports() -> None:
    made = subprocess.run([sys.executable, "-c", "from docs.glossary import page; print(page(), end='')"], cwd=ROOT,
                          check=True, capture_output=True, text=True).stdout  # fmt: skip
    assert (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8") == made, "python docs/glossary.py writes it anew"


def test_readers_find_commands_and_python() -> None:
    assert len(commands_of("README.md")) >= 3
    assert blocks_of("README.md", "python")
    assert sum(len(commands_of(page)) for page in PAGES) >= 20


@pytest.fixture(scope="module")
def seen() -> set[str]:
    """Commands that pages before this one gave."""
    return set()


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)])
@pytest.mark.usefixtures("checkout")
def test_every_command_of_a_page_runs_in_turn(page: str, seen: set[str]) -> None:
    written = files_of(page)
    for name, text in written.items():
        Path(name).write_text(text, encoding="utf-8")
    for command in commands_of(page):
        arguments = shlex.split(command, comments=True)[1:]
        # One that neither writes a file nor reads what the page wrote does the same on every page.
        own = any(
            word in ("copy", "--out", "--html", "--json") or word in written or "out/" in word for word in arguments
        )
        if own or command not in seen:
            assert main(arguments) == 0, command
        seen.add(command)


def commands_not_run(name: str) -> list[tuple[str, str]]:
    """Guides and the words after `name` of their command lines that no other test runs."""
    return [
        (page, match[2].split("#", maxsplit=1)[0].strip())
        for page in GUIDES
        for match in OTHER_COMMAND.finditer((ROOT / page).read_text(encoding="utf-8"))
        if match[1] == name and match[0].strip() not in (commands_of(page) if page in PAGES else ())
    ]


def python_lines() -> dict[str, str]:
    """By module or script that guides run with python or torchrun, what they write after it."""
    found: dict[str, str] = {}
    for name in ("python", "torchrun"):
        for _, words in commands_not_run(name):
            if match := re.search(r"(-m validation(?:\.\w+)+|tests/\w+\.py)(.*)", words):
                found[match[1]] = found.get(match[1], "") + match[2]
    return found


def test_every_target_of_make_that_guides_name_exists() -> None:
    targets = {target for _, words in commands_not_run("make") for target in words.split()}
    assert {"demo", "test", "check", "coverage", "fuzz", "bench"} <= targets
    subprocess.run(["make", "--dry-run", *sorted(targets)], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("module", python_lines())
def test_what_guides_run_with_python_exists_and_has_the_options_they_name(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if module.startswith(("-m validation.measure", "-m validation.traces", "-m validation.quality")):
        pytest.importorskip("torch")
    if module.startswith("tests/"):
        assert (ROOT / module).exists()
        return
    found = import_module(module.removeprefix("-m "))
    found = import_module(f"{found.__name__}.__main__") if hasattr(found, "__path__") else found
    assert '\nif __name__ == "__main__":\n' in Path(str(found.__file__)).read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as done:
        found.main()
    assert not done.value.code
    shown = capsys.readouterr().out
    assert set(re.findall(r"--[a-z-]+", python_lines()[module])) <= set(re.findall(r"--[a-z-]+", shown))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page, "python")])
@pytest.mark.usefixtures("checkout")
def test_the_python_of_a_page_runs(page: str) -> None:
    for block in blocks_of(page, "python"):
        exec(compile(block, page, "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing
