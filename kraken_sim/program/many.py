"""One number, or an array of one a point: what formulas need that are written once for a point and for many.

Sizes of ops, and all times that follow from them, may be arrays [num_points] where many points share a program's
structure. What decides on the structure itself must be the same at all of them: `same` divides them where it is not.
Every function gives an array the bits that it gives each of its numbers.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Sizes = Any
"""An int or a float, or an array of them [num_points]."""


T = TypeVar("T")

_ARRAY = np.ndarray


class DividedError(Exception):
    """Points that do not share a structure; `labels` [num_points] are equal where they do."""

    def __init__(self, labels: Sizes) -> None:
        super().__init__("points differ in structure")
        self.labels = labels


class OneByOneError(Exception):
    """Points that nobody can answer together."""


class Maths(NamedTuple):
    """The functions that differ between one number and arrays."""

    maximum: Callable[[Sizes, Sizes], Sizes]
    minimum: Callable[[Sizes, Sizes], Sizes]
    ceil: Callable[[Sizes], Sizes]
    power: Callable[[Sizes, Sizes], Sizes] = pow


POINT = Maths(max, min, math.ceil)
"""For one number."""

POINTS = Maths(np.maximum, np.minimum, np.ceil, np.float_power)
"""For arrays: `numpy.float_power` is the C library's, as Python's is; `numpy.power` may differ in the last bit."""


def is_many(value: Sizes) -> bool:
    """Whether it is an array."""
    return type(value) is _ARRAY


def maths_for(*values: Sizes) -> Maths:
    """`POINTS` if one of the values is an array."""
    for value in values:  # faster than `any` of a generator, and asked of every kernel
        if type(value) is _ARRAY:
            return POINTS
    return POINT


def same(value: Sizes) -> Any:
    """The value that all points have.

    Raises:
        DividedError: they have several.
    """
    if not isinstance(value, np.ndarray):
        return value
    first = value[0]
    if (value == first).all():
        return first.item()
    raise DividedError(value)


def least(value: Sizes) -> Any:
    """The smallest of the points' values."""
    return value.min().item() if isinstance(value, np.ndarray) else value


def power(base: Sizes, exponent: Sizes) -> Sizes:
    """`base` to the power of `exponent`."""
    return np.float_power(base, exponent) if type(base) is _ARRAY or type(exponent) is _ARRAY else base**exponent


def each(function: Callable[[float], float], values: Sizes) -> Sizes:
    """A function of `math` of one number or of every one; numpy's own may differ in the last bit."""
    if not isinstance(values, np.ndarray):
        return function(values)
    found, where = np.unique(values, return_inverse=True)
    if len(found) > len(values) // 2:
        return np.array([function(value) for value in values.tolist()])
    return np.array([function(value) for value in found.tolist()])[where]


def each_pair(function: Callable[[float, float], float], first: Sizes, second: Sizes) -> Sizes:
    """The same of two arguments."""
    if not is_many(first) and not is_many(second):
        return function(first, second)
    pairs = zip(*(values.tolist() for values in np.broadcast_arrays(first, second)), strict=True)
    return np.array([function(*pair) for pair in pairs])


def where(condition: Sizes, yes: Sizes, no: Sizes) -> Sizes:
    """`yes` where the condition holds, else `no`."""
    return np.where(condition, yes, no) if type(condition) is _ARRAY else (yes if condition else no)


def apart(function: Callable[[Sizes], T], values: Sizes) -> T:
    """What a function makes of an array, which it takes in parts where the values do not share a structure.

    Args:
        function: from an array [n] to a dataclass whose fields are values of all n, or arrays of one each.
        values: the array.
    """
    waiting, found = [np.arange(len(values))], []
    while waiting:
        index = waiting.pop()
        try:
            found.append((index, function(values[index])))
        except DividedError as divided:
            _, part = np.unique(divided.labels, return_inverse=True)
            waiting += [index[part == number] for number in range(part.max() + 1)]
    return found[0][1] if len(found) == 1 else _joined(found, len(values))


def _joined(parts: list[tuple[Sizes, T]], size: int) -> T:
    """The parts' columns put together: each is an array, and where its values stand."""
    columns: dict[str, Any] = {}
    for field in fields(parts[0][1]):  # type: ignore[arg-type]
        values = [getattr(part, field.name) for _, part in parts]
        if not any(map(is_many, values)) and len(set(values)) == 1:
            columns[field.name] = values[0]
            continue
        text = any(isinstance(value, str) for value in values)
        column = np.empty(size, dtype=object if text else np.result_type(*values))
        for (index, _), value in zip(parts, values, strict=True):
            column[index] = value
        columns[field.name] = column
    return replace(parts[0][1], **columns)  # type: ignore[type-var]


def part_of(columns: T, index: Sizes) -> T:
    """A dataclass of columns at some points."""
    changes = {field.name: at(getattr(columns, field.name), index) for field in fields(columns)}  # type: ignore[arg-type]
    return replace(columns, **changes)  # type: ignore[type-var]


def stacked(rows: list[T]) -> T:
    """Dataclasses of one point each as one of columns."""
    first, columns = rows[0], {}
    for field in fields(first):  # type: ignore[arg-type]
        values = [getattr(row, field.name) for row in rows]
        columns[field.name] = values[0] if isinstance(values[0], str) else np.array(values)
    return replace(first, **columns)  # type: ignore[type-var]


def bit_length(number: Sizes) -> Sizes:
    """As of `int`; of positive numbers below 2^53."""
    return np.frexp(number.astype(np.float64))[1] if isinstance(number, np.ndarray) else int(number).bit_length()


def at(value: Any, index: Sizes) -> Any:
    """The value at some points: arrays, also those inside a named tuple, have fewer elements."""
    if isinstance(value, np.ndarray):
        return value[index]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(at(item, index) for item in value))
    return value


def whole_part(values: Sizes) -> Sizes:
    """The whole part of positive numbers."""
    return values.astype(np.int64) if isinstance(values, np.ndarray) else int(values)


def nearest_whole(values: Sizes) -> Sizes:
    """To the nearest whole number, of two the even one."""
    return np.rint(values).astype(np.int64) if isinstance(values, np.ndarray) else round(values)
