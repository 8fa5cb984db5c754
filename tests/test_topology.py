from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_support import (
    CUBE_MESH,
    GB,
    MACHINES,
    US,
    bridged_pairs,
    cube_mesh,
    gpu_nodes,
    nvlink,
    nvswitch_box,
    pcie,
    pcie_box,
    pcie_parts,
    renumbered,
    socket,
    socket_crossings,
    switched_tree,
)

from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.hardware.topology.as_networkx import as_networkx
from kraken_sim.hardware.topology.graph import Link, LinkKind, Node, NodeKind, P2PLevel
from kraken_sim.hardware.topology.ring_search import Ways, best_order, improved_order
from kraken_sim.hardware.topology.rings import RingFinder
from kraken_sim.hardware.topology.topology import Topology

# Rings ----------------------------------------------------------------------------------------------------


def test_ring_of_a_two_socket_pcie_tree_crosses_the_socket_link_exactly_twice() -> None:
    assert socket_crossings(pcie_box().best_ring(8)) == 2
    assert socket_crossings(switched_tree().best_ring(8)) == 2


@given(st.permutations(range(8)), st.sampled_from(sorted(MACHINES)))
@settings(max_examples=40, deadline=None)
def test_numbering_of_gpus_does_not_change_what_the_best_ring_carries(order: list[int], name: str) -> None:
    machine = MACHINES[name]
    shuffled = renumbered(machine, order)
    assert shuffled.interconnect(8) == machine.interconnect(8)
    assert socket_crossings(shuffled.best_ring(8)) == socket_crossings(machine.best_ring(8))


@given(st.sampled_from(sorted(MACHINES)), st.integers(2, 8))
@settings(max_examples=40, deadline=None)
def test_ring_visits_each_gpu_once_and_every_hop_is_a_walk_between_neighbours(name: str, size: int) -> None:
    machine = MACHINES[name]
    ring = machine.best_ring(size)
    assert sorted(ring.order) == sorted(machine.group(size))
    for hop, following in zip(ring.hops, [*ring.hops[1:], ring.hops[0]], strict=True):
        assert hop.target == following.source
        place = hop.source
        for link in hop.links:
            assert place in (link.a, link.b)
            place = link.b if place == link.a else link.a
            assert place == hop.target or machine.kinds[place] is not NodeKind.GPU
        assert place == hop.target


@given(st.sampled_from(sorted(MACHINES)), st.integers(2, 8))
@settings(max_examples=40, deadline=None)
def test_no_link_direction_carries_more_than_it_can(name: str, size: int) -> None:
    ring = MACHINES[name].best_ring(size)
    loads: Counter[tuple[Link, str]] = Counter()
    for hop in ring.hops:
        place = hop.source
        for link in hop.links:
            loads[link, place] += 1
            place = link.b if place == link.a else link.a
    for (link, _), load in loads.items():
        assert load * ring.bandwidth_bytes_per_s <= link.total_bytes_per_s * (1 + 1e-12)
    carried = [load * ring.bandwidth_bytes_per_s / link.total_bytes_per_s for (link, _), load in loads.items()]
    assert max(carried) == pytest.approx(1.0)


@pytest.mark.parametrize("name", sorted(MACHINES))
@pytest.mark.parametrize("size", [3, 5, 6])
def test_no_order_of_the_ranks_beats_the_ring_that_was_found(name: str, size: int) -> None:
    machine = MACHINES[name]
    ring = machine.best_ring(size)
    finder = RingFinder(machine)
    gpus = machine.group(size)
    routes = {(a, b): finder.route(a, b) for a in gpus for b in gpus if a != b}
    latency = {pair: sum(link.latency_s for link in finder.links_of(way)) for pair, way in routes.items()}
    capacity = {(i, way): link.total_bytes_per_s for i, link in enumerate(machine.links) for way in (True, False)}
    ways = Ways(routes, latency, capacity)
    values = [ways.value((gpus[0], *rest))[:2] for rest in itertools.permutations(gpus[1:])]
    assert ring.bandwidth_bytes_per_s == pytest.approx(max(values)[0])
    least = min(-latency for bandwidth, latency in values if math.isclose(bandwidth, max(values)[0]))
    assert sum(hop.latency_s for hop in ring.hops) == pytest.approx(least)


def test_search_finds_the_doubled_links_of_a_cube_mesh() -> None:
    ring = cube_mesh().best_ring(8)
    pairs = [sorted((int(hop.source[3:]), int(hop.target[3:]))) for hop in ring.hops]
    assert all(CUBE_MESH[low, high] == 2 for low, high in pairs)


def test_six_links_of_a_cube_mesh_add_up_over_several_rings() -> None:
    interconnect = cube_mesh().interconnect(8)
    assert interconnect.kind is InterconnectKind.NVLINK
    assert interconnect.num_links == 6
    assert interconnect.bandwidth_bytes_per_s == pytest.approx(150 * GB)


def test_bridged_pairs_are_neighbours_in_the_ring_and_pcie_decides() -> None:
    machine = renumbered(bridged_pairs(), [0, 2, 4, 6, 1, 3, 5, 7])
    ring = machine.best_ring(8)
    assert sum(hop.p2p_level is P2PLevel.NVL for hop in ring.hops) == 4
    assert machine.interconnect(8).kind is InterconnectKind.PCIE
    assert machine.interconnect(8).bandwidth_bytes_per_s == 31.5 * GB


def test_bad_order_below_shared_uplinks_would_halve_the_bandwidth_and_is_not_taken() -> None:
    shuffled = renumbered(switched_tree(), [0, 2, 4, 6, 1, 3, 5, 7])
    assert shuffled.best_ring(8).bandwidth_bytes_per_s == 31.5 * GB


def test_heuristic_beyond_eight_ranks_finds_what_a_tree_allows() -> None:
    order = list(range(16))
    random.Random(0).shuffle(order)
    machine = renumbered(bridged_pairs(16), order)
    assert machine.interconnect(16) == bridged_pairs(16).interconnect(16)
    assert socket_crossings(machine.best_ring(16)) == 2


@given(st.randoms(use_true_random=False), st.integers(3, 6))
@settings(max_examples=25, deadline=None)
def test_branch_and_bound_is_never_worse_than_the_heuristic_nor_than_any_order(rng: random.Random, size: int) -> None:
    ranks = [f"gpu{i}" for i in range(size)]
    pairs = list(itertools.permutations(ranks, 2))
    routes = {pair: ((index, True), (100 + rng.randrange(3), True)) for index, pair in enumerate(pairs)}
    capacity = {(index, True): rng.choice([1.0, 2.0, 4.0]) for index in [*range(len(pairs)), 100, 101, 102]}
    ways = Ways(routes, {pair: rng.choice([1.0, 2.0]) for pair in pairs}, capacity)
    best = max(ways.value((ranks[0], *rest)) for rest in itertools.permutations(ranks[1:]))
    assert ways.value(best_order(ranks, ways)) == pytest.approx(best)
    assert ways.value(improved_order(ranks, ways)) <= best


# Reduction ------------------------------------------------------------------------------------------------


def test_nvswitch_gives_each_gpu_all_its_links() -> None:
    for size in (2, 4, 8):
        interconnect = nvswitch_box().interconnect(size)
        assert interconnect.kind is InterconnectKind.NVSWITCH
        assert interconnect.num_links == 18
        assert interconnect.bandwidth_bytes_per_s == 450 * GB
        assert interconnect.latency_s == 0.5 * US
        assert not interconnect.crosses_sockets
        assert interconnect.pcie_gen == 0


def test_switch_planes_add_up_to_the_same_as_one_switch() -> None:
    split = nvswitch_box(planes=3).interconnect(8)
    assert split.bandwidth_bytes_per_s == pytest.approx(nvswitch_box().interconnect(8).bandwidth_bytes_per_s)
    assert split.num_links == 18


def test_pair_joined_by_nvlinks_adds_its_links() -> None:
    interconnect = bridged_pairs().interconnect(2)
    assert interconnect.kind is InterconnectKind.NVLINK
    assert interconnect.num_links == 4
    assert interconnect.bandwidth_bytes_per_s == 100 * GB


def test_strided_group_of_bridged_pairs_has_pcie_only() -> None:
    assert bridged_pairs().interconnect(4, stride=2).kind is InterconnectKind.PCIE


def test_group_within_a_socket_does_not_cross_sockets() -> None:
    assert not pcie_box().interconnect(4).crosses_sockets
    assert pcie_box().interconnect(2, stride=4).crosses_sockets
    assert pcie_box().interconnect(4).pcie_gen == 4


def test_without_peer_to_peer_bytes_go_through_host_memory() -> None:
    interconnect = nvswitch_box().interconnect(8, p2p=False)
    assert interconnect.kind is InterconnectKind.HOST
    assert interconnect.bandwidth_bytes_per_s == 31.5 * GB
    assert interconnect.pcie_gen == 4


def test_gpus_below_one_switch_share_its_way_to_host_memory() -> None:
    assert switched_tree().interconnect(8, p2p=False).bandwidth_bytes_per_s == 31.5 / 2 * GB
    assert switched_tree().interconnect(4, stride=2, p2p=False).bandwidth_bytes_per_s == 31.5 * GB


@pytest.mark.parametrize(
    ("level", "size", "kind"),
    [
        (P2PLevel.SYS, 8, InterconnectKind.PCIE),
        (P2PLevel.PHB, 8, InterconnectKind.HOST),
        (P2PLevel.PHB, 4, InterconnectKind.PCIE),
        (P2PLevel.PXB, 4, InterconnectKind.HOST),
        (P2PLevel.PIX, 2, InterconnectKind.PCIE),
        (P2PLevel.NVL, 2, InterconnectKind.HOST),
    ],
)
def test_hops_longer_than_the_peer_to_peer_level_are_staged(level: P2PLevel, size: int, kind: InterconnectKind) -> None:
    assert replace(switched_tree(), p2p_level=level).interconnect(size).kind is kind


def test_one_device_communicates_with_nobody() -> None:
    interconnect = pcie_box().interconnect(1)
    assert math.isinf(interconnect.bandwidth_bytes_per_s)
    assert interconnect.latency_s == 0


def test_more_devices_than_the_machine_has_is_infeasible() -> None:
    with pytest.raises(InfeasibleError) as caught:
        pcie_box().interconnect(9)
    assert caught.value.limit == "8 GPUs"
    with pytest.raises(InfeasibleError):
        pcie_box().interconnect(3, stride=4)


@pytest.mark.parametrize(("count", "stride"), [(0, 1), (-2, 1), (2, 0)])
def test_counts_below_one_are_bad_input(count: int, stride: int) -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        pcie_box().interconnect(count, stride)


@given(st.floats(1.0, 1000.0), st.floats(1.0, 10.0))
def test_more_link_bandwidth_never_gives_less_ring_bandwidth(bandwidth: float, factor: float) -> None:
    def box(rate: float) -> float:
        nodes, links = pcie_parts(4)
        scaled = [replace(link, bandwidth_bytes_per_s=rate * GB) for link in links]
        return Topology(tuple(nodes), tuple(scaled)).interconnect(4).bandwidth_bytes_per_s

    assert box(bandwidth * factor) >= box(bandwidth)


def test_graph_is_the_machine() -> None:
    machine = cube_mesh()
    graph = as_networkx(machine)
    assert graph.number_of_nodes() == len(machine.nodes)
    assert graph.number_of_edges() == len(machine.links)
    assert nx.is_connected(graph)
    assert graph.nodes["gpu0"]["kind"] is NodeKind.GPU


# What is no machine ---------------------------------------------------------------------------------------


def problems_of(nodes: list[Node], links: list[Link]) -> str:
    with pytest.raises(InputError) as caught:
        Topology(tuple(nodes), tuple(links))
    return str(caught.value)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (pcie("gpu0", "hots1"), "did you mean 'host1'?"),
        (pcie("gpu0", "host1"), "closes a cycle; PCIe is a tree"),
        (pcie("host0", "host1"), "closes a cycle; PCIe is a tree"),
        (pcie("gpu1", "host0"), "declared twice; use count for parallel links"),
        (pcie("host0", "gpu1", 10 * GB), "asymmetric"),
        (nvlink("gpu0", "host0"), "a nvlink link joins gpu and nvswitch, not a host"),
        (nvlink("gpu0", "gpu0"), "a link joins two different nodes"),
        (nvlink("gpu0", "gpu1", bandwidth=0.0), "bandwidth must be more than zero"),
        (nvlink("gpu0", "gpu1", bandwidth=-1.0), "bandwidth must be more than zero"),
        (nvlink("gpu0", "gpu1", count=0), "count must be at least 1"),
        (replace(nvlink("gpu0", "gpu1"), latency_s=-1.0), "latency must not be negative"),
    ],
)
def test_link_that_no_machine_has_is_named(extra: Link, expected: str) -> None:
    nodes, links = pcie_parts(4)
    assert expected in problems_of(nodes, [*links, extra])


def test_cycle_of_pcie_switches_is_an_error() -> None:
    nodes, links = pcie_parts(2, 1)
    nodes += [Node("switch0", NodeKind.PCIE_SWITCH), Node("switch1", NodeKind.PCIE_SWITCH)]
    links += [pcie("switch0", "host0"), pcie("switch1", "host0"), pcie("switch0", "switch1")]
    assert "switch0 - switch1 (pcie): closes a cycle" in problems_of(nodes, links)


def test_meshes_of_nvlink_and_of_sockets_are_fine() -> None:
    nodes, links = pcie_parts(8, 4)
    mesh = [nvlink(f"gpu{a}", f"gpu{b}") for a, b in itertools.combinations(range(8), 2)]
    extra = [socket("host0", "host2"), socket("host0", "host3"), socket("host1", "host3")]
    machine = Topology(tuple(nodes), (*links, *mesh, *extra))
    assert machine.interconnect(8).kind is InterconnectKind.NVLINK


def test_machine_in_two_parts_is_an_error_that_names_both() -> None:
    nodes, links = pcie_parts(4)
    message = problems_of(nodes, [link for link in links if link.kind is not LinkKind.SOCKET])
    assert "2 unconnected parts: gpu0, gpu1, host0; gpu2, gpu3, host1" in message


def test_machine_without_gpus_is_an_error() -> None:
    assert "at least one GPU" in problems_of([Node("host0", NodeKind.HOST)], [])


def test_ring_that_cannot_exist_is_an_error() -> None:
    chain = Topology(tuple(gpu_nodes(3)), (nvlink("gpu0", "gpu1"), nvlink("gpu1", "gpu2")))
    with pytest.raises(InputError, match="leads through another GPU"):
        chain.interconnect(3)


def test_staging_without_a_host_is_an_error() -> None:
    pair = Topology(tuple(gpu_nodes(2)), (nvlink("gpu0", "gpu1"),))
    with pytest.raises(InputError, match="no PCIe or C2C link to a host"):
        pair.interconnect(2, p2p=False)


def test_a_ring_is_as_late_as_its_longest_hop_and_speaks_the_oldest_pcie_in_it() -> None:
    machine = pcie_box(4, 1)
    links = [
        replace(link, latency_s=3e-6, pcie_gen=3) if link.a == "gpu2" else replace(link, pcie_gen=5)
        for link in machine.links
    ]
    mixed = replace(machine, links=tuple(links))
    usual_s = links[0].latency_s
    assert mixed.interconnect(4).latency_s == pytest.approx(3e-6 + usual_s)
    assert mixed.interconnect(4).pcie_gen == 3
    assert mixed.interconnect(2).latency_s == pytest.approx(2 * usual_s)
    assert mixed.interconnect(2).pcie_gen == 5
