"""Machines of thousands of GPUs: as exact as small ones, and in a time that grows with their links."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from topology_support import GB, US, cluster, nvlink, nvswitch_box, pcie_box

from kraken_sim.architectures.architecture import DeviceCount
from kraken_sim.costs.collectives.algorithms import algorithm_named
from kraken_sim.costs.collectives.network_traffic import network_send_recv_traffic
from kraken_sim.costs.collectives.routes import Group
from kraken_sim.costs.links.side_by_side import pattern_of
from kraken_sim.errors import InputError
from kraken_sim.hardware.topology.graph import Link, LinkKind, Node, NodeKind
from kraken_sim.hardware.topology.islands import node_islands, rail_orders
from kraken_sim.hardware.topology.nodes import rails_of
from kraken_sim.hardware.topology.reduction import nearest_host
from kraken_sim.hardware.topology.trees import Trees
from kraken_sim.hardware.topology.ways import WaySearch
from kraken_sim.profiles.topology_file import NodeCount
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from kraken_sim.hardware.topology.graph import Arc
    from kraken_sim.hardware.topology.topology import Topology

GPU_LIMIT_S = 20.0
"""Processor time allowed for a machine of 4,096 GPUs; it takes 1 to 2 s, and took 8 to 40 s where it grew faster."""


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Node], list[Link]]:
    """Any graph of GPUs and switches, connected or not, with several links and kinds between two nodes."""
    kinds = draw(st.lists(st.sampled_from([NodeKind.GPU, NodeKind.PCIE_SWITCH]), min_size=2, max_size=9))
    names = [f"n{index}" for index in range(len(kinds))]
    pair = st.tuples(st.sampled_from(names), st.sampled_from(names)).filter(lambda ends: ends[0] != ends[1])
    kind = st.sampled_from([LinkKind.PCIE, LinkKind.NVLINK])
    entries = draw(st.lists(st.tuples(pair, kind, st.integers(1, 4)), max_size=24, unique_by=lambda e: (e[0], e[1])))
    links = [Link(a, b, kind, width * GB, US) for (a, b), kind, width in entries]
    return [Node(*node) for node in zip(names, kinds, strict=True)], links


def all_shortest(
    links: Sequence[Link], nodes: dict[str, NodeKind], source: str, target: str, kinds: Collection[LinkKind]
) -> list[tuple[Arc, ...]]:
    """Every way of fewest hops, level by level: the plain way to look for them."""
    paths: list[tuple[str, tuple[Arc, ...]]] = [(source, ())]
    seen = {source}
    while paths:
        found = [way for name, way in paths if name == target]
        if found:
            return found
        longer: list[tuple[str, tuple[Arc, ...]]] = []
        for name, way in paths:
            for index, link in enumerate(links):
                for end, other, forward in ((link.a, link.b, True), (link.b, link.a, False)):
                    open_to = other == target or nodes[other] is not NodeKind.GPU
                    if link.kind in kinds and end == name and other not in seen and open_to:
                        longer.append((other, (*way, (index, forward))))
        paths = longer
        seen.update(name for name, _ in paths)
    return []


@given(graphs(), st.data())
@settings(max_examples=300, deadline=None)
def test_the_widest_shortest_way_is_the_one_that_a_plain_search_finds(
    graph: tuple[list[Node], list[Link]], data: st.DataObject
) -> None:
    nodes, links = graph
    kinds = {node.name: node.kind for node in nodes}
    source, target = data.draw(st.permutations(sorted(kinds)))[:2]
    wanted = data.draw(st.sampled_from([frozenset(LinkKind), frozenset({LinkKind.NVLINK})]))
    left = data.draw(st.lists(st.integers(0, 3), min_size=2 * len(links), max_size=2 * len(links)))
    capacity = {(index // 2, bool(index % 2)): float(width) for index, width in enumerate(left)}
    plain = all_shortest(links, kinds, source, target, wanted)
    ways = WaySearch(links, kinds, wanted).ways(source, target)
    assert (ways is None) == (not plain)
    if ways is not None:
        assert ways.widest(capacity) == max(plain, key=lambda way: min(capacity[arc] for arc in way))
        back = WaySearch(links, kinds, wanted).ways(target, source)
        assert back is not None
        assert ways.reversed().widest(capacity) == back.widest(capacity)


@given(graphs(), st.data())
@settings(max_examples=200, deadline=None)
def test_the_nearest_switches_and_the_gpus_at_a_distance_are_those_of_a_plain_search(
    graph: tuple[list[Node], list[Link]], data: st.DataObject
) -> None:
    nodes, links = graph
    kinds = {node.name: node.kind for node in nodes}
    source = data.draw(st.sampled_from(sorted(kinds)))
    everything = frozenset(LinkKind)
    search = WaySearch(links, kinds, everything)
    hops = {
        name: len(found[0])
        for name in kinds
        if name != source and (found := all_shortest(links, kinds, source, name, everything))
    }
    switches = [name for name, kind in kinds.items() if kind is not NodeKind.GPU and name != source]
    near = min((hops[name] for name in switches if name in hops), default=0)
    assert search.nearest(source, switches) == (near, {name for name in switches if near and hops.get(name) == near})
    for distance in range(1, 5):
        gpus = {name for name, kind in kinds.items() if kind is NodeKind.GPU and hops.get(name) == distance}
        assert search.gpus_at(source, distance) - {source} == gpus


@pytest.mark.parametrize("machine", [pcie_box(8, 4), cluster(2), nvswitch_box(8)])
def test_a_gpu_s_host_is_the_first_that_it_reaches_over_pcie(machine: Topology) -> None:
    kinds = dict(machine.kinds)
    hosts = [node.name for node in machine.nodes if node.kind is NodeKind.HOST]
    to_host = frozenset({LinkKind.PCIE, LinkKind.C2C})
    for gpu in machine.gpus:
        plain = next(host for host in hosts if all_shortest(machine.links, kinds, gpu, host, to_host))
        assert nearest_host(machine.finder, gpu) == plain


@given(st.integers(1, 3), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=12, deadline=None)
def test_gpus_share_the_nearest_nics_in_turn(nodes: int, rails: int) -> None:
    machine = cluster(nodes + 1, gpus=8, rails=rails)
    used = rails_of(machine.finder, machine.gpus[8:16])
    assert [used[gpu] for gpu in machine.gpus[8:16]] == [f"nic1.{index * rails // 8}" for index in range(8)]


# Scale ----------------------------------------------------------------------------------------------------


class Counted(list[tuple[str, "Arc"]]):
    """Neighbours that count how many of them are tried, those of all nodes together."""

    tried = 0

    def __iter__(self) -> Iterator[tuple[str, Arc]]:
        """The neighbours, one by one."""
        for step in super().__iter__():
            Counted.tried += 1
            yield step


@pytest.mark.parametrize("num_nodes", [2, 64, 512])
def test_a_way_between_nodes_does_not_try_all_nics_of_the_switch_between_them(num_nodes: int) -> None:
    machine = cluster(num_nodes, gpus=2, rails=1)
    search = WaySearch(machine.links, machine.kinds, frozenset(LinkKind))
    search._through = {name: Counted(steps) for name, steps in search._through.items()}
    Counted.tried = 0
    assert search.ways("gpu0", "gpu2") is not None
    assert 0 < Counted.tried < 40


def _mesh_of_bridges(num_gpus: int) -> Topology:
    bridges = [nvlink(f"gpu{i}", f"gpu{i + 1}", 4) for i in range(0, num_gpus, 2)]
    return pcie_box(num_gpus, extra=bridges)


@pytest.mark.parametrize(
    "build",
    [
        lambda: cluster(512),
        lambda: cluster(64, gpus=64, rails=64),
        lambda: cluster(2048, gpus=2, rails=2),
        lambda: nvswitch_box(4096),
        lambda: nvswitch_box(4096, 18, planes=2),
        lambda: pcie_box(4096, 2),
        lambda: pcie_box(4096, 1024),
        lambda: _mesh_of_bridges(4096),
    ],
    ids=["rails", "racks", "small nodes", "nvswitch", "planes", "box", "sockets", "bridges"],
)
def test_four_thousand_gpus_are_reduced_in_seconds(build: Callable[[], Topology]) -> None:
    start = time.process_time()
    machine = build()
    found = machine.interconnect(4096)
    machine.interconnect(4096, p2p=False)
    assert time.process_time() - start < GPU_LIMIT_S
    assert found.num_devices == 4096


@pytest.mark.parametrize(
    ("build", "size", "stride", "algorithm"),
    [(lambda: cluster(512), 64, 64, "tree"), (lambda: nvswitch_box(4096), 2, 2048, "ring")],
    ids=["rails", "nvswitch"],
)
def test_the_links_that_many_groups_share_are_counted_in_seconds(
    build: Callable[[], Topology], size: int, stride: int, algorithm: str
) -> None:
    machine = build()
    start = time.process_time()
    kind = CollectiveKind.ALL_REDUCE
    pattern = pattern_of(machine, kind, size, stride, 4096, algorithm_named(algorithm), p2p=True)
    assert time.process_time() - start < GPU_LIMIT_S
    assert len(pattern.groups) == 4096 // size


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_gpus_of_a_tree_come_in_the_order_of_a_walk_through_all_of_it(data: st.DataObject) -> None:
    num_switches, num_gpus = data.draw(st.integers(1, 8)), data.draw(st.integers(2, 12))
    switches, gpus = [f"s{index}" for index in range(num_switches)], [f"gpu{index}" for index in range(num_gpus)]
    above = [(name, data.draw(st.sampled_from(switches[:index]))) for index, name in enumerate(switches) if index]
    above += [(gpu, data.draw(st.sampled_from(switches))) for gpu in gpus]
    ways = [data.draw(st.permutations(ends)) for ends in data.draw(st.permutations(above))]
    links = [Link(a, b, LinkKind.PCIE, GB, US) for a, b in ways]
    kinds = dict.fromkeys(switches, NodeKind.PCIE_SWITCH) | dict.fromkeys(gpus, NodeKind.GPU)
    group = data.draw(st.permutations(gpus))[: data.draw(st.integers(2, num_gpus))]

    def walk(name: str, seen: set[str]) -> Iterator[str]:
        seen.add(name)
        yield name
        for link in links:
            other = link.b if link.a == name else link.a
            if name in (link.a, link.b) and other not in seen:
                yield from walk(other, seen)

    trees = Trees(links, kinds, frozenset(LinkKind))
    part = trees.part(group)
    assert part is not None
    assert trees.is_tree(part)
    assert list(trees.depth_first(group)) == [name for name in walk(group[0], set()) if name in group]


@pytest.mark.parametrize(("gpus", "rails"), [(2, 1), (4, 2), (8, 8)])
def test_ways_from_one_nic_to_all_others_are_those_that_are_found_one_by_one(gpus: int, rails: int) -> None:
    machine = cluster(3, gpus=gpus, rails=rails)
    nics = [node.name for node in machine.nodes if node.kind is NodeKind.NIC]
    for source in nics:
        route = machine.finder.routes_from(source)
        for target in nics:
            if target != source:
                assert route(target) == machine.finder.route(source, target)


def test_an_all_to_all_of_many_nodes_has_its_links_counted_or_is_refused_with_the_limit() -> None:
    machine = cluster(64)
    group = Group(machine, machine.gpus[:96], CollectiveKind.ALL_TO_ALL)
    start = time.process_time()
    traffic = network_send_recv_traffic(group, 96.0)
    assert time.process_time() - start < GPU_LIMIT_S
    into_rails = [num_bytes for link, num_bytes in traffic.links.items() if link.kind is LinkKind.NETWORK]
    # A byte from each GPU to each of the other nodes' passes the network once on its way out, and once on its way in.
    assert sum(into_rails) == pytest.approx(2 * 96 * (96 - 8))
    with pytest.raises(InputError, match="at most 256 ranks"):
        network_send_recv_traffic(Group(machine, machine.gpus[:264], CollectiveKind.ALL_TO_ALL), 1.0)


@pytest.mark.parametrize("nodes", [2, 3, 4])
@pytest.mark.parametrize(("gpus", "rails"), [(2, 1), (4, 2), (8, 8), (16, 16)])
def test_rings_between_nodes_carry_what_the_better_of_both_packings_does(nodes: int, gpus: int, rails: int) -> None:
    finder = cluster(nodes, gpus=gpus, rails=rails).finder
    islands = node_islands(finder.topology, finder.topology.gpus)
    packings = [finder._packed(rail_orders(islands, both_ways=both)) for both in (False, True)]
    best = max(sum(bandwidth for _, bandwidth in rings) for rings in packings)
    assert sum(bandwidth for _, bandwidth in finder.all_rings(finder.topology.gpus)) == best


def test_a_group_without_nvlink_is_a_tree_only_where_all_its_links_are() -> None:
    box, bridged = pcie_box(4), _mesh_of_bridges(4)
    assert box.finder._tree_order(box.gpus) is not None
    assert bridged.finder._tree_order(bridged.gpus) is None
    assert bridged.finder._tree_order(bridged.gpus[:2]) is not None  # the bridge alone


def test_all_nodes_being_equal_a_cluster_of_512_is_one_of_eight_with_more_nodes() -> None:
    large, small = cluster(512).interconnect(4096), cluster(8).interconnect(64)
    assert large.across is not None
    assert small.across is not None
    assert large.across.node == small.across.node
    assert large.across.num_nodes == 64 * small.across.num_nodes
    assert large.across.network_bytes_per_s == small.across.network_bytes_per_s
    assert large.bandwidth_bytes_per_s == small.bandwidth_bytes_per_s
    assert large.latency_s == small.latency_s


def test_a_scenario_may_have_as_many_ranks_as_a_machine_may_have_gpus() -> None:
    for kind in (DeviceCount, NodeCount):
        count = TypeAdapter[int](kind)
        assert count.validate_python(4096) == 4096
        with pytest.raises(ValidationError):
            count.validate_python(4097)
