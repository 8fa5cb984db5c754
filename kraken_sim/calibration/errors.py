"""Errors of a fit by class of kernel, on the records that it did not see."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Sample = TypeVar("Sample")


@dataclass(frozen=True, slots=True)
class ClassError:
    """|predicted / measured - 1| over the held-out records of one class; `bias` is the mean with its sign."""

    kernel: str
    name: str
    count: int
    mean: float
    median: float
    worst: float
    bias: float


def class_errors(
    kernel: str, held_out: Iterable[tuple[Sample, float]], class_of: Callable[[Sample], tuple[int, str]]
) -> tuple[ClassError, ...]:
    """All of a kernel's held-out samples first, then its classes; `class_of` gives a class's rank and name."""
    pairs = [(class_of(sample), error) for sample, error in held_out]
    if not pairs:
        return ()
    keys = sorted({key for key, _ in pairs})
    groups = [("all", [error for _, error in pairs])]
    groups += [(key[1], [error for own, error in pairs if own == key]) for key in keys]
    return tuple(_summary(kernel, name, errors) for name, errors in groups)


def _summary(kernel: str, name: str, errors: list[float]) -> ClassError:
    sizes = [abs(error) for error in errors]
    return ClassError(kernel, name, len(errors), fmean(sizes), median(sizes), max(sizes), fmean(errors))
