"""The axes of a sweep: a scenario's fields that are lists or ranges, zipped or multiplied, and CSV files of cases.

An axis is one or more fields (dotted paths) and the values that they take together. A list of mappings, such as
`architecture: [{kind: standard}, {kind: kraken, ways: [2, 4]}]`, is one axis over all of their fields; lists inside
are multiplied out. `null`, and an empty cell of a CSV file, leave a field out: it has its default.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, overload

from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.files.strict_yaml import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FieldValue = str | int | float | bool | None
"""What a field of a scenario can be."""

Row = tuple[FieldValue, ...]

RANGE_KEYS = ("start", "stop", "step")
NOT_SWEPT = {"name": "the name of a sweep is one"}


@dataclass(frozen=True, slots=True)
class Axis:
    """Fields that change together, and their values in order."""

    paths: tuple[str, ...]
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class RangeRows(Sequence[Row]):
    """The values of a range, none of them stored."""

    start: int | float
    step: int | float
    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self.length))]
        if not -self.length <= index < self.length:
            raise IndexError(index)
        return (self.start + (index % self.length) * self.step,)


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
        path = f"{at}.{name}" if at else name
        if name not in fields:
            problems.append(Problem(path, "unknown field", suggestion=closest(str(name), list(fields))))
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
    return [Axis((path,), tuple((item,) for item in value))]


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
    cases: list[dict[str, FieldValue]] = []
    for index, item in enumerate(items):
        found: list[Problem] = []
        fixed, axes = _split(item or {}, inside, path, found)
        problems += [Problem(f"{path}.{index}{p.path[len(path) :]}", p.message, p.value, p.example) for p in found]
        plain = dict(_leaves(fixed, path))
        for combination in product(*(axis.rows for axis in axes)):
            case = dict(plain)
            for axis, row in zip(axes, combination, strict=True):
                case |= dict(zip(axis.paths, row, strict=True))
            cases.append(case)
    paths = tuple(dict.fromkeys(name for case in cases for name in case))
    return [Axis(paths, tuple(tuple(case.get(name) for name in paths) for case in cases))] if paths else []


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
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            shown = number if isinstance(number, (str, int, float)) else f"a {type(number).__name__}"
            problems.append(Problem(f"{path}.{key}", "must be a finite number", shown, example))
            return None
    if step == 0:
        problems.append(Problem(f"{path}.step", "is 0, so the range never ends", step, example))
        return None
    count = math.ceil((stop - start) / step)
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
    lengths = {", ".join(axis.paths): len(axis.rows) for axis in axes}
    if len(set(lengths.values())) > 1:
        listed = "; ".join(f"{name}: {length}" for name, length in lengths.items())
        raise InputError.single("sweep.combine", f"lists to zip must have one length, but have {listed}", "zip")
    paths = tuple(path for axis in axes for path in axis.paths)
    together = zip(*(axis.rows for axis in axes), strict=True)
    return [Axis(paths, tuple(tuple(value for row in rows for value in row) for rows in together))] if axes else []


def read_cases(path: Path, fields: Mapping[str, Any]) -> Axis:
    """One axis from a CSV file: a header of dotted paths, then one case a line; cells are read as YAML reads them.

    Raises:
        InputError: the file can't be read, has no cases, unknown or repeated columns, or lines of another length.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file, skipinitialspace=True) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError.single("sweep.cases", f"cannot be read: {error}", str(path)) from None
    if len(lines) < 2:
        raise InputError.single(
            "sweep.cases", "holds no cases: a header of dotted paths, then a line a case", str(path)
        )
    header, known = [name.strip() for name in lines[0]], leaf_paths(fields)
    problems = [
        Problem(name or f"column {number}", "unknown column; columns are dotted paths", suggestion=closest(name, known))
        for number, name in enumerate(header, 1)
        if name not in known
    ]
    problems += [Problem(name, "the column appears twice") for name in sorted(set(header)) if header.count(name) > 1]
    problems += [
        Problem(f"line {number}", f"has {len(line)} cells, the header {len(header)}")
        for number, line in enumerate(lines[1:], 2)
        if len(line) != len(header)
    ]
    if problems:
        raise InputError(problems[:20], str(path))
    cells: dict[str, FieldValue] = {}
    return Axis(tuple(header), tuple(tuple(_cell(cell.strip(), cells) for cell in line) for line in lines[1:]))


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
        value: object = None
        if text:
            try:
                value = parse_yaml(text).data
            except InputError:
                value = text
        seen[text] = value if isinstance(value, (str, int, float, bool)) or value is None else text
    return seen[text]
