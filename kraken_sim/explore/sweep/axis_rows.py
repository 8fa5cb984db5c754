"""The values of an axis in order, counted without being built: of ranges, of lists zipped, multiplied or joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

FieldValue = str | int | float | bool | None
"""What a field of a scenario can be."""

Row = tuple[FieldValue, ...]


@dataclass(frozen=True, slots=True)
class RangeRows:
    """The values of a range, none of them stored."""

    start: int | float
    step: int | float
    length: int

    def at(self, index: int) -> Row:
        """The row of one number."""
        return (self.start + index * self.step,)

    def column(self, _: int) -> Iterator[FieldValue]:
        """Its first and its last value, which have the type of all."""
        yield from (self.start, self.at(self.length - 1)[0])


@dataclass(frozen=True, slots=True)
class ZippedRows:
    """Several rows side by side; all have one length."""

    parts: tuple[Rows, ...]

    @property
    def length(self) -> int:
        """How many rows there are."""
        return count_of(self.parts[0])

    def at(self, index: int) -> Row:
        """The row of one number."""
        return tuple(value for part in self.parts for value in row_of(part, index))

    def column(self, index: int) -> Iterator[FieldValue]:
        """The values of one column."""
        return _column_beside(self.parts, index)


@dataclass(frozen=True, slots=True)
class ProductRows:
    """Every combination of rows, the first changing slowest; `order` says which column comes where, -1 is null."""

    factors: tuple[Rows, ...]
    order: tuple[int, ...]

    @property
    def length(self) -> int:
        """How many combinations there are."""
        return prod(map(count_of, self.factors))

    def at(self, index: int) -> Row:
        """The row of one number."""
        found: list[Row] = []
        for factor in reversed(self.factors):
            index, place = divmod(index, count_of(factor))
            found.append(row_of(factor, place))
        values = [value for row in reversed(found) for value in row]
        return tuple(None if column < 0 else values[column] for column in self.order)

    def column(self, index: int) -> Iterator[FieldValue]:
        """The values of one column, each once for its factor."""
        place = self.order[index]
        return iter((None,)) if place < 0 else _column_beside(self.factors, place)


@dataclass(frozen=True, slots=True)
class JoinedRows:
    """Rows one after the other."""

    parts: tuple[ProductRows, ...]

    @property
    def length(self) -> int:
        """How many rows there are."""
        return sum(map(count_of, self.parts))

    def at(self, index: int) -> Row:
        """The row of one number."""
        for part in self.parts:
            if index < part.length:
                return part.at(index)
            index -= part.length
        raise IndexError(index)

    def column(self, index: int) -> Iterator[FieldValue]:
        """The values of one column."""
        return (value for part in self.parts for value in part.column(index))


CountedRows = RangeRows | ZippedRows | ProductRows | JoinedRows
Rows = Sequence[Row] | CountedRows


def count_of(rows: Rows) -> int:
    """How many rows there are; more than `len` can say, too."""
    return rows.length if isinstance(rows, CountedRows) else len(rows)


def row_of(rows: Rows, index: int) -> Row:
    """The row of one number, from 0."""
    return rows.at(index) if isinstance(rows, CountedRows) else rows[index]


def column_of(rows: Rows, index: int) -> Iterator[FieldValue]:
    """Values of one column; of rows that are counted only, each that comes from a list and the ends of ranges."""
    return rows.column(index) if isinstance(rows, CountedRows) else (row[index] for row in rows)


def _column_beside(parts: Sequence[Rows], index: int) -> Iterator[FieldValue]:
    for part in parts:
        width = len(row_of(part, 0))
        if index < width:
            return column_of(part, index)
        index -= width
    raise IndexError(index)
