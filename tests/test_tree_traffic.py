"""Who sends what when an AllReduce runs as a tree: chains within a node, double binary trees between nodes."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest
from collective_support import cluster, constants, nvswitch

from kraken_sim.costs.collectives.nccl import nccl_cost, tree_all_reduce
from kraken_sim.costs.collectives.network import tree_network_bytes
from kraken_sim.costs.collectives.network_traffic import binary_tree
from kraken_sim.costs.collectives.tuning import NcclChoice
from kraken_sim.costs.links.traffic import link_bytes
from kraken_sim.hardware.topology.graph import LinkKind, NodeKind
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from kraken_sim.hardware.topology.topology import Topology

MESSAGE = 1000.0


def sent_over(topology: Topology, kind: LinkKind, by: NodeKind) -> dict[str, float]:
    """Bytes that every node of one kind sends over links of one kind."""
    found: dict[str, float] = defaultdict(float)
    for link, num_bytes in link_bytes(topology, topology.gpus, CollectiveKind.ALL_REDUCE, "tree", MESSAGE).items():
        if link.kind is kind and topology.kinds[link.source] is by:
            found[link.source] += num_bytes
    return found


@pytest.mark.parametrize("num_local", [2, 3, 4, 8])
@pytest.mark.parametrize("num_nodes", [2, 3, 4])
def test_in_a_node_s_chain_the_ends_send_the_message_once_and_every_inner_gpu_twice(
    num_nodes: int, num_local: int
) -> None:
    topology = cluster(num_nodes, num_local, 1)
    sent = sent_over(topology, LinkKind.NVLINK, NodeKind.GPU)
    assert len(sent) == num_nodes * num_local
    for node in range(num_nodes):
        chain = [sent[f"gpu{node * num_local + place}"] for place in range(num_local)]
        assert chain == pytest.approx([MESSAGE, *[2 * MESSAGE] * (num_local - 2), MESSAGE])


@pytest.mark.parametrize(("num_local", "num_rails"), [(8, 8), (8, 4), (4, 2), (8, 1)])
def test_the_rails_chains_together_carry_the_message_up_and_down_every_link_of_a_chain(
    num_local: int, num_rails: int
) -> None:
    sent = sent_over(cluster(2, num_local, num_rails), LinkKind.NVLINK, NodeKind.GPU)
    assert sum(sent.values()) == pytest.approx(2 * 2 * (num_local - 1) * MESSAGE)


@pytest.mark.parametrize(
    ("edges", "mirrored_edges"),
    [
        ({(1, 0)}, {(0, 1)}),
        ({(1, 2), (2, 0)}, {(2, 0), (0, 1)}),
        ({(1, 2), (3, 2), (2, 0)}, {(2, 1), (0, 1), (1, 3)}),
        ({(1, 2), (3, 2), (2, 4), (4, 0)}, {(2, 3), (4, 3), (3, 0), (0, 1)}),
    ],
)
def test_between_nodes_half_of_the_message_goes_up_and_down_every_edge_of_two_trees(
    edges: set[tuple[int, int]], mirrored_edges: set[tuple[int, int]]
) -> None:
    """Trees of two to five nodes as NCCL's trees.cc builds them, worked out by hand: child, parent.

    Over an edge either node sends half of the message once, so a node sends half for its parent and each child.
    """
    num_nodes = len(edges) + 1
    for mirrored, expected in ((False, edges), (True, mirrored_edges)):
        assert set(binary_tree(num_nodes, mirrored=mirrored)) == expected
    neighbours = Counter(node for edge in (*edges, *mirrored_edges) for node in edge)
    sent = sent_over(cluster(num_nodes, 1, 1), LinkKind.NETWORK, NodeKind.NIC)
    expected_bytes = {f"nic{node}.0": neighbours[node] * MESSAGE / 2.0 for node in range(num_nodes)}
    assert sent == pytest.approx(expected_bytes)
    assert max(sent.values()) <= tree_network_bytes(num_nodes, MESSAGE)


def test_a_node_of_four_sends_the_message_twice_and_one_of_two_once() -> None:
    """What the time of a tree between nodes is made of; with three nodes no node has two children in either tree."""
    for num_nodes, times in ((2, 1.0), (4, 2.0), (5, 2.0)):
        sent = sent_over(cluster(num_nodes, 1, 1), LinkKind.NETWORK, NodeKind.NIC)
        assert max(sent.values()) == pytest.approx(tree_network_bytes(num_nodes, MESSAGE)) == times * MESSAGE


@pytest.mark.parametrize("num_nodes", [2, 3, 4, 5, 8])
def test_the_heads_of_the_chains_hand_their_nics_what_the_nics_send(num_nodes: int) -> None:
    topology = cluster(num_nodes, 4, 2)
    to_nics = sent_over(topology, LinkKind.PCIE, NodeKind.GPU)
    from_nics = sent_over(topology, LinkKind.NETWORK, NodeKind.NIC)
    assert len(to_nics) == len(from_nics) == num_nodes * 2
    assert sum(to_nics.values()) == pytest.approx(sum(from_nics.values()))


def test_the_rank_that_sends_most_sets_the_time_of_a_chain() -> None:
    # Latencies aside: with two ranks each sends the message once, with more the inner ones send it twice.
    choice = NcclChoice("tree", "simple", 16, 16.0)
    seconds = {n: tree_all_reduce(2**26, choice, nvswitch(n), constants()).transfer_s for n in (2, 3, 4, 8)}
    assert seconds[3] == pytest.approx(2.0 * seconds[2])
    assert seconds[8] == pytest.approx(seconds[4]) == pytest.approx(seconds[3])


def test_a_chain_passes_up_and_down_as_many_steps_as_a_ring_takes() -> None:
    for n in (2, 4, 8):
        chain, ring = (
            nccl_cost(CollectiveKind.ALL_REDUCE, 1024, NcclChoice(name, "ll", 1, 1.0), nvswitch(n), constants())
            for name in ("tree", "ring")
        )
        assert chain.latency_s == pytest.approx(ring.latency_s)
