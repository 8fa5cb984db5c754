"""The Pareto front: what nothing else beats in every objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.program.many import Sizes


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


def beaten(points: Sizes, ranks: Sizes, front: Sizes, front_ranks: Sizes) -> Sizes:
    """Which of many points [num_points] can not be on a front, whose points are known, if they are lower bounds.

    Args:
        points: their objective values, all to be minimised [num_points, num_objectives].
        ranks: where each stands in the order in which the first of equal points counts.
        front: the values of points that are known [num_known, num_objectives].
        front_ranks: where these stand.
    """
    found = np.zeros(len(points), dtype=bool)
    left = np.arange(len(points))
    for value, rank in zip(front, front_ranks, strict=True):
        own = points[left]
        worse = (own >= value).all(axis=1) & ((own > value).any(axis=1) | (ranks[left] > rank))
        if worse.any():
            found[left[worse]] = True
            left = left[~worse]
    return found


def front_of_many(points: Sizes, ranks: Sizes) -> Sizes:
    """Indices of the points on their front, of equal ones that of the lowest rank; as `pareto_front` of arrays."""
    order = np.lexsort((ranks, *points.T[::-1]))
    kept: list[int] = []
    while len(order):
        # The first in lexicographic order is beaten by none behind it.
        index, order = order[0], order[1:]
        kept.append(int(index))
        order = order[~(points[order] >= points[index]).all(axis=1)]
    return np.array(sorted(kept), dtype=np.int64)
