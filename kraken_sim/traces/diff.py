"""A measured step held against a predicted one, kernel by kernel: what is matched, missing or surplus, and its cost.

The step on each side is cut into what its kernels expose and the gaps between them, so that all differences add up:

    theirs - ours = kernels that differ + kernels more - kernels fewer + collectives + gaps
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kraken_sim.traces.align import align
from kraken_sim.traces.kernel_names import KernelClass, short_name
from kraken_sim.traces.nodes import classes_of, span_s
from kraken_sim.traces.owners import with_parts, with_pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kraken_sim.traces.nodes import TraceNode


class Side(NamedTuple):
    """A kernel with its parts, or none, as one side has it; sums of seconds."""

    nodes: tuple[TraceNode, ...]

    @property
    def node(self) -> TraceNode:
        """The kernel itself."""
        return self.nodes[0]

    @property
    def duration_s(self) -> float:
        """How long it and its parts ran."""
        return math.fsum(node.duration_s for node in self.nodes)

    @property
    def exposed_s(self) -> float:
        """What of that nothing else hid."""
        return math.fsum(node.exposed_s for node in self.nodes)

    @property
    def gap_s(self) -> float:
        """How long the device stood still before it and its parts."""
        return math.fsum(node.gap_s for node in self.nodes)

    @property
    def host_gap_s(self) -> float:
        """How much of that the host took."""
        return math.fsum(node.host_gap_s for node in self.nodes)


class NodePair(NamedTuple):
    """One kernel: of ours, of theirs, or of both."""

    ours: Side | None
    theirs: Side | None
    after: str = ""
    """Of a surplus one, the predicted kernel that the one before it was matched with."""

    @property
    def kernel_class(self) -> KernelClass:
        """Ours where there is one."""
        side = self.ours or self.theirs
        assert side is not None
        return side.node.kernel_class


class Term(NamedTuple):
    """One reason for the difference, in seconds that theirs takes longer."""

    name: str
    seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class DiffRow:
    """Kernels of one name and place, or of one class, added up; seconds."""

    name: str
    kernel_class: KernelClass
    num_ours: int
    num_theirs: int
    ours_s: float
    theirs_s: float
    kernels: str = ""
    """Names of theirs."""

    @property
    def difference_s(self) -> float:
        """Theirs minus ours."""
        return self.theirs_s - self.ours_s

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "class": self.kernel_class.value,
            "num_ours": self.num_ours,
            "num_theirs": self.num_theirs,
            "ours_s": self.ours_s,
            "theirs_s": self.theirs_s,
            "difference_s": self.difference_s,
            "kernels": self.kernels,
        }


_LONG_S: Final = 20e-6
"""GEMMs from which on a clock shows; a choice of ours: shorter ones are latencies."""
_COMPUTE_BOUND: Final = 700.0
"""Operations a byte from which on a GEMM's time goes with the clock rather than with HBM; assumed: above the ratio of
the peaks of any profile that ships, in fp8 as well, and below that of the GEMMs of a long prompt."""
_FEWEST: Final = 4
"""Of them, so that they say something; a choice of ours."""
_ALIKE: Final = 0.5
"""Their ratios spread by no more than this part of their shift; a choice of ours."""


@dataclass(frozen=True, slots=True)
class StepDiff:
    """Two steps lined up: every kernel of either is in one of the pairs, in the order of theirs."""

    pairs: tuple[NodePair, ...]
    ours_s: float
    theirs_s: float
    """From the start of the first kernel to the end of the last."""
    waiting_s: float = 0.0
    """Of theirs in collectives that nothing hides: for ranks that came later; 0 where the other ranks are not known."""
    ours_left_out: int = 0
    """Predicted kernels after the last that was recorded, of a step of which only the beginning was."""

    @property
    def gaps_s(self) -> tuple[float, float]:
        """How long the device stood still in ours and in theirs."""
        sides = ([pair.ours for pair in self.pairs], [pair.theirs for pair in self.pairs])
        ours_s, theirs_s = (math.fsum(side.gap_s for side in own if side is not None) for own in sides)
        return ours_s, theirs_s

    @property
    def matched(self) -> tuple[NodePair, ...]:
        """Kernels that both have."""
        return tuple(pair for pair in self.pairs if pair.ours and pair.theirs)

    @property
    def missing(self) -> tuple[NodePair, ...]:
        """Kernels that only ours has."""
        return tuple(pair for pair in self.pairs if not pair.theirs)

    @property
    def surplus(self) -> tuple[NodePair, ...]:
        """Kernels that only theirs has."""
        return tuple(pair for pair in self.pairs if not pair.ours)

    def terms(self) -> list[Term]:
        """What the difference consists of; the terms add up to it."""
        compute = [pair for pair in self.matched if pair.kernel_class is not KernelClass.COLLECTIVE]
        collectives = [pair for pair in self.pairs if pair.kernel_class is KernelClass.COLLECTIVE]
        surplus = [pair for pair in self.surplus if pair.kernel_class is not KernelClass.COLLECTIVE]
        missing = [pair for pair in self.missing if pair.kernel_class is not KernelClass.COLLECTIVE]
        clock_s, clock_text = self._clock(compute)
        host_s, between_s = _gaps(self.pairs)
        unknown = "" if self.waiting_s else ", waiting for other ranks in them"
        terms = [
            Term("kernels", _exposed(compute) - clock_s, f"{len(compute)} kernels that both have take another time"),
            Term("clock", clock_s, clock_text),
            Term("more kernels", _exposed(surplus), f"{len(surplus)} kernels that the prediction does not have"),
            Term("fewer kernels", _exposed(missing), f"{len(missing)} predicted kernels that the trace does not have"),
            Term("collectives", _exposed(collectives) - self.waiting_s, f"collectives that nothing hides{unknown}"),
            Term("waiting", self.waiting_s, "in collectives, for ranks that came later"),
            Term("host", host_s, "gaps before kernels that the host had not launched yet"),
            Term("gaps", between_s, "gaps between kernels that were launched in time"),
        ]
        return [term for term in terms if term.seconds or term.name in ("kernels", "gaps")]

    def _clock(self, compute: Sequence[NodePair]) -> tuple[float, str]:
        """What a lower clock would explain: long GEMMs that all take longer, or shorter, by one factor."""
        long = [pair for pair in compute if pair.kernel_class is KernelClass.GEMM and pair.ours and pair.theirs]
        ratios = sorted(
            (pair.theirs.duration_s / pair.ours.duration_s, pair.ours.exposed_s)
            for pair in long
            if pair.ours and pair.theirs and pair.ours.node.flops_per_byte >= _COMPUTE_BOUND
            if min(pair.ours.duration_s, pair.theirs.duration_s) >= _LONG_S
        )
        if len(ratios) < _FEWEST:
            return 0.0, ""
        factor, low, high = (ratios[round(share * (len(ratios) - 1))][0] for share in (0.5, 0.1, 0.9))
        if high - low > _ALIKE * abs(factor - 1.0):
            return 0.0, ""
        seconds = (factor - 1.0) * math.fsum(exposed_s for _, exposed_s in ratios)
        return seconds, f"{len(ratios)} long GEMMs take {factor:.3f} times the predicted time, all alike: as by a clock"

    def gemm_ratio(self) -> float | None:
        """How many times as long as predicted the long GEMMs take, the median; None where there are few."""
        ratios = sorted(
            pair.theirs.duration_s / pair.ours.duration_s
            for pair in self.matched
            if pair.ours and pair.theirs and pair.kernel_class is KernelClass.GEMM
            if max(pair.ours.duration_s, pair.theirs.duration_s) >= _LONG_S and pair.ours.duration_s > 0.0
        )
        return median(ratios) if len(ratios) >= _FEWEST else None

    def by_class(self) -> list[DiffRow]:
        """Time by class of kernel, longest first."""
        classes = {pair.kernel_class for pair in self.pairs}
        rows = [_row(kind.value, kind, [p for p in self.pairs if p.kernel_class is kind]) for kind in classes]
        return sorted(rows, key=lambda row: -max(row.ours_s, row.theirs_s))

    def by_node(self) -> list[DiffRow]:
        """Kernels of one name and place in the program added up over its layers, the largest difference first."""
        groups: dict[tuple[str, KernelClass], list[NodePair]] = {}
        for pair in self.pairs:
            groups.setdefault((node_name(pair), pair.kernel_class), []).append(pair)
        rows = [_row(name, kind, pairs) for (name, kind), pairs in groups.items()]
        return sorted(rows, key=lambda row: -abs(row.difference_s))

    def as_dict(self, *, most_nodes: int | None = None) -> dict[str, Any]:
        """For JSON."""
        return {
            "ours_s": self.ours_s,
            "theirs_s": self.theirs_s,
            "difference_s": self.theirs_s - self.ours_s,
            "matched": len(self.matched),
            "missing": len(self.missing),
            "surplus": len(self.surplus),
            "parts": sum(len(pair.theirs.nodes) - 1 for pair in self.pairs if pair.theirs),
            "ours_left_out": self.ours_left_out,
            "terms": [{"name": term.name, "seconds": term.seconds, "text": term.text} for term in self.terms()],
            "gaps_s": dict(zip(("ours", "theirs"), self.gaps_s, strict=True)),
            "communication_s": {"ours": communication(self.pairs, 0), "theirs": communication(self.pairs, 1)},
            "classes": [row.as_dict() for row in self.by_class()],
            "nodes": [row.as_dict() for row in self.by_node()[:most_nodes]],
        }


def diff_steps(ours: Sequence[TraceNode], theirs: Sequence[TraceNode], *, is_beginning: bool = False) -> StepDiff:
    """Lines up a predicted and a measured step.

    Args:
        ours: predicted kernels of one step and device, accounted, in order of their start.
        theirs: measured ones.
        is_beginning: theirs is the beginning of a step: what ours has after the last that matches is left out.

    Raises:
        InputError: there are too many to line up.
    """
    apart = set(classes_of(ours))
    owned = with_parts(theirs, apart)
    heads = [theirs[one.head] for one in owned]
    matches = align(ours, heads, is_beginning=is_beginning)
    left_out = 0
    if is_beginning and matches:
        end = max(index for index, _ in matches) + 1
        ours, left_out = ours[:end], len(ours) - end
    sides = {index: Side((theirs[one.head], *(theirs[part] for part in one.parts))) for index, one in enumerate(owned)}
    for piece, owner in with_pieces(heads, {index: ours[mine] for mine, index in matches}).items():
        sides[owner] = Side((*sides[owner].nodes, *sides.pop(piece).nodes))
    pairs = _merged([Side((node,)) for node in ours], sides, dict(matches))
    return StepDiff(tuple(pairs), span_s(ours), span_s(theirs), ours_left_out=left_out)


def _merged(ours: Sequence[Side], theirs: Mapping[int, Side], partner: Mapping[int, int]) -> list[NodePair]:
    """Matched, missing and surplus kernels in one order: theirs, the missing ones after what is before them in ours."""
    ours_of = {b: a for a, b in partner.items()}
    missing_after: dict[int, list[int]] = {}
    last = -1
    for a in range(len(ours)):
        if a in partner:
            last = a
        else:
            missing_after.setdefault(last, []).append(a)
    found = [NodePair(ours[a], None) for a in missing_after.get(-1, ())]
    after = ""
    for b, side in theirs.items():
        mine = ours_of.get(b)
        if mine is None:
            found.append(NodePair(None, side, after))
            continue
        after = ours[mine].node.name
        found.append(NodePair(ours[mine], side))
        found += [NodePair(ours[other], None) for other in missing_after.get(mine, ())]
    return found


def node_name(pair: NodePair) -> str:
    """What a row of a table calls a kernel: by its place in the program, or by its own name."""
    if pair.ours is not None:
        node = pair.ours.node
        return f"{node.segment}: {node.name}" if node.segment else node.name
    assert pair.theirs is not None
    place = f" (after {pair.after})" if pair.after else ""
    return short_name(pair.theirs.node.name) + place


def _row(name: str, kind: KernelClass, pairs: Sequence[NodePair]) -> DiffRow:
    ours = [pair.ours for pair in pairs if pair.ours]
    theirs = [pair.theirs for pair in pairs if pair.theirs]
    kernels = dict.fromkeys(short_name(node.name) for side in theirs for node in side.nodes)
    return DiffRow(
        name=name,
        kernel_class=kind,
        num_ours=sum(len(side.nodes) for side in ours),
        num_theirs=sum(len(side.nodes) for side in theirs),
        ours_s=math.fsum(side.exposed_s for side in ours),
        theirs_s=math.fsum(side.exposed_s for side in theirs),
        kernels=", ".join(kernels),
    )


def _exposed(pairs: Iterable[NodePair]) -> float:
    """How much more theirs exposes than ours."""
    return math.fsum(
        (pair.theirs.exposed_s if pair.theirs else 0.0) - (pair.ours.exposed_s if pair.ours else 0.0) for pair in pairs
    )


def _gaps(pairs: Iterable[NodePair]) -> tuple[float, float]:
    """How much longer theirs stands still: for the host, and otherwise."""
    host_s = between_s = 0.0
    for pair in pairs:
        for side, sign in ((pair.theirs, 1.0), (pair.ours, -1.0)):
            if side is not None:
                host_s += sign * side.host_gap_s
                between_s += sign * (side.gap_s - side.host_gap_s)
    return host_s, between_s


def communication(pairs: Iterable[NodePair], which: int) -> dict[str, float]:
    """Seconds of the collectives of ours (0) or theirs (1): what they expose, and what compute hides."""
    sides = [pair[which] for pair in pairs if pair.kernel_class is KernelClass.COLLECTIVE]
    exposed_s = math.fsum(side.exposed_s for side in sides if isinstance(side, Side))
    duration_s = math.fsum(side.duration_s for side in sides if isinstance(side, Side))
    # Sums of many floats differ in their last digits.
    return {"exposed": exposed_s, "hidden": max(0.0, round(duration_s - exposed_s, 12))}
