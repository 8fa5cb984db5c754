"""Fits the smooth correction of the GEMM model: factors at knots over log m, log n, log k, kept near 1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from kraken_sim.costs.gemm_correction import parse_grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_LOSS_SCALE = 0.05
"""Relative error from which a sample counts less; a choice of ours, that of a good fit."""

_ROUNDS = 4
"""Rounds of the robust fit; a choice of ours, more change nothing that is kept."""


@dataclass(frozen=True, slots=True)
class CorrectionKnots:
    """Knots in elements, and what holds the factors back: differences between neighbours, distance from 1."""

    m: tuple[int, ...] = (1, 8, 32, 96, 256, 1024, 4096, 32768)
    n: tuple[int, ...] = (256, 1024, 4096, 16384, 65536)
    k: tuple[int, ...] = (256, 1024, 4096, 16384, 65536)
    smoothness: float = 0.1
    ridge: float = 0.5


def fit_correction(
    m: NDArray[np.int64], n: NDArray[np.int64], k: NDArray[np.int64], wanted: Floats, knots: CorrectionKnots
) -> dict[str, dict[str, float]]:
    """Factors whose logarithms, interpolated, come close to `wanted` [num_samples] in a robust sense.

    Penalised least squares with iteratively reweighted residuals.
    """
    axes = [np.log2(np.array(axis, dtype=np.float64)) for axis in (knots.m, knots.n, knots.k)]
    design = _interpolation(axes, (m, n, k))
    sizes = [len(axis) for axis in axes]
    penalty = knots.smoothness * _roughness(sizes) + knots.ridge * sparse.identity(int(np.prod(sizes)))
    weights = np.ones(len(wanted))
    solution = np.zeros(int(np.prod(sizes)))
    for _ in range(_ROUNDS):
        scaled = sparse.diags(weights) @ design
        solution = spsolve((design.T @ scaled + penalty).tocsc(), scaled.T @ wanted)
        weights = 1.0 / np.sqrt(1.0 + ((wanted - design @ solution) / _LOSS_SCALE) ** 2)
    factors = np.exp(solution).reshape(sizes)
    return {
        f"{m_knot}x{n_knot}": {str(kk): round(float(factors[i, j, h]), 3) for h, kk in enumerate(knots.k)}
        for i, m_knot in enumerate(knots.m)
        for j, n_knot in enumerate(knots.n)
    }


def grid_factors(
    table: Mapping[str, Mapping[str, float]],
    m: NDArray[np.int64],
    n: NDArray[np.int64],
    k: NDArray[np.int64],
) -> Floats:
    """The factors of many shapes at once, as `kraken_sim.costs.gemm_correction` reads one."""
    if not table:
        return np.ones(len(m))
    grid = parse_grid(table)
    axes = [np.array(axis) for axis in (grid.m_knots, grid.n_knots, grid.k_knots)]
    logs = _interpolation(axes, (m, n, k)) @ np.array(grid.log_factors).ravel()
    return np.asarray(np.exp(logs), dtype=np.float64)


def _interpolation(axes: Sequence[Floats], values: Sequence[NDArray[np.int64]]) -> sparse.csr_matrix:
    """Trilinear weights [num_samples, num_knots] of each sample on the knots around it."""
    located = [_locate(axis, np.log2(value)) for axis, value in zip(axes, values, strict=True)]
    count = len(values[0])
    rows, columns, weights = [], [], []
    for corner in range(2 ** len(axes)):
        weight, index = np.ones(count), np.zeros(count, dtype=np.int64)
        for axis, (axis_values, (low, share)) in enumerate(zip(axes, located, strict=True)):
            upper = (corner >> axis) & 1
            weight = weight * (share if upper else 1.0 - share)
            index = index * len(axis_values) + low + upper
        rows.append(np.arange(count))
        columns.append(index)
        weights.append(weight)
    shape = (count, int(np.prod([len(axis) for axis in axes])))
    triples = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_matrix(triples, shape=shape)


def _locate(axis: Floats, x: Floats) -> tuple[NDArray[np.int64], Floats]:
    x = np.clip(x, axis[0], axis[-1])
    low = np.clip(np.searchsorted(axis, x, side="right") - 1, 0, len(axis) - 2)
    return low, (x - axis[low]) / (axis[low + 1] - axis[low])


def _roughness(sizes: Sequence[int]) -> sparse.csr_matrix:
    """Sum of squared differences between neighbouring knots, as a quadratic form."""
    total = sparse.csr_matrix((int(np.prod(sizes)), int(np.prod(sizes))))
    for axis, size in enumerate(sizes):
        step = sparse.diags([-1.0, 1.0], [0, 1], shape=(size - 1, size))
        parts = [step if other == axis else sparse.identity(count) for other, count in enumerate(sizes)]
        difference = reduce(sparse.kron, parts)
        total = total + difference.T @ difference
    return total
