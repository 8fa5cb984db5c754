"""The best ring through a group of GPUs, found on the machine's graph and not in the numbering.

A ring sends bytes from each GPU to the next one. Its hops share links: a link direction that carries k hops
gives each of them a k-th of its bandwidth, and the slowest hop decides. Best is the most bandwidth, then the
least sum of hop latencies, then the widest hops.

- If the links form a tree (a switch, a PCIe box), any ring must cross each link that separates the group at
  least once in each direction. A depth-first order crosses it exactly once, so it is optimal in both senses.
- Otherwise (NVLink meshes, bridged pairs) orders are searched: exactly, by branch and bound, up to
  `EXACT_RANKS`; beyond, by improving a nearest-neighbour order with segment reversals.

In a mesh one ring leaves links idle. Further rings are found on what is left, as NCCL's channels do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError
from kraken_sim.hardware.topology import Link, LinkKind, NodeKind, P2PLevel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kraken_sim.hardware.topology import Topology

EXACT_RANKS: Final = 8
"""Largest group whose orders are all considered: (8 - 1)! = 5040 before pruning."""

_MAX_RINGS: Final = 32
_TOLERANCE: Final = 1e-9

_NVLINK: Final = frozenset({LinkKind.NVLINK})
_PCIE: Final = frozenset({LinkKind.PCIE})
_ALL: Final = frozenset(LinkKind)

Arc = tuple[int, bool]
"""A link of `Topology.links` by index, used from its `a` to its `b` (True) or back."""


@dataclass(frozen=True, slots=True)
class Hop:
    """The way from one GPU to the next one of a ring."""

    source: str
    target: str
    links: tuple[Link, ...]
    p2p_level: P2PLevel
    """The level that peer-to-peer access needs for this hop."""

    @property
    def latency_s(self) -> float:
        """Time of flight over all links of the hop."""
        return sum(link.latency_s for link in self.links)


@dataclass(frozen=True, slots=True)
class Ring:
    """A closed tour through a group of GPUs.

    `bandwidth_bytes_per_s` is what every hop gets in ring direction, `further_bytes_per_s` what more rings
    over idle NVLinks of a mesh add. `slowest` is the link that decides the bandwidth of this ring.
    """

    hops: tuple[Hop, ...]
    bandwidth_bytes_per_s: float
    slowest: Link
    further_bytes_per_s: float = 0.0

    @property
    def order(self) -> tuple[str, ...]:
        """The GPUs in ring order."""
        return tuple(hop.source for hop in self.hops)

    @property
    def total_bytes_per_s(self) -> float:
        """Bandwidth of all rings together, per GPU and direction."""
        return self.bandwidth_bytes_per_s + self.further_bytes_per_s


class RingFinder:
    """Routes and rings on one topology."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._links = topology.links
        self._kinds = topology.kinds
        self._neighbours: dict[str, list[tuple[str, Arc]]] = defaultdict(list)
        for index, link in enumerate(topology.links):
            self._neighbours[link.a].append((link.b, (index, True)))
            self._neighbours[link.b].append((link.a, (index, False)))
        self._capacity: dict[Arc, float] = {
            (index, forward): link.total_bytes_per_s
            for index, link in enumerate(topology.links)
            for forward in (True, False)
        }

    def best(self, gpus: Sequence[str]) -> Ring:
        """The best ring through two GPUs or more."""
        order = self._tree_order(gpus)
        tree = order is not None
        order = order or self._search(gpus, self._capacity)
        arcs = self._ring_arcs(order, self._capacity)
        bandwidth, slowest = self._bottleneck(arcs, self._capacity)
        hops = tuple(self._hop(a, b, way) for (a, b), way in zip(_pairs(order), arcs, strict=True))
        further = 0.0 if tree or not _all_nvlink(hops) else self._further(gpus, arcs, bandwidth)
        return Ring(hops, bandwidth, self._links[slowest[0]], further)

    def all_rings(self, gpus: Sequence[str]) -> list[tuple[tuple[str, ...], float]]:
        """The best ring and, in a mesh, those on the links that it leaves: order and bandwidth of each."""
        best = self.best(gpus)
        rings = [(best.order, best.bandwidth_bytes_per_s)]
        if best.further_bytes_per_s > 0.0:
            arcs = self._ring_arcs(best.order, self._capacity)
            rings += self._further_rings(gpus, arcs, best.bandwidth_bytes_per_s)
        return rings

    def route(self, source: str, target: str, capacity: Mapping[Arc, float] | None = None) -> tuple[Arc, ...]:
        """The way from one node to another: NVLink where it leads there, then fewest hops, then widest.

        GPUs do not forward traffic of others, so no way leads through one.

        Raises:
            InputError: There is no such way.
        """
        capacity = self._capacity if capacity is None else capacity
        for kinds in (_NVLINK, _ALL):
            ways = self._shortest(source, target, kinds)
            if ways:
                return max(ways, key=lambda way: min(capacity[arc] for arc in way))
        message = f"no ring: every way from {source} to {target} leads through another GPU"
        example = '{from: "gpu*", to: host, kind: pcie, ...}'
        raise InputError.single("topology.links", message, example=example)

    def pcie_way(self, source: str, target: str) -> tuple[Arc, ...] | None:
        """The way over PCIe links alone, None where there is none."""
        ways = self._shortest(source, target, _PCIE)
        return ways[0] if ways else None

    def links_of(self, arcs: Iterable[Arc]) -> tuple[Link, ...]:
        """The links that a way uses."""
        return tuple(self._links[index] for index, _ in arcs)

    # Shape of the graph -----------------------------------------------------------------------------------

    def _tree_order(self, gpus: Sequence[str]) -> tuple[str, ...] | None:
        """The group in depth-first order where its links form a tree with GPUs as leaves, else None.

        Where NVLink alone connects the group, its other links carry nothing and do not count.
        """
        for kinds in (_NVLINK, _ALL):
            reached = self._depth_first(gpus[0], kinds)
            if not set(reached).issuperset(gpus):
                continue
            degrees = {name: sum(1 for _ in self._steps(name, kinds)) for name in reached}
            tree = sum(degrees.values()) == 2 * (len(reached) - 1)
            leaves = all(degrees[name] <= 1 for name in reached if self._kinds[name] is NodeKind.GPU)
            wanted = set(gpus)
            return tuple(name for name in reached if name in wanted) if tree and leaves else None
        return None

    def _steps(self, name: str, kinds: frozenset[LinkKind]) -> Iterator[tuple[str, Arc]]:
        return ((other, arc) for other, arc in self._neighbours[name] if self._links[arc[0]].kind in kinds)

    def _depth_first(self, start: str, kinds: frozenset[LinkKind]) -> list[str]:
        order: dict[str, None] = {}
        stack = [start]
        while stack:
            name = stack.pop()
            if name not in order:
                order[name] = None
                stack.extend(other for other, _ in reversed(list(self._steps(name, kinds))))
        return list(order)

    def _shortest(self, source: str, target: str, kinds: frozenset[LinkKind]) -> list[tuple[Arc, ...]]:
        """All ways of fewest hops over links of these kinds."""
        paths: list[tuple[str, tuple[Arc, ...]]] = [(source, ())]
        seen = {source}
        while paths:
            found = [way for name, way in paths if name == target]
            if found:
                return found
            paths = [
                (other, (*way, arc))
                for name, way in paths
                for other, arc in self._steps(name, kinds)
                if other not in seen and (other == target or self._kinds[other] is not NodeKind.GPU)
            ]
            seen.update(name for name, _ in paths)
        return []

    # Value of a ring --------------------------------------------------------------------------------------

    def _ring_arcs(self, order: Sequence[str], capacity: Mapping[Arc, float]) -> list[tuple[Arc, ...]]:
        return [self.route(a, b, capacity) for a, b in _pairs(order)]

    def _bottleneck(self, arcs: Iterable[tuple[Arc, ...]], capacity: Mapping[Arc, float]) -> tuple[float, Arc]:
        loads = Counter(arc for way in arcs for arc in way)
        return min((capacity[arc] / load, arc) for arc, load in loads.items())

    def _hop(self, source: str, target: str, way: tuple[Arc, ...]) -> Hop:
        links = self.links_of(way)
        return Hop(source, target, links, self._level(source, way))

    def _level(self, source: str, way: tuple[Arc, ...]) -> P2PLevel:
        links = self.links_of(way)
        if all(link.kind is LinkKind.NVLINK for link in links):
            return P2PLevel.NVL
        if any(link.kind is LinkKind.SOCKET for link in links):
            return P2PLevel.SYS
        inner = [name for link in links for name in (link.a, link.b) if name != source]
        kinds = Counter(self._kinds[name] for name in dict.fromkeys(inner))
        if kinds[NodeKind.HOST]:
            return P2PLevel.PHB
        return P2PLevel.PIX if kinds[NodeKind.PCIE_SWITCH] <= 1 else P2PLevel.PXB

    # Search -----------------------------------------------------------------------------------------------

    def _search(self, gpus: Sequence[str], capacity: Mapping[Arc, float]) -> tuple[str, ...]:
        from kraken_sim.hardware.ring_search import Ways, best_order, improved_order

        routes = {(a, b): self.route(a, b, capacity) for a in gpus for b in gpus if a != b}
        latency = {pair: sum(link.latency_s for link in self.links_of(way)) for pair, way in routes.items()}
        ways = Ways(routes, latency, capacity)
        return best_order(gpus, ways) if len(gpus) <= EXACT_RANKS else improved_order(gpus, ways)

    def _further(self, gpus: Sequence[str], arcs: Iterable[tuple[Arc, ...]], first: float) -> float:
        """Bandwidth of further NVLink rings on what the first one leaves."""
        return sum((bandwidth for _, bandwidth in self._further_rings(gpus, arcs, first)), 0.0)

    def _further_rings(
        self, gpus: Sequence[str], arcs: Iterable[tuple[Arc, ...]], first: float
    ) -> Iterator[tuple[tuple[str, ...], float]]:
        left, bandwidth = dict(self._capacity), first
        for _ in range(_MAX_RINGS):
            for arc, load in Counter(arc for way in arcs for arc in way).items():
                left[arc] -= bandwidth * load
            order = self._search(gpus, left)
            arcs = self._ring_arcs(order, left)
            bandwidth, _slowest = self._bottleneck(arcs, left)
            nvlink = all(link.kind is LinkKind.NVLINK for way in arcs for link in self.links_of(way))
            if not nvlink or bandwidth <= first * _TOLERANCE:
                break
            yield order, bandwidth


def _pairs(order: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(order, [*order[1:], order[0]], strict=True))


def _all_nvlink(hops: Iterable[Hop]) -> bool:
    return all(hop.p2p_level is P2PLevel.NVL for hop in hops)
