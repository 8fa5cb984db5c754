"""Bytes of collectives that span several nodes: which NIC and which link carries what.

A rail is a NIC of each node, the same one on all; rings and trees split the message evenly among the rails.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.kinds import RING_KINDS, ring_bytes
from kraken_sim.costs.collectives.tuning import HIERARCHICAL, RING, SEND_RECV, TREE
from kraken_sim.errors import InputError
from kraken_sim.hardware.topology.nodes import nodes_of, rail_of
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kraken_sim.hardware.topology.graph import Arc
    from kraken_sim.hardware.topology.rings import RingFinder
    from kraken_sim.hardware.topology.topology import Topology

Bytes = dict["Arc", float]


def binary_tree(num_nodes: int, *, mirrored: bool) -> list[tuple[int, int]]:
    """Edges (child, parent) of one of NCCL's two binary trees over nodes.

    In the first tree the parent of a node is found by its lowest set bit, so that every other node is a leaf;
    the second is the mirror image where the number is even, else shifted by one: inner nodes of one are leaves
    of the other. Source: NVIDIA/nccl src/graph/trees.cc; Sanders, Speck and Traeff, Parallel Computing 35 (2009).
    """
    edges = []
    for node in range(1, num_nodes):
        bit = node & -node
        parent = (node ^ bit) | (bit << 1)
        edges.append((node, parent if parent < num_nodes else node ^ bit))
    if not mirrored:
        return edges
    if num_nodes % 2 == 0:
        return [(num_nodes - 1 - child, num_nodes - 1 - parent) for child, parent in edges]
    return [((child + 1) % num_nodes, (parent + 1) % num_nodes) for child, parent in edges]


class NetworkTraffic:
    """The traffic of one group that spans nodes."""

    def __init__(self, topology: Topology, finder: RingFinder, gpus: Sequence[str]) -> None:
        self._finder = finder
        self._gpus = tuple(gpus)
        self._nodes = nodes_of(topology, gpus)
        self._rail = {gpu: rail_of(topology, finder, members, gpu) for members in self._nodes for gpu in members}
        self._rails = [list(dict.fromkeys(self._rail[gpu] for gpu in members)) for members in self._nodes]
        self._num_rails = min(len(rails) for rails in self._rails)
        self._moved: Bytes = defaultdict(float)

    def bytes_of(self, kind: CollectiveKind, algorithm: str, num_bytes: float) -> Bytes:
        """Bytes by arc of the topology.

        Raises:
            InputError: The algorithm does not run between nodes, or the group is spread unevenly.
        """
        if algorithm == RING and kind in RING_KINDS:
            self._rings(kind, num_bytes)
        elif algorithm == SEND_RECV and kind is CollectiveKind.SEND_RECV:
            self._shift(num_bytes)
        elif algorithm == SEND_RECV and kind is CollectiveKind.ALL_TO_ALL:
            self._pairs(num_bytes / len(self._gpus))
        elif kind is CollectiveKind.ALL_REDUCE and algorithm == TREE:
            self._trees(num_bytes)
        elif kind is CollectiveKind.ALL_REDUCE and algorithm == HIERARCHICAL:
            self._hierarchy(num_bytes)
        else:
            raise InputError.single("algorithm", f"{kind} does not run between nodes as", algorithm, RING)
        return dict(self._moved)

    def _add(self, arcs: Iterable[Arc], num_bytes: float) -> None:
        for arc in arcs:
            self._moved[arc] += num_bytes

    def _send(self, source: str, target: str, num_bytes: float, rail: int | None = None) -> None:
        """Within a node the direct way; else through the rail given, or through those of the two GPUs."""
        here, there = self._node(source), self._node(target)
        if here == there:
            self._add(self._finder.route(source, target), num_bytes)
            return
        out = self._rail[source] if rail is None else self._rails[here][rail]
        into = self._rail[target] if rail is None else self._rails[there][rail]
        for ends in ((source, out), (out, into), (into, target)):
            self._add(self._finder.route(*ends), num_bytes)

    def _node(self, gpu: str) -> int:
        return next(index for index, members in enumerate(self._nodes) if gpu in members)

    def _from_rail(self, node: int, rail: int) -> tuple[str, ...]:
        """The GPUs of a node, beginning with the first that the rail belongs to."""
        members = self._nodes[node]
        first = next(index for index, gpu in enumerate(members) if self._rail[gpu] == self._rails[node][rail])
        return (*members[first:], *members[:first])

    def _rings(self, kind: CollectiveKind, num_bytes: float) -> None:
        for rail in range(self._num_rails):
            order = [gpu for node in range(len(self._nodes)) for gpu in self._from_rail(node, rail)]
            hops = list(zip(order, [*order[1:], order[0]], strict=True))
            if kind is CollectiveKind.BROADCAST:
                hops.pop()
            for source, target in hops:
                self._send(source, target, ring_bytes(kind, len(order), num_bytes) / self._num_rails, rail)

    def _pairs(self, num_bytes: float) -> None:
        for source in self._gpus:
            for target in self._gpus:
                if source != target:
                    self._send(source, target, num_bytes)

    def _shift(self, num_bytes: float) -> None:
        for source, target in zip(self._gpus, [*self._gpus[1:], self._gpus[0]], strict=True):
            self._send(source, target, num_bytes)

    def _trees(self, num_bytes: float) -> None:
        """Up and down the chain of every node, and each half of the bytes up and down one of the two trees."""
        share = num_bytes / self._num_rails
        for rail in range(self._num_rails):
            chains = [self._from_rail(node, rail) for node in range(len(self._nodes))]
            for chain in chains:
                self._both_ways(pairwise(chain), share, rail)
            for mirrored in (False, True):
                edges = binary_tree(len(chains), mirrored=mirrored)
                self._both_ways(((chains[a][0], chains[b][0]) for a, b in edges), share / 2.0, rail)

    def _both_ways(self, pairs: Iterable[tuple[str, str]], num_bytes: float, rail: int) -> None:
        for a, b in pairs:
            self._send(a, b, num_bytes, rail)
            self._send(b, a, num_bytes, rail)

    def _hierarchy(self, num_bytes: float) -> None:
        """A reduce-scatter and an all-gather in every node, and a ring of the GPUs of one place on all nodes."""
        sizes = {len(members) for members in self._nodes}
        if len(sizes) > 1:
            message = "needs as many GPUs on every node"
            raise InputError.single("algorithm", message, HIERARCHICAL, RING)
        size, num_nodes = sizes.pop(), len(self._nodes)
        for members in self._nodes if size > 1 else []:
            order = self._finder.best(members).order
            for source, target in zip(order, [*order[1:], order[0]], strict=True):
                self._send(source, target, 2.0 * (size - 1) / size * num_bytes)
        for place in range(size):
            ring = [members[place] for members in self._nodes]
            for source, target in zip(ring, [*ring[1:], ring[0]], strict=True):
                self._send(source, target, 2.0 * (num_nodes - 1) / num_nodes * num_bytes / size)
