"""Strict YAML: what a file says twice or ambiguously is an error, and every error knows its line.

Differences from PyYAML's own loaders (YAML 1.1), all towards YAML 1.2's core schema: `1e9` is a float and
not a string; `on`, `yes`, `1:30` and dates are text; `010` is ten. A key that appears twice in one mapping
is an error instead of silently winning, and keys are always text. Parsing is libyaml's where PyYAML was
built with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from kraken_sim.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MAX_NODES: Final = 200_000
"""More nodes than any file of ours, fewer than nested aliases can expand to (the billion-laughs attack)."""

_SCALARS: Final = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
)
_DOT_OF_SPECIAL_FLOAT: Final = re.compile(r"\.(?=[iInN])")


def _strict_loader() -> Any:
    """PyYAML's safe loader, libyaml's where there is one, with the scalars of YAML 1.2's core schema."""
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader: Any = type("StrictLoader", (base,), {"yaml_implicit_resolvers": {}})
    for tag, pattern, first in _SCALARS:
        regexp = re.compile(f"(?:{pattern})$")
        loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", regexp, [*first, ""])
    return loader


_StrictLoader: Final = _strict_loader()


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """A file's content as plain dicts, lists, text and numbers, and the line of every path in it."""

    data: object
    lines: Mapping[str, int]
    source: str

    def line_of(self, path: str) -> int | None:
        """The line, counted from 1, of a dotted path or of its nearest parent that the file has."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path.rpartition(".")[0]
        return None

    def error(self, problems: Iterable[Problem]) -> InputError:
        """The problems as one error, each with the line it was found on."""
        return InputError([self._located(problem) for problem in problems], self.source)

    def _located(self, problem: Problem) -> Problem:
        line = self.line_of(problem.path)
        if line is None:
            return problem
        return replace(problem, message=f"line {line}: {problem.message}")


def read_yaml(path: Path | str) -> YamlDocument:
    """Reads one strict YAML file.

    Raises:
        InputError: The file cannot be read, is not UTF-8 text, or is not strict YAML.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError.single("", f"there is no file {str(path)!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.single("", f"cannot read {str(path)!r}: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str = "<text>") -> YamlDocument:
    """Reads strict YAML from text; `source` names it in errors.

    Raises:
        InputError: The text is not YAML, holds more than one document or none, repeats a key, or uses tags.
    """
    try:
        loader = _StrictLoader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise InputError([_syntax_problem(error)], source) from None
    if root is None:
        raise InputError.single("", "the file is empty", source=source)
    builder = _Builder()
    data = builder.build(root, "")
    if builder.problems:
        raise InputError(builder.problems, source)
    return YamlDocument(data, builder.lines, source)


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return Problem("", f"{where}not valid YAML: {what}")


class _Builder:
    """Turns composed nodes into plain data, remembering lines and collecting problems."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: yaml.Node, path: str) -> object:
        self._count += 1
        if self._count > _MAX_NODES:
            self._once(path, node, f"the file expands to more than {_MAX_NODES} values")
            return None
        if path:
            self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            self._add(path, node, "an alias that contains itself")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return [self.build(child, _join(path, str(index))) for index, child in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, object]:
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._add(path, key_node, "a key must be plain text")
                continue
            key = key_node.value
            if key in result:
                first = self.lines.get(_join(path, key))
                self._add(_join(path, key), key_node, f"the key appears twice, first on line {first}")
                continue
            result[key] = self.build(value_node, _join(path, key))
            self.lines[_join(path, key)] = key_node.start_mark.line + 1
        return result

    def _scalar(self, node: yaml.ScalarNode, path: str) -> object:
        text, tag = node.value, node.tag.removeprefix("tag:yaml.org,2002:")
        match tag:
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text, 16 if text.startswith("0x") else 10)
            case "float":
                return float(_DOT_OF_SPECIAL_FLOAT.sub("", text))
        self._add(path, node, f"tags such as {node.tag} are not supported")
        return None

    def _add(self, path: str, node: yaml.Node, message: str) -> None:
        self.problems.append(Problem(path, f"line {node.start_mark.line + 1}: {message}"))

    def _once(self, path: str, node: yaml.Node, message: str) -> None:
        if not any(message in problem.message for problem in self.problems):
            self._add(path, node, message)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
