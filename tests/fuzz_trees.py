"""What a fuzzer writes: plain data drawn from a JSON schema or taken from an example, mutated, and its text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass(frozen=True)
class Raw:
    """Text that stands in a file as it is, whatever the format makes of it."""

    text: str


@dataclass(frozen=True)
class Twice:
    """A value whose key is written twice."""

    value: Any


NUMBERS: Sequence[Any] = (
    0,
    -1,
    1,
    3,
    7,
    4096,
    65_537,
    2**31,
    2**63,
    2**64,
    10**30,
    -(10**30),
    0.5,
    -0.0,
    1.0,
    1e16,
    1e308,
    -1e308,
    5e-324,
)
TEXTS: Sequence[str] = (
    "",
    " ",
    "null",
    "on",
    "1",
    "1_000",
    "٣",
    "１",
    "x" * 10_000,
    "µ → 模型",
    "é" * 300,
    "\u202eevil",
    "\x1b[31mred",
    "a\0b",
    "[bold red]x[/]",
    "[/]",
    "[link=file:///e]",
    "<script>alert(1)</script>",
    "%s%n",
    "${HOME}",
    "{0.__class__}",
    "../../x",
    "/",
    ".",
    "~",
    "/nonexistent/x.yaml",
    "/dev/zero",
    "/dev/null",
    "file:///etc/hosts",
    "2026-13-45",
    "1 parsec",
    "10 GB/s",
    "-3 GB",
    "0 s",
    "1e400 B",
    "inf s",
    "nan s",
    "1e-300 GB/s",
    "80 GiB",
    "5 us",
    "1e30 TFLOP/s",
    "6.7B",
    "kraken",
    "standard",
    "h200-sxm-x2",
    "float64",
    "decode",
    "0,1",
    "0,1,1",
    "0-1000000000",
    "1,,2",
    "-1",
)
RAW_YAML: Sequence[Raw] = tuple(
    map(
        Raw,
        (
            ".inf",
            "-.inf",
            ".nan",
            "1e400",
            "9" * 5000,
            "-" + "9" * 400,
            "0x" + "f" * 5000,
            "!!int abc",
            "!!float x",
            "!!python/object/apply:os.system [echo]",
            "!!binary xx",
            "!!set {a}",
            "&a [*a]",
            "&b {k: *b}",
            "*nowhere",
            "? [a]",
            "2026-01-01",
            "1:30",
            "0o17",
            "<<: {a: 1}",
            "|\n  text",
            "- - -",
            "@",
            "`",
            "%TAG",
            "\t",
            "#",
            "---",
            "...",
            "",
            "[" * 40 + "]" * 40,
            "[" * 2000 + "]" * 2000,
            "{a: " * 300 + "1" + "}" * 300,
            "[" * 3000,
            "Infinity",
            "NaN",
        ),
    )
)
NESTED: Sequence[Any] = ([], {}, [None], [[]], [[[[[1]]]]], {"": ""}, {"a": {"b": {}}}, [1, "x", None], [0] * 500)
KEYS: Sequence[str] = (
    "",
    "x",
    "nmae",
    "hidden_size",
    "kind",
    "source",
    "value",
    "a.b",
    "a b",
    "\x1b[0m",
    "[/]",
    "0",
    "é",
    "k" * 5000,
)
HOSTILE: Sequence[Any] = (None, True, False, *NUMBERS, *TEXTS, *NESTED)
BEYOND_JSON: Sequence[Any] = (
    float("nan"),
    float("inf"),
    -float("inf"),
    10**400,
    b"x",
    b"\xff",
    object(),
    (),
    {1: 2},
    {None: 1},
    1j,
    "\ud800",
)
"""What only a caller from Python can pass."""


def written(tree: Any) -> str:
    """A tree as JSON, which is YAML too, but for `Raw` and `Twice`."""
    if isinstance(tree, Raw):
        return tree.text
    if isinstance(tree, Twice):
        return written(tree.value)
    if isinstance(tree, dict):
        return "{" + ", ".join(_entry(key, value) for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(written, tree)) + "]"
    return json.dumps(tree, ensure_ascii=not isinstance(tree, str) or "\0" in tree)


def _entry(key: str, value: Any) -> str:
    entry = f"{json.dumps(key)}: {written(value)}"
    return f"{entry}, {entry}" if isinstance(value, Twice) else entry


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything inside a tree."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inside:
        yield (*at, key)
        yield from places(value, (*at, key))


def changed(tree: Any, path: tuple[Any, ...], change: Any) -> Any:
    """The tree with what stands at a path put through a function; `DROP` from it leaves the place out."""
    if not path:
        return change(tree)
    key, rest = path[0], path[1:]
    items = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    found = [(name, changed(value, rest, change) if name == key else value) for name, value in items]
    kept = [(name, value) for name, value in found if value is not DROP]
    return dict(kept) if isinstance(tree, dict) else [value for _, value in kept]


DROP = object()


@st.composite
def mutated(draw: st.DrawFn, tree: Any, values: Sequence[Any] = (*HOSTILE, *RAW_YAML), most: int = 3) -> Any:
    """A tree with one mutation or a few: another value, type or sign, a key less, more, twice or misspelt."""
    for _ in range(draw(st.integers(1, most))):
        tree = _mutated_once(draw, tree, values)
    return tree


def _mutated_once(draw: st.DrawFn, tree: Any, values: Sequence[Any]) -> Any:
    known = list(places(tree))
    path = draw(st.sampled_from(known)) if known else ()
    match draw(st.sampled_from(("value", "value", "value", "number", "drop", "key", "twice", "wrap", "swap"))):
        case "number":
            numeric = [place for place in known if isinstance(_at(tree, place), int | float)]
            path = draw(st.sampled_from(numeric)) if numeric else path
            return changed(tree, path, lambda _: draw(st.sampled_from(NUMBERS) | st.integers(-5, 300)))
        case "drop" if path:
            return changed(tree, path, lambda _: DROP)
        case "key":
            key, value = draw(st.sampled_from(KEYS)), draw(st.sampled_from(values))
            parent = path if isinstance(_at(tree, path), dict) else ()
            return changed(tree, parent, lambda old: {**old, key: value} if isinstance(old, dict) else old)
        case "twice":
            return changed(tree, path, lambda old: old if isinstance(old, Twice) else Twice(old))
        case "wrap":
            return changed(tree, path, lambda old: draw(st.sampled_from([[old], {"value": old}, [old, old]])))
        case "swap" if known:
            other = _at(tree, draw(st.sampled_from(known)))
            return changed(tree, path, lambda _: other)
    return changed(tree, path, lambda _: draw(st.sampled_from(values)))


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def plain(tree: Any) -> Any:
    """A tree as Python data: what is only text in a file becomes that text."""
    if isinstance(tree, Raw):
        return tree.text
    if isinstance(tree, Twice):
        return plain(tree.value)
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return [plain(value) for value in tree] if isinstance(tree, list) else tree


def from_schema(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Data of the shape of a JSON schema, mostly of its examples where it has some; numbers stay near its limits."""
    return _drawn(schema, Defs(schema.get("$defs", {})), 0)


class Defs:
    """The parts of a schema that it refers to by name, each made a strategy once for each depth that it is at."""

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        self._schemas = schemas
        self._made: dict[tuple[str, int], st.SearchStrategy[Any]] = {}

    def at(self, name: str, depth: int) -> st.SearchStrategy[Any]:
        """The strategy of a part, which may refer to itself."""
        if (name, depth) not in self._made:
            self._made[name, depth] = st.deferred(lambda: _drawn(self._schemas[name], self, depth))
        return self._made[name, depth]


def _drawn(schema: Mapping[str, Any], defs: Defs, depth: int) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return defs.at(schema["$ref"].rpartition("/")[2], depth + 1)
    if "examples" in schema and schema.get("type") != "object":
        return st.sampled_from(schema["examples"])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return st.one_of([_drawn(one, defs, depth) for one in schema[several]])
    match schema.get("type"):
        case "object":
            return _object(schema, defs, depth)
        case "array":
            return st.lists(_drawn(schema.get("items", {}), defs, depth + 1), max_size=3)
        case "integer":
            low = schema.get("minimum", 0)
            return st.integers(low, max(low, min(schema.get("maximum", 10**9), 10**9))) | st.sampled_from(
                (1, 2, 4, 128)
            )
        case "number":
            return st.floats(schema.get("minimum", 0.0), schema.get("maximum", 1e6), allow_nan=False)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    return st.sampled_from(TEXTS)


def _object(schema: Mapping[str, Any], defs: Defs, depth: int) -> st.SearchStrategy[Any]:
    known = {name: _drawn(one, defs, depth + 1) for name, one in schema.get("properties", {}).items()}
    required = {name: one for name, one in known.items() if name in schema.get("required", ())}
    optional = {name: one for name, one in known.items() if name not in required and depth < 6}
    return st.fixed_dictionaries(required, optional=optional)


@st.composite
def torn(draw: st.DrawFn, text: str) -> bytes:
    """The bytes of a text with a few pieces cut out, written twice or overwritten."""
    data = text.encode()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 1, 2, 10, 100, 10_000))))
        put = draw(
            st.sampled_from(
                (
                    b"",
                    b"\0",
                    b"\xff\xfe",
                    b"\xef\xbb\xbf",
                    b"\r",
                    b"\n",
                    b"\t",
                    b" ",
                    b":",
                    b"- ",
                    b"'",
                    b'"',
                    b"{",
                    b"]",
                    b",",
                    b"#",
                    b"-",
                    b"9" * 50,
                    b"e9",
                    b"&a",
                    b"*a",
                    b"\x1b[2J",
                    data[start:end] * 2,
                )
            )
        )
        data = data[:start] + put + data[end:]
    return data
