"""Bytes on links, max-min fairness, and collectives that share links: physics that needs no measurement."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from collective_support import constants, gpu, nvswitch
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim import Prediction, link_traffic, predict_op, simulate, simulate_concurrent
from kraken_sim.costs.collectives import collective_cost
from kraken_sim.costs.collectives.policy import CollectivePolicy
from kraken_sim.costs.fair import Flow, max_min_rates, used_alike
from kraken_sim.costs.links.sharing import LinkSharing, groups_of, slowed
from kraken_sim.costs.links.side_by_side import SideBySide
from kraken_sim.costs.links.traffic import link_bytes
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.hardware.topology.graph import Link, LinkKind, Node, NodeKind
from kraken_sim.hardware.topology.reduction import reduce_group
from kraken_sim.hardware.topology.topology import Topology
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import Collective, CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.costs.collectives.routes import DirectedLink
    from kraken_sim.engine.timeline import Span
    from kraken_sim.profiles.profile import HardwareProfile

MIB = 2**20
AR, AG, RS, A2A, BC, P2P = CollectiveKind


def nvswitch_node(num_gpus: int = 8) -> Topology:
    gpus = [Node(f"gpu{i}", NodeKind.GPU) for i in range(num_gpus)]
    links = [Link(node.name, "nvswitch", LinkKind.NVLINK, 25e9, 2.5e-7, 18) for node in gpus]
    return Topology((*gpus, Node("nvswitch", NodeKind.NVSWITCH)), tuple(links))


def pcie_tree(num_gpus: int = 4, socket_bytes_per_s: float = 16e9) -> Topology:
    """Two sockets with half of the GPUs each, joined by one link."""
    gpus = [Node(f"gpu{i}", NodeKind.GPU) for i in range(num_gpus)]
    hosts = [Node("host0", NodeKind.HOST), Node("host1", NodeKind.HOST)]
    links = [
        Link(node.name, f"host{2 * i // num_gpus}", LinkKind.PCIE, 31.5e9, 5e-7, 1, 4) for i, node in enumerate(gpus)
    ]
    socket = Link("host0", "host1", LinkKind.SOCKET, socket_bytes_per_s, 2e-7)
    return Topology((*gpus, *hosts), (*links, socket))


def moved(
    topology: Topology, num_devices: int, kind: CollectiveKind, algorithm: str, num_bytes: float = 1.0, **options: bool
) -> dict[DirectedLink, float]:
    return link_bytes(topology, topology.gpus[:num_devices], kind, algorithm, num_bytes, **options)


class TestBytesOnLinks:
    @pytest.mark.parametrize("n", [2, 3, 4, 8])
    @pytest.mark.parametrize(
        ("kind", "algorithm", "share"),
        [
            (AR, "ring", lambda n: 2 * (n - 1) / n),
            (AG, "ring", lambda n: (n - 1) / n),
            (RS, "ring", lambda n: (n - 1) / n),
            (A2A, "send_recv", lambda n: (n - 1) / n),
            (AR, "one_shot", lambda n: n - 1),
            (AR, "two_shot", lambda n: 2 * (n - 1) / n),
            (AR, "nvls", lambda n: (n + 1) / n),
            (AR, "multimem", lambda n: (n + 1) / n),
        ],
    )
    def test_every_gpu_sends_and_gets_what_the_algorithm_says(
        self, n: int, kind: CollectiveKind, algorithm: str, share: Callable[..., Any]
    ) -> None:
        found = moved(nvswitch_node(), n, kind, algorithm, 1000.0)
        assert len(found) == 2 * n
        for num_bytes in found.values():
            assert num_bytes == pytest.approx(1000.0 * share(n), rel=1e-12)

    def test_a_tree_within_a_node_is_a_chain_whose_links_carry_the_message_both_ways(self) -> None:
        found = moved(nvswitch_node(), 4, AR, "tree", 1000.0)
        up = sorted(num_bytes for link, num_bytes in found.items() if link.target == "nvswitch")
        assert up == [1000.0, 1000.0, 2000.0, 2000.0]

    def test_a_broadcast_leaves_the_root_once_and_the_last_rank_never(self) -> None:
        found = moved(nvswitch_node(), 4, BC, "ring", 1000.0)
        sent = {link.source: num_bytes for link, num_bytes in found.items() if link.target == "nvswitch"}
        assert len(sent) == 3
        assert set(sent.values()) == {1000.0}

    @given(
        n=st.integers(2, 8),
        num_bytes=st.floats(1.0, 1e12),
        case=st.sampled_from([(AR, "ring"), (AG, "ring"), (BC, "ring"), (A2A, "send_recv"), (AR, "one_shot")]),
        staged=st.booleans(),
    )
    def test_switches_and_hosts_pass_on_what_they_get(
        self, n: int, num_bytes: float, case: tuple[CollectiveKind, str], staged: bool
    ) -> None:
        topology = pcie_tree(8)
        balance: dict[str, float] = defaultdict(float)
        scale = 0.0
        kind, algorithm = case
        for link, amount in moved(topology, n, kind, algorithm, num_bytes, staged=staged).items():
            balance[link.target] += amount
            balance[link.source] -= amount
            scale = max(scale, amount)
        for host in ("host0", "host1"):
            assert abs(balance[host]) <= 1e-9 * scale
        assert abs(sum(balance.values())) <= 1e-9 * scale

    def test_a_ring_crosses_the_socket_link_once_each_way_and_everybody_to_everybody_many_times(self) -> None:
        def across(kind: CollectiveKind, algorithm: str) -> list[float]:
            found = moved(pcie_tree(8), 8, kind, algorithm, 8.0)
            return [num_bytes for link, num_bytes in found.items() if link.kind is LinkKind.SOCKET]

        assert across(AR, "ring") == [pytest.approx(14.0)] * 2
        assert across(A2A, "send_recv") == [pytest.approx(16.0)] * 2  # 4 x 4 pairs, one byte each

    def test_further_rings_of_a_mesh_take_their_part(self) -> None:
        gpus = [Node(f"gpu{i}", NodeKind.GPU) for i in range(4)]
        pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
        links = [Link(f"gpu{a}", f"gpu{b}", LinkKind.NVLINK, 25e9, 2.5e-7, 2) for a, b in pairs]
        topology = Topology(tuple(gpus), tuple(links))
        found = moved(topology, 4, AR, "ring", 4.0)
        sent: dict[str, float] = defaultdict(float)
        for link, num_bytes in found.items():
            sent[link.source] += num_bytes
        assert list(sent.values()) == [pytest.approx(6.0)] * 4
        line = topology.interconnect(4).bandwidth_bytes_per_s
        assert max(found.values()) / 50e9 == pytest.approx(6.0 / line, rel=1e-9)

    @pytest.mark.parametrize("hardware", ["h100-sxm-x8", "l40s-x8"])
    @pytest.mark.parametrize("op", list(CollectiveKind))
    def test_the_traffic_of_a_library_is_what_its_cost_says(self, hardware: str, op: CollectiveKind) -> None:
        """Whatever NCCL picks: the links out of a GPU carry the bytes that the cost counts."""
        for n, size in itertools.product((2, 4, 8), (1024, 64 * MIB)):
            found = link_traffic(hardware, {"op": op.value, "bytes": size, "num_devices": n})
            leaving = {str(link): amount for link, amount in found.items() if link.source.startswith("gpu")}
            sent = sum(leaving.values())
            ring: float = {AR: 2 * (n - 1), P2P: n}.get(op, n - 1)
            nvls = (n + 1) if op is AR and hardware == "h100-sxm-x8" and n > 2 and size > MIB else ring
            assert sent == pytest.approx(ring * size) or sent == pytest.approx(nvls * size)
        assert link_traffic(hardware, {"op": op.value, "bytes": 8, "num_devices": 1}) == {}

    def test_shm_goes_through_the_hosts(self) -> None:
        spec = {"op": "all_reduce", "bytes": 1024, "num_devices": 2, "transport": "shm"}
        assert all("host" in str(link) for link in link_traffic("h100-sxm-x8", spec))

    @pytest.mark.parametrize(
        ("topology", "kind", "algorithm"),
        [(pcie_tree(), AR, "nvls"), (nvswitch_node(), AG, "nvls"), (nvswitch_node(), AG, "tree")],
    )
    def test_an_algorithm_that_cannot_be_is_named(
        self, topology: Topology, kind: CollectiveKind, algorithm: str
    ) -> None:
        with pytest.raises(InputError, match=algorithm):
            moved(topology, 4, kind, algorithm)


def test_a_ring_that_cannot_exist_is_named_with_its_repair() -> None:
    """Three GPUs in a row over NVLink: GPUs do not forward, so the ends never meet."""
    gpus = tuple(Node(f"gpu{i}", NodeKind.GPU) for i in range(3))
    links = tuple(Link(f"gpu{i}", f"gpu{i + 1}", LinkKind.NVLINK, 25e9, 2.5e-7, 4) for i in range(2))
    row = replace(load_profile("h100-sxm-x8"), topology=Topology(gpus, links))
    for op in CollectiveKind:
        with pytest.raises(InputError, match="leads through another GPU") as caught:
            predict_op(row, {"op": op.value, "bytes": 1024, "num_devices": 3})
        assert caught.value.problems[0].example
    with pytest.raises(InputError, match="leads through another GPU"):
        simulate_concurrent(row, [job([0, 2], op="transfer")])


def some_flows() -> Any:
    usage = st.dictionaries(st.integers(0, 4), st.floats(0.1, 4.0), min_size=1, max_size=4)
    return st.lists(st.builds(Flow, usage, st.one_of(st.just(math.inf), st.floats(0.1, 20.0))), min_size=1, max_size=6)


CAPACITY: dict[Any, float] = {0: 1.0, 1: 2.0, 2: 4.0, 3: 8.0, 4: 16.0}


def loads(flows: list[Flow], rates: list[float]) -> dict[int, float]:
    return {
        name: sum(rate * flow.usage.get(name, 0.0) for flow, rate in zip(flows, rates, strict=True))
        for name in CAPACITY
    }


class TestMaxMinFairness:
    def test_two_flows_on_one_link_get_half_each(self) -> None:
        assert max_min_rates([Flow({"link": 1.0}), Flow({"link": 1.0})], {"link": 10.0}) == [5.0, 5.0]

    def test_what_a_small_flow_leaves_goes_to_the_others(self) -> None:
        flows = [Flow({"link": 1.0}, 2.0), Flow({"link": 1.0}), Flow({"link": 1.0})]
        assert max_min_rates(flows, {"link": 10.0}) == [2.0, 4.0, 4.0]

    def test_bertsekas_and_gallager_chain(self) -> None:
        flows = [Flow({"a": 1.0, "b": 1.0}), Flow({"a": 1.0}), Flow({"b": 1.0}), Flow({"b": 1.0})]
        rates = max_min_rates(flows, {"a": 1.0, "b": 1.0})
        assert rates == pytest.approx([1 / 3, 2 / 3, 1 / 3, 1 / 3])

    def test_a_flow_that_nothing_stops_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="limit"):
            max_min_rates([Flow({"other": 1.0})], {"link": 1.0})

    @given(flows=some_flows())
    def test_no_resource_and_no_limit_is_exceeded(self, flows: list[Flow]) -> None:
        rates = max_min_rates(flows, CAPACITY)
        for flow, rate in zip(flows, rates, strict=True):
            assert 0.0 < rate <= flow.limit
        for name, load in loads(flows, rates).items():
            assert load <= CAPACITY[name] * (1 + 1e-9)

    @given(flows=some_flows())
    def test_every_flow_has_a_bottleneck_where_nobody_is_faster(self, flows: list[Flow]) -> None:
        """The max-min condition, from which Pareto optimality follows: to be faster, take from one not faster."""
        rates = max_min_rates(flows, CAPACITY)
        load: dict[Any, float] = loads(flows, rates)
        for flow, rate in zip(flows, rates, strict=True):
            full = [name for name in flow.usage if load[name] >= CAPACITY[name] * (1 - 1e-9)]
            fastest = [max(other for other, of in zip(rates, flows, strict=True) if name in of.usage) for name in full]
            assert rate >= flow.limit * (1 - 1e-9) or any(rate >= most * (1 - 1e-9) for most in fastest)

    @given(flows=some_flows())
    def test_one_of_the_resources_that_are_used_alike_decides_for_all_of_them(self, flows: list[Flow]) -> None:
        usages: list[Any] = [dict(flow.usage) for flow in flows]
        twins = [
            Flow({**usage, **{name + 5: share for name, share in usage.items()}}, flow.limit)
            for usage, flow in zip(usages, flows, strict=True)
        ]
        capacity = CAPACITY | {name + 5: room for name, room in CAPACITY.items()}
        alike = used_alike([flow.usage for flow in twins], capacity)
        assert max_min_rates(twins, capacity) == max_min_rates(flows, CAPACITY)
        assert {one.first for one in alike} <= set(CAPACITY)
        for one in alike:
            assert one.users == tuple((at, f.usage[one.first]) for at, f in enumerate(flows) if one.first in f.usage)

    @given(flows=some_flows())
    def test_the_order_of_flows_does_not_matter(self, flows: list[Flow]) -> None:
        forwards, backwards = max_min_rates(flows, CAPACITY), max_min_rates(flows[::-1], CAPACITY)
        assert forwards == pytest.approx(backwards[::-1], rel=1e-9)


def narrow_box(num_gpus: int = 4, socket_bytes_per_s: float = 16e9) -> HardwareProfile:
    """A machine whose only bottleneck is the link between the sockets."""
    bare = replace(constants(27, 0), shared_fabric_links={}, switch_group_size=8)
    profile = load_profile("l40s-x8")
    return replace(profile, topology=pcie_tree(num_gpus, socket_bytes_per_s), collectives=bare, device=gpu("ada"))


def job(ranks: list[int], num_bytes: int = 64 * MIB, op: str = "all_reduce", start_s: float = 0.0) -> dict[str, Any]:
    return {"op": op, "bytes": num_bytes, "ranks": ranks, "start_s": start_s}


class TestSharing:
    def test_two_pairs_that_cross_one_socket_link_are_half_as_fast(self) -> None:
        alone, together = (
            simulate_concurrent(narrow_box(), jobs)[0] for jobs in ([job([0, 2])], [job([0, 2]), job([1, 3])])
        )
        assert alone.slowdown == pytest.approx(1.0, rel=1e-6)
        assert together.slowdown == pytest.approx(2.0, rel=0.01)

    def test_pairs_on_their_own_sides_do_not_meet(self) -> None:
        for result in simulate_concurrent(narrow_box(), [job([0, 1]), job([2, 3])]):
            assert result.slowdown == pytest.approx(1.0, rel=1e-6)

    def test_a_later_one_slows_the_first_only_while_both_run(self) -> None:
        first, second = simulate_concurrent(narrow_box(), [job([0, 2]), job([1, 3], start_s=2e-3)])
        alone_s = first.alone_s
        shared_s = first.end_s - 2e-3
        assert first.end_s - alone_s == pytest.approx(shared_s / 2, rel=0.01)  # half of the shared time is lost
        assert second.end_s - second.start_s == pytest.approx(alone_s + shared_s / 2, rel=0.01)

    def test_a_long_transfer_takes_what_is_left(self) -> None:
        results = simulate_concurrent(narrow_box(), [job([0, 2], op="transfer"), job([1, 3], 2**30, op="transfer")])
        short, long = results
        assert short.end_s == pytest.approx(2 * short.alone_s, rel=1e-3)
        assert long.end_s == pytest.approx(long.alone_s + short.alone_s, rel=1e-3)

    @given(starts=st.lists(st.floats(0.0, 5e-3), min_size=2, max_size=4))
    def test_work_is_conserved_on_a_link_that_is_never_idle(self, starts: list[float]) -> None:
        """Transfers one way over the socket link: together they end no later than one after the other."""
        box = narrow_box(8)
        jobs = [job([rank, 4 + rank], op="transfer", start_s=start) for rank, start in enumerate(starts)]
        results = simulate_concurrent(box, jobs)
        one_by_one = max(starts) + sum(result.alone_s for result in results)
        assert max(result.end_s for result in results) <= one_by_one * (1 + 1e-6)
        assert all(result.slowdown >= 1.0 - 1e-6 for result in results)

    def test_on_nvswitch_disjoint_groups_keep_their_pace_and_equal_ones_halve_it(self) -> None:
        apart = simulate_concurrent("h100-sxm-x8", [job([0, 1]), job([2, 3])])
        assert [result.slowdown for result in apart] == pytest.approx([1.0, 1.0], abs=1e-6)
        same = simulate_concurrent("h100-sxm-x8", [job([0, 1], 2**28), job([0, 1], 2**28)])
        assert [result.slowdown for result in same] == pytest.approx([2.0, 2.0], rel=0.05)

    def test_the_flow_alone_is_as_fast_as_the_cost_says(self) -> None:
        for name in ("h100-sxm-x8", "l40s-x8", "a100-sxm4-80gb-x8"):
            for op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"):
                for ranks in ([0, 1], [0, 1, 2, 3], list(range(8)), [0, 4], [1, 3, 5, 7]):
                    (result,) = simulate_concurrent(name, [job(ranks, 4 * MIB, op)])
                    assert result.end_s == pytest.approx(result.alone_s, rel=1e-6)

    @pytest.mark.parametrize(
        ("jobs", "error", "word"),
        [
            ([job([0, 0])], InputError, "once"),
            ([job([0, 1, 2], op="transfer")], InputError, "source and a target"),
            ([job([0, 9])], InfeasibleError, "no rank 9"),
            ([{"op": "all_reduce", "bytes": 8, "rank": [0, 1]}], InputError, "ranks"),
        ],
    )
    def test_bad_jobs_are_named(self, jobs: list[dict[str, Any]], error: type[Any], word: str) -> None:
        with pytest.raises(error, match=word):
            simulate_concurrent("h100-sxm-x8", jobs)


def kraken(hardware: str, ways: int, *, exact: bool = False) -> Prediction:
    architecture = {"kind": "kraken", "ways": ways, "hidden_size": 1024, "num_attention_heads": 8}
    scenario = {
        "hardware": hardware,
        "model": {"preset": "1.3B"},
        "architecture": architecture,
        "num_devices": 8,
        "context_length": 1024,
    }
    return simulate(scenario, exact=exact)


def reduces(prediction: Prediction, name: str) -> list[Span]:
    return [span for span in prediction.timeline.spans if span.name == name]


class TestPrograms:
    def test_groups_are_blocks_of_neighbours_or_every_stride_th(self) -> None:
        topology = nvswitch_node()
        assert groups_of(topology, 4, 1, 8) == [topology.gpus[:4], topology.gpus[4:]]
        assert groups_of(topology, 2, 4, 8) == [(f"gpu{i}", f"gpu{i + 4}") for i in range(4)]

    def test_groups_of_a_program_that_cross_one_socket_share_it(self) -> None:
        crossing = reduces(kraken("l40s-x8-slow-host", 4), "all_reduce")[1]
        assert "2 groups share links" in crossing.detail
        profile = load_profile("l40s-x8-slow-host")
        links = LinkSharing(profile.topology, profile.collectives)
        assert links.capacity == {}

    def test_groups_within_their_sockets_and_on_nvswitch_share_nothing(self) -> None:
        assert "share" not in reduces(kraken("l40s-x8", 2), "all_reduce_group_ffn")[0].detail
        for ways in (2, 4):
            for span in kraken("h100-sxm-x8", ways).timeline.spans:
                assert "share" not in span.detail

    @pytest.mark.parametrize(("hardware", "ways"), [("l40s-x8", 2), ("l40s-x8", 4), ("h100-sxm-x8", 4)])
    def test_every_rank_simulated_agrees_with_one(self, hardware: str, ways: int) -> None:
        folded, exact = kraken(hardware, ways), kraken(hardware, ways, exact=True)
        assert folded.ttft_s == pytest.approx(exact.ttft_s, rel=1e-9)

    def test_two_all_reduces_at_once_slow_each_other(self) -> None:
        """The group's AllReduce beside the exchange between groups, on the same host bridges."""
        spans = reduces(kraken("l40s-x8-slow-host", 2), "all_reduce_group_attention")
        inside = [span for span in spans if span.alone_s > 0]
        beside = max((span.end_ps - span.start_ps) * 1e-12 / span.alone_s for span in inside)
        assert beside > 1.5


def test_all_rings_of_a_mesh_end_at_the_same_time() -> None:
    """On a DGX-1 some rings have more NVLinks than others and carry as much more."""
    topology = load_profile("v100-dgx1-x8").topology
    found = link_bytes(topology, topology.gpus, AR, "ring", 1000.0)
    interconnect = topology.interconnect(8)
    busiest_s = max(num_bytes / link.bytes_per_s for link, num_bytes in found.items())
    assert busiest_s == pytest.approx(2 * 7 / 8 * 1000.0 / interconnect.bandwidth_bytes_per_s)
    assert sum(found.values()) == pytest.approx(8 * 2 * 7 / 8 * 1000.0)


def test_at_their_pace_together_different_collectives_overfill_no_link() -> None:
    """Groups of one op are alike only on an even machine: all go at the pace of the slowest of them."""
    gpus = [Node(f"gpu{i}", NodeKind.GPU) for i in range(4)]
    rates = (31.5e9, 8e9, 31.5e9, 31.5e9)
    links = [Link(f"gpu{i}", f"host{i // 2}", LinkKind.PCIE, rate, 5e-7, 1, 4) for i, rate in enumerate(rates)]
    hosts = (Node("host0", NodeKind.HOST), Node("host1", NodeKind.HOST))
    topology = Topology((*gpus, *hosts), (*links, Link("host0", "host1", LinkKind.SOCKET, 16e9, 2e-7)))
    bare = replace(constants(27, 0), shared_fabric_links={}, switch_group_size=8)
    neighbours, across = Collective(AR, 64 * MIB, 2, 1), Collective(AR, 64 * MIB, 2, 2)
    running = {}
    for op in (neighbours, across):
        group = groups_of(topology, 2, op.stride, 4)[-1]
        link = reduce_group(topology.finder, group, True)
        policy = CollectivePolicy(algorithm="ring", protocol="simple")
        running[op] = collective_cost(AR, op.num_bytes, link, gpu("ada"), bare, policy)
    paces = SideBySide(topology, bare, 4, p2p=True).speeds(running)
    sharing = LinkSharing(topology, bare)
    load: dict[Any, float] = defaultdict(float)
    for op, cost in running.items():
        flows = [sharing.flow(group, AR, cost) for group in groups_of(topology, 2, op.stride, 4)]
        alone = max_min_rates(flows, sharing.capacity)
        for flow, rate in zip(flows, alone, strict=True):
            for resource, share in flow.usage.items():
                load[resource] += share * rate * paces[op]
    assert min(paces.values()) < 1.0
    for resource, amount in load.items():
        assert amount <= sharing.capacity[resource] * (1 + 1e-9)


@pytest.mark.parametrize("gpus", [(0, 1, 2, 3), (0, 4), (0, 1, 4, 5), tuple(range(8))])
def test_a_group_on_pcie_alone_is_held_up_by_something_that_it_fills(gpus: tuple[Any, ...]) -> None:
    """A link, or what bridges and memory of a host pass, of which a ring that crosses sockets needs more."""
    profile = load_profile("l40s-x8")
    names = tuple(profile.topology.gpus[index] for index in gpus)
    sharing = LinkSharing(profile.topology, profile.collectives)
    alone = collective_cost(
        AR, 256 * MIB, reduce_group(profile.topology.finder, names, True), profile.device, profile.collectives,
        CollectivePolicy(algorithm="ring", protocol="simple"),
    )  # fmt: skip
    flow = sharing.flow(names, AR, replace(alone, line_bytes_per_s=0.0))
    filled = max(share * flow.limit / sharing.capacity[resource] for resource, share in flow.usage.items())
    assert filled == pytest.approx(1.0)


def test_sharing_links_stretches_the_transfer_and_not_the_latency() -> None:
    cost = collective_cost(AR, 64 * MIB, nvswitch(8), gpu("hopper"), constants(), CollectivePolicy())
    half = slowed(cost, 0.5, 2)
    assert half.transfer_s == 2 * cost.transfer_s
    assert half.latency_s == cost.latency_s
    assert half.busy_s == pytest.approx(cost.latency_s + 2 * cost.transfer_s)
    assert slowed(cost, 1.0, 2) == cost
