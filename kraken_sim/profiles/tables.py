"""What is wrong with the keys of a mapping of constants: missing, unknown, out of order, not a whole grid."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import Problem, closest
from kraken_sim.files.meaning import Meaning, Table, written
from kraken_sim.units import EXAMPLES, Dimension, dimension_of_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kraken_sim.files.meaning import Said

_LEAST_KNOTS: Final = 2
"""Of each axis of a grid: the least that can be interpolated between (definition)."""


def example_of(dimension: Dimension, said: Said | None) -> str:
    """A right number, as a file would write it."""
    return written(said.typical, dimension) if isinstance(said, Meaning) else EXAMPLES[dimension]


def table_problems(table: Table, raw: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """What is wrong with the keys of a mapping as the file has it."""
    for key in raw:
        if not table.allows(key):
            yield _unknown(table, key, path)
    for key in table.required:
        if key not in raw:
            yield Problem(f"{path}.{key}", "is required", example=_example(table, key))
    if len(raw) < table.least:
        yield Problem(path, "must not be empty", example=f"{{{_any_key(table)}: {_example(table, '')}}}")
    known = [key for key in raw if table.allows(key)]
    if table.ascending and [float(key) for key in known] != sorted({float(key) for key in known}):
        yield Problem(path, "knots must ascend", ", ".join(known), '{"20": 1.1, "24": 0.95}')
    if table.grid and known:
        yield from _grid_problems(table, {key: raw[key] for key in known}, path)


def _unknown(table: Table, key: str, path: str) -> Problem:
    known = list(table.own)
    message = f"unknown key; known are {', '.join(known)}" if known else "no such key is known"
    example = None if known else _any_key(table)
    return Problem(f"{path}.{key}", message, example=example, suggestion=closest(key, known))


def _any_key(table: Table) -> str:
    """A key that the table may have."""
    if table.own:
        return next(iter(table.own))
    examples = ('"128"', '"256x1024"', '"per_head 1024"', "one_shot_vllm")
    return next((key for key in examples if table.allows(key.strip('"'))), "key")


def _example(table: Table, key: str) -> str:
    said = table.under(key)
    if isinstance(said, Meaning):
        return example_of(dimension_of_field(key), said)
    return "{...}"


def _grid_problems(table: Table, rows: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """Cells that are missing between those that are there."""
    missing = "is required: a grid has every combination of its knots"
    plain = {key: row for key, row in rows.items() if isinstance(row, dict) and "source" not in row}
    axes = [list(dict.fromkeys(axis)) for axis in zip(*(key.split("x") for key in rows), strict=True)]
    inner = list(dict.fromkeys(key for row in plain.values() for key in row))
    if min(*map(len, axes), len(inner)) < _LEAST_KNOTS:
        yield Problem(path, f"a grid needs at least {_LEAST_KNOTS} knots of each axis, or none at all", example="{}")
        return
    cell = table.each.under(inner[0]) if isinstance(table.each, Table) else table.each
    for name in map("x".join, product(*axes)):
        if name not in rows:
            yield Problem(f"{path}.{name}", missing, example="{...}")
        for key in inner if name in plain else ():
            if key not in plain[name]:
                yield Problem(f"{path}.{name}.{key}", missing, example=example_of(Dimension.DIMENSIONLESS, cell))


def alike_problems(meanings: Mapping[str, Said | None], fields: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """Keys that some tables of a group have and others lack."""
    groups: dict[str, dict[str, Any]] = {}
    for name, said in meanings.items():
        if isinstance(said, Table) and said.alike and isinstance(fields.get(name), dict):
            groups.setdefault(said.alike, {})[f"{path}.{name}"] = fields[name]
    for tables in groups.values():
        yield from _lacking(tables)


def _lacking(tables: Mapping[str, Mapping[Any, Any]]) -> Iterator[Problem]:
    """Of tables by their paths."""
    for key in dict.fromkeys(key for table in tables.values() for key in table):
        has = [path for path, table in tables.items() if key in table]
        for path in tables:
            if path not in has:
                message = f"is required, as {has[0]} has it"
                yield Problem(f"{path}.{key}", message, example="as in a profile with the same kind of link")
        yield from _lacking({f"{path}.{key}": tables[path][key] for path in has if isinstance(tables[path][key], dict)})
