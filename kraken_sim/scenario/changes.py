"""What options and `--set path=value` change of a file's fields, by their dotted paths.

Values are read as a file's are, and checked as a file's are, by the schema; what is wrong with them is said under the
name by which they were given, and what is wrong with the rest at its line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.files.strict_yaml import YamlDocument, parse_yaml, plain_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_LINE: Final = re.compile(r"^line \d+: ")


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field's new value."""

    path: str
    value: object
    said: str
    """What errors call it, such as an option."""

    def covers(self, path: str) -> bool:
        """Whether a field is this one or inside it."""
        return path == self.path or path.startswith(f"{self.path}.")


def change_of(text: str, option: str = "--set") -> FieldChange:
    """The change that `path=value` asks for; the value is YAML, so that a list or a mapping may be given.

    Raises:
        InputError: there is no `=`, no path, or the value is no YAML.
    """
    path, sign, value = text.partition("=")
    path = path.strip()
    if not sign or not path:
        raise InputError.single(option, "must be path=value", text, f"{option} context_length=4096")
    return FieldChange(path, value_of(value, f"{option} {path}"), f"{option} {path}")


def value_of(text: str, said: str) -> object:
    """What a value that was given as text means, as it would in a file; nothing is null.

    Raises:
        InputError: it is no YAML.
    """
    try:
        return parse_yaml(text).data if text.lstrip()[:1] in ("[", "{", "'", '"') else plain_value(text.strip())
    except InputError as error:
        raise InputError([replace(problem, path=said, value=text) for problem in error.problems]) from None
    except ValueError as error:
        raise InputError.single(said, f"is {error}") from None


def with_changes(document: YamlDocument, changes: Sequence[FieldChange]) -> YamlDocument:
    """The document with its fields changed; these have no lines any more.

    Raises:
        InputError: a field is given twice, or leads through a value that has no fields; all at once.
    """
    if not changes:
        return document
    problems: list[Problem] = []
    data: Any = document.data if isinstance(document.data, dict) else {}
    seen: dict[str, FieldChange] = {}
    for change in changes:
        if change.path in seen:
            problems.append(Problem(change.said, f"{change.path} is given by {seen[change.path].said} already"))
            continue
        seen[change.path] = change
        data = _with(data, change.path.split("."), change, problems)
    if problems:
        raise InputError(problems)
    lines = {path: line for path, line in document.lines.items() if not any(item.covers(path) for item in changes)}
    return replace(document, data=data, lines=lines)


def _with(holder: object, names: Sequence[str], change: FieldChange, problems: list[Problem]) -> object:
    """A copy of nested mappings and lists with one value changed."""
    name, *rest = names
    value = change.value
    if isinstance(holder, list):
        if not name.isdecimal() or int(name) >= len(holder):
            problems.append(Problem(change.said, f"{name!r} is none of the {len(holder)} places of a list, from 0"))
            return holder
        place = int(name)
        inner = _with(holder[place], rest, change, problems) if rest else value
        return [*holder[:place], inner, *holder[place + 1 :]]
    if holder is None or isinstance(holder, dict):
        held: Mapping[str, object] = holder or {}
        return {**held, name: _with(held.get(name), rest, change, problems) if rest else value}
    problems.append(Problem(change.said, f"leads through a value without fields, {holder!r}"))
    return holder


def as_said(error: InputError, changes: Iterable[FieldChange], known: Sequence[str] = ()) -> InputError:
    """The same problems, those of changed fields under the names by which they were given.

    Args:
        error: problems with the dotted paths of fields.
        changes: what was changed.
        known: dotted paths of fields, among which what was probably meant is looked for.
    """
    found = list(changes)
    return InputError(
        [_as_said(problem, found, known) for problem in error.problems], error.source, omitted=error.omitted
    )


def _as_said(problem: Problem, changes: Sequence[FieldChange], known: Sequence[str]) -> Problem:
    # The last change of a field is the one that holds, as of `--model` and `--set model.head_dim` behind it.
    change = next((item for item in reversed(changes) if item.covers(problem.path)), None)
    is_unknown = "unknown field" in problem.message
    if change is None and is_unknown:
        change = next((item for item in changes if item.path.startswith(f"{problem.path}.")), None)
    if change is None:
        return problem
    # A field that the file does not have was found at the line of its section.
    problem = replace(problem, message=_LINE.sub("", problem.message))
    inside = problem.path[len(change.path) :]
    if is_unknown and not inside:
        name = change.path.rpartition(".")[2]
        meant = next((path for path in known if path.rpartition(".")[2] == name), None) or closest(change.path, known)
        return replace(problem, path=change.said, suggestion=meant or problem.suggestion)
    # An option is one word, whatever it stands for.
    return replace(problem, path=change.said + (inside if change.said.endswith(change.path) else ""))
