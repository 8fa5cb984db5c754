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
from kraken_sim.files.bounded import MAX_DEPTH, MAX_DIGITS, YAML_FILE, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MAX_NODES: Final = 200_000
"""More nodes than any file of ours, fewer than nested aliases can expand to (the billion-laughs attack)."""

_MAX_PATHS: Final = 50_000_000
"""Characters of the paths of all nodes together, which long keys above many values multiply; a limit of ours."""

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
_PATTERNS: Final = tuple((kind, re.compile(pattern)) for kind, pattern, _ in _SCALARS)
_KINDS: Final = frozenset(kind for kind, _ in _PATTERNS)
_OF_COLLECTIONS: Final = (None, "!", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """A file's content as plain dicts, lists, text and numbers, and the line of every path in it."""

    data: object
    lines: Mapping[str, int]
    source: str

    @property
    def folder(self) -> Path:
        """Where the file lies, or where the process runs for what is no file."""
        return Path(self.source).parent

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


def read_yaml(path: Path | str | YamlDocument) -> YamlDocument:
    """Reads one strict YAML file; of a document that was read already gives itself.

    Raises:
        InputError: The file cannot be read (see `bounded.reading`), is not UTF-8 text, or is not strict YAML.
    """
    if isinstance(path, YamlDocument):
        return path
    return parse_yaml(read_text(path, YAML_FILE), str(path))


def parse_yaml(text: str, source: str = "<text>") -> YamlDocument:
    """Reads strict YAML from text; `source` names it in errors.

    Raises:
        InputError: The text is not YAML, holds more than one document or none, repeats a key, uses tags, or goes beyond
            a limit on its values, their nesting or their digits.
    """
    try:
        loader = _StrictLoader(text)
        try:
            root = _Composer(loader).document()
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
    return Problem("", f"{where}{what}" if isinstance(error, _BeyondError) else f"{where}not valid YAML: {what}")


def plain_value(text: str) -> object:
    """What a plain scalar means: a number, true, false or null where YAML says so, else the text itself.

    Raises:
        ValueError: it is a number of more digits than any file may have.
    """
    kind = next((kind for kind, pattern in _PATTERNS if pattern.fullmatch(text)), None)
    return text if kind is None else _value(kind, text)


def _value(kind: str, text: str) -> object:
    """The value of a scalar of YAML's core schema.

    Raises:
        ValueError: the text is none, which a tag may say it is, or has too many digits.
    """
    if not any(pattern.fullmatch(text) for name, pattern in _PATTERNS if name == kind):
        message = f"{text[:60]!r} is no {kind}, which its tag says it is"
        raise ValueError(message)
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            if len(text) > MAX_DIGITS:
                message = f"a number of {len(text)} digits; {MAX_DIGITS} are the most"
                raise ValueError(message)
            return int(text, 16 if text.startswith("0x") else 10)
    return float(_DOT_OF_SPECIAL_FLOAT.sub("", text))


class _Composer:
    """Composes nodes as PyYAML does, but counts them and their nesting while they come."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._anchors: dict[str, yaml.Node] = {}
        self._count = 0

    def document(self) -> yaml.Node | None:
        """The root of the only document; None where there is none."""
        self._loader.get_event()  # the start of the stream
        if self._loader.check_event(yaml.StreamEndEvent):
            return None
        self._loader.get_event()
        root = self._node(1)
        self._loader.get_event()
        if not self._loader.check_event(yaml.StreamEndEvent):
            mark = self._loader.get_event().start_mark
            raise yaml.composer.ComposerError(None, None, "but found another document", mark)
        return root

    def _node(self, depth: int) -> yaml.Node:
        event: Any = self._loader.get_event()
        mark: Any = event.start_mark
        self._count += 1
        if self._count > _MAX_NODES:
            raise _BeyondError(None, None, f"the file has more than {_MAX_NODES} values", mark)
        if depth > MAX_DEPTH:
            message = f"lists and mappings inside one another go deeper than {MAX_DEPTH}"
            raise _BeyondError(None, None, message, mark)
        anchor = event.anchor
        if isinstance(event, yaml.AliasEvent):
            if anchor not in self._anchors:
                raise yaml.composer.ComposerError(None, None, f"found undefined alias {anchor!r}", mark)
            return self._anchors[anchor]
        if anchor in self._anchors:
            raise yaml.composer.ComposerError(None, None, f"found duplicate anchor {anchor!r}", mark)
        if isinstance(event, yaml.ScalarEvent):
            tag = event.tag
            if tag is None or tag == "!":
                tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
            scalar = yaml.ScalarNode(tag, event.value, mark, None)
            if anchor is not None:
                self._anchors[anchor] = scalar
            return scalar
        is_list = isinstance(event, yaml.SequenceStartEvent)
        make = yaml.SequenceNode if is_list else yaml.MappingNode
        node: yaml.CollectionNode = make(event.tag, [], mark, None)
        if anchor is not None:
            self._anchors[anchor] = node
        end = yaml.SequenceEndEvent if is_list else yaml.MappingEndEvent
        while not self._loader.check_event(end):
            node.value.append(self._node(depth + 1) if is_list else (self._node(depth + 1), self._node(depth + 1)))
        self._loader.get_event()
        return node


class _BeyondError(yaml.composer.ComposerError):
    """The file may be YAML, but is beyond a limit of ours."""


class _Builder:
    """Turns composed nodes into plain data, remembering lines and collecting problems."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []
        self._open: set[int] = set()
        self._count = self._characters = 0

    def build(self, node: yaml.Node, path: str) -> object:
        self._count += 1
        self._characters += len(path)
        if self._count > _MAX_NODES or self._characters > _MAX_PATHS:
            many = f"{_MAX_NODES} values" if self._count > _MAX_NODES else f"{_MAX_PATHS} characters of paths"
            self._once(path[:100], node, f"the file expands to more than {many}")
            return None
        if path:
            self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in _OF_COLLECTIONS:
            self._add(path, node, f"tags such as {node.tag} are not supported")
            return None
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
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind == "str":
            return node.value
        if kind not in _KINDS:
            self._add(path, node, f"tags such as {node.tag} are not supported")
            return None
        try:
            return _value(kind, node.value)
        except ValueError as error:
            self._add(path, node, str(error))
            return None

    def _add(self, path: str, node: yaml.Node, message: str) -> None:
        self.problems.append(Problem(path, f"line {node.start_mark.line + 1}: {message}"))

    def _once(self, path: str, node: yaml.Node, message: str) -> None:
        if not any(message in problem.message for problem in self.problems):
            self._add(path, node, message)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
