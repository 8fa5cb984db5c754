"""Several nodes, racks, and which GPUs ranks sit on."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_support import (
    GB,
    bridged_pairs,
    cluster,
    nvswitch_box,
    pcie_box,
    renumbered,
    socket_crossings,
    two_cube_meshes,
)

from kraken_sim import Scenario, predict_op, simulate
from kraken_sim.errors import InputError
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.hardware.topology.graph import Link, LinkKind, NodeKind, P2PLevel
from kraken_sim.hardware.topology.rings import RingFinder
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.profiles.load import list_profiles, load_profile
from kraken_sim.profiles.placement import gpu_numbers, placed

if TYPE_CHECKING:
    from kraken_sim.hardware.topology.topology import Topology


def rails_of(machine: Topology, order: tuple[str, ...]) -> Counter[Link]:
    """How often a ring uses each link of the network, one direction like the other."""
    finder = RingFinder(machine)
    hops = zip(order, [*order[1:], order[0]], strict=True)
    links = (link for a, b in hops for link in finder.links_of(finder.route(a, b)))
    return Counter(link for link in links if link.kind is LinkKind.NETWORK)


# Rings between nodes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_nodes", [2, 3, 4, 8])
def test_a_ring_leaves_and_enters_every_node_once(num_nodes: int) -> None:
    machine = cluster(num_nodes)
    used = rails_of(machine, machine.best_ring(8 * num_nodes).order)
    assert sum(used.values()) == 2 * num_nodes  # out of one NIC and into one NIC, for every hop between nodes
    nics = Counter(link.a.split(".")[0] for link in used.elements())
    assert all(count == 2 for count in nics.values())


@pytest.mark.parametrize("num_nodes", [2, 4])
def test_the_rings_together_use_each_rail_once_in_each_direction(num_nodes: int) -> None:
    machine = cluster(num_nodes)
    rings = RingFinder(machine).all_rings(machine.gpus)
    assert len(rings) == 8
    assert all(bandwidth == pytest.approx(50 * GB) for _, bandwidth in rings)
    used = sum((rails_of(machine, order) for order, _ in rings), Counter[Link]())
    assert len(used) == 8 * num_nodes
    assert set(used.values()) == {2}


def test_all_rails_add_up_to_what_a_gpu_sends_between_nodes() -> None:
    found = cluster(2).interconnect(16)
    assert found.kind is InterconnectKind.NETWORK
    assert found.bandwidth_bytes_per_s == pytest.approx(8 * 50 * GB)
    assert found.num_links == 8
    assert found.across is not None
    assert (found.across.num_nodes, found.across.num_rails) == (2, 8)
    assert found.across.node == cluster(2).interconnect(8)
    assert found.across.network_bytes_per_s == pytest.approx(found.bandwidth_bytes_per_s)


@pytest.mark.parametrize(("rails", "nic", "expected"), [(8, 50, 400), (4, 50, 200), (1, 50, 50), (8, 25, 200)])
def test_nics_decide_where_nvlink_carries_more(rails: int, nic: float, expected: float) -> None:
    found = cluster(2, rails=rails, nic=nic * GB).interconnect(16)
    assert found.bandwidth_bytes_per_s == pytest.approx(expected * GB)


def test_nvlinks_decide_where_the_nics_carry_more() -> None:
    """Each GPU is the last of its node in one of the eight rings and sends over NVLink in the other seven."""
    found = cluster(2, nvlinks=4).interconnect(16)
    assert 4 * 25 * GB <= found.bandwidth_bytes_per_s <= 8 / 7 * 4 * 25 * GB


def test_without_nvlink_pcie_and_the_network_share_the_ring() -> None:
    found = cluster(2, rails=2, nvlinks=0, nic=25 * GB).interconnect(16)
    assert found.bandwidth_bytes_per_s == pytest.approx(2 * 25 * GB)
    assert found.across is not None
    assert found.across.node.kind is InterconnectKind.PCIE


def test_two_cube_meshes_keep_the_doubled_links_within_and_use_all_nics_between() -> None:
    machine = two_cube_meshes()
    assert machine.interconnect(16).bandwidth_bytes_per_s == pytest.approx(4 * 12.5 * GB)
    inner = [hop.links[0].count for hop in machine.best_ring(16).hops if hop.p2p_level is P2PLevel.NVL]
    assert inner == [2] * 14


def test_ranks_of_one_node_do_not_use_the_network() -> None:
    found = cluster(4).interconnect(8)
    assert found.kind is InterconnectKind.NVSWITCH
    assert found.across is None


def test_a_node_that_is_used_in_part_limits_the_rails() -> None:
    found = cluster(2).interconnect(12)
    assert found.bandwidth_bytes_per_s == pytest.approx(4 * 50 * GB)


@given(st.permutations(range(8)))
@settings(max_examples=15, deadline=None)
def test_numbering_within_and_across_nodes_does_not_matter(order: list[int]) -> None:
    machine = cluster(2, gpus=4, rails=4)
    shuffled, straight = renumbered(machine, order).interconnect(8), machine.interconnect(8)
    assert replace(shuffled, across=None) == replace(straight, across=None)
    assert shuffled.across is not None
    assert straight.across is not None
    assert shuffled.across.network_bytes_per_s == straight.across.network_bytes_per_s


@given(st.integers(2, 4), st.sampled_from([1, 2, 4]), st.sampled_from([0, 4, 18]))
@settings(max_examples=20, deadline=None)
def test_no_link_direction_carries_more_than_it_can_by_all_rings_together(nodes: int, rails: int, nvlinks: int) -> None:
    machine = cluster(nodes, gpus=4, rails=rails, nvlinks=nvlinks)
    finder = RingFinder(machine)
    carried: Counter[tuple[int, bool]] = Counter()
    for order, bandwidth in finder.all_rings(machine.gpus):
        assert sorted(order) == sorted(machine.gpus)
        for pair in zip(order, [*order[1:], order[0]], strict=True):
            carried.update(dict.fromkeys(finder.route(*pair), bandwidth))
    for arc, load in carried.items():
        assert load <= finder.links_of((arc,))[0].total_bytes_per_s * (1 + 1e-9)


# Scale ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "size"),
    [
        (nvswitch_box(72), 72),
        (nvswitch_box(72, 18, planes=18), 72),
        (cluster(4), 32),
        (pcie_box(32, 4), 32),
        (bridged_pairs(32), 32),
    ],
)
def test_large_machines_are_reduced_in_well_under_a_tenth_of_a_second_and_once(machine: Topology, size: int) -> None:
    start = time.process_time()
    first = machine.interconnect(size)
    assert time.process_time() - start < 0.1
    assert machine.interconnect(size) is first


def test_eighteen_switches_are_as_good_as_one() -> None:
    planes, one = nvswitch_box(72, 18, planes=18), nvswitch_box(72, 18)
    assert planes.interconnect(72) == one.interconnect(72)
    assert planes.interconnect(4) == one.interconnect(4)


def test_thirty_two_bridged_gpus_keep_pairs_together_and_cross_sockets_twice() -> None:
    ring = bridged_pairs(32).best_ring(32)
    assert sum(hop.links[0].kind is LinkKind.NVLINK for hop in ring.hops) == 16
    assert socket_crossings(ring) == 2


# Placement ------------------------------------------------------------------------------------------------


def test_ranks_sit_where_the_placement_says() -> None:
    dgx1 = load_profile("v100-dgx1-x8").topology
    assert dgx1.with_ranks_on((3, 0)).group(2) == ("gpu3", "gpu0")
    assert dgx1.interconnect(2).bandwidth_bytes_per_s == 25 * GB
    assert dgx1.with_ranks_on((0, 3)).interconnect(2).bandwidth_bytes_per_s == 50 * GB
    assert not load_profile("l40s-x8").topology.with_ranks_on((4, 5, 6, 7)).interconnect(4).crosses_sockets
    assert load_profile("l40s-x8").topology.with_ranks_on((0, 1, 4, 5)).interconnect(4).crosses_sockets


@pytest.mark.parametrize("name", [name for name in list_profiles() if name != "gb200-nvl72"])
@pytest.mark.parametrize("size", [2, 4])
def test_the_first_gpus_are_the_best_placement(name: str, size: int) -> None:
    """All choices of `size` GPUs of one node, or of the corners of two: none communicates over more."""
    topology = load_profile(name).topology
    if size > len(topology.gpus) or (name, size) == ("v100-dgx1-x8", 2):  # there 0 and 3 have two links
        return

    def rank(gpus: tuple[int, ...]) -> tuple[float, bool]:
        found = topology.with_ranks_on(gpus).interconnect(size)
        return found.bandwidth_bytes_per_s, not found.crosses_sockets

    candidates = itertools.combinations(range(min(8, len(topology.gpus))), size)
    assert rank(tuple(range(size))) == max(map(rank, candidates))


def test_an_allreduce_of_two_nodes_is_never_faster_than_one_of_the_same_ranks_in_a_node() -> None:
    profile = load_profile("h100-sxm-2x8")
    apart = placed(profile, "0,1,2,3,8,9,10,11", num_devices=8)
    for size in (2**13, 2**17, 2**20, 2**23, 2**26, 2**29):
        question = {"op": "all_reduce", "bytes": size, "num_devices": 8}
        assert predict_op(apart, question) > predict_op(profile, question)


def test_a_scenario_can_say_where_its_ranks_sit() -> None:
    question = {"hardware": "l40s-x8-slow-host", "model": {"preset": "1.3B"}, "context_length": 512}
    together = simulate(question | {"placement": "4,5,6,7"})
    assert together.resolved.num_devices == 4
    assert together.latency_s == simulate(question | {"num_devices": 4}).latency_s
    assert simulate(question | {"placement": "0,1,4,5"}).latency_s > 1.2 * together.latency_s


def test_placements_of_different_numbers_of_ranks_follow_each_other() -> None:
    predictor = Predictor()
    for placement, num_devices in (("0,1", 2), ("0,1,2,3", 4), ("4,5", 2)):
        question = {"hardware": "l40s-x8", "model": {"preset": "1.3B"}, "context_length": 64, "placement": placement}
        assert predictor.predict(Scenario.model_validate(question)).resolved.num_devices == num_devices


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"placement": "0,1,1"}, "placement: names GPU 1 twice"),
        ({"placement": "0,x"}, "placement: must be numbers of GPUs with commas between, and 'x' is none"),
        ({"placement": "0,8"}, "placement: l40s-x8 has GPUs 0 to 7, and no 8"),
        ({"placement": "0,1", "num_devices": 4}, "placement: names 2 GPUs for 4 ranks"),
        ({"placement": [0, 1]}, "placement: must be text"),
    ],
)
def test_a_placement_that_cannot_be_is_named(change: dict[str, object], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        simulate({"hardware": "l40s-x8", "model": {"preset": "1.3B"}, "context_length": 64} | change)
    assert expected in str(caught.value)


@given(st.lists(st.integers(0, 9999), min_size=1, max_size=20, unique=True))
def test_placements_read_back(numbers: list[int]) -> None:
    text = ", ".join(map(str, numbers))
    assert gpu_numbers(text) == tuple(numbers)
    assert Scenario.model_validate(
        {"hardware": "x", "model": {"preset": "1.3B"}, "context_length": 1, "placement": text}
    )


def test_other_nodes_of_a_machine_stay_when_ranks_move() -> None:
    machine = cluster(2)
    moved = machine.with_ranks_on((8, 0))
    assert Counter(moved.nodes) == Counter(machine.nodes)
    assert moved.links == machine.links
    assert [node.kind for node in moved.nodes][:2] == [NodeKind.GPU] * 2
    assert replace(moved, nodes=machine.nodes) == machine


def test_a_message_between_nodes_flies_to_its_nic_over_the_network_and_from_the_other_nic() -> None:
    across = cluster(2).interconnect(16).across
    assert across is not None
    to_nic_s, network_s = 2 * 0.5e-6, 2 * 0.5e-6  # GPU, PCIe switch, NIC; NIC, rail, NIC
    assert across.latency_s == pytest.approx(to_nic_s + network_s + to_nic_s)
