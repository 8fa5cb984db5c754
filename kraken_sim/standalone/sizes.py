"""The sizes and the types of elements of nccl-tests: how they are written, and what they come to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kraken_sim.errors import InputError, closest
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SIZES = 10_000
"""Most sizes of a table; a limit of ours, where a step too small would run for minutes."""

ELEMENT_BYTES = {
    "int8": 1, "uint8": 1, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8,
    "half": 2, "float": 4, "double": 8, "bfloat16": 2, "f8e4m3": 1, "f8e5m2": 1,
    "fp8_e4m3": 1, "fp8_e5m2": 1,
}  # fmt: skip
"""NCCL's types as nccl-tests names them, and the bytes of one element."""
TORCH_NAMES = {"float16": "half", "float32": "float", "float64": "double", "fp16": "half", "fp32": "float"}
REDUCING = (CollectiveKind.ALL_REDUCE, CollectiveKind.REDUCE_SCATTER)
PER_RANK = (CollectiveKind.ALL_GATHER, CollectiveKind.REDUCE_SCATTER, CollectiveKind.ALL_TO_ALL)
"""Collectives whose `count` nccl-tests gives for one rank's share."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", re.IGNORECASE)


def parse_size(text: str, option: str) -> int:
    """A size as nccl-tests takes it: 8, 1K, 512M, 1G, in powers of 1024.

    Raises:
        InputError: It is no size, or below one byte.
    """
    match = _SIZE.fullmatch(text.strip())
    number = float(match[1]) * 1024.0 ** " KMG".index(match[2].upper() or " ") if match else 0.0
    if number < 1.0 or number != int(number):
        raise InputError.single(option, "must be a size of at least one byte", text, "512M, or 8, 64K, 1G")
    return int(number)


def sizes_between(begin: int, end: int, factor: float | None, step: int | None) -> list[int]:
    """Begin, begin * factor, ... or begin, begin + step, ... up to `end`.

    Raises:
        InputError: An empty range, both or no way to get from one size to the next, or too many sizes.
    """
    if begin > end:
        raise InputError.single("-b", f"must not be above -e ({end})", begin, "-b 8 -e 512M -f 2")
    if factor is not None and step is not None:
        raise InputError.single("-i", "is a step and -f a factor: give one of them", step, "-b 8 -e 512M -f 2")
    if step is None and not (factor is not None and 1.0 < factor < float("inf")):
        raise InputError.single("-f", "must be above 1", factor, "-f 2")
    if step is not None and (end - begin) // step >= MAX_SIZES:
        message = f"gives more than {MAX_SIZES} sizes from {begin} to {end}"
        raise InputError.single("-i", message, step, "-i 1M")
    found = list(_sizes(begin, end, factor or 0.0, step))
    if len(found) > MAX_SIZES:
        raise InputError.single("-f", f"gives more than {MAX_SIZES} sizes from {begin} to {end}", factor, "-f 2")
    return found


def _sizes(begin: int, end: int, factor: float, step: int | None) -> Iterator[int]:
    size, number = begin, 0
    while size <= end and number <= MAX_SIZES:
        yield size
        number += 1
        size = size + step if step is not None else max(size + 1, int(size * factor))


def element_type(name: str) -> str:
    """A type by nccl-tests' name or torch's.

    Raises:
        InputError: There is none.
    """
    word = TORCH_NAMES.get(name.lower(), name.lower())
    if word not in ELEMENT_BYTES:
        known = [*ELEMENT_BYTES, *TORCH_NAMES]
        message = f"must be one of {', '.join(ELEMENT_BYTES)}"
        raise InputError.single("--dtype", message, name, "--dtype half", closest(name, known))
    return word
