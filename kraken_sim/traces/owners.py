"""Kernels that a program counts inside another: shown as part of the one they serve.

A fill before an attention or a GEMM, the sum of a GEMM's partial results after it, what prepares an attention or adds
up its parts. Where ours has such nodes of its own they stay nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from kraken_sim.traces.kernel_names import KernelClass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from kraken_sim.traces.nodes import TraceNode


class OwnerRule(NamedTuple):
    """A kernel of `part` belongs to the nearest one of `owners` within `reach` kernels: before it, else after it."""

    part: KernelClass
    owners: frozenset[KernelClass]
    before: int
    after: int


RULES: Final = (
    OwnerRule(KernelClass.SPLIT_K_REDUCE, frozenset((KernelClass.GEMM,)), before=2, after=0),
    OwnerRule(KernelClass.ATTENTION_PART, frozenset((KernelClass.ATTENTION,)), before=2, after=3),
    OwnerRule(KernelClass.MEMSET, frozenset((KernelClass.ATTENTION, KernelClass.GEMM)), before=0, after=2),
)
"""How far apart they are launched, as seen on an H200 (validation/measurements): next to each other, or one between."""


PIECES_REACH: Final = 3
"""Kernels between the pieces of a GEMM: two other projections and an activation; a choice of ours."""
PIECES_MOST: Final = 1.5
"""Times the predicted duration that a GEMM's pieces take at most; a choice of ours: small ones use the device less."""


class Owned(NamedTuple):
    """A kernel, and the indices of those that are part of it."""

    head: int
    parts: tuple[int, ...]


def with_parts(nodes: Sequence[TraceNode], apart: Collection[KernelClass] = ()) -> list[Owned]:
    """Every node that is not part of another, in order, with its parts.

    Args:
        nodes: of one step and device, in order of their start.
        apart: classes whose kernels are nodes of their own.
    """
    by_part = {rule.part: rule for rule in RULES if rule.part not in apart}
    owner_of: dict[int, int] = {}
    for index, node in enumerate(nodes):
        rule = by_part.get(node.kernel_class)
        if rule is not None:
            owner = next(_owners(nodes, index, rule), None)
            if owner is not None:
                owner_of[index] = owner
    parts: dict[int, list[int]] = {}
    for part, owner in owner_of.items():
        parts.setdefault(owner, []).append(part)
    return [Owned(index, tuple(parts.get(index, ()))) for index in range(len(nodes)) if index not in owner_of]


def with_pieces(
    heads: Sequence[TraceNode], matched: Mapping[int, TraceNode], reach: int = PIECES_REACH
) -> dict[int, int]:
    """GEMMs that are a piece of one of ours: the projections of queries, keys and values, or of gate and up, apart.

    A surplus GEMM is a piece of the nearest matched one if nothing but GEMMs and an activation lies between them, and
    if together they do not take much longer than predicted.

    Args:
        heads: theirs, in order.
        matched: by index into them, the predicted kernel that each is matched with.
        reach: how many kernels away the matched one may be.
    """
    lengths = {index: heads[index].duration_s for index in matched}
    owners: dict[int, int] = {}
    for index, node in enumerate(heads):
        if index in matched or node.kernel_class is not KernelClass.GEMM:
            continue
        for owner in _nearest_gemms(heads, index, matched, reach):
            longer_s = lengths[owner] + node.duration_s
            if longer_s <= PIECES_MOST * matched[owner].duration_s:
                owners[index], lengths[owner] = owner, longer_s
                break
    return owners


def _nearest_gemms(
    heads: Sequence[TraceNode], index: int, matched: Mapping[int, TraceNode], reach: int
) -> Iterator[int]:
    for step in (-1, 1):
        activations = 0
        for other in range(index + step, index + step * (reach + 1), step):
            if not 0 <= other < len(heads):
                break
            kind = heads[other].kernel_class
            activations += kind is KernelClass.ACTIVATION
            if activations > 1 or kind not in (KernelClass.GEMM, KernelClass.ACTIVATION):
                break
            if kind is KernelClass.GEMM and other in matched:
                yield other
                break


def _owners(nodes: Sequence[TraceNode], index: int, rule: OwnerRule) -> Iterator[int]:
    """Those that may own a node, the nearest first."""
    for other in range(index - 1, max(-1, index - 1 - rule.before), -1):
        if nodes[other].kernel_class in rule.owners:
            yield other
    for other in range(index + 1, min(len(nodes), index + 1 + rule.after)):
        if nodes[other].kernel_class in rule.owners:
            yield other
