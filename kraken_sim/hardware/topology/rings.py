"""The best ring through a group of GPUs, found on the machine's graph and not in the numbering.

A ring sends bytes from each GPU to the next one. Its hops share links: a link direction that carries k hops
gives each of them a k-th of its bandwidth, and the slowest hop decides. Best is the most bandwidth, then the
least sum of hop latencies, then the widest hops.

- If the links form a tree (a switch, a PCIe box), any ring must cross each link that separates the group at
  least once in each direction. A depth-first order crosses it exactly once, so it is optimal in both senses.
- Between nodes, the GPUs of a node stay together, so that its network is crossed once in each direction.
- Otherwise (NVLink meshes, bridged pairs) orders are searched: exactly, by branch and bound, up to
  `EXACT_RANKS`; beyond, an order that keeps NVLink islands together is taken where it reaches what the links out
  of them can carry, else improved with segment reversals.

One ring leaves links idle: NVLinks of a mesh, rails of a network. Further rings are found on what is left, as
NCCL's channels do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from operator import truediv
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError
from kraken_sim.hardware.topology.graph import Link, LinkKind, NodeKind, P2PLevel
from kraken_sim.hardware.topology.islands import (
    most_out_of,
    node_islands,
    nvlink_islands,
    rail_orders,
    together,
    with_planes_merged,
    with_switches,
)
from kraken_sim.hardware.topology.ring_search import Ways, best_order, improved_order, pairs_around
from kraken_sim.hardware.topology.trees import Trees
from kraken_sim.hardware.topology.union_find import UnionFind
from kraken_sim.hardware.topology.ways import WaySearch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from kraken_sim.hardware.topology.graph import Arc, Graph
    from kraken_sim.hardware.topology.islands import Islands
    from kraken_sim.hardware.topology.ways import ShortestWays

EXACT_RANKS: Final = 8
"""Largest group whose orders are all considered: (8 - 1)! = 5040 before pruning; a limit of ours."""

SEARCHED_RANKS: Final = 32
"""Largest group whose order is improved by segment reversals; a limit of ours, for the time it takes."""

_MOST_KEPT: Final = 100_000
"""Ways and rings that are kept, then all are dropped; a limit of ours, so that memory stays flat: a way takes 0.7 kB
behind one switch and 2.7 kB between nodes, measured with tracemalloc, so all of them 70 to 270 MB."""

_MAX_RINGS: Final = 32
"""Most rings on what those before them leave; a limit of ours, as NCCL's search has one (MAXCHANNELS / 2 in
src/init.cc)."""

_TOLERANCE: Final = 1e-9
"""Relative bandwidth below which nothing is left but rounding errors; a limit of ours."""

_NVLINK: Final = frozenset({LinkKind.NVLINK})
_TO_HOST: Final = frozenset({LinkKind.PCIE, LinkKind.C2C})
_ALL: Final = frozenset(LinkKind)


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
    over idle NVLinks of a mesh, or over other rails, add. `slowest` is the link that decides the bandwidth of this
    ring. Switches that join the same nodes are one here, with their links added up.
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


class _Left(dict["Arc", float]):
    """What links have left: all that they have, but for those of which something was taken."""

    def __init__(self, capacity: Mapping[Arc, float]) -> None:
        self._capacity = capacity

    def __missing__(self, arc: Arc) -> float:
        return self._capacity[arc]


class RingFinder:
    """Routes and rings on one topology."""

    def __init__(self, topology: Graph) -> None:
        self.topology = topology
        self._links = with_planes_merged(topology)
        self._kinds = topology.kinds
        self._capacity: dict[Arc, float] = {
            (index, forward): link.total_bytes_per_s
            for index, link in enumerate(self._links)
            for forward in (True, False)
        }
        self._searches = [WaySearch(self._links, self._kinds, kinds) for kinds in (_NVLINK, _ALL)]
        self._trees = [Trees(self._links, self._kinds, kinds) for kinds in (_NVLINK, _ALL)]
        self._ways: dict[tuple[str, str], ShortestWays] = {}
        self._best: dict[tuple[str, ...], Ring] = {}

    def best(self, gpus: Sequence[str]) -> Ring:
        """The best ring through two GPUs or more, and what further ones add."""
        key = tuple(gpus)
        ring = self._best.get(key)
        if ring is None:
            if sum(map(len, self._best)) + len(key) > _MOST_KEPT:
                self._best.clear()
            (order, _), *further = self.all_rings(gpus)
            ring = replace(self._ring(order), further_bytes_per_s=sum(bandwidth for _, bandwidth in further))
            self._best[key] = ring
        return ring

    def all_rings(self, gpus: Sequence[str]) -> list[tuple[tuple[str, ...], float]]:
        """The best ring and those on the links that it leaves, in a mesh or over other rails: order and bandwidth."""
        order = self._tree_order(gpus)
        if order is not None:
            return [(order, self._bottleneck(self._ring_arcs(order, self._capacity), self._capacity)[0])]
        nodes = node_islands(self.topology, gpus)
        if len(nodes) > 1:
            islands = nvlink_islands(self.topology, gpus)
            grouped = together(nodes, tuple(map(self._within, islands)))
            one_way = self._packed(rail_orders(grouped))
            if _sum(one_way) >= self._most_out_of_nodes(nodes):
                return one_way
            return max(one_way, self._packed(rail_orders(grouped, both_ways=True)), key=_sum)
        ring = self._ring(self._search(gpus, self._capacity))
        if not _all_nvlink(ring.hops):
            return [(ring.order, ring.bandwidth_bytes_per_s)]
        return self._mesh_rings(gpus, ring)

    def route(self, source: str, target: str, capacity: Mapping[Arc, float] | None = None) -> tuple[Arc, ...]:
        """The way from one node to another: NVLink where it leads there, then fewest hops, then widest.

        GPUs do not forward traffic of others, so no way leads through one.

        Raises:
            InputError: There is no such way.
        """
        ways = self._ways.get((source, target)) or self._found(source, target)
        return ways.widest(self._capacity if capacity is None else capacity)

    def routes_from(self, source: str) -> Callable[[str], tuple[Arc, ...]]:
        """`route` from a NIC to any number of others, by one search for all of them."""
        ways_to = self._searches[-1].ways_from(source)

        def route(target: str) -> tuple[Arc, ...]:
            ways = ways_to(target)
            return self.route(source, target) if ways is None else ways.widest(self._capacity)

        return route

    def _found(self, source: str, target: str) -> ShortestWays:
        back = self._ways.get((target, source))
        for search in self._searches:
            ways = search.ways(source, target) if back is None else back.reversed()
            if ways is not None:
                if len(self._ways) >= _MOST_KEPT:
                    self._ways.clear()
                self._ways[source, target] = ways
                return ways
        message = f"no ring: every way from {source} to {target} leads through another GPU"
        example = '{from: "gpu*", to: host, kind: pcie, ...}'
        raise InputError.single("topology.links", message, example=example)

    @cached_property
    def hosts(self) -> Mapping[str, str]:
        """The first host that each GPU reaches over PCIe or C2C links, without a way through another GPU."""
        trees, beside = UnionFind(), defaultdict[str, list[str]](list)
        for link in self._links:
            if link.kind in _TO_HOST:
                ends = (link.a, link.b)
                if all(self._kinds[name] is not NodeKind.GPU for name in ends):
                    trees.join(*ends)
                for gpu, other in (ends, ends[::-1]):
                    if self._kinds[gpu] is NodeKind.GPU:
                        beside[gpu].append(other)
        names = [node.name for node in self.topology.nodes if node.kind is NodeKind.HOST]
        rank = {name: index for index, name in enumerate(names)}
        roots: dict[str, str] = {}
        for name in names:
            roots.setdefault(trees.find(name), name)
        found = {
            gpu: [roots[tree] for tree in map(trees.find, others) if tree in roots] for gpu, others in beside.items()
        }
        return {gpu: min(hosts, key=rank.__getitem__) for gpu, hosts in found.items() if hosts}

    def nearest(self, source: str, targets: Collection[str]) -> tuple[int, set[str]]:
        """The fewest hops to any of some nodes that forward, and which are so near; see `WaySearch`."""
        return self._searches[-1].nearest(source, targets)

    def gpus_at(self, source: str, hops: int) -> set[str]:
        """The GPUs that are so many hops away from a node; see `WaySearch`."""
        return self._searches[-1].gpus_at(source, hops)

    def links_of(self, arcs: Iterable[Arc]) -> tuple[Link, ...]:
        """The links that a way uses."""
        return tuple(self._links[index] for index, _ in arcs)

    def latency_s(self, arcs: Iterable[Arc]) -> float:
        """Time of flight over all links of a way."""
        return sum(link.latency_s for link in self.links_of(arcs))

    def _tree_order(self, gpus: Sequence[str]) -> tuple[str, ...] | None:
        """The group in depth-first order where its links form a tree with GPUs as leaves, else None.

        Where NVLink alone connects the group, its other links carry nothing and do not count.
        """
        for trees in self._trees:
            part = trees.part(gpus)
            if part is not None:
                return trees.depth_first(gpus) if trees.is_tree(part) else None
        return None

    # Several nodes ------------------------------------------------------------------------------------------

    def _within(self, island: Sequence[str]) -> tuple[str, ...]:
        """An NVLink island in the order of its own best ring."""
        if len(island) < 3:
            return tuple(island)
        return self._tree_order(island) or self._search(island, self._capacity)

    def _most_out_of_nodes(self, nodes: Islands) -> float:
        """The most that rings through all nodes can carry together: each leaves every node over its network."""
        component = self.topology.components
        return min(self._out_of_node[component[members[0]]] for members in nodes)

    @cached_property
    def _out_of_node(self) -> Mapping[str, float]:
        """What the network links at each node carry together, in bytes a second."""
        component = self.topology.components
        out: dict[str, float] = defaultdict(float)
        for link in self._links:
            if link.kind is LinkKind.NETWORK:
                for name in (link.a, link.b):
                    out[component[name]] += link.total_bytes_per_s
        return out

    def _packed(self, orders: Iterable[tuple[str, ...]]) -> list[tuple[tuple[str, ...], float]]:
        """Rings one after the other on what those before them leave; the ones that find nothing are left out."""
        left = _Left(self._capacity)
        rings: list[tuple[tuple[str, ...], float]] = []
        nothing = -1.0
        for order in orders:
            arcs = self._ring_arcs(order, left, nothing)
            if len(arcs) < len(order):
                continue
            bandwidth, _slowest = self._bottleneck(arcs, left)
            if bandwidth > nothing:
                rings.append((order, bandwidth))
                self._take(left, arcs, bandwidth)
                nothing = rings[0][1] * _TOLERANCE
        return rings

    # Value of a ring --------------------------------------------------------------------------------------

    def _ring(self, order: Sequence[str]) -> Ring:
        arcs = self._ring_arcs(order, self._capacity)
        bandwidth, slowest = self._bottleneck(arcs, self._capacity)
        hops = tuple(self._hop(a, b, way) for (a, b), way in zip(pairs_around(order), arcs, strict=True))
        return Ring(hops, bandwidth, self._links[slowest[0]])

    def _take(self, left: dict[Arc, float], arcs: Iterable[tuple[Arc, ...]], bandwidth: float) -> None:
        """Takes a ring's share off what the links have left."""
        for arc, load in _loads(arcs).items():
            left[arc] = max(0.0, left[arc] - bandwidth * load)

    def _ring_arcs(
        self, order: Sequence[str], capacity: Mapping[Arc, float], nothing: float = -1.0
    ) -> list[tuple[Arc, ...]]:
        """The ways along a ring, up to the first on which a link has `nothing` or less."""
        known, ways = self._ways, []
        for pair in pairs_around(order):
            found = known.get(pair) or self._found(*pair)
            way = found.only or found.widest(capacity)
            if min(map(capacity.__getitem__, way)) <= nothing:
                break
            ways.append(way)
        return ways

    def _bottleneck(self, arcs: Iterable[tuple[Arc, ...]], capacity: Mapping[Arc, float]) -> tuple[float, Arc]:
        loads = _loads(arcs)
        least = min(map(truediv, map(capacity.__getitem__, loads), loads.values()))
        return least, min(arc for arc, load in loads.items() if capacity[arc] / load == least)

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
        grouped: tuple[str, ...] = ()
        if len(gpus) > EXACT_RANKS:
            grouped = tuple(gpu for island in nvlink_islands(self.topology, gpus) for gpu in island)
            if len(gpus) > SEARCHED_RANKS or self._is_widest(grouped, capacity):
                return grouped
        routes = {(a, b): self.route(a, b, capacity) for a in gpus for b in gpus if a != b}
        latency = {pair: self.latency_s(way) for pair, way in routes.items()}
        ways = Ways(routes, latency, capacity)
        return improved_order(gpus, ways, grouped) if grouped else best_order(gpus, ways)

    def _is_widest(self, order: Sequence[str], capacity: Mapping[Arc, float]) -> bool:
        """Whether a ring carries as much as the best way out of its GPUs and of their NVLink islands."""
        if capacity is not self._capacity:
            return False
        islands = nvlink_islands(self.topology, order)
        parts: list[Collection[str]] = [[gpu] for gpu in order]
        if len(islands) > 1:
            parts += [with_switches(island, self._links, self._kinds) for island in islands]
        limit = min(most_out_of(part, self._links) for part in parts)
        bandwidth, _slowest = self._bottleneck(self._ring_arcs(order, capacity), capacity)
        return bandwidth >= limit * (1.0 - _TOLERANCE)

    def _mesh_rings(self, gpus: Sequence[str], ring: Ring) -> list[tuple[tuple[str, ...], float]]:
        """A ring over NVLinks, and further ones on what those before them leave."""
        left, order, bandwidth = _Left(self._capacity), ring.order, ring.bandwidth_bytes_per_s
        arcs, rings = self._ring_arcs(order, left), [(order, bandwidth)]
        for _ in range(_MAX_RINGS):
            self._take(left, arcs, bandwidth)
            order = self._search(gpus, left)
            arcs = self._ring_arcs(order, left)
            bandwidth, _slowest = self._bottleneck(arcs, left)
            nvlink = all(link.kind is LinkKind.NVLINK for way in arcs for link in self.links_of(way))
            if not nvlink or bandwidth <= ring.bandwidth_bytes_per_s * _TOLERANCE:
                break
            rings.append((order, bandwidth))
        return rings


def _sum(rings: Iterable[tuple[tuple[str, ...], float]]) -> float:
    return sum(bandwidth for _, bandwidth in rings)


def _loads(ways: Iterable[Sequence[Arc]]) -> Counter[Arc]:
    """How many of some ways use each link in each direction."""
    return Counter(chain.from_iterable(ways))


def _all_nvlink(hops: Iterable[Hop]) -> bool:
    return all(hop.p2p_level is P2PLevel.NVL for hop in hops)
