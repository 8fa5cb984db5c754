"""What a number of a file means, its unit and the range in which it is plausible, said beside the field that holds it.

Constants of a machine are fields of plain dataclasses. Each says in its metadata what it means, and everything that
reads, checks or describes a file of them takes it from there:

    launch_s: float = field(metadata=means("Before the first CTA of a kernel.", 0.0, 1e-6, 1e-3))
    prefill: Mapping[str, float] = field(
        metadata=holds(Table("Share of the peak.", keys=NUMBER, each=EFFICIENCY, least=1))
    )

A range holds what a measurement may find on any GPU of the past and the next ten years, with room on either side: it
is there to catch a wrong sign, a wrong prefix or a wrong column, not to say what is good.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kraken_sim.units import Dimension, format_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY: Final = "meaning"

NUMBER: Final = r"[1-9]\d{0,8}"
"""A key that is a positive whole number: a head dimension, a length."""

SI_UNITS: Final[Mapping[Dimension, str]] = {
    Dimension.TIME: "s",
    Dimension.BYTES: "B",
    Dimension.BANDWIDTH: "B/s",
    Dimension.FLOPS: "FLOP/s",
    Dimension.FREQUENCY: "Hz",
    Dimension.POWER: "W",
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """A number: what it is, the least and the most that is plausible, and what it typically is, in SI.

    `unit` says what a plain number counts or relates; of one with a unit it is empty.
    """

    text: str
    low: float
    typical: float
    high: float
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    """A text: what it is, and the words that it may be, if there are only some."""

    text: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping: what it is, which keys it has and what stands under them.

    `own` are keys with a meaning of their own, of which `required` must be there; further keys match the regular
    expression `keys` and have the meaning `each`; without one there are none. `least` is the least number of keys.
    Tables of one dataclass that name the same group in `alike` have the same keys, as deep as both go. The keys of a
    table that is `ascending` are numbers in order; a `grid` has rows under keys like `256x1024` and every
    combination of the knots of its axes, or nothing.
    """

    text: str
    each: Meaning | Table | None = None
    keys: str | None = None
    own: Mapping[str, Meaning | Table] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    least: int = 0
    alike: str = ""
    ascending: bool = False
    grid: bool = False

    def under(self, key: str) -> Meaning | Table | None:
        """What stands under a key."""
        return self.own.get(key, self.each)

    def allows(self, key: str) -> bool:
        """Whether there may be such a key."""
        return key in self.own or (self.keys is not None and re.fullmatch(self.keys, key) is not None)


Said = Meaning | Words | Table


def means(text: str, low: float, typical: float, high: float, unit: str = "") -> dict[str, Said]:
    """Metadata of a field that holds a number; see `Meaning`."""
    return {_KEY: Meaning(text, low, typical, high, unit)}


def words(text: str, *choices: str) -> dict[str, Said]:
    """Metadata of a field that holds text; see `Words`."""
    return {_KEY: Words(text, choices)}


def holds(table: Table) -> dict[str, Said]:
    """Metadata of a field that holds a mapping; see `Table`."""
    return {_KEY: table}


def meanings_of(cls: type) -> dict[str, Said | None]:
    """What the fields of a dataclass mean, by name; None where one does not say."""
    return {item.name: item.metadata.get(_KEY) for item in dataclasses.fields(cls)}


def exactly(text: str, *names: str, each: Meaning | Table, optional: tuple[str, ...] = (), alike: str = "") -> Table:
    """A table with these keys, and perhaps some others, that all mean the same."""
    return Table(text, own=dict.fromkeys((*names, *optional), each), required=names, alike=alike)


def shown(value: float, dimension: Dimension) -> str:
    """A value as errors name it: with its unit, plain numbers as they are."""
    return f"{value:.6g}" if dimension is Dimension.DIMENSIONLESS else format_quantity(value, dimension)


def written(value: float, dimension: Dimension) -> str:
    """A value as a file has it."""
    return shown(value, dimension) if dimension is Dimension.DIMENSIONLESS else f'"{shown(value, dimension)}"'


def plausible(meaning: Meaning, dimension: Dimension) -> str:
    """The range of a number in words."""
    unit = f" ({meaning.unit})" if meaning.unit else ""
    return f"{shown(meaning.low, dimension)} to {shown(meaning.high, dimension)}{unit}"
