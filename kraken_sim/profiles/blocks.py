"""Dataclasses of numbers read from a file, generically: the field's name says its unit, its type its shape.

A field is a float, an int, a str, or a mapping of names to those, nested as deep as its type says. A float
whose name ends in `_s`, `_bytes`, `_bytes_per_s`, `_flops`, `_hz` or `_w` is written with a unit, any other
as a plain number. In a mapping the name of the field decides, or, where that says nothing, the key.
Wherever a number or a mapping of them may stand, `{value: ..., kind: ..., source: ...}` may stand too and says where
this one number, or each of the mapping, is from.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any

from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.program.ops import DType
from kraken_sim.units import EXAMPLES, UNITS, Dimension, dimension_of_field, parse_quantity

_SOURCED = frozenset({"value", "kind", "source", "residual"})


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
        self, raw: object, dimension: Dimension, path: str, inherited: Provenance | None, minimum: float = 0.0
    ) -> float | None:
        """Reads one number and notes its provenance; None, and a problem, where it is wrong.

        `inherited` is what the block says about all its numbers; without it the number must say it itself.
        Quantities with a unit are never below `minimum`.
        """
        raw, provenance = self.unwrap(raw, path, inherited)
        if raw is None:
            self.add(path, "must be a value, not null", example=EXAMPLES[dimension])
            return None
        try:
            number = parse_quantity(raw, dimension, path)
        except InputError as error:
            self.problems.extend(error.problems)
            return None
        if dimension is not Dimension.DIMENSIONLESS and number < minimum:
            self.add(path, f"a {dimension} must not be negative", raw, EXAMPLES[dimension])
            return None
        if provenance is not None:
            self.note(path, provenance)
        return number

    def note(self, path: str, provenance: Provenance) -> None:
        """Notes where the number at `path` of the file is from, under its path in the profile."""
        self.provenance[path.replace(".values.", ".", 1)] = provenance

    def unwrap(self, raw: object, path: str, inherited: Provenance | None) -> tuple[object, Provenance | None]:
        """A value and where it is from: as it says itself, or as inherited."""
        if isinstance(raw, dict) and "value" in raw:
            for key in raw.keys() - _SOURCED:
                self.add(f"{path}.{key}", "unknown field", suggestion=closest(key, sorted(_SOURCED)))
            return raw["value"], self.read_provenance(raw, path)
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
    types = field_types(cls)
    if not isinstance(raw, dict):
        reading.add(path, "must be a mapping of fields", raw, f"{{{next(iter(types))}: ...}}")
        return {}
    for name in raw:
        if name not in types:
            reading.add(f"{path}.{name}", "unknown field", suggestion=closest(name, list(types)))
    for name in required_fields(cls) if complete else ():
        if name not in raw:
            reading.add(f"{path}.{name}", "is required", example=example_of(name, types[name]))
    return {
        name: _read(raw[name], expected, dimension_of_field(name), f"{path}.{name}", reading, inherited)
        for name, expected in types.items()
        if name in raw
    }


def _read(
    raw: object, expected: Any, dimension: Dimension, path: str, reading: Reading, inherited: Provenance | None
) -> Any:
    if expected is str:
        if not isinstance(raw, str) or not raw.strip():
            reading.add(path, "must be text", raw)
        return raw
    if expected is int:
        return _read_int(raw, path, reading, inherited)
    if expected is float:
        return reading.number(raw, dimension, path, inherited)
    if typing.get_origin(expected) is Mapping:
        return _read_mapping(raw, expected, dimension, path, reading, inherited)
    message = f"{path}: fields of type {expected} cannot be read from a file"
    raise TypeError(message)


def _read_int(raw: object, path: str, reading: Reading, inherited: Provenance | None) -> int | None:
    number = reading.number(raw, Dimension.DIMENSIONLESS, path, inherited)
    if number is None or number.is_integer():
        return None if number is None else int(number)
    reading.add(path, "must be a whole number", raw)
    return None


def _read_mapping(
    raw: object, expected: Any, dimension: Dimension, path: str, reading: Reading, inherited: Provenance | None
) -> dict[Any, Any]:
    key_type, value_type = typing.get_args(expected)
    if isinstance(raw, dict) and "value" in raw:
        raw, inherited = reading.unwrap(raw, path, inherited)
    if not isinstance(raw, dict):
        reading.add(path, "must be a mapping", raw, example_of(path.rpartition(".")[2], expected))
        return {}
    result = {}
    for key, value in raw.items():
        if issubclass(key_type, StrEnum) and key not in list(key_type):
            known = [str(member) for member in key_type]
            reading.add(f"{path}.{key}", f"must be one of {', '.join(known)}", suggestion=closest(key, known))
            continue
        inner = dimension if dimension is not Dimension.DIMENSIONLESS else dimension_of_field(key)
        result[key_type(key)] = _read(value, value_type, inner, f"{path}.{key}", reading, inherited)
    return result


def example_of(name: str, expected: Any) -> str:
    """A right value of a field, as a file would write it."""
    if expected is str:
        return '"text"'
    if expected is int:
        return "8"
    if typing.get_origin(expected) is Mapping:
        return f"{{key: {example_of(name, typing.get_args(expected)[1])}}}"
    return EXAMPLES[dimension_of_field(name)]


def values_schema(cls: type, sourced_only: bool = False) -> dict[str, Any]:
    """JSON schema of the fields of a dataclass as files write them.

    With `sourced_only` every number must say itself where it is from.
    """
    types = field_types(cls)
    return {
        "type": "object",
        "properties": {name: _type_schema(name, expected, sourced_only) for name, expected in types.items()},
        "required": required_fields(cls),
        "additionalProperties": False,
    }


def _type_schema(name: str, expected: Any, sourced_only: bool) -> dict[str, Any]:
    if expected is str:
        return {"type": "string"}
    if typing.get_origin(expected) is Mapping:
        value_type = typing.get_args(expected)[1]
        inner = _type_schema(name, value_type, sourced_only)
        if value_type in (int, float) and dimension_of_field(name) is Dimension.DIMENSIONLESS:
            inner = {"anyOf": [*inner["anyOf"], {"type": "string"}]}  # a key may ask for a unit
        mapping = {"type": "object", "additionalProperties": inner}
        return mapping if sourced_only else {"anyOf": [mapping, sourced_schema(mapping)]}
    plain = {"type": "integer"} if expected is int else quantity_schema(dimension_of_field(name))
    return sourced_schema(plain) if sourced_only else {"anyOf": [plain, sourced_schema(plain)]}


def sourced_schema(value: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of a number, or of a mapping of them, that says itself where it is from."""
    properties = {
        "value": value,
        "kind": {"enum": [str(kind) for kind in ProvenanceKind]},
        "source": {"type": "string", "minLength": 1},
        "residual": {"type": "number", "minimum": 0},
    }
    required = ["value", "kind", "source"]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def quantity_schema(dimension: Dimension) -> dict[str, Any]:
    """JSON schema of a quantity of this dimension."""
    if dimension is Dimension.DIMENSIONLESS:
        return {"type": "number"}
    units = "|".join(UNITS[dimension])
    pattern = rf"^\s*\+?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*({units})\s*$"
    return {"type": "string", "pattern": pattern, "description": f"a {dimension}, for example {EXAMPLES[dimension]}"}
