"""Which rows of an answer: those that keep conditions, in an order, the first of them."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.files.strict_yaml import plain_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_CONDITION: Final = re.compile(r"\s*([\w.-]+)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*")
_EQUAL: Final = {"=": operator.eq, "==": operator.eq, "!=": operator.ne}
_ORDERED: Final = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_DESCENDING: Final = "desc"


@dataclass(frozen=True, slots=True)
class RowCondition:
    """What a column must be; nothing is neither more nor less than anything."""

    column: str
    sign: str
    value: object

    def keeps(self, values: Sequence[object], column: str) -> list[bool]:
        """For each value of the column whether it is so.

        Raises:
            InputError: the column holds values of another kind.
        """
        if self.value is None:
            return [_EQUAL[self.sign](value, None) for value in values]
        kinds = {_kind(value) for value in values} - {None}
        if kinds - {_kind(self.value)}:
            message = f"{column} holds {' and '.join(sorted(map(str, kinds)))}, not {_kind(self.value)}"
            raise InputError.single("--where", message, str(self.value), str(next(v for v in values if v is not None)))
        holds: Callable[[Any, Any], bool] = (_EQUAL | _ORDERED)[self.sign]
        return [value is not None and holds(value, self.value) for value in values]


def _kind(value: object) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "true or false"
        case int() | float():
            return "numbers"
    return "text"


@dataclass(frozen=True, slots=True)
class RowChoice:
    """Conditions, all of which a row keeps; the column to sort by; how many rows at most."""

    where: tuple[RowCondition, ...] = ()
    sort: str | None = None
    descending: bool = False
    top: int | None = None

    @property
    def is_whole(self) -> bool:
        """Every row, as they come."""
        return self == RowChoice()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are asked about."""
        return tuple(dict.fromkeys([*(item.column for item in self.where), *([self.sort] if self.sort else [])]))

    def indices(self, names: Sequence[str], values_of: Callable[[str], Sequence[object]], count: int) -> list[int]:
        """The rows, by their numbers.

        Args:
            names: of the columns.
            values_of: the values of a column, a row each; asked only for columns that matter.
            count: of the rows.

        Raises:
            InputError: there is no such column, or it holds values of another kind.
        """
        kept: Sequence[int] = range(count)
        for condition in self.where:
            column = column_named(condition.column, names, "--where")
            holds = condition.keeps(values_of(column), column)
            kept = [row for row in kept if holds[row]]
        if self.sort is not None:
            values: Sequence[Any] = values_of(column_named(self.sort, names, "--sort"))
            # Rows without a value come last, whichever way.
            known = [row for row in kept if values[row] is not None]
            known.sort(key=lambda row: values[row], reverse=self.descending)
            kept = known + [row for row in kept if values[row] is None]
        return list(kept[: self.top])

    def of_records(self, records: Sequence[Mapping[str, object]]) -> list[int]:
        """The same of flat rows."""
        names = list(dict.fromkeys(name for record in records for name in record))
        return self.indices(names, lambda name: [record.get(name) for record in records], len(records))


def column_named(name: str, names: Sequence[str], option: str) -> str:
    """The column of a name, or the one whose dotted path ends so.

    Raises:
        InputError: there is none, or several.
    """
    if name in names:
        return name
    ending = [column for column in names if column.rpartition(".")[2] == name]
    if len(ending) == 1:
        return ending[0]
    what = f"may be {', '.join(ending)}" if ending else f"is no column; there are {', '.join(names)}"
    raise InputError.single(option, what, name, suggestion=None if ending else closest(name, list(names)))


def condition_of(text: str) -> RowCondition:
    """The condition that `COLUMN<VALUE` says, or another sign of comparison.

    Raises:
        InputError: it is none.
    """
    match = _CONDITION.fullmatch(text)
    example = "--where 'batch_size>=8'"
    if match is None:
        raise InputError.single("--where", "must be a column, a sign (= != < <= > >=) and a value", text, example)
    column, sign, written = match.groups()
    try:
        value = plain_value(written)
    except ValueError as error:
        raise InputError.single("--where", f"{column}: {error}") from None
    if sign in _ORDERED and value is None:
        raise InputError.single("--where", "nothing is neither more nor less than a value", text, example)
    return RowCondition(column, sign, value)


def selection_of(where: Sequence[str], sort: str | None, top: int | None) -> RowChoice:
    """What `--where`, `--sort` and `--top` say.

    Raises:
        InputError: anything of it is wrong, all at once.
    """
    problems: list[Problem] = []
    conditions = []
    for text in where:
        try:
            conditions.append(condition_of(text))
        except InputError as error:
            problems += error.problems
    name, _, way = (sort or "").partition(":")
    try:
        if way not in ("", "asc", _DESCENDING):
            raise InputError.single("--sort", "must be a column, or column:desc", sort, "--sort latency_s:desc")
        if top is not None and top < 1:
            raise InputError.single("--top", "must be at least 1", top, "--top 10")
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    return RowChoice(tuple(conditions), name or None, way == _DESCENDING, top)
