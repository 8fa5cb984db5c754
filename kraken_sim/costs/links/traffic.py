"""Which bytes a collective moves over which link, exactly.

`num_bytes` is counted as in `kraken_sim.costs.collectives.kinds`: payload, without the flags and headers of a
protocol. A rank is a position in the group's ring.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.custom import MULTIMEM, ONE_SHOT, TWO_SHOT
from kraken_sim.costs.collectives.kinds import RING_KINDS, ring_bytes
from kraken_sim.costs.collectives.tuning import NVLS, RING, SEND_RECV, TREE
from kraken_sim.costs.links.network_traffic import NetworkTraffic
from kraken_sim.errors import InputError
from kraken_sim.hardware.topology.graph import LinkKind, NodeKind
from kraken_sim.hardware.topology.nodes import nodes_of
from kraken_sim.hardware.topology.reduction import nearest_host
from kraken_sim.hardware.topology.rings import RingFinder
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kraken_sim.hardware.topology.graph import Arc
    from kraken_sim.hardware.topology.topology import Topology

Pair = tuple[int, int]
IN_SWITCH = (NVLS, MULTIMEM)
"""Algorithms whose sums and copies are made by the NVSwitch."""


@dataclass(frozen=True, slots=True)
class DirectedLink:
    """One direction of the links between two nodes, and its line rate."""

    source: str
    target: str
    kind: LinkKind
    bytes_per_s: float

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} ({self.kind})"


def pair_bytes(kind: CollectiveKind, algorithm: str, num_devices: int, num_bytes: float) -> dict[Pair, float]:
    """Bytes that each rank sends to each other one.

    - ring: 2(n-1)/n of an AllReduce and (n-1)/n of an AllGather or ReduceScatter to the next rank, all of a
      Broadcast along the chain from rank 0;
    - tree: within a node NCCL's tree is a chain, the message goes up and down every link of it;
    - one-shot: everybody's message to everybody; two-shot: an n-th to everybody, twice;
    - sends and receives of an AllToAll: an n-th to everybody; point-to-point: all to the next rank.

    Raises:
        InputError: The collective has no such algorithm.
    """
    n = num_devices
    everybody = [(a, b) for a in range(n) for b in range(n) if a != b]
    if algorithm == SEND_RECV and kind is CollectiveKind.SEND_RECV:
        return {(rank, (rank + 1) % n): float(num_bytes) for rank in range(n)}
    if algorithm == RING and kind in RING_KINDS:
        hops = n - 1 if kind is CollectiveKind.BROADCAST else n
        sent = ring_bytes(kind, n, num_bytes)
        return {(rank, (rank + 1) % n): sent for rank in range(hops)}
    if algorithm == SEND_RECV and kind is CollectiveKind.ALL_TO_ALL:
        return dict.fromkeys(everybody, num_bytes / n)
    if kind is CollectiveKind.ALL_REDUCE:
        if algorithm == TREE:
            chain = [(rank, rank + 1) for rank in range(n - 1)]
            return dict.fromkeys([*chain, *((b, a) for a, b in chain)], float(num_bytes))
        if algorithm == ONE_SHOT:
            return dict.fromkeys(everybody, float(num_bytes))
        if algorithm == TWO_SHOT:
            return dict.fromkeys(everybody, 2.0 * num_bytes / n)
    raise InputError.single("algorithm", f"{kind} has no traffic between pairs of ranks as", algorithm, RING)


def switch_bytes(kind: CollectiveKind, num_devices: int, num_bytes: float) -> tuple[float, float]:
    """Bytes that each GPU sends to the NVSwitch and gets from it when the switch adds and multicasts.

    Of an AllReduce every GPU gives its message to the reductions and its n-th of the result to the multicast,
    and gets its n-th of the sums and all of the result: (n+1)/n of the bytes each way.

    Raises:
        InputError: The collective is not an AllReduce.
    """
    if kind is not CollectiveKind.ALL_REDUCE:
        raise InputError.single("algorithm", f"the NVSwitch makes no {kind} of its own here", NVLS, RING)
    both = (num_devices + 1.0) / num_devices * num_bytes
    return both, both


def link_bytes(
    topology: Topology,
    gpus: Sequence[str],
    kind: CollectiveKind,
    algorithm: str,
    num_bytes: float,
    *,
    staged: bool = False,
) -> dict[DirectedLink, float]:
    """Bytes over every directed link that a collective of these GPUs uses.

    Rings follow the best ring of the topology (between nodes one ring a rail, see `network_traffic`), and in a
    mesh the further ones, each with the part of the bytes that its bandwidth deserves. `staged` sends every hop
    through host memory, as NCCL's SHM transport does.

    Raises:
        InputError: Some GPUs cannot reach each other; an algorithm that the collective does not have; or no
            NVSwitch for one that needs it.
    """
    if len(gpus) < 2:
        return {}
    router = _Router(topology, staged)
    if len(nodes_of(topology, gpus)) > 1:
        return router.between_nodes(gpus, kind, algorithm, num_bytes)
    if algorithm in IN_SWITCH:
        return router.through_switch(gpus, *switch_bytes(kind, len(gpus), num_bytes))
    moved: dict[DirectedLink, float] = defaultdict(float)
    for order, share in router.orders(gpus, algorithm):
        for (a, b), sent in pair_bytes(kind, algorithm, len(gpus), num_bytes * share).items():
            router.add(moved, order[a], order[b], sent)
    return dict(moved)


def way_between(topology: Topology, source: str, target: str, *, staged: bool = False) -> tuple[DirectedLink, ...]:
    """The links from one GPU to another; `staged` through host memory.

    Raises:
        InputError: There is no way.
    """
    return tuple(_Router(topology, staged).links(source, target))


def busiest_rank_bytes(pairs: Mapping[Pair, float]) -> float:
    """The most that one rank sends."""
    sent: dict[int, float] = defaultdict(float)
    for (source, _), num_bytes in pairs.items():
        sent[source] += num_bytes
    return max(sent.values())


class _Router:
    """Ways between the GPUs of one topology."""

    def __init__(self, topology: Topology, staged: bool) -> None:
        self._topology = topology
        self._finder = RingFinder(topology)
        self._staged = staged

    def orders(self, gpus: Sequence[str], algorithm: str) -> list[tuple[tuple[str, ...], float]]:
        """The rings to use and the share of the bytes on each; any order does where everybody sends to all."""
        if algorithm not in (RING, TREE):
            return [(tuple(gpus), 1.0)]
        if self._staged:
            return [(self._finder.best(gpus).order, 1.0)]
        rings = self._finder.all_rings(gpus)
        total = sum(bandwidth for _, bandwidth in rings)
        return [(order, bandwidth / total) for order, bandwidth in rings]

    def add(self, moved: dict[DirectedLink, float], source: str, target: str, num_bytes: float) -> None:
        """Count bytes on the way from one GPU to another."""
        for link in self.links(source, target):
            moved[link] += num_bytes

    def links(self, source: str, target: str) -> Iterable[DirectedLink]:
        """The way from one GPU to another."""
        if not self._staged:
            return self._directed(self._finder.route(source, target))
        first, last = (nearest_host(self._topology, self._finder, gpu) for gpu in (source, target))
        between = self._finder.route(first, last) if first != last else ()
        up, down = self._finder.route(source, first), self._finder.route(last, target)
        return self._directed((*up, *between, *down))

    def between_nodes(
        self, gpus: Sequence[str], kind: CollectiveKind, algorithm: str, num_bytes: float
    ) -> dict[DirectedLink, float]:
        """What a group of several nodes moves."""
        moved = NetworkTraffic(self._topology, self._finder, gpus).bytes_of(kind, algorithm, num_bytes)
        return dict(zip(self._directed(moved), moved.values(), strict=True))

    def _directed(self, arcs: Iterable[Arc]) -> list[DirectedLink]:
        found = []
        for arc in arcs:
            (link,), forward = self._finder.links_of((arc,)), arc[1]
            ends = (link.a, link.b) if forward else (link.b, link.a)
            found.append(DirectedLink(*ends, link.kind, link.total_bytes_per_s))
        return found

    def through_switch(self, gpus: Sequence[str], up: float, down: float) -> dict[DirectedLink, float]:
        """What each GPU exchanges with the NVSwitch; its way there is the first link of its way to another GPU."""
        moved = {}
        for gpu, other in zip(gpus, [*gpus[1:], gpus[0]], strict=True):
            link = next(iter(self.links(gpu, other)))
            if link.kind is not LinkKind.NVLINK or self._topology.kinds[link.target] is not NodeKind.NVSWITCH:
                raise InputError.single("algorithm", f"needs NVSwitch, and {gpu} has no link to one", NVLS, RING)
            moved[link] = up
            moved[DirectedLink(link.target, gpu, link.kind, link.bytes_per_s)] = down
        return moved
