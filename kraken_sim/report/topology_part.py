"""The part of a large machine that is drawn: a few GPUs and what they hang on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError
from kraken_sim.hardware.topology.graph import LinkKind, NodeKind
from kraken_sim.hardware.topology.islands import nodes_of
from kraken_sim.hardware.topology.nodes import rails_of
from kraken_sim.hardware.topology.topology import Topology
from kraken_sim.hardware.topology.union_find import UnionFind

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_DRAWN: Final = 512
"""Most nodes of a machine that is drawn whole, a limit of ours: a wider picture does not help a reader."""

_MOST_OF_A_NODE: Final = 16
"""GPUs that are drawn of each of the first nodes of a large cluster; a limit of ours."""

_NODES: Final = 2
"""Nodes that are drawn of a large cluster, so that the network between them is seen."""


def drawn_part(topology: Topology) -> Topology:
    """The machine, or of a large one the first GPUs of its first nodes with their switches, hosts and NICs."""
    if len(topology.nodes) <= MOST_DRAWN:
        return topology
    first = [members[:_MOST_OF_A_NODE] for members in nodes_of(topology, topology.gpus)[:_NODES]]
    kept = {name for gpus in first for name in _around(topology, gpus)}
    links = [link for link in topology.links if link.a in kept and link.b in kept]
    joined = UnionFind()
    for link in links:
        joined.join(link.a, link.b)
    root = joined.find(first[0][0])
    kept = {name for name in kept if joined.find(name) == root}
    nodes = tuple(node for node in topology.nodes if node.name in kept)
    return Topology(nodes, tuple(link for link in links if link.a in kept), topology.p2p_level)


def _around(topology: Topology, gpus: tuple[str, ...]) -> Iterator[str]:
    """Some GPUs of a node, the NVSwitches at them, and what lies on their ways to their hosts and NICs."""
    finder = topology.finder
    yield from gpus
    try:
        rails = rails_of(finder, gpus)
    except InputError:
        rails = {}
    for gpu in gpus:
        for link in topology.links_of[gpu]:
            yield from (name for name in (link.a, link.b) if topology.kinds[name] is NodeKind.NVSWITCH)
        for end in (finder.hosts.get(gpu), rails.get(gpu)):
            for link in finder.links_of(finder.route(gpu, end)) if end is not None else ():
                yield from (link.a, link.b)
    for nic in rails.values():
        for link in topology.links_of[nic]:
            if link.kind is LinkKind.NETWORK:
                yield from (link.a, link.b)
