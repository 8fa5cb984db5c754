"""Who sends what when an AllReduce runs as a tree: chains within a node, double binary trees between nodes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from collective_support import cluster, constants, nvswitch

from kraken_sim.costs.collectives.kinds import CollectiveKind
from kraken_sim.costs.collectives.nccl import ring_all_reduce, tree_all_reduce
from kraken_sim.costs.collectives.tuning import NcclChoice
from kraken_sim.costs.links.traffic import link_bytes
from kraken_sim.hardware.topology.graph import LinkKind, NodeKind

if TYPE_CHECKING:
    from kraken_sim.hardware.topology.graph import Topology

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
            cost(1024, NcclChoice(name, "ll", 1, 1.0), nvswitch(n), constants())
            for name, cost in (("tree", tree_all_reduce), ("ring", ring_all_reduce))
        )
        assert chain.latency_s == pytest.approx(ring.latency_s)
