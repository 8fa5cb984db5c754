"""Dataclasses of numbers read from a file, generically: the field's name says its unit, its type its shape.

A field is a float, an int, a str, or a mapping of names to those, nested as deep as its type says. A float
whose name ends in `_s`, `_bytes`, `_bytes_per_s`, `_flops`, `_hz` or `_w` is written with a unit, any other
as a plain number. In a mapping the name of the field decides, or, where that says nothing, the key.
Wherever a number or a mapping of them may stand, `{value: ..., kind: ..., source: ...}` may stand too and says where
this one number, or each of the mapping, is from. What a field's metadata says of it (`kraken_sim.files.meaning`) is
checked: a number lies in its range, a mapping has its keys.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import Any, Final, TypeGuard

from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.files.meaning import Meaning, Said, Table, Words, meanings_of, plausible
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.tables import alike_problems, example_of, table_problems
from kraken_sim.program.ops import DType
from kraken_sim.units import EXAMPLES, Dimension, dimension_of_field, parse_quantity

_SOURCED = frozenset({"value", "kind", "source", "residual"})

_GONE = {
    "kernel_switch_s": "is no constant any more, leave it out: what it stood for are operands out of HBM, which "
    "cold_round_s and held_share of memory_bound price, and graph_node_gap_s"
}
"""Fields of older profiles, and what became of them."""


REQUIRED: Final = "is required"
"""What is said of a field that is missing; a wording of ours."""


@dataclass(slots=True)
class Reading:
    """What reading a file has found so far: problems, and the provenance of every number."""

    problems: list[Problem] = field(default_factory=list)
    provenance: dict[str, Provenance] = field(default_factory=dict)

    def add(
        self,
        path: str,
        message: str,
        value: object = None,
        example: str | None = None,
        suggestion: str | None = None,
    ) -> None:
        """Notes one problem."""
        self.problems.append(Problem(path, message, value, example, suggestion))

    def number(
        self,
        raw: object,
        dimension: Dimension,
        path: str,
        inherited: Provenance | None,
        meaning: Meaning | None = None,
    ) -> float | None:
        """Reads one number and notes its provenance; None, and a problem, where it is wrong.

        `inherited` is what the block says about all its numbers; without it the number must say it itself.
        Quantities with a unit are never negative, and a number with a meaning lies in its range.
        """
        if is_sourced(raw) and "value" not in raw:
            self.add(f"{path}.value", "is required", example=example_of(dimension, meaning))
            return None
        raw, provenance = self.unwrap(raw, path, inherited)
        if raw is None:
            self.add(path, "must be a value, not null", example=example_of(dimension, meaning))
            return None
        try:
            number = parse_quantity(raw, dimension, path)
        except InputError as error:
            range_text = "" if meaning is None else f"; plausible is {plausible(meaning, dimension)}"
            example = example_of(dimension, meaning)
            self.problems += [replace(p, message=p.message + range_text, example=example) for p in error.problems]
            return None
        wrong = _wrong(number, dimension, meaning)
        if wrong is not None:
            self.add(path, wrong, raw, example_of(dimension, meaning))
            return None
        if provenance is not None:
            self.note(path, provenance)
        return number

    def note(self, path: str, provenance: Provenance) -> None:
        """Notes where the number at `path` of the file is from, under its path in the profile."""
        self.provenance[path.replace(".values.", ".", 1)] = provenance

    def unwrap(self, raw: Any, path: str, inherited: Provenance | None) -> tuple[object, Provenance | None]:
        """A value and where it is from: as it says itself, or as inherited."""
        if is_sourced(raw):
            for key in raw.keys() - _SOURCED:
                self.add(f"{path}.{key}", "unknown field", suggestion=closest(key, sorted(_SOURCED)))
            return raw.get("value"), self.read_provenance(raw, path)
        if inherited is None:
            self.add(path, "every value says where it is from", raw, '{value: ..., kind: datasheet, source: "..."}')
        return raw, inherited

    def read_provenance(self, raw: Mapping[str, object], path: str) -> Provenance | None:
        """The `kind`, `source` and `residual` of a block or a value."""
        kind, source, residual = raw.get("kind"), raw.get("source"), raw.get("residual")
        kinds = [str(known) for known in ProvenanceKind]
        if kind not in kinds:
            guess = closest(kind, kinds) if isinstance(kind, str) else None
            self.add(f"{path}.kind", f"must be one of {', '.join(kinds)}", kind, "datasheet", guess)
        if not (isinstance(source, str) and source.strip()):
            self.add(f"{path}.source", "must say where the value is from", source, '"NVIDIA H200 datasheet"')
        number = residual is None or (isinstance(residual, float | int) and not isinstance(residual, bool))
        if not number or (residual is not None and not 0 <= float(typing.cast("float", residual)) < 10):
            self.add(f"{path}.residual", "must be a relative error", residual, "0.059")
        elif kind in kinds and isinstance(source, str):
            return Provenance(ProvenanceKind(str(kind)), source, typing.cast("float | None", residual))
        return None


def is_sourced(raw: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value says itself where it is from."""
    return isinstance(raw, dict) and bool(raw.keys() & _SOURCED)


def _wrong(number: float, dimension: Dimension, meaning: Meaning | None) -> str | None:
    """What is wrong with a number's size."""
    if dimension is not Dimension.DIMENSIONLESS and number < 0.0:
        return f"a {dimension} must not be negative"
    if meaning is None or meaning.low <= number <= meaning.high:
        return None
    least = "must be more than zero" if number <= 0.0 < meaning.low else "is outside the plausible range"
    return f"{least}; plausible is {plausible(meaning, dimension)}"


@cache
def field_types(cls: type) -> dict[str, Any]:
    """The fields of a dataclass and their types."""
    # Some names are imported for type checkers only in the modules that define these classes.
    hints = typing.get_type_hints(cls, localns={"Mapping": Mapping, "DType": DType})
    return {item.name: hints[item.name] for item in dataclasses.fields(cls)}


def required_fields(cls: type) -> list[str]:
    """The fields that have no default."""
    missing = dataclasses.MISSING
    return [
        item.name for item in dataclasses.fields(cls) if item.default is missing and item.default_factory is missing
    ]


def read_fields(
    cls: type, raw: object, path: str, reading: Reading, inherited: Provenance | None, *, complete: bool = True
) -> dict[str, Any]:
    """The fields of dataclass `cls` from a mapping; every problem goes to `reading`.

    Returns:
        Constructor arguments; complete only if `reading` got no new problem, and `complete` is not given up.
    """
    types, meanings = field_types(cls), meanings_of(cls)
    if not isinstance(raw, dict):
        reading.add(path, "must be a mapping of fields", raw, f"{{{next(iter(types))}: ...}}")
        return {}
    for name in raw:
        if name not in types:
            message, guess = _GONE.get(name, "unknown field"), None if name in _GONE else closest(name, list(types))
            reading.add(f"{path}.{name}", message, suggestion=guess)
    for name in required_fields(cls) if complete else ():
        if name not in raw:
            reading.add(f"{path}.{name}", REQUIRED, example=field_example(name, types[name], meanings[name]))
    places = {
        name: _Place(expected, dimension_of_field(name), f"{path}.{name}", meanings[name])
        for name, expected in types.items()
        if name in raw
    }
    fields = {name: _read(raw[name], place, reading, inherited) for name, place in places.items()}
    reading.problems += alike_problems(meanings, fields, path)
    return fields


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands: the type that it becomes, its dimension, its dotted path, and what it means."""

    expected: Any
    dimension: Dimension
    path: str
    said: Said | None

    def under(self, key: str) -> _Place:
        """A key of the mapping that stands here."""
        dimension = self.dimension if self.dimension is not Dimension.DIMENSIONLESS else dimension_of_field(key)
        said = self.said.under(key) if isinstance(self.said, Table) else None
        return _Place(typing.get_args(self.expected)[1], dimension, f"{self.path}.{key}", said)


def _read(raw: object, place: _Place, reading: Reading, inherited: Provenance | None) -> Any:
    if place.expected is str:
        return _read_text(raw, place, reading)
    if place.expected is int:
        return _read_int(raw, place, reading, inherited)
    if place.expected is float:
        return reading.number(raw, place.dimension, place.path, inherited, _meaning(place))
    if typing.get_origin(place.expected) is Mapping:
        return _read_mapping(raw, place, reading, inherited)
    message = f"{place.path}: fields of type {place.expected} cannot be read from a file"
    raise TypeError(message)


def _meaning(place: _Place) -> Meaning | None:
    return place.said if isinstance(place.said, Meaning) else None


def _read_text(raw: object, place: _Place, reading: Reading) -> object:
    choices = place.said.choices if isinstance(place.said, Words) else ()
    if not isinstance(raw, str) or not raw.strip():
        reading.add(place.path, "must be text", raw)
    elif choices and raw not in choices:
        reading.add(place.path, f"must be one of {', '.join(choices)}", raw, choices[-2], closest(raw, choices))
    return raw


def _read_int(raw: object, place: _Place, reading: Reading, inherited: Provenance | None) -> int | None:
    number = reading.number(raw, Dimension.DIMENSIONLESS, place.path, inherited, _meaning(place))
    if number is None or number.is_integer():
        return None if number is None else int(number)
    reading.add(place.path, "must be a whole number", raw)
    return None


def _read_mapping(raw: object, place: _Place, reading: Reading, inherited: Provenance | None) -> dict[Any, Any]:
    key_type = typing.get_args(place.expected)[0]
    path, table = place.path, place.said if isinstance(place.said, Table) else None
    if is_sourced(raw):
        path += "" if "value" in raw else ".value"
        raw, inherited = reading.unwrap(raw, place.path, inherited)
    if not isinstance(raw, dict):
        reading.add(path, "must be a mapping", raw, field_example(path.rpartition(".")[2], place.expected, table))
        return {}
    if table is not None:
        reading.problems += table_problems(table, raw, path)
    result = {}
    for key, value in raw.items():
        if issubclass(key_type, StrEnum) and key not in list(key_type):
            known = [str(member) for member in key_type]
            reading.add(f"{path}.{key}", f"must be one of {', '.join(known)}", suggestion=closest(key, known))
        elif table is None or table.allows(key):
            result[key_type(key)] = _read(value, place.under(key), reading, inherited)
    return result


def field_example(name: str, expected: Any, said: Said | None = None) -> str:
    """A right value of a field, as a file would write it."""
    if expected is str:
        return '"text"'
    if typing.get_origin(expected) is Mapping:
        key = next(iter(said.own), "key") if isinstance(said, Table) else "key"
        inner = said.under(key) if isinstance(said, Table) else None
        return f"{{{key}: {field_example(name, typing.get_args(expected)[1], inner)}}}"
    if isinstance(said, Meaning):
        return example_of(dimension_of_field(name), said)
    return "8" if expected is int else EXAMPLES[dimension_of_field(name)]
