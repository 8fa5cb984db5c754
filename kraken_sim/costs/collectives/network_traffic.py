"""Bytes of collectives that span several nodes: which NIC and which link carries what.

A rail is a NIC of each node, the same one on all; rings and trees split the message evenly among the rails.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from math import isqrt
from typing import TYPE_CHECKING, Final

from kraken_sim.costs.collectives.kinds import ring_bytes
from kraken_sim.costs.collectives.node_traffic import chain_pairs, ring_pairs, send_recv_pairs
from kraken_sim.costs.collectives.routes import Group, Traffic, busiest_rank_bytes
from kraken_sim.errors import InputError
from kraken_sim.hardware.topology.nodes import rails_of
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kraken_sim.costs.collectives.routes import Pair
    from kraken_sim.hardware.topology.graph import Arc


MOST_PAIRS: Final = 256**2
"""Pairs of an AllToAll whose links are counted; a limit of ours, some four seconds."""


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


def network_ring_traffic(group: Group, num_bytes: float) -> Traffic:
    """A ring through all GPUs for each rail, which enters and leaves every node once."""
    rails, n = _Rails(group), group.num_devices
    for rail in range(rails.count):
        order = [gpu for node in range(len(group.nodes)) for gpu in rails.members_from(node, rail)]
        hops = list(zip(order, [*order[1:], order[0]], strict=True))
        if group.kind is CollectiveKind.BROADCAST:
            hops.pop()
        for source, target in hops:
            rails.send(source, target, ring_bytes(group.kind, n, num_bytes) / rails.count, rail)
    return rails.traffic(num_bytes, ring_pairs(group.kind, n, num_bytes))


def network_send_recv_traffic(group: Group, num_bytes: float) -> Traffic:
    """Every pair through the NICs of its two GPUs.

    Raises:
        InputError: More than `MOST_PAIRS` of them.
    """
    if group.kind is CollectiveKind.ALL_TO_ALL and group.num_devices**2 > MOST_PAIRS:
        message = f"links of an AllToAll are counted for at most {isqrt(MOST_PAIRS)} ranks on several nodes"
        raise InputError.single("num_devices", message, group.num_devices, str(isqrt(MOST_PAIRS)))
    all_pairs = group.kind is CollectiveKind.ALL_TO_ALL
    rails, pairs = _Rails(group, all_pairs=all_pairs), send_recv_pairs(group.kind, group.num_devices, num_bytes)
    for (a, b), sent in pairs.items():
        rails.send(group.gpus[a], group.gpus[b], sent)
    return rails.traffic(num_bytes, pairs)


def network_tree_traffic(group: Group, num_bytes: float) -> Traffic:
    """Up and down the chain of every node, and each half of the bytes up and down one of the two trees."""
    rails = _Rails(group)
    share = num_bytes / rails.count
    for rail in range(rails.count):
        chains = [rails.members_from(node, rail) for node in range(len(group.nodes))]
        for chain in chains:
            rails.send_both_ways(pairwise(chain), share, rail)
        for mirrored in (False, True):
            edges = binary_tree(len(chains), mirrored=mirrored)
            rails.send_both_ways(((chains[a][0], chains[b][0]) for a, b in edges), share / 2.0, rail)
    return rails.traffic(num_bytes, chain_pairs(group.num_devices, num_bytes))


def network_nvls_tree_traffic(group: Group, num_bytes: float) -> Traffic:
    """Through the switch of every node, and each GPU's share of the sums up and down two trees through its NIC."""
    rails = _Rails(group)
    both = (len(group.nodes[0]) + 1.0) / len(group.nodes[0]) * num_bytes
    share = num_bytes / rails.count
    for rail in range(rails.count):
        heads = [rails.members_from(node, rail)[0] for node in range(len(group.nodes))]
        for mirrored in (False, True):
            edges = binary_tree(len(heads), mirrored=mirrored)
            rails.send_both_ways(((heads[a], heads[b]) for a, b in edges), share / 2.0, rail)
    links = dict(rails.traffic(num_bytes, {}).links)
    for members in group.nodes:
        inside = Group(group.topology, members, group.kind).traffic_through_switch(both, both)
        for link, moved in inside.links.items():
            links[link] = links.get(link, 0.0) + moved
    return Traffic(links, both, both)


def hierarchical_traffic(group: Group, num_bytes: float) -> Traffic:
    """A reduce-scatter and an all-gather in every node, and a ring of the GPUs of one place on all nodes.

    Raises:
        InputError: The group is spread unevenly over the nodes.
    """
    rails = _Rails(group)
    if not rails.even:
        raise InputError.single("algorithm", "needs as many GPUs on every node", "hierarchical", "ring")
    size, num_nodes = len(group.nodes[0]), len(group.nodes)
    for members in group.nodes if size > 1 else []:
        order = group.finder.best(members).order
        for source, target in zip(order, [*order[1:], order[0]], strict=True):
            rails.send(source, target, 2.0 * (size - 1) / size * num_bytes)
    for place in range(size):
        ring = [members[place] for members in group.nodes]
        for source, target in zip(ring, [*ring[1:], ring[0]], strict=True):
            rails.send(source, target, 2.0 * (num_nodes - 1) / num_nodes * num_bytes / size)
    return rails.traffic(num_bytes, {})


class _Rails:
    """The NICs that a group of several nodes leaves them by, and the bytes counted so far.

    With `all_pairs` a NIC sends to nearly all others, one after the other, which one search finds; else to a few.
    """

    def __init__(self, group: Group, *, all_pairs: bool = False) -> None:
        self._group = group
        self._all_pairs = all_pairs
        self._node = {gpu: index for index, members in enumerate(group.nodes) for gpu in members}
        self._rail = {gpu: nic for members in group.nodes for gpu, nic in rails_of(group.finder, members).items()}
        self._rails = [list(dict.fromkeys(self._rail[gpu] for gpu in members)) for members in group.nodes]
        self.count = min(len(rails) for rails in self._rails)
        self.even = len({len(members) for members in group.nodes}) == 1
        self._moved: dict[Arc, float] = defaultdict(float)
        self._out = ""
        self._from: Callable[[str], tuple[Arc, ...]]
        self._known: dict[str, tuple[Arc, ...]] = {}

    def traffic(self, num_bytes: float, pairs: Mapping[Pair, float]) -> Traffic:
        """What was counted.

        A group's progress is counted by what a rank sends, whichever rails that takes; where it is spread unevenly,
        by the `pairs` that the algorithm has within a node, since its time is of that kind too.
        """
        links = dict(zip(self._group.directed(self._moved), self._moved.values(), strict=True))
        if not self.even:
            return Traffic(links, max(pairs.values()), busiest_rank_bytes(pairs))
        sent = ring_bytes(self._group.kind, self._group.num_devices, num_bytes)
        return Traffic(links, sent, sent)

    def send(self, source: str, target: str, num_bytes: float, rail: int | None = None) -> None:
        """Within a node the direct way; else through the rail given, or through those of the two GPUs."""
        here, there = self._node[source], self._node[target]
        if here == there:
            self._add(self._group.finder.route(source, target), num_bytes)
            return
        out = self._rail[source] if rail is None else self._rails[here][rail]
        into = self._rail[target] if rail is None else self._rails[there][rail]
        finder = self._group.finder
        for way in (finder.route(source, out), self._between(out, into), finder.route(into, target)):
            self._add(way, num_bytes)

    def _between(self, out: str, into: str) -> tuple[Arc, ...]:
        """The way between two NICs."""
        if not self._all_pairs:
            return self._group.finder.route(out, into)
        if self._out != out:
            self._out, self._from, self._known = out, self._group.finder.routes_from(out), {}
        if into not in self._known:
            self._known[into] = self._from(into)
        return self._known[into]

    def send_both_ways(self, pairs: Iterable[tuple[str, str]], num_bytes: float, rail: int) -> None:
        """From each of two GPUs to the other."""
        for a, b in pairs:
            self.send(a, b, num_bytes, rail)
            self.send(b, a, num_bytes, rail)

    def members_from(self, node: int, rail: int) -> tuple[str, ...]:
        """The GPUs of a node, beginning with the first that the rail belongs to."""
        members = self._group.nodes[node]
        first = next(index for index, gpu in enumerate(members) if self._rail[gpu] == self._rails[node][rail])
        return (*members[first:], *members[:first])

    def _add(self, arcs: Iterable[Arc], num_bytes: float) -> None:
        for arc in arcs:
            self._moved[arc] += num_bytes
