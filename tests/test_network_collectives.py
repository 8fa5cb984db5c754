"""Collectives over several nodes: what NICs and links carry, what NCCL picks, and how time depends on the network."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from collective_support import cluster
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim import predict_op, simulate_concurrent
from kraken_sim.costs.collectives.network import tree_network_bytes
from kraken_sim.costs.collectives.network_nvls import num_rounds
from kraken_sim.costs.collectives.network_traffic import binary_tree
from kraken_sim.costs.collectives.network_tuning import (
    network_graph,
    network_tuning_table,
    smooth_tree_correction,
)
from kraken_sim.costs.links.traffic import link_bytes
from kraken_sim.errors import InputError
from kraken_sim.hardware.topology.graph import LinkKind, NodeKind
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import CollectiveKind
from kraken_sim.standalone.one_op import collective_cost_on, collective_spec

if TYPE_CHECKING:
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.profiles.profile import HardwareProfile

MIB = 2**20
AR, AG, RS, A2A, BC, P2P = CollectiveKind


@cache
def machine(num_nodes: int = 2, num_local: int = 8, num_rails: int = 8) -> HardwareProfile:
    return replace(load_profile("h100-sxm-x8"), topology=cluster(num_nodes, num_local, num_rails))


def sent_by_nics(
    num_nodes: int, num_local: int, num_rails: int, kind: CollectiveKind, algorithm: str, num_bytes: float
) -> Any:
    topology = machine(num_nodes, num_local, num_rails).topology
    sent: dict[str, float] = defaultdict(float)
    for link, amount in link_bytes(topology, topology.gpus, kind, algorithm, num_bytes).items():
        if link.kind is LinkKind.NETWORK and topology.kinds[link.source] is NodeKind.NIC:
            sent[link.source] += amount
    return sent


def seconds(num_bytes: int, hardware: HardwareProfile | None = None, op: str = "all_reduce", **options: Any) -> float:
    profile = hardware or machine()
    spec = {"op": op, "bytes": num_bytes, "num_devices": len(profile.topology.gpus), **options}
    return predict_op(profile, spec)


class TestBytes:
    @pytest.mark.parametrize(("num_nodes", "num_local", "num_rails"), [(2, 8, 8), (4, 4, 2), (3, 2, 1), (2, 4, 4)])
    def test_every_nic_moves_its_part(self, num_nodes: int, num_local: int, num_rails: int) -> None:
        def sent(kind: CollectiveKind, algorithm: str) -> Any:
            return sent_by_nics(num_nodes, num_local, num_rails, kind, algorithm, 1000.0)

        n, m = num_nodes * num_local, num_nodes
        for kind, algorithm, share in [
            (AR, "ring", 2 * (n - 1) / n),
            (AG, "ring", (n - 1) / n),
            (RS, "ring", (n - 1) / n),
            (AR, "hierarchical", 2 * (m - 1) / m),
            (A2A, "send_recv", num_local * (n - num_local) / n),
        ]:
            found = sent(kind, algorithm)
            assert len(found) == m * num_rails
            for amount in found.values():
                assert amount == pytest.approx(1000.0 * share / num_rails)

    @pytest.mark.parametrize("num_nodes", [2, 3, 4, 5, 8])
    def test_a_double_tree_moves_as_much_in_total_and_no_node_more_than_twice_the_message(self, num_nodes: int) -> None:
        found = sent_by_nics(num_nodes, 2, 2, AR, "tree", 1000.0)
        by_node: dict[str, float] = defaultdict(float)
        for nic, amount in found.items():
            by_node[nic.split(".")[0]] += amount
        assert sum(by_node.values()) == pytest.approx(2 * (num_nodes - 1) * 1000.0)
        assert max(by_node.values()) <= tree_network_bytes(num_nodes, 1000.0) * (1 + 1e-9)

    @given(num_nodes=st.integers(2, 64))
    def test_both_trees_span_and_inner_nodes_of_one_are_leaves_of_the_other(self, num_nodes: int) -> None:
        inner = []
        for mirrored in (False, True):
            edges = binary_tree(num_nodes, mirrored=mirrored)
            children = defaultdict(list)
            for child, parent in edges:
                children[parent].append(child)
            assert len({child for child, _ in edges}) == num_nodes - 1
            assert all(len(found) <= 2 for found in children.values())
            inner.append({node for node, found in children.items() if len(found) == 2})
        assert not inner[0] & inner[1]

    @pytest.mark.parametrize("algorithm", ["ring", "tree", "hierarchical"])
    def test_what_enters_a_switch_leaves_it(self, algorithm: str) -> None:
        topology = machine().topology
        balance: dict[str, float] = defaultdict(float)
        for link, amount in link_bytes(topology, topology.gpus, AR, algorithm, 1000.0).items():
            balance[link.target] += amount
            balance[link.source] -= amount
        assert max(map(abs, balance.values())) < 1e-9

    def test_traffic_within_the_nodes_stays_off_the_network(self) -> None:
        topology = machine().topology
        found = link_bytes(topology, topology.gpus, AR, "hierarchical", 16.0)
        inside = [amount for link, amount in found.items() if link.kind is LinkKind.NVLINK]
        assert inside == [pytest.approx(2 * 7 / 8 * 16.0)] * 32


class TestTime:
    def test_large_messages_are_bound_by_the_nics(self) -> None:
        """A NIC of 50 GB/s each for 8 GPUs: 400 GB/s a node, of which the profile's efficiency is payload."""
        num_bytes = 2**33
        efficiency = machine().collectives.link_efficiency["network"]["simple"]
        bound = 2 * 15 / 16 * num_bytes / (400e9 * efficiency)
        profile = replace(machine(), collectives=without_corrections(machine()))
        assert seconds(num_bytes, profile, algorithm="ring") >= bound

    @pytest.mark.parametrize("rails", [2, 4, 8])
    def test_two_channels_of_a_rail_fill_it(self, rails: int) -> None:
        """Rings within a node have more channels, so their fit tells no rate of one: NCCL gives each half of a NIC."""
        efficiency = machine().collectives.link_efficiency["network"]["simple"]
        bound = 2 * 31 / 32 * 2**33 / (rails * 50e9 * efficiency)
        assert bound < seconds(2**33, machine(4, 8, rails), algorithm="ring") < 1.15 * bound

    def test_fewer_rails_are_slower_in_proportion(self) -> None:
        one, eight = (seconds(2**31, machine(2, 8, rails), algorithm="ring") for rails in (1, 8))
        assert one / eight > 4.0

    @pytest.mark.parametrize("op", list(CollectiveKind))
    def test_the_network_is_slower_than_nvswitch(self, op: CollectiveKind) -> None:
        for num_bytes in (MIB, 256 * MIB):
            inside = predict_op("h100-sxm-x8", {"op": op.value, "bytes": num_bytes, "num_devices": 8})
            assert seconds(num_bytes, machine(2, 4, 4), op.value) > inside * 0.999

    @pytest.mark.parametrize("op", list(CollectiveKind))
    @pytest.mark.parametrize("shape", [(2, 8, 8), (2, 1, 1), (4, 4, 1)])
    def test_time_grows_with_size(self, op: CollectiveKind, shape: tuple[int, int, int]) -> None:
        times = [seconds(2**power, machine(*shape), op.value) for power in range(3, 31)]
        assert times == sorted(times)

    def test_small_messages_take_a_tree_and_large_ones_a_ring(self) -> None:
        profile = machine(4, 8, 8)
        for num_bytes in (8, 64 * 1024):
            assert seconds(num_bytes, profile) == seconds(num_bytes, profile, algorithm="tree")
        no_nvls = replace(machine(), collectives=replace(machine().collectives, nvls_enabled=0))
        assert seconds(2**30, no_nvls) == seconds(2**30, no_nvls, algorithm="ring")

    def test_the_hierarchy_pays_three_phases_but_the_network_only_for_its_share(self) -> None:
        """With one slow rail the phases inside are cheap; the network carries 2(m-1)/m instead of 2(n-1)/n."""
        slow = machine(2, 8, 1)
        assert seconds(2**30, slow, algorithm="hierarchical") < seconds(2**30, slow, algorithm="ring")
        assert seconds(8, slow, algorithm="hierarchical") > seconds(8, slow)

    def test_llmaxbw_and_steps_of_nccls_table(self) -> None:
        """Two nodes of 8 H100 with 400 GB/s: ring Simple 8.4 + 28 x 3.4 + 2 x 14 us, bus = 16 channels x 22.5 GB/s."""
        profile = machine()
        interconnect = profile.topology.interconnect(16)
        graph = network_graph(interconnect, profile.device, 29)
        table = {
            (entry.algorithm, entry.protocol): (entry.latency_us, entry.bandwidth_gbps)
            for entry in network_tuning_table(AR, interconnect, profile.device, 29)
        }
        assert graph.bus_gbps == pytest.approx(360.0)
        assert table["ring", "simple"] == pytest.approx((8.4 + 28 * 3.4 + 2 * 14.0, 360.0 * 16 / 30))
        assert table["ring", "ll"] == pytest.approx((6.6 + 28 * 1.0 + 2 * 2.7, 39.0 * 16 / 30))
        assert table["tree", "ll"] == pytest.approx((6.8 + 2 * (7 * 0.6 + 5.0), 0.5 * 39.0))

    @pytest.mark.parametrize(("num_nodes", "simple", "ll128"), [(2, 42.8, 31.67), (4, 24.0, 20.0)])
    def test_a_tree_over_several_blackwell_nodes_is_capped_below_one_of_a_single_node(
        self, num_nodes: int, simple: float, ll128: float
    ) -> None:
        """Rails and NVLink ten times as fast: what binds are NCCL's caps, perChMaxTreeBws and perChMaxTreeLL128Bws."""
        profile = load_profile("b200-sxm-x8")
        interconnect = faster(cluster(num_nodes, 8, 8).interconnect(8 * num_nodes), 10.0)
        channels = network_graph(interconnect, profile.device, 29).channels
        table = {
            entry.protocol: entry.bandwidth_gbps
            for entry in network_tuning_table(AR, interconnect, profile.device, 29)
            if entry.algorithm == "tree"
        }
        assert table["simple"] == pytest.approx(0.5 * channels * simple)
        assert table["ll128"] == pytest.approx(0.5 * channels * ll128)

    def test_a_tree_of_two_nodes_may_be_twice_as_fast_inside_as_its_rails(self) -> None:
        """Eight A100 a node with 25 GB/s of NIC each: bus 0.92 x 240, not 200 GB/s: it beats the ring."""
        a100 = load_profile("a100-sxm4-80gb-x8")

        def table(num_nodes: int) -> dict[str, float]:
            interconnect = faster(cluster(num_nodes, 8, 8).interconnect(8 * num_nodes), 0.5, inside=12 / 18)
            entries = network_tuning_table(AR, interconnect, a100.device, 29)
            return {entry.algorithm: entry.bandwidth_gbps for entry in entries if entry.protocol == "simple"}

        assert table(2)["tree"] == pytest.approx(0.5 * 0.92 * 240.0)
        assert table(2)["tree"] > table(2)["ring"]
        assert table(4)["tree"] < table(4)["ring"]


class TestTreesOfMediumSizes:
    def test_nccls_factors_hold_at_their_sizes_and_lines_lead_between_them(self) -> None:
        """LL128 keeps 0.6 of its bandwidth at 1 MiB, 0.8 at 4 MiB, all of it from 128 MiB on."""
        found = [smooth_tree_correction("ll128", mebibytes * MIB) for mebibytes in (1, 2, 4, 128, 4096)]
        assert found == [pytest.approx(factor) for factor in (0.6, 0.6, 0.8, 1.0, 1.0)]
        assert 0.6 < smooth_tree_correction("ll128", 3 * MIB) < 0.8
        assert smooth_tree_correction("simple", 8) == pytest.approx(0.9)

    def test_they_slow_a_trees_bytes_and_not_its_start(self) -> None:
        """At 1 MiB the bytes of LL128 take 1 / 0.6 as long as those of 256 MiB, which take what links carry."""
        profile = replace(machine(), collectives=without_corrections(machine()))

        def cost(num_bytes: int) -> Any:
            spec = {"op": "all_reduce", "bytes": num_bytes, "num_devices": 16, "algorithm": "tree", "protocol": "ll128"}
            return collective_cost_on(profile, collective_spec(spec))

        small, large = cost(MIB), cost(256 * MIB)
        assert small.latency_s == large.latency_s
        assert 256 * small.transfer_s / large.transfer_s == pytest.approx(1 / 0.6, rel=0.05)

    @pytest.mark.parametrize("protocol", ["ll", "ll128", "simple"])
    def test_time_grows_with_size(self, protocol: str) -> None:
        times = [seconds(2**power, algorithm="tree", protocol=protocol) for power in range(6, 33)]
        assert times == sorted(times)


def faster(interconnect: Interconnect, factor: float, inside: float | None = None) -> Interconnect:
    """Its rails faster, and what joins the GPUs of a node."""
    across = interconnect.across
    assert across is not None
    inner = factor if inside is None else inside
    node = replace(across.node, bandwidth_bytes_per_s=across.node.bandwidth_bytes_per_s * inner)
    rails = across.network_bytes_per_s * factor
    return replace(interconnect, across=replace(across, node=node, network_bytes_per_s=rails))


class TestNvlsTree:
    @pytest.mark.parametrize(
        ("minor", "num_nodes", "channel", "step_us"),
        [(29, 2, 57.7, 20.9), (29, 4, 45.5, 20.9), (27, 2, 40.0, 14.0), (27, 4, 25.0, 14.0)],
    )
    def test_nccls_estimate_by_version(self, minor: int, num_nodes: int, channel: float, step_us: float) -> None:
        """Eight H100 a node, channels of 40 GB/s in it and 50 GB/s rails.

        From 2.28 on 2 x 40 x 0.85 x 7/8 = 59.5 is capped at 57.7 (45.5); before, the rail counts half beyond two nodes.
        """
        profile = machine(num_nodes)
        n = 8 * num_nodes
        entries = network_tuning_table(AR, profile.topology.interconnect(n), profile.device, minor)
        (found,) = [entry for entry in entries if entry.algorithm == "nvls_tree"]
        share = n / (2 * (n - 1)) if minor >= 28 else 5 / 6
        assert found.bandwidth_gbps == pytest.approx(8 * channel * share)
        assert found.latency_us == pytest.approx(25.0 + 2 * (num_nodes // 2) * step_us)

    def test_large_messages_of_two_hopper_nodes_take_it_and_move_what_one_node_does(self) -> None:
        """Switches add in each node, and the rails carry the message once: hardly slower than one node alone."""
        alone = predict_op("h100-sxm-x8", {"op": "all_reduce", "bytes": 2**32, "num_devices": 8})
        assert seconds(2**32) == seconds(2**32, algorithm="nvls_tree")
        assert alone < seconds(2**32) < 1.1 * alone
        assert seconds(2**32, algorithm="ring") > 1.4 * alone

    def test_slow_rails_bound_it(self) -> None:
        efficiency = machine().collectives.link_efficiency["network"]["simple"]
        for num_nodes, factor in ((2, 1.0), (4, 2.0)):
            found = seconds(2**32, machine(num_nodes, 8, 2), algorithm="nvls_tree")
            assert found == pytest.approx(factor * 2**32 / (100e9 * efficiency), rel=0.05)

    def test_a_switch_carries_what_nvls_does_and_every_rail_its_share_of_two_trees(self) -> None:
        topology = machine(2, 8, 8).topology
        moved = link_bytes(topology, topology.gpus, AR, "nvls_tree", 800.0)
        up = [
            amount for link, amount in moved.items() if link.kind is LinkKind.NVLINK and link.source.startswith("gpu")
        ]
        assert up == [pytest.approx(900.0)] * 16
        sent = sent_by_nics(2, 8, 8, AR, "nvls_tree", 800.0)
        assert list(sent.values()) == [pytest.approx(100.0)] * 16

    def test_it_holds_the_channels_of_nvls_and_no_fewer_chunks_than_one(self) -> None:
        assert num_rounds(1, 16, 8, 2) == 1
        assert num_rounds(2**30, 16, 8, 2) == 2**30 // (16 * 8 * 131072)
        assert num_rounds(2**30, 16, 8, 4) == 2**30 // (16 * 8 * 65536)

    @pytest.mark.parametrize(
        ("hardware", "word"),
        [("h100-sxm-x8", "for groups on several nodes"), ("a100", "NVSwitch and GPUs from Hopper on")],
    )
    def test_where_it_cannot_run_it_says_so(self, hardware: str, word: str) -> None:
        a100 = replace(load_profile("a100-sxm4-80gb-x8"), topology=cluster(2, 8, 8))
        with pytest.raises(InputError, match=word):
            seconds(MIB, a100 if hardware == "a100" else load_profile(hardware), algorithm="nvls_tree")

    def test_ll128_is_not_among_its_protocols(self) -> None:
        with pytest.raises(InputError, match="only the simple protocol"):
            seconds(MIB, algorithm="nvls_tree", protocol="ll128")


def without_corrections(profile: HardwareProfile) -> CollectiveConstants:
    return replace(profile.collectives, link_correction={}, ring_pair_loss={})


class TestSharing:
    def test_two_groups_on_one_rail_halve_each_other_and_on_two_rails_do_not_meet(self) -> None:
        shared = machine(2, 2, 1)
        jobs = [{"op": "all_reduce", "bytes": 64 * MIB, "ranks": ranks} for ranks in ([0, 2], [1, 3])]
        both = simulate_concurrent(shared, jobs)
        assert both[0].slowdown > 1.8
        apart = simulate_concurrent(machine(2, 2, 2), jobs)
        assert apart[0].slowdown == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"algorithm": "nvls"}, "ring or tree or nvls_tree or hierarchical"),
        ({"algorithm": "one_shot", "library": "custom"}, "one_shot is for groups on one node"),
        ({"algorithm": "hierarchical", "protocol": "ll"}, "simple protocol"),
        ({"op": "all_gather", "algorithm": "hierarchical"}, "all_gather between nodes runs as ring"),
        ({"op": "all_to_all", "algorithm": "ring"}, "send_recv"),
    ],
)
def test_what_does_not_run_between_nodes_is_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word) as caught:
        seconds(MIB, **options)
    assert caught.value.problems[0].example


def test_a_hierarchy_within_one_node_is_refused() -> None:
    with pytest.raises(InputError, match="several nodes"):
        predict_op("h100-sxm-x8", {"op": "all_reduce", "bytes": MIB, "num_devices": 8, "algorithm": "hierarchical"})
