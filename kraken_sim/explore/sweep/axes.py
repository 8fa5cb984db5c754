"""The axes of a sweep: a scenario's fields that are lists or ranges, zipped or multiplied, and CSV files of cases.

An axis is one or more fields (dotted paths) and the values that they take together. A list of mappings, such as
`architecture: [{kind: standard}, {kind: kraken, ways: [2, 4]}]`, is one axis over all of their fields; lists inside
are multiplied out. `null`, and an empty cell of a CSV file, leave a field out: it has its default.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import SHOWN, InputError, Problem, closest
from kraken_sim.explore.sweep.axis_rows import JoinedRows, ProductRows, RangeRows, ZippedRows, count_of
from kraken_sim.files.bounded import CASES_FILE, read_text
from kraken_sim.files.strict_yaml import parse_yaml, plain_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from kraken_sim.explore.sweep.axis_rows import FieldValue, Rows

_PLAIN: Final = re.compile(r"[\w.+/-]*")

RANGE_KEYS = ("start", "stop", "step")
MOST_VALUES: Final = 10**18
"""Values of one range: a limit of ours, beyond any sweep and within 64 bits."""

NOT_SWEPT = {"name": "the name of a sweep is one"}


@dataclass(frozen=True, slots=True)
class Axis:
    """Fields that change together, and their values in order."""

    paths: tuple[str, ...]
    rows: Rows

    @property
    def length(self) -> int:
        """How many values there are."""
        return count_of(self.rows)


def split_axes(data: Mapping[str, Any], fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[Axis]]:
    """The fields with one value, nested as they were, and an axis for every other, in the order of the file.

    Args:
        data: a scenario's mapping with lists and ranges.
        fields: the known fields: names, with the fields of a section as a nested mapping.

    Raises:
        InputError: every unknown field, empty list, endless range and field that can't be swept.
    """
    problems: list[Problem] = []
    fixed, axes = _split(data, fields, "", problems)
    if problems:
        raise InputError(problems)
    return fixed, axes


def _split(
    data: Mapping[str, Any], fields: Mapping[str, Any], at: str, problems: list[Problem]
) -> tuple[dict[str, Any], list[Axis]]:
    fixed: dict[str, Any] = {}
    axes: list[Axis] = []
    for name, value in data.items():
        path = f"{at}.{name}" if at else str(name)
        if name not in fields:
            # Nobody reads on, and looking for what was meant takes time.
            guess = closest(str(name), list(fields)) if len(problems) < SHOWN else None
            problems.append(Problem(path, "unknown field", suggestion=guess))
            continue
        inside = fields[name]
        is_section = bool(inside)
        if isinstance(value, list) or (isinstance(value, dict) and _is_range(value) and not is_section):
            if name in NOT_SWEPT and not at:
                problems.append(Problem(path, f"can't be swept: {NOT_SWEPT[name]}", example=f"{name}: my-sweep"))
            else:
                axes += _axis(path, value, inside, problems)
        elif isinstance(value, dict) and is_section:
            fixed[name], nested = _split(value, inside, path, problems)
            axes += nested
        else:
            fixed[name] = value
    return fixed, axes


def _is_range(value: Mapping[str, Any]) -> bool:
    return bool(value) and any(key in RANGE_KEYS for key in value)


def _axis(path: str, value: Any, inside: Mapping[str, Any], problems: list[Problem]) -> list[Axis]:
    if isinstance(value, dict):
        rows = range_rows(path, value, problems)
        return [] if rows is None else [Axis((path,), rows)]
    if not value:
        problems.append(Problem(path, "is an empty list, so there is nothing to run", example=f"{path}: [1, 2]"))
        return []
    kinds = {_kind(item) for item in value} - {"null"}
    if kinds == {"mapping"}:
        if inside:
            return _section_axis(path, value, inside, problems)
        problems.append(Problem(path, "holds mappings, but the field has no fields of its own"))
        return []
    if len(kinds) > 1 or "list" in kinds:
        message = "mixes kinds of values" if len(kinds) > 1 else "holds lists; a list of plain values is meant"
        problems.append(Problem(path, f"{message}: {', '.join(sorted(kinds))}"))
        return []
    _check_numbers(path, value, problems)
    return [Axis((path,), tuple((item,) for item in value))]


def _check_numbers(path: str, values: Iterable[object], problems: list[Problem]) -> None:
    """A result holds whole numbers of 64 bits."""
    wrong = next((value for value in values if isinstance(value, int) and not is_stored(value)), None)
    if wrong is not None:
        problems.append(Problem(path, "holds a whole number of more than 64 bits", wrong, example=f"{path}: [1, 2]"))


def is_stored(number: float) -> bool:
    """Whether a result can hold a number: any but whole ones beyond 64 bits."""
    return not isinstance(number, int) or -(1 << 63) <= number < 1 << 63


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "number"
        case str():
            return "text"
        case dict():
            return "mapping"
    return "list"


def _section_axis(
    path: str, items: Sequence[Mapping[str, Any]], inside: Mapping[str, Any], problems: list[Problem]
) -> list[Axis]:
    """One axis for a list of mappings; what one of them leaves out has its default there."""
    cases: list[tuple[dict[str, FieldValue], list[Axis]]] = []
    for index, item in enumerate(items):
        found: list[Problem] = []
        fixed, axes = _split(item or {}, inside, path, found)
        problems += [Problem(f"{path}.{index}{p.path[len(path) :]}", p.message, p.value, p.example) for p in found]
        plain = dict(_leaves(fixed, path))
        _check_numbers(path, plain.values(), problems)
        cases.append((plain, axes))
    paths = tuple(dict.fromkeys(name for plain, axes in cases for name in (*plain, *_paths(axes))))
    blocks = tuple(_block(plain, axes, paths) for plain, axes in cases)
    return [Axis(paths, JoinedRows(blocks))] if paths else []


def _paths(axes: Sequence[Axis]) -> Iterator[str]:
    return (path for axis in axes for path in axis.paths)


def _block(plain: Mapping[str, FieldValue], axes: Sequence[Axis], paths: Sequence[str]) -> ProductRows:
    """The rows of one mapping of a list: its plain values beside every combination of its lists."""
    found = [*plain, *_paths(axes)]
    order = tuple(found.index(path) if path in found else -1 for path in paths)
    return ProductRows(((tuple(plain.values()),), *(axis.rows for axis in axes)), order)


def _leaves(data: Mapping[str, Any], at: str) -> Iterator[tuple[str, FieldValue]]:
    for name, value in data.items():
        path = f"{at}.{name}"
        if isinstance(value, dict):
            yield from _leaves(value, path)
        else:
            yield path, value


def range_rows(path: str, value: Mapping[str, Any], problems: list[Problem]) -> RangeRows | None:
    """The values of `{start, stop, step}`; None, with `problems` extended, if it is not a range that ends."""
    example = "{start: 128, stop: 2049, step: 128}"
    unknown = [key for key in value if key not in RANGE_KEYS]
    missing = [key for key in RANGE_KEYS[:2] if value.get(key) is None]
    if unknown or missing:
        what = f"no {', '.join(missing)}" if missing else f"unknown keys {', '.join(map(str, unknown))}"
        problems.append(Problem(path, f"a range has start, stop (excluded) and step; {what}", example=example))
        return None
    start, stop, step = value["start"], value["stop"], value.get("step", 1)
    for key, number in zip(RANGE_KEYS, (start, stop, step), strict=True):
        if isinstance(number, int) and not is_stored(number):
            problems.append(Problem(f"{path}.{key}", "is a whole number of more than 64 bits", number, example))
            return None
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            words = "must be a finite number" + (", not null" if number is None else "")
            problems.append(Problem(f"{path}.{key}", words, number, example))
            return None
    if step == 0:
        problems.append(Problem(f"{path}.step", "is 0, so the range never ends", step, example))
        return None
    steps = (stop - start) / step
    if not abs(steps) < MOST_VALUES:
        message = f"from {start} to {stop} (excluded) in steps of {step} holds more values than anybody can run"
        problems.append(Problem(path, f"the range {message}", example=example))
        return None
    count = math.ceil(steps)
    if count <= 0:
        message = f"from {start} to {stop} (excluded) in steps of {step} holds no value"
        problems.append(Problem(path, f"the range {message}", example=example))
        return None
    return RangeRows(start, step, count)


def zipped(axes: Sequence[Axis]) -> list[Axis]:
    """All axes as one, the n-th values together.

    Raises:
        InputError: their lengths differ.
    """
    lengths = {", ".join(axis.paths): axis.length for axis in axes}
    if len(set(lengths.values())) > 1:
        listed = "; ".join(f"{name}: {length}" for name, length in lengths.items())
        raise InputError.single("sweep.combine", f"lists to zip must have one length, but have {listed}", "zip")
    return [Axis(tuple(_paths(axes)), ZippedRows(tuple(axis.rows for axis in axes)))] if axes else []


def read_cases(path: Path, fields: Mapping[str, Any]) -> Axis:
    """One axis from a CSV file: a header of dotted paths, then one case a line; cells are read as YAML reads them.

    Raises:
        InputError: the file can't be read, has no cases, unknown or repeated columns, or lines of another length.
    """
    text = read_text(path, CASES_FILE, "sweep.cases", encoding="utf-8-sig")
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), skipinitialspace=True) if line]
    except csv.Error as error:
        raise InputError.single("sweep.cases", f"cannot be read: {error}", str(path)) from None
    if len(lines) < 2:
        raise InputError.single(
            "sweep.cases", "holds no cases: a header of dotted paths, then a line a case", str(path)
        )
    header, known = [name.strip() for name in lines[0]], leaf_paths(fields)
    problems = [
        Problem(
            name or f"column {number}",
            "unknown column; columns are dotted paths",
            suggestion=closest(name, known) if number <= SHOWN else None,
        )
        for number, name in enumerate(header, 1)
        if name not in known
    ]
    problems += [Problem(name, "the column appears twice") for name, count in Counter(header).items() if count > 1]
    problems += [
        Problem(f"line {number}", f"has {len(line)} cells, the header {len(header)}")
        for number, line in enumerate(lines[1:], 2)
        if len(line) != len(header)
    ]
    if problems:
        raise InputError(problems, str(path))
    cells: dict[str, FieldValue] = {}
    rows = tuple(tuple(_cell(cell.strip(), cells) for cell in line) for line in lines[1:])
    _check_numbers("sweep.cases", cells.values(), problems)
    if problems:
        raise InputError(problems, str(path))
    return Axis(tuple(header), rows)


def leaf_paths(fields: Mapping[str, Any], at: str = "") -> list[str]:
    """Dotted paths of all fields that can be swept."""
    found = []
    for name, inside in fields.items():
        path = f"{at}.{name}" if at else name
        found += leaf_paths(inside, path) if inside else [path] if path not in NOT_SWEPT else []
    return found


def _cell(text: str, seen: dict[str, FieldValue]) -> FieldValue:
    """A cell's value: a number, true, false or null where YAML says so, else text; empty is null."""
    if text not in seen:
        seen[text] = _value_of(text)
    return seen[text]


def _value_of(text: str) -> FieldValue:
    value: object = text
    try:
        # Nearly every cell is a plain scalar, which needs no parser.
        value = plain_value(text) if _PLAIN.fullmatch(text) else parse_yaml(text).data
    except (InputError, ValueError):
        return text
    return value if isinstance(value, (str, int, float, bool)) or value is None else text
