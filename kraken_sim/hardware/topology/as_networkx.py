"""The graph of a machine for networkx, for analyses of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx as nx

if TYPE_CHECKING:
    from kraken_sim.hardware.topology.graph import Graph


def as_networkx(graph: Graph) -> Any:
    """The machine as a `networkx.MultiGraph`.

    Nodes have the attribute `kind`, edges `link` (a `Link`), `capacity` (bytes/s of all parallel links together) and
    `weight` (latency in seconds).
    """
    result: Any = nx.MultiGraph()
    for node in graph.nodes:
        result.add_node(node.name, kind=node.kind)
    for link in graph.links:
        result.add_edge(link.a, link.b, link=link, capacity=link.total_bytes_per_s, weight=link.latency_s)
    return result
