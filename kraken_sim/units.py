"""Quantities with units, where text meets numbers: read at the file edge, written for people.

Inside the package every number is SI and its name carries the unit (`_s`, `_bytes`, `_bytes_per_s`,
`_flops`, `_hz`, `_w`); files carry unit strings such as `900 GB/s`. Prefixes are exact: k, M, G, T are
powers of 1000, Ki, Mi, Gi, Ti powers of 1024, `b` is a bit and `B` a byte, and case matters.
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError, Problem, closest

if TYPE_CHECKING:
    from collections.abc import Mapping


class Dimension(StrEnum):
    """What a quantity measures, named as errors name it."""

    TIME = "time"
    BYTES = "amount of data"
    BANDWIDTH = "bandwidth"
    FLOPS = "rate of floating-point operations"
    FREQUENCY = "frequency"
    POWER = "power"
    DIMENSIONLESS = "plain number"


_DECIMAL: Final = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
"""SI prefixes and what they multiply by; a definition."""

_BINARY: Final = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
"""IEC prefixes and what they multiply by; a definition."""

_BITS: Final = 8.0
"""Bits of a byte; a definition."""


def _data_units(suffix: str) -> dict[str, float]:
    units = {f"{prefix}B{suffix}": scale for prefix, scale in (_DECIMAL | _BINARY).items()}
    bits = {f"{prefix}b{suffix}": scale / _BITS for prefix, scale in (_DECIMAL | _BINARY).items()}
    return units | bits


UNITS: Final[Mapping[Dimension, Mapping[str, float]]] = {
    Dimension.TIME: {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "min": 60.0},
    Dimension.BYTES: _data_units(""),
    Dimension.BANDWIDTH: _data_units("/s"),
    Dimension.FLOPS: {f"{prefix}FLOP/s": scale for prefix, scale in _DECIMAL.items()},
    Dimension.FREQUENCY: {f"{prefix}Hz": _DECIMAL[prefix] for prefix in ("", "k", "M", "G")},
    Dimension.POWER: {"W": 1.0, "kW": 1e3, "mW": 1e-3},
    Dimension.DIMENSIONLESS: {},
}
"""Every unit a file may use, and what one of it is in SI."""

EXAMPLES: Final[Mapping[Dimension, str]] = {
    Dimension.TIME: '"3.4 us"',
    Dimension.BYTES: '"40 GiB"',
    Dimension.BANDWIDTH: '"900 GB/s"',
    Dimension.FLOPS: '"989 TFLOP/s"',
    Dimension.FREQUENCY: '"1.98 GHz"',
    Dimension.POWER: '"700 W"',
    Dimension.DIMENSIONLESS: "0.85",
}

# The longest suffix wins: `_bytes_per_s` also ends in `_s`.
_SUFFIXES: Final = (
    ("_bytes_per_s", Dimension.BANDWIDTH),
    ("_bytes", Dimension.BYTES),
    ("_flops", Dimension.FLOPS),
    ("_hz", Dimension.FREQUENCY),
    ("_w", Dimension.POWER),
    ("_s", Dimension.TIME),
)
_QUANTITY: Final = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S.*?)?\s*")


def dimension_of_field(name: str) -> Dimension:
    """The dimension that the suffix of a field's name stands for, as in `hbm_bandwidth_bytes_per_s`."""
    for suffix, dimension in _SUFFIXES:
        if name.endswith(suffix):
            return dimension
    return Dimension.DIMENSIONLESS


def parse_quantity(value: object, dimension: Dimension, path: str = "") -> float:
    """Reads a quantity as files write it.

    Args:
        value: Text with a number and a unit; a bare number for `Dimension.DIMENSIONLESS`.
        dimension: What the quantity must measure.
        path: Dotted path of the field, for the error.

    Returns:
        The value in SI units (seconds, bytes, bytes/s, FLOP/s, Hz, W).

    Raises:
        InputError: The text is no quantity, has no unit or a unit of another dimension, or is not finite.
    """
    number = _plain(value, path) if dimension is Dimension.DIMENSIONLESS else _with_unit(value, dimension, path)
    if not math.isfinite(number):
        raise _error(path, dimension, "is not a finite number", value)
    return number


def _plain(value: object, path: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    message = "must be a plain number without quotes or a unit"
    raise _error(path, Dimension.DIMENSIONLESS, message, value)


def _with_unit(value: object, dimension: Dimension, path: str) -> float:
    if not isinstance(value, str):
        known = ", ".join(list(UNITS[dimension])[:4])
        raise _error(path, dimension, f"a {dimension} needs a number and a unit ({known}, ...)", value)
    match = _QUANTITY.fullmatch(value)
    if match is None:
        raise _error(path, dimension, f"is not a {dimension}", value)
    unit = match[2] or ""
    scale = UNITS[dimension].get(unit)
    if scale is None:
        raise _unit_error(value, match[1], unit, dimension, path)
    # Dividing by an exact power of ten rounds once: "3.4 us" is then the float 3.4e-6.
    return float(match[1]) * scale if scale >= 1 else float(match[1]) / round(1 / scale)


def _unit_error(value: str, number: str, unit: str, dimension: Dimension, path: str) -> InputError:
    if not unit:
        return _error(path, dimension, f"a {dimension} needs a unit", value)
    for other, units in UNITS.items():
        if unit in units:
            return _error(path, dimension, f"{unit} is a unit of {other}, but this is a {dimension}", value)
    guess = _closest_unit(unit, dimension)
    return _error(path, dimension, f"unknown unit {unit!r} of {dimension}", value, guess and f"{number} {guess}")


def _closest_unit(unit: str, dimension: Dimension) -> str | None:
    if dimension is Dimension.FLOPS:
        unit = re.sub(r"(?i)flops?(/s)?$", "FLOP/s", unit)
    elif dimension is Dimension.BANDWIDTH:
        unit = re.sub(r"(?i)ps$", "/s", unit)
    same = [known for known in UNITS[dimension] if known.lower() == unit.lower()]
    if not same:
        return closest(unit, list(UNITS[dimension]))
    if dimension is Dimension.BYTES:
        return same[0]  # nobody measures memory in bits
    # `gbps` is nearer to Gb/s than to GB/s: the case of most letters decides between bits and bytes.
    return max(same, key=lambda known: sum(a == b for a, b in zip(known, unit, strict=True)))


def _error(path: str, dimension: Dimension, message: str, value: object, suggestion: str | None = None) -> InputError:
    return InputError([Problem(path, message, value, EXAMPLES[dimension], suggestion)])


_SHOWN: Final[Mapping[Dimension, tuple[str, ...]]] = {
    Dimension.TIME: ("s", "ms", "us", "ns"),
    Dimension.BYTES: ("PB", "TB", "GB", "MB", "kB", "B"),
    Dimension.BANDWIDTH: ("PB/s", "TB/s", "GB/s", "MB/s", "kB/s", "B/s"),
    Dimension.FLOPS: ("PFLOP/s", "TFLOP/s", "GFLOP/s", "MFLOP/s", "kFLOP/s", "FLOP/s"),
    Dimension.FREQUENCY: ("GHz", "MHz", "kHz", "Hz"),
    Dimension.POWER: ("kW", "W", "mW"),
}


def format_quantity(value: float, dimension: Dimension, digits: int = 4) -> str:
    """The value with the largest decimal unit that keeps it at one or more, for example `3.4 us`.

    `parse_quantity` reads it back to within `digits` significant digits.
    """
    if dimension is Dimension.DIMENSIONLESS:
        return f"{value:.{digits}g}"
    units = _SHOWN[dimension]
    scales = UNITS[dimension]
    rounded = abs(float(f"{value:.{digits - 1}e}"))
    unit = next((unit for unit in units if rounded >= scales[unit] * (1 - 1e-12)), units[-1])
    if value == 0:
        unit = next(unit for unit in units if scales[unit] == 1.0)
    return f"{_significant(value / scales[unit], digits)} {unit}"


def _significant(number: float, digits: int) -> str:
    text = f"{number:.{digits}g}"
    return text if "e" not in text else f"{float(text):.0f}" if abs(number) >= 1 else text


def format_seconds(value_s: float, digits: int = 4) -> str:
    """A duration for people: `3.4 us`, `12.05 ms`."""
    return format_quantity(value_s, Dimension.TIME, digits)


def format_bytes(value_bytes: float, digits: int = 4) -> str:
    """An amount of data for people, in decimal units as vendors count: `141 GB`."""
    return format_quantity(value_bytes, Dimension.BYTES, digits)


def format_bandwidth(value_bytes_per_s: float, digits: int = 4) -> str:
    """A bandwidth for people: `900 GB/s`."""
    return format_quantity(value_bytes_per_s, Dimension.BANDWIDTH, digits)


def format_flops(value_flops: float, digits: int = 4) -> str:
    """A rate of floating-point operations for people: `989.4 TFLOP/s`."""
    return format_quantity(value_flops, Dimension.FLOPS, digits)


def format_watts(value_w: float, digits: int = 4) -> str:
    """A power for people: `700 W`."""
    return format_quantity(value_w, Dimension.POWER, digits)
