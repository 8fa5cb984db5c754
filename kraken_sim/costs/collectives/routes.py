"""The GPUs of a group and the directed links on the ways between them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from kraken_sim.errors import InputError
from kraken_sim.hardware.topology.graph import LinkKind, NodeKind
from kraken_sim.hardware.topology.islands import nodes_of
from kraken_sim.hardware.topology.reduction import nearest_host

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kraken_sim.hardware.topology.graph import Arc
    from kraken_sim.hardware.topology.islands import Islands
    from kraken_sim.hardware.topology.topology import Topology
    from kraken_sim.program.ops import CollectiveKind

Pair = tuple[int, int]
"""Ranks of a sender and its receiver."""


@dataclass(frozen=True, slots=True)
class DirectedLink:
    """One direction of the links between two nodes, and its line rate."""

    source: str
    target: str
    kind: LinkKind
    bytes_per_s: float

    def __hash__(self) -> int:
        # The ends tell nearly all of them apart, and sums over links hash each of them often.
        return hash((self.source, self.target))

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} ({self.kind})"


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one collective moves.

    Attributes:
        links: Bytes over every directed link that it uses.
        busiest_pair_bytes: The most that one rank sends to another; a group's progress is counted by it.
        busiest_rank_bytes: The most that one rank sends.
    """

    links: Mapping[DirectedLink, float]
    busiest_pair_bytes: float
    busiest_rank_bytes: float


class Group:
    """The GPUs of a collective in the order of their ranks; `staged` sends every hop through host memory."""

    def __init__(self, topology: Topology, gpus: Sequence[str], kind: CollectiveKind, *, staged: bool = False) -> None:
        self.topology = topology
        self.kind = kind
        self.gpus = tuple(gpus)
        self.finder = topology.finder
        self._staged = staged

    @property
    def num_devices(self) -> int:
        """GPUs of the group."""
        return len(self.gpus)

    @cached_property
    def nodes(self) -> Islands:
        """The GPUs by the node of a cluster that they are on."""
        return nodes_of(self.topology, self.gpus)

    @cached_property
    def rings(self) -> list[tuple[tuple[str, ...], float]]:
        """The rings that NCCL builds, as orders of the GPUs, with the share of the bytes that each carries.

        The best one, and in a mesh the further ones, as their bandwidth deserves.
        """
        if self._staged:
            return [(self.finder.best(self.gpus).order, 1.0)]
        rings = self.finder.all_rings(self.gpus)
        total = sum(bandwidth for _, bandwidth in rings)
        return [(order, bandwidth / total) for order, bandwidth in rings]

    def way(self, source: str, target: str) -> list[DirectedLink]:
        """The links from one GPU to another.

        Raises:
            InputError: There is no way.
        """
        if not self._staged:
            return self.directed(self.finder.route(source, target))
        first, last = (nearest_host(self.finder, gpu) for gpu in (source, target))
        between = self.finder.route(first, last) if first != last else ()
        up, down = self.finder.route(source, first), self.finder.route(last, target)
        return self.directed((*up, *between, *down))

    def directed(self, arcs: Iterable[Arc]) -> list[DirectedLink]:
        """Arcs of the topology as links."""
        found = []
        for arc in arcs:
            (link,), forward = self.finder.links_of((arc,)), arc[1]
            ends = (link.a, link.b) if forward else (link.b, link.a)
            found.append(DirectedLink(*ends, link.kind, link.total_bytes_per_s))
        return found

    def traffic(self, pairs: Mapping[Pair, float], *, along_rings: bool = False) -> Traffic:
        """The traffic of bytes between pairs of ranks, each on its direct way.

        Args:
            pairs: bytes from one rank to another.
            along_rings: ranks are places in the rings that NCCL builds, else in the group's own order.

        Raises:
            InputError: Some GPUs cannot reach each other.
        """
        links: dict[DirectedLink, float] = defaultdict(float)
        for order, share in self.rings if along_rings else [(self.gpus, 1.0)]:
            for (a, b), num_bytes in pairs.items():
                for link in self.way(order[a], order[b]):
                    links[link] += num_bytes * share
        return Traffic(dict(links), max(pairs.values()), busiest_rank_bytes(pairs))

    def traffic_through_switch(self, up: float, down: float) -> Traffic:
        """The traffic of bytes that each GPU exchanges with the NVSwitch.

        Its way there is the first link of its way to another GPU.

        Raises:
            InputError: A GPU has no link to an NVSwitch.
        """
        links: dict[DirectedLink, float] = {}
        for gpu, other in zip(self.gpus, [*self.gpus[1:], self.gpus[0]], strict=True):
            link = self.directed(self.finder.route(gpu, other))[0]
            if link.kind is not LinkKind.NVLINK or self.topology.kinds[link.target] is not NodeKind.NVSWITCH:
                message = f"an algorithm such as nvls needs NVSwitch, and {gpu} has no link to one"
                raise InputError.single("algorithm", message, example="algorithm: ring")
            links[link] = up
            links[DirectedLink(link.target, gpu, link.kind, link.bytes_per_s)] = down
        return Traffic(links, max(links.values()), up)


def busiest_rank_bytes(pairs: Mapping[Pair, float]) -> float:
    """The most that one rank sends."""
    sent: dict[int, float] = defaultdict(float)
    for (source, _), num_bytes in pairs.items():
        sent[source] += num_bytes
    return max(sent.values())
