"""The question on the command line: a file, standard input, or options alone, and what options and `--set` change."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.cli.inputs import shipped_path
from kraken_sim.errors import InputError, Problem

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from kraken_sim.cli.settings import Setting
    from kraken_sim.explore.selection import RowChoice
    from kraken_sim.files.strict_yaml import YamlDocument
    from kraken_sim.scenario.changes import FieldChange
    from kraken_sim.scenario.spec import Scenario

STDIN: Final = "-"
"""The name of standard input, as of other commands."""

NO_FILE: Final = ""
"""The source of a question that options alone ask."""


_PATHS: Final = ("hardware", "model.config", "architecture.path", "runtime.host")
"""Fields that may hold the path of a file."""


def asked_request(args: argparse.Namespace) -> YamlDocument:
    """The document of REQUEST with what `--set` changes.

    Raises:
        InputError: it can't be read, or a change is none.
    """
    from kraken_sim.scenario.changes import with_changes

    document = document_of(args.request, "REQUEST")
    return with_changes(document, given_changes(args, document))


def document_of(name: str | None, argument: str) -> YamlDocument:
    """What a file, standard input or no file says.

    Raises:
        InputError: it can't be read; `argument` is what errors call its name.
    """
    from kraken_sim.files.strict_yaml import YamlDocument, parse_yaml, read_yaml

    if name is None:
        return YamlDocument({}, {}, NO_FILE)
    if name != STDIN:
        return read_yaml(shipped_path(name, argument))
    return parse_yaml(_standard_input(argument), "standard input")


def _standard_input(argument: str) -> str:
    from kraken_sim.files.bounded import YAML_FILE

    try:
        data = sys.stdin.buffer.read(YAML_FILE.max_bytes + 1)
        text = data.decode()
    except (OSError, AttributeError) as error:
        raise InputError.single(argument, f"standard input cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        message = f"standard input cannot be read: byte {error.start + 1} is no UTF-8 text"
        raise InputError.single(argument, message) from None
    if len(data) > YAML_FILE.max_bytes:
        message = f"standard input is larger than {YAML_FILE.max_mib} MiB, the most of {YAML_FILE.kind}"
        raise InputError.single(argument, message)
    return text


def selected(args: argparse.Namespace) -> RowChoice:
    """The rows that `--where`, `--sort` and `--top` ask for.

    Raises:
        InputError: anything of it is wrong.
    """
    from kraken_sim.explore.selection import selection_of

    return selection_of(args.where, args.sort, args.top)


def asked_document(
    args: argparse.Namespace, defaults: Mapping[str, object] | None = None, base: YamlDocument | None = None
) -> YamlDocument:
    """The scenario's document with what options and `--set` change; several values of an option as a list.

    Args:
        args: those of `add_question`.
        defaults: fields where there is no file.
        base: what was read of SCENARIO; default: it is read.

    Raises:
        InputError: the file can't be read, or a change is none.
    """
    from kraken_sim.scenario.changes import with_changes

    document = document_of(args.scenario, "SCENARIO") if base is None else base
    if args.scenario is None:
        document = replace(document, data={"name": _name(args), **(defaults or {})})
    return with_changes(document, given_changes(args, document))


def asked_scenario(
    args: argparse.Namespace, defaults: Mapping[str, object] | None = None, base: YamlDocument | None = None
) -> Scenario:
    """The one scenario that is asked about; arguments as of `asked_document`.

    Raises:
        InputError: all that is wrong with the file and the options; of a sweep, that it is one.
    """
    from kraken_sim.scenario.spec import load_scenario

    document = asked_document(args, defaults, base)
    try:
        return load_scenario(document)
    except InputError as error:
        if (points := _points_of_a_sweep(document)) is not None:
            what, name = f"is a sweep of {points:,} points, not one scenario", args.scenario or "..."
            message = f"{what}; run kraken-sim sweep {name} --out FILE"
            raise InputError.single("SCENARIO", message, args.scenario) from None
        raise error from None


def asked_scenarios(args: argparse.Namespace, defaults: Mapping[str, object]) -> list[Scenario]:
    """A scenario for every combination of the options that were given several values.

    Raises:
        InputError: see `asked_scenario`.
    """
    given = {setting.name: value for setting, value in _given(args) if isinstance(value, list)}
    base = document_of(args.scenario, "SCENARIO")
    each = (vars(args) | dict(zip(given, values, strict=True)) for values in product(*given.values()))
    return [asked_scenario(type(args)(**one), defaults, base) for one in each]


def _given(args: argparse.Namespace) -> Iterator[tuple[Setting, Any]]:
    """The options of the verb that were given, with their values."""
    for setting in getattr(args, "settings", ()):
        if (value := getattr(args, setting.name)) is not None:
            yield setting, value


def _points_of_a_sweep(document: YamlDocument) -> int | None:
    """How many points a sweep's file has; None where it is none, or wrong."""
    from kraken_sim.explore.sweep.plan import load_plan

    try:
        plan = load_plan(document)
    except InputError:
        return None
    return plan.num_points if plan.paths else None


def given_changes(args: argparse.Namespace, document: YamlDocument | None = None) -> list[FieldChange]:
    """What the options and `--set` say, in this order; paths of files are those that the shell sees.

    Raises:
        InputError: a `--set` is none.
    """
    from kraken_sim.scenario.changes import FieldChange, change_of

    found: list[FieldChange] = []
    problems: list[Problem] = []
    for setting, value in _given(args):
        found += (FieldChange(path, held, setting.option) for path, held in _fields(setting, value, document))
    for text in getattr(args, "changes", ()):
        try:
            found.append(change_of(text))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    if any(change.said == "--architecture" for change in found):
        found = [change for change in found if (change.path, change.said) != ("architecture", "--model")]
    elsewhere = document is not None and document.folder != Path()
    return [replace(change, value=_path_here(change)) for change in found] if elsewhere else found


def _fields(setting: Setting, value: Any, document: YamlDocument | None) -> Iterator[tuple[str, object]]:
    """The fields that an option says: mostly one."""
    from kraken_sim.architectures.from_file import kind_of_file
    from kraken_sim.scenario.changes import value_of

    if isinstance(value, list):
        values = [next(_fields(setting, item, None))[1] for item in value]
        yield setting.path, values[0] if len(values) == 1 else values
        return
    own = document.data.get("architecture") if document is not None and isinstance(document.data, dict) else None
    kind = own.get("kind") if isinstance(own, dict) else None
    if setting.path == "model":
        yield "model", {"config" if value.endswith(".json") or os.sep in value else "preset": value}
        if kind is not None:
            # Widths of the file's Kraken belong to the file's model.
            yield "architecture", {"kind": kind}
    elif setting.path == "architecture":
        if value != kind:
            yield (
                "architecture",
                {"kind": kind_of_file(value), "path": value} if value.endswith((".yaml", ".yml")) else {"kind": value},
            )
    else:
        yield setting.path, value if setting.is_text else value_of(value, setting.option)


def _path_here(change: FieldChange) -> object:
    """A value that names a file, from the root: the file of the question lies elsewhere."""
    from kraken_sim.profiles.load import is_path

    def absolute(path: str, value: object) -> object:
        if isinstance(value, list):
            return [absolute(path, item) for item in value]
        if isinstance(value, dict):
            return {name: absolute(f"{path}.{name}", held) for name, held in value.items()}
        if not isinstance(value, str) or path not in _PATHS or (path == "hardware" and not is_path(value)):
            return value
        return os.path.abspath(value)

    return absolute(change.path, change.value)


def under_their_options(error: InputError, args: argparse.Namespace) -> InputError:
    """The same problems, those of fields that options say under the names of the options.

    Where no file is, a field that is missing is an option that is.
    """
    from kraken_sim.scenario.changes import as_said
    from kraken_sim.scenario.spec import section_fields

    if not hasattr(args, "changes"):
        return error
    known = _leaves(section_fields()) if hasattr(args, "settings") else []
    try:
        said = as_said(error, given_changes(args), known)
    except InputError:
        return error
    if not hasattr(args, "settings") or args.scenario is not None:
        return said
    options = {setting.path: setting for setting in args.settings}
    return InputError([_as_option(problem, options) for problem in said.problems], said.source, omitted=said.omitted)


def _as_option(problem: Problem, options: Mapping[str, Setting]) -> Problem:
    if problem.path not in options or not problem.message.startswith("is required"):
        return problem
    option = options[problem.path].option
    example = {"model": "6.7B"}.get(problem.path, problem.example)
    message = problem.message + (" without a SCENARIO" if problem.message == "is required" else "")
    return replace(problem, path=option, message=message, example=f"{option} {example}")


def _leaves(fields: Mapping[str, Any], at: str = "") -> list[str]:
    found: list[str] = []
    for name, inside in fields.items():
        path = f"{at}{name}"
        found += [path, *_leaves(inside, f"{path}.")]
    return found


def _name(args: argparse.Namespace) -> str:
    """What reports call a question that has no file: its model and its machine."""
    words: Sequence[object] = [getattr(args, name, None) for name in ("model", "hardware")]
    texts = [" ".join(map(str, word)) if isinstance(word, list) else str(word or "") for word in words]
    model, hardware = (_short(text) for text in texts)
    return f"{model}-on-{hardware}"[:100] if model and hardware else "scenario"


def _short(text: str) -> str:
    """A file's name, of a config.json its folder's, or the name itself."""
    path = Path(text)
    return path.parent.name or path.stem if path.name == "config.json" else path.stem if os.sep in text else text
