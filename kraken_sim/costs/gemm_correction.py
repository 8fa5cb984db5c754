"""A smooth factor on the GEMM model over (m, n, k), and the trilinear interpolation it is read with."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from math import exp, log, log2
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kraken_sim.program.many import each, is_many

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kraken_sim.costs.gemm_constants import GemmConstants
    from kraken_sim.program.many import Sizes


class CorrectionGrid(NamedTuple):
    """Knots in log2 and the logarithms of the factors, indexed [m][n][k]."""

    m_knots: tuple[float, ...]
    n_knots: tuple[float, ...]
    k_knots: tuple[float, ...]
    log_factors: tuple[tuple[tuple[float, ...], ...], ...]


@lru_cache(maxsize=64)
def grid_of(constants: GemmConstants) -> CorrectionGrid | None:
    """The constants' grid ready for look-up; None when they hold none."""
    return parse_grid(constants.correction) if constants.correction else None


def parse_grid(table: Mapping[str, Mapping[str, float]]) -> CorrectionGrid:
    """Reads {"<m>x<n>": {"<k>": factor}}.

    Raises:
        ValueError: the knots do not form a full grid of at least two an axis, or a factor is not positive.
    """
    pairs = {tuple(float(part) for part in key.split("x")): row for key, row in table.items()}
    ms, ns = sorted({pair[0] for pair in pairs}), sorted({pair[1] for pair in pairs})
    ks = sorted({float(k) for row in pairs.values() for k in row})
    if min(len(ms), len(ns), len(ks)) < 2:
        raise ValueError("a correction grid needs at least two knots of m, n and k")
    cells = {(m, n, float(k)): value for (m, n), row in pairs.items() for k, value in row.items()}
    if len(cells) != len(ms) * len(ns) * len(ks) or any(value <= 0.0 for value in cells.values()):
        raise ValueError("a correction grid needs one positive factor for every combination of its knots")
    factors = tuple(tuple(tuple(log(cells[m, n, k]) for k in ks) for n in ns) for m in ms)
    return CorrectionGrid(_log2(ms), _log2(ns), _log2(ks), factors)


def gemm_correction_factor(constants: GemmConstants, m: Sizes, n: Sizes, k: Sizes) -> Sizes:
    """Factor on the model's time at one shape; outside the knots the edge value holds."""
    grid = grid_of(constants)
    if grid is None:
        return 1.0
    if is_many(m) or is_many(n) or is_many(k):
        return _factors(grid, *(each(log2, size) for size in np.broadcast_arrays(m, n, k)))
    i, u = _locate(grid.m_knots, log2(m))
    j, v = _locate(grid.n_knots, log2(n))
    h, w = _locate(grid.k_knots, log2(k))
    low, high = grid.log_factors[i], grid.log_factors[i + 1]

    def along_k(row: tuple[float, ...]) -> float:
        return row[h] + w * (row[h + 1] - row[h])

    return exp(_between(along_k(low[j]), along_k(low[j + 1]), along_k(high[j]), along_k(high[j + 1]), u, v))


def _between(a: Sizes, b: Sizes, c: Sizes, d: Sizes, u: Sizes, v: Sizes) -> Sizes:
    first, second = a + v * (b - a), c + v * (d - c)
    return first + u * (second - first)


def _factors(grid: CorrectionGrid, log_m: Sizes, log_n: Sizes, log_k: Sizes) -> Sizes:
    """The same of many shapes, by the logarithms of their sizes."""
    (i, u), (j, v), (h, w) = (
        _locate_many(np.array(knots), logs)
        for knots, logs in ((grid.m_knots, log_m), (grid.n_knots, log_n), (grid.k_knots, log_k))
    )
    table = np.array(grid.log_factors)

    def along_k(m: Sizes, n: Sizes) -> Sizes:
        return table[m, n, h] + w * (table[m, n, h + 1] - table[m, n, h])

    corners = along_k(i, j), along_k(i, j + 1), along_k(i + 1, j), along_k(i + 1, j + 1)
    return each(exp, _between(*corners, u, v))


def _locate_many(knots: Sizes, x: Sizes) -> tuple[Sizes, Sizes]:
    last = len(knots) - 2
    index = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, last)
    share = (x - knots[index]) / (knots[index + 1] - knots[index])
    outside = np.where(x <= knots[0], 0.0, 1.0)
    return index, np.where((x <= knots[0]) | (x >= knots[-1]), outside, share)


def _locate(knots: tuple[float, ...], x: float) -> tuple[int, float]:
    if x <= knots[0]:
        return 0, 0.0
    if x >= knots[-1]:
        return len(knots) - 2, 1.0
    index = bisect_right(knots, x) - 1
    return index, (x - knots[index]) / (knots[index + 1] - knots[index])


def _log2(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(log2(value) for value in values)
