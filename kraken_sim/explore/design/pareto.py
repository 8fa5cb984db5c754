"""The Pareto front: what nothing else beats in every objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether `first` is nowhere higher than `second` and somewhere lower; objectives are minimised."""
    return all(a <= b for a, b in zip(first, second, strict=True)) and tuple(first) != tuple(second)


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other dominates, in the order of the points; of equal points the first.

    Args:
        points: objective values, all to be minimised and of one length.
    """
    # In lexicographic order a point can only be dominated by one before it, so one pass against the front suffices.
    order = sorted(range(len(points)), key=lambda index: (tuple(points[index]), index))
    front: list[int] = []
    for index in order:
        point = points[index]
        if not any(all(a <= b for a, b in zip(points[kept], point, strict=True)) for kept in front):
            front.append(index)
    return sorted(front)
