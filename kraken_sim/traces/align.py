"""Two sequences of kernels lined up: which of theirs is which of ours.

Global alignment by dynamic programming (Needleman and Wunsch, J. Mol. Biol. 48, 1970): pairs in the order of both, of
the largest sum of how well they fit. Kernels of one class fit, small kernels of different classes a little, others
never; long kernels count more, and of pairs that fit alike the one of like duration. Compute and collectives are lined
up apart, as they overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from kraken_sim.errors import InputError
from kraken_sim.traces.kernel_names import KernelClass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from kraken_sim.traces.nodes import TraceNode

MOST_PAIRS: Final = 1 << 26
"""Kernels of ours times kernels of theirs: a limit of ours, of 128 MB; 8,000 kernels on each side."""

_SAME: Final = 4.0
"""How well two kernels of one class fit; these weights are a choice of ours, only their order matters."""
_ALIKE: Final[Mapping[frozenset[KernelClass], float]] = {
    frozenset((KernelClass.NORM, KernelClass.REDUCTION)): 2.0,
    frozenset((KernelClass.ACTIVATION, KernelClass.ELEMENTWISE)): 2.0,
    frozenset((KernelClass.ADD, KernelClass.ELEMENTWISE)): 1.5,
    frozenset((KernelClass.ROPE, KernelClass.ELEMENTWISE)): 1.5,
    frozenset((KernelClass.ROPE, KernelClass.COPY)): 1.0,
    frozenset((KernelClass.ROPE, KernelClass.NORM)): 1.0,
    frozenset((KernelClass.COPY, KernelClass.ELEMENTWISE)): 1.0,
    frozenset((KernelClass.ADD, KernelClass.NORM)): 1.0,
    frozenset((KernelClass.QUANTIZE, KernelClass.NORM)): 1.0,
    frozenset((KernelClass.QUANTIZE, KernelClass.ACTIVATION)): 1.0,
    frozenset((KernelClass.QUANTIZE, KernelClass.ELEMENTWISE)): 1.0,
    frozenset((KernelClass.EMBEDDING, KernelClass.ELEMENTWISE)): 0.5,
}
"""Small kernels that are fused with one another, or whose names do not tell them apart."""
_UNKNOWN: Final = 0.5
"""A kernel whose name no rule knows, with a small one; a choice of ours."""
_SMALL: Final = frozenset(
    (
        KernelClass.NORM,
        KernelClass.ROPE,
        KernelClass.ACTIVATION,
        KernelClass.ADD,
        KernelClass.COPY,
        KernelClass.ELEMENTWISE,
        KernelClass.REDUCTION,
        KernelClass.QUANTIZE,
        KernelClass.EMBEDDING,
    )
)
_LONG_S: Final = 10e-6
"""A kernel of this length counts twice as much as one of none, as long ones make a step; a choice of ours."""
_LIKE_DURATION: Final = 0.5
"""Most that a like duration adds; less than any difference of class; a choice of ours."""
_MISSED: Final = np.float32(0.25)
"""What one of ours left out costs; a choice of ours, less than any fit."""
_SKIPPED: Final = np.float32(2.0)
"""The same where theirs are the beginning of a step: that ends where it ends, and skips no layer; a choice of ours."""
_NEVER: Final = -1e9
"""Of classes that are never the same kernel; a choice of ours, far below any sum of fits."""


def align(
    ours: Sequence[TraceNode], theirs: Sequence[TraceNode], *, is_beginning: bool = False
) -> list[tuple[int, int]]:
    """Pairs of indices into both, in order.

    Args:
        ours: predicted kernels, in order of their start.
        theirs: measured ones.
        is_beginning: theirs end before ours do, so ours after the last pair are not missed.

    Raises:
        InputError: there are too many to line up.
    """
    pairs = []
    for collective in (False, True):
        mine = [index for index, node in enumerate(ours) if node.is_collective is collective]
        other = [index for index, node in enumerate(theirs) if node.is_collective is collective]
        if len(mine) * len(other) > MOST_PAIRS:
            message = f"{len(theirs):,} kernels of one step and {len(ours):,} predicted ones are too many to line up"
            raise InputError.single("THEIRS", message, example="a trace of one step")
        chosen = _best([ours[index] for index in mine], [theirs[index] for index in other], is_beginning=is_beginning)
        pairs += [(mine[a], other[b]) for a, b in chosen]
    return sorted(pairs)


def _best(ours: Sequence[TraceNode], theirs: Sequence[TraceNode], *, is_beginning: bool) -> list[tuple[int, int]]:
    """Pairs of the largest sum of their fits, less what of ours is missed between them."""
    if not ours or not theirs:
        return []
    codes = {kind: code for code, kind in enumerate(KernelClass)}
    table = np.array([[fit(a, b) for b in KernelClass] for a in KernelClass], dtype=np.float32)
    mine = np.array([codes[node.kernel_class] for node in ours])
    other = np.array([codes[node.kernel_class] for node in theirs])
    lengths = np.array([node.duration_s for node in theirs])
    best = np.zeros((len(ours) + 1, len(theirs) + 1), dtype=np.float32)
    missed = _SKIPPED if is_beginning else _MISSED
    best[:, 0] = -missed * np.arange(len(ours) + 1)
    for row, (code, node) in enumerate(zip(mine.tolist(), ours, strict=True)):
        fits = table[code, other] * (1.0 + np.sqrt(np.minimum(lengths, node.duration_s) / _LONG_S))
        fits += _LIKE_DURATION * _likeness(lengths, node.duration_s)
        paired = best[row, :-1] + fits
        # One of theirs left out costs nothing, so the best up to a column is the running maximum.
        best[row + 1, 1:] = np.maximum(paired, best[row, 1:] - missed)
        np.maximum.accumulate(best[row + 1], out=best[row + 1])
    end = int(np.argmax(best[:, -1])) if is_beginning else len(ours)
    return _way_back(best, end, missed)


def _way_back(best: NDArray[np.float32], end: int, missed: np.float32) -> list[tuple[int, int]]:
    """The pairs that the sums are made of; of equal ways, that which leaves late ones out."""
    a, b = end, best.shape[1] - 1
    pairs = []
    while a and b:
        if best[a, b] == best[a, b - 1]:
            b -= 1
        elif best[a, b] == best[a - 1, b] - missed:
            a -= 1
        else:
            a, b = a - 1, b - 1
            pairs.append((a, b))
    return pairs[::-1]


def _likeness(lengths_s: NDArray[np.float64], length_s: float) -> NDArray[np.float64]:
    """The shorter of each two durations by the longer."""
    shorter, longer = np.minimum(lengths_s, length_s), np.maximum(lengths_s, length_s)
    found: NDArray[np.float64] = shorter / np.maximum(longer, 1e-12)
    return found


def fit(ours: KernelClass, theirs: KernelClass) -> float:
    """How well two classes fit, as a weight; far below zero where they never do."""
    if ours is theirs:
        return _SAME
    pair = frozenset((ours, theirs))
    if pair in _ALIKE:
        return _ALIKE[pair]
    return _UNKNOWN if KernelClass.OTHER in pair and pair & _SMALL else _NEVER
