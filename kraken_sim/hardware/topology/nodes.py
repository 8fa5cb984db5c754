"""Several machines joined by a network: which GPUs share a node, and through which NIC each of them leaves it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from kraken_sim.errors import InputError
from kraken_sim.hardware.topology.graph import LinkKind, NodeKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.hardware.topology.graph import Graph
    from kraken_sim.hardware.topology.rings import RingFinder


def nodes_of(topology: Graph, gpus: Sequence[str]) -> list[tuple[str, ...]]:
    """The GPUs by node: what hangs together without the network; in the order of `gpus`."""
    component = _components(topology)
    found: dict[str, list[str]] = defaultdict(list)
    for gpu in gpus:
        found[component[gpu]].append(gpu)
    return [tuple(members) for members in found.values()]


def nics_of(topology: Graph, gpu: str) -> tuple[str, ...]:
    """The NICs of a GPU's node, in the order of the topology."""
    component = _components(topology)
    return tuple(
        node.name for node in topology.nodes if node.kind is NodeKind.NIC and component[node.name] == component[gpu]
    )


def rail_of(topology: Graph, finder: RingFinder, gpus: Sequence[str], gpu: str) -> str:
    """The NIC that a GPU of a node uses: the nearest; of several equally near, dealt out in turn among `gpus`.

    Raises:
        InputError: The node has no NIC.
    """
    nics = nics_of(topology, gpu)
    if not nics:
        message = f"{gpu} has no NIC, so it reaches no other node"
        raise InputError.single("topology.nodes", message, example="nic: {kind: nic, count: 8}")
    hops = {nic: len(finder.route(gpu, nic)) for nic in nics}
    nearest = [nic for nic in nics if hops[nic] == min(hops.values())]
    same = [other for other in gpus if len(finder.route(other, nearest[0])) == min(hops.values())]
    return nearest[same.index(gpu) % len(nearest)]


def network_bytes_per_s(topology: Graph, nics: Sequence[str]) -> float:
    """What some NICs send together: each as fast as the slower of its network and its PCIe links."""
    total = 0.0
    for nic in nics:
        rates: dict[LinkKind, float] = defaultdict(float)
        for link in topology.links:
            if nic in (link.a, link.b):
                rates[link.kind] += link.total_bytes_per_s
        total += min(rates.values())
    return total


def _components(topology: Graph) -> dict[str, str]:
    """The node that each vertex belongs to, by the name of one of its vertices."""
    parent = {node.name: node.name for node in topology.nodes}

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for link in topology.links:
        if link.kind is not LinkKind.NETWORK:
            parent[find(link.a)] = find(link.b)
    return {name: find(name) for name in parent}
