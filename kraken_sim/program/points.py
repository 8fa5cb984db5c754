"""Programs of many points: ops whose sizes are arrays [num_points]."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kraken_sim.program.many import is_many, same
from kraken_sim.program.program import MAIN_STREAM, Kernel, Program

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kraken_sim.program.ops import Gemm, Op

OpT = TypeVar("OpT", bound="Op")


def num_points(op: Op) -> int:
    """Points that an op is of; 0 where its sizes are plain numbers."""
    return next((len(value) for value in _arrays(op).values()), 0)


def _arrays(op: Any) -> dict[str, Any]:
    return {field.name: value for field in fields(op) if is_many(value := getattr(op, field.name))}


def without_side_stream(program: Program) -> Program:
    """What its stream of compute does, waiting for nothing.

    Alone its kernels end no later than among the others, so it is a lower bound of the whole.
    """
    segments = (
        replace(segment, steps=tuple(step for step in segment.kernels if step.stream == MAIN_STREAM))
        for segment in program.segments
    )
    return replace(program, segments=tuple(segments))


def with_equal_ops_shared(program: Program) -> Program:
    """The program of many points with equal ops as one object, as they can't be looked up by their value.

    Raises:
        DividedError: two ops are equal at some of the points only.
    """
    found: list[Op] = []

    def shared(op: Op) -> Op:
        for other in found:
            if type(other) is type(op) and same(_equal(op, other)):
                return other
        found.append(op)
        return op

    segments = []
    for segment in program.segments:
        steps = tuple(replace(step, op=shared(step.op)) if isinstance(step, Kernel) else step for step in segment.steps)
        segments.append(replace(segment, steps=steps))
    return replace(program, segments=tuple(segments), num_points=max(map(num_points, found), default=0))


def _equal(first: Any, second: Any) -> Any:
    """Whether two ops are equal, where that depends on the point an array."""
    equal: Any = True
    for field in fields(first):
        ours, theirs = getattr(first, field.name), getattr(second, field.name)
        if ours is theirs:
            continue
        both = is_dataclass(ours) and is_dataclass(theirs) and type(ours) is type(theirs)
        alike = _equal(ours, theirs) if both else ours == theirs
        if is_many(alike):
            equal = equal & alike
        elif not alike:
            return False
    return equal


def ops_of_points(op: OpT) -> list[OpT]:
    """The op of every point, with plain numbers; none where it has no arrays."""
    columns = {name: values.tolist() for name, values in _arrays(op).items()}
    for field in fields(op):
        if is_dataclass(inner := getattr(op, field.name)) and _arrays(inner):
            columns[field.name] = ops_of_points(inner)
    return [replace(op, **dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


@dataclass(frozen=True, slots=True)
class AlikeGemms:
    """Products of the same number formats as one op, and where each of them is in it."""

    whole: Gemm
    ops: tuple[Gemm, ...]
    parts: tuple[slice, ...]


def groups_alike(gemms: Sequence[Gemm]) -> Iterable[AlikeGemms]:
    """Products that one call can price, as their number formats are the same."""
    by_format: dict[Any, list[Gemm]] = {}
    for op in gemms:
        by_format.setdefault((op.dtype, op.quantization, op.by_row), []).append(op)
    size = max(map(num_points, gemms), default=0)
    for ops in by_format.values():
        columns: dict[str, Any] = {
            name: np.concatenate([np.broadcast_to(getattr(op, name), size) for op in ops])
            for name in ("m", "n", "k", "accumulate", "bias")
        }
        parts = tuple(slice(index * size, (index + 1) * size) for index in range(len(ops)))
        yield AlikeGemms(replace(ops[0], **columns), tuple(ops), parts)
