"""The smooth correction of decode times: a grid over cached tokens and CTAs for each kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LENGTHS = (4, 16, 64, 128, 256, 512, 1024, 2048, 8192, 65536)
"""Knots of the correction in cached tokens; a choice of ours, closer where times bend."""

CTAS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 16384, 131072)
"""Knots of the correction in CTAs; a choice of ours, closer where the SMs fill."""

_SMOOTHNESS = 0.3
"""Weight of the squared difference between neighbouring knots against a sample's squared error; a choice of ours."""

_SHRINKAGE = 0.3
"""Weight of the distance from 1 against that of neighbours; a choice of ours."""

_REWEIGHTINGS = 6
"""Rounds of the robust fit; a choice of ours, more change nothing that is kept."""

_SCALE = 0.05
"""Relative error from which a sample counts less; a choice of ours, that of a good fit."""


def correction_of(
    kernels: Sequence[str] | NDArray[np.str_], kv_len: Floats, ctas: Floats, log_ratio: Floats
) -> dict[str, dict[str, float]]:
    """Factors at the knots inside the data that best explain `log_ratio`, the log of measured over predicted.

    Penalised least squares (differences between neighbouring knots, weak shrinkage to 1) with weights that
    discount outliers.
    """
    result: dict[str, dict[str, float]] = {}
    names = np.asarray(kernels)
    for kernel in sorted(set(names.tolist())):
        mine = names == kernel
        lengths = _inside(LENGTHS, kv_len[mine])
        counts = _inside(CTAS, ctas[mine])
        grid = _fit_grid(_design(kv_len[mine], ctas[mine], lengths, counts), log_ratio[mine], lengths, counts)
        for length, row in zip(lengths, np.exp(grid).round(4).tolist(), strict=True):
            result[f"{kernel} {length}"] = {str(count): value for count, value in zip(counts, row, strict=True)}
    return result


def correction_factors(
    correction: Mapping[str, Mapping[str, float]], kernels: Sequence[str], kv_len: Floats, ctas: Floats
) -> Floats:
    """Factor of every sample [num_samples]; the same interpolation as `attention_model.attention_correction_factor`."""
    factors = np.ones(len(kv_len))
    names = np.asarray(kernels)
    for kernel in set(names.tolist()):
        rows = {int(k.split()[1]): row for k, row in correction.items() if k.split()[0] == kernel}
        if not rows:
            continue
        mine = names == kernel
        lengths = tuple(sorted(rows))
        counts = tuple(sorted(int(count) for count in rows[lengths[0]]))
        logs = np.log([[rows[length][str(count)] for count in counts] for length in lengths])
        factors[mine] = np.exp(_design(kv_len[mine], ctas[mine], lengths, counts) @ logs.ravel())
    return factors


def _inside(knots: tuple[int, ...], values: Floats) -> tuple[int, ...]:
    """The knots that the data reach, never fewer than one."""
    inside = tuple(knot for knot in knots if values.min() <= knot <= values.max())
    return inside or (knots[int(np.argmin(np.abs(np.log(np.array(knots) / np.median(values)))))],)


def _design(kv_len: Floats, ctas: Floats, lengths: tuple[int, ...], counts: tuple[int, ...]) -> Floats:
    along, across = _hats(kv_len, lengths), _hats(ctas, counts)
    return np.asarray((along[:, :, None] * across[:, None, :]).reshape(len(kv_len), -1))


def _hats(values: Floats, knots: tuple[int, ...]) -> Floats:
    """Linear interpolation weights in the logarithm [num_values, num_knots]."""
    if len(knots) == 1:
        return np.ones((len(values), 1))
    x = np.log(np.array(knots, dtype=float))
    at = np.clip(np.log(values), x[0], x[-1])
    left = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    share = (at - x[left]) / (x[left + 1] - x[left])
    weights = np.zeros((len(values), len(x)))
    rows = np.arange(len(values))
    weights[rows, left] = 1.0 - share
    weights[rows, left + 1] = share
    return weights


def _fit_grid(design: Floats, wanted: Floats, lengths: tuple[int, ...], counts: tuple[int, ...]) -> Floats:
    size = len(lengths) * len(counts)
    unit = np.eye(size).reshape(len(lengths), len(counts), size)
    penalty = np.sqrt(_SMOOTHNESS) * np.concatenate(
        [np.diff(unit, axis=0).reshape(-1, size), np.diff(unit, axis=1).reshape(-1, size), _SHRINKAGE * np.eye(size)]
    )
    weights = np.ones(len(wanted))
    grid = np.zeros(size)
    for _ in range(_REWEIGHTINGS):
        # normal equations: the design is sparse and tall
        weighted = design * weights[:, None] ** 2
        left = weighted.T @ design + penalty.T @ penalty
        grid = np.linalg.solve(left, weighted.T @ wanted)
        weights = (1.0 + ((wanted - design @ grid) / _SCALE) ** 2) ** -0.25
    return grid.reshape(len(lengths), len(counts))
