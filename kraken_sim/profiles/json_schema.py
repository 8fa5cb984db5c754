"""JSON schema of blocks of constants, from the fields of the dataclass that each becomes and what they mean."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kraken_sim.files.meaning import SI_UNITS, Meaning, Table, Words, meanings_of, plausible
from kraken_sim.profiles.blocks import field_types, required_fields
from kraken_sim.profiles.profile import ProvenanceKind
from kraken_sim.units import EXAMPLES, UNITS, Dimension, dimension_of_field

if TYPE_CHECKING:
    from kraken_sim.files.meaning import Said


def values_schema(cls: type, sourced_only: bool = False) -> dict[str, Any]:
    """JSON schema of the fields of a dataclass as files write them.

    With `sourced_only` every number must say itself where it is from.
    """
    types, meanings = field_types(cls), meanings_of(cls)
    return {
        "type": "object",
        "properties": {
            name: _schema(expected, dimension_of_field(name), meanings[name], sourced_only)
            for name, expected in types.items()
        },
        "required": required_fields(cls),
        "additionalProperties": False,
    }


def _schema(expected: Any, dimension: Dimension, said: Said | None, sourced_only: bool) -> dict[str, Any]:
    if expected is str:
        return _text_schema(said)
    if typing.get_origin(expected) is Mapping:
        return _mapping_schema(expected, dimension, said, sourced_only)
    meaning = said if isinstance(said, Meaning) else None
    bounds = {} if meaning is None else {"minimum": meaning.low, "maximum": meaning.high}
    plain = ({"type": "integer"} if expected is int else quantity_schema(dimension)) | bounds
    either = sourced_schema(plain) if sourced_only else {"anyOf": [plain, sourced_schema(plain)]}
    return described(either, dimension, meaning)


def described(schema: dict[str, Any], dimension: Dimension, meaning: Meaning | None) -> dict[str, Any]:
    """The schema of a number with what it means, its unit and its range; bounds are in SI, also of texts with units."""
    if meaning is None:
        return schema
    unit = meaning.unit if dimension is Dimension.DIMENSIONLESS else SI_UNITS[dimension]
    return {
        "description": f"{meaning.text} Plausible is {plausible(meaning, dimension)}.",
        "unit": unit,
        "minimum": meaning.low,
        "maximum": meaning.high,
        **schema,
    }


def _text_schema(said: Said | None) -> dict[str, Any]:
    if not isinstance(said, Words):
        return {"type": "string"}
    choices = {"enum": list(said.choices)} if said.choices else {}
    return {"type": "string", "description": said.text, **choices}


def _mapping_schema(expected: Any, dimension: Dimension, said: Said | None, sourced_only: bool) -> dict[str, Any]:
    value_type = typing.get_args(expected)[1]

    def under(key: str, meaning: Said | None) -> dict[str, Any]:
        found = dimension if dimension is not Dimension.DIMENSIONLESS else dimension_of_field(key)
        return _schema(value_type, found, meaning, sourced_only)

    if not isinstance(said, Table):
        return _either({"type": "object", "additionalProperties": under("", None)}, sourced_only)
    mapping: dict[str, Any] = {"type": "object", "description": said.text, "additionalProperties": False}
    if said.own:
        mapping |= {"properties": {str(key): under(key, inner) for key, inner in said.own.items()}}
    if said.keys is not None:
        mapping |= {"patternProperties": {f"^({said.keys})$": under("", said.each)}}
    if said.required:
        mapping["required"] = list(said.required)
    if said.least:
        mapping["minProperties"] = said.least
    return _either(mapping, sourced_only)


def _either(mapping: dict[str, Any], sourced_only: bool) -> dict[str, Any]:
    return mapping if sourced_only else {"anyOf": [mapping, sourced_schema(mapping)]}


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
