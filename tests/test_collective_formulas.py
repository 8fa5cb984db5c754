"""Every algorithm against its closed form: steps times their latency, and bytes over the rate of what carries them.

Channels are made to carry any rate, and corrections left out, so that only links decide.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2
from typing import TYPE_CHECKING

import pytest
from collective_support import cluster, constants, gpu, nvswitch
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim.costs.collectives import collective_cost
from kraken_sim.costs.collectives.nccl import soft_min
from kraken_sim.costs.collectives.network_tuning import (
    network_graph,
    network_tuning_table,
    smooth_tree_correction,
)
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library, Selection
from kraken_sim.costs.collectives.tuning import TREE_CORRECTION, TuningEntry
from kraken_sim.profiles.link_transfer import with_network
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from typing import Any

    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.hardware.interconnect import Interconnect

SIZE = 2**28
ANY_RATE = 1e18
US = 1e-6
ALL_REDUCE, ALL_TO_ALL = CollectiveKind.ALL_REDUCE, CollectiveKind.ALL_TO_ALL


def bare(**changes: Any) -> CollectiveConstants:
    """Constants under which a channel carries any rate, and nothing but protocol latencies and links counts."""
    found = with_network(constants(29, 1))
    return replace(
        found,
        channel_bytes_per_s={link: dict.fromkeys(row, ANY_RATE) for link, row in found.channel_bytes_per_s.items()},
        custom_cta_bytes_per_s=dict.fromkeys(found.custom_cta_bytes_per_s, ANY_RATE),
        link_latency_s=dict.fromkeys((*found.link_latency_s, "network"), 1.0),
        link_correction={},
        ring_pair_loss={},
        tree_efficiency=1.0,
        **changes,
    )


def cost(
    link: Interconnect, kind: CollectiveKind = ALL_REDUCE, c: CollectiveConstants | None = None, **policy: Any
) -> CollectiveCost:
    return collective_cost(kind, SIZE, link, gpu("hopper"), c or bare(), CollectivePolicy(**policy))


class TestWithinANode:
    @pytest.mark.parametrize("n", [2, 3, 4, 8])
    @pytest.mark.parametrize(
        ("kind", "algorithm", "steps", "share"),
        [
            (ALL_REDUCE, "ring", lambda n: 2 * (n - 1), lambda n: 2 * (n - 1) / n),
            (ALL_REDUCE, "tree", lambda n: 2 * (n - 1), lambda n: 2.0 if n > 2 else 1.0),
            (ALL_REDUCE, "nvls", lambda n: n, lambda n: (n + 1) / n),
            (CollectiveKind.ALL_GATHER, "ring", lambda n: n - 1, lambda n: (n - 1) / n),
            (CollectiveKind.REDUCE_SCATTER, "ring", lambda n: n - 1, lambda n: (n - 1) / n),
            (CollectiveKind.BROADCAST, "ring", lambda n: n - 1, lambda _: 1.0),
            (ALL_TO_ALL, "send_recv", lambda n: n - 1, lambda n: (n - 1) / n),
        ],
    )
    def test_steps_of_latency_and_the_busiest_rank_s_bytes_over_its_link(
        self, n: int, kind: CollectiveKind, algorithm: str, steps: Any, share: Any
    ) -> None:
        link, c = nvswitch(n), bare()
        found = cost(link, kind, c, algorithm=algorithm, protocol="simple")
        row = "nvls" if algorithm == "nvls" else "simple"
        base_s, step_s, efficiency = (
            getattr(c, field)["nvlink"][row] for field in ("base_s", "step_s", "link_efficiency")
        )
        base_s, step_s, efficiency = (
            value * c.factor(kind, "simple", part)
            for value, part in ((base_s, "base"), (step_s, "step"), (efficiency, "link"))
        )
        assert found.latency_s == pytest.approx(base_s + steps(n) * step_s)
        rate = link.bandwidth_bytes_per_s * efficiency
        assert found.transfer_s == pytest.approx(share(n) * SIZE / rate, rel=1e-9)
        assert found.busy_s == found.latency_s + found.transfer_s
        assert found.line_bytes_per_s == pytest.approx(link.bandwidth_bytes_per_s)

    @pytest.mark.parametrize("n", [2, 4, 8])
    @pytest.mark.parametrize(
        ("algorithm", "kernel", "share", "flights"),
        [
            ("one_shot", "one_shot_vllm", lambda n: n - 1, 1),
            ("two_shot", "two_shot_vllm", lambda n: 2 * (n - 1) / n, 2),
        ],
    )
    def test_custom_kernels_pay_a_barrier_a_shot_and_every_further_peer(
        self, n: int, algorithm: str, kernel: str, share: Any, flights: int
    ) -> None:
        link = nvswitch(n)
        near, far = (
            cost(link, c=replace(bare(), link_latency_s={"nvlink": contained}), library=Library.CUSTOM,
                 algorithm=algorithm, selection="vllm")
            for contained in (1.0, 0.0)
        )  # fmt: skip
        c = bare()
        assert kernel in near.detail
        assert near.latency_s == pytest.approx(c.custom_base_s[kernel] + (n - 2) * c.custom_peer_s[kernel])
        assert far.latency_s - near.latency_s == pytest.approx(flights * link.latency_s)
        rate = link.bandwidth_bytes_per_s * c.custom_link_efficiency[kernel]
        assert near.transfer_s == pytest.approx(share(n) * SIZE / rate, rel=1e-9)

    def test_the_ctas_of_a_two_shot_kernel_work_on_the_part_that_a_gpu_owns(self) -> None:
        """Before all CTAs have work, n times the message keeps as many busy: time grows like that of a part."""
        few = replace(bare(), custom_cta_bytes_per_s=dict.fromkeys(bare().custom_cta_bytes_per_s, 1e9))
        custom = CollectivePolicy(library=Library.CUSTOM, algorithm="two_shot", selection=Selection.VLLM)
        size = 8 * 8192  # eight CTAs' worth
        alone, shared = (
            collective_cost(ALL_REDUCE, size, nvswitch(n), gpu("hopper"), few, custom).transfer_s for n in (2, 8)
        )
        assert alone == pytest.approx(2 * (1 / 2) * size / 4e9)
        assert shared == pytest.approx(2 * (7 / 8) * size / 1e9)

    def test_a_collective_bound_by_its_channels_takes_only_that_part_of_the_line(self) -> None:
        link, c = nvswitch(4), bare()
        slow = replace(c, channel_bytes_per_s={"nvlink": dict.fromkeys(c.channel_bytes_per_s["nvlink"], 1e9)})
        found = cost(link, c=slow, algorithm="ring", protocol="simple", channels=8)
        assert found.transfer_s == pytest.approx(2 * 3 / 4 * SIZE / 8e9, rel=1e-6)
        assert found.line_bytes_per_s == pytest.approx(8e9 / c.link_efficiency["nvlink"]["simple"], rel=1e-6)

    def test_every_byte_of_an_all_to_all_is_read_and_written_once(self) -> None:
        assert cost(nvswitch(8), ALL_TO_ALL).hbm_bytes == 2.0 * SIZE

    @given(st.floats(1e-3, 1e12), st.floats(1e-3, 1e12))
    def test_the_soft_minimum_is_symmetric_and_just_below_the_smaller(self, a: float, b: float) -> None:
        assert soft_min(a, b) == pytest.approx(soft_min(b, a))
        assert 0.91 * min(a, b) <= soft_min(a, b) <= min(a, b)


class TestBetweenNodes:
    """Nodes of g GPUs, m of them: every NIC carries its part of what leaves a node."""

    @staticmethod
    def group(num_nodes: int, num_local: int, num_rails: int) -> tuple[Interconnect, float, float, float, float]:
        """Also what a GPU sends in its node and a node over its NICs, bytes/s, and the steps on either."""
        link, c = cluster(num_nodes, num_local, num_rails).interconnect(num_nodes * num_local), bare()
        inside = 18 * 25e9 * c.link_efficiency["nvlink"]["simple"]
        outside = num_rails * 50e9 * c.link_efficiency["network"]["simple"]
        return link, inside, outside, c.step_s["nvlink"]["simple"], c.step_s["network"]["simple"]

    @pytest.mark.parametrize("num_rails", [1, 8])
    @pytest.mark.parametrize("num_nodes", [2, 4])
    def test_a_ring_is_as_fast_as_the_slower_of_node_and_network(self, num_nodes: int, num_rails: int) -> None:
        link, inside, outside, step_s, network_step_s = self.group(num_nodes, 8, num_rails)
        n, found = 8 * num_nodes, cost(link, algorithm="ring", protocol="simple")
        assert found.transfer_s == pytest.approx(2 * (n - 1) / n * SIZE / min(inside, outside), rel=1e-6)
        inter = 2 * (num_nodes - 1)
        steps_s = (2 * (n - 1) - inter) * step_s + inter * network_step_s
        assert found.latency_s == pytest.approx(bare().base_s["nvlink"]["simple"] + steps_s)

    @pytest.mark.parametrize("num_rails", [1, 8])
    @pytest.mark.parametrize("num_nodes", [2, 4, 8])
    def test_a_tree_is_bound_by_the_inner_gpus_of_its_chains_or_the_inner_nodes_of_its_trees(
        self, num_nodes: int, num_rails: int
    ) -> None:
        link, inside, outside, _, _ = self.group(num_nodes, 8, num_rails)
        found = cost(link, algorithm="tree", protocol="simple")
        bound = max(2 * SIZE / inside, (1 if num_nodes == 2 else 2) * SIZE / outside)
        assert found.transfer_s == pytest.approx(bound / smooth_tree_correction("simple", SIZE), rel=1e-6)

    @pytest.mark.parametrize(("num_nodes", "num_local"), [(2, 8), (4, 8), (6, 4), (8, 2), (4, 1)])
    def test_a_hierarchy_scatters_exchanges_and_gathers_one_after_the_other(
        self, num_nodes: int, num_local: int
    ) -> None:
        link, inside, outside, step_s, network_step_s = self.group(num_nodes, num_local, num_local)
        found = cost(link, algorithm="hierarchical")
        in_the_node = 2 * (num_local - 1) / num_local * SIZE / inside
        between = 2 * (num_nodes - 1) / num_nodes * SIZE / outside
        assert found.transfer_s == pytest.approx(in_the_node + between, rel=1e-6)
        base_s = bare().base_s["nvlink" if num_local > 1 else "network"]["simple"]
        steps_s = 2 * (num_local - 1) * step_s + 2 * ceil(log2(num_nodes)) * network_step_s
        assert found.latency_s == pytest.approx(base_s + steps_s)

    @pytest.mark.parametrize("num_rails", [1, 8])
    @pytest.mark.parametrize("num_nodes", [2, 4])
    def test_an_all_to_all_sends_within_and_between_nodes_at_the_same_time(
        self, num_nodes: int, num_rails: int
    ) -> None:
        link, inside, outside, _, _ = self.group(num_nodes, 8, num_rails)
        n, found = 8 * num_nodes, cost(link, ALL_TO_ALL)
        # A NIC sends for all GPUs of its node what the others of the group get.
        assert found.transfer_s == pytest.approx(max(7 / n / inside, 8 * (n - 8) / n / outside) * SIZE, rel=1e-6)

    def test_an_all_to_all_of_few_bytes_a_node_waits_for_the_links_inside(self) -> None:
        """With NICs much faster than NVLink the shares that stay in the node are the slower part."""
        link, inside, _, _, _ = self.group(2, 8, 8)
        assert link.across is not None
        fast = replace(link, across=replace(link.across, network_bytes_per_s=1e15))
        assert cost(fast, ALL_TO_ALL).transfer_s == pytest.approx(7 / 16 * SIZE / inside, rel=1e-6)

    def test_the_line_rate_taken_is_that_of_what_is_sent_with_the_protocol_s_overhead(self) -> None:
        link, _, outside, _, _ = self.group(2, 8, 1)
        found = cost(link, algorithm="ring", protocol="simple")
        assert outside == pytest.approx(found.link_bytes / found.transfer_s)
        assert found.line_bytes_per_s == pytest.approx(50e9)


class TestTuningLog:
    def test_a_tree_s_correction_is_looked_up_by_the_logarithm_of_the_message_over_64_bytes(self) -> None:
        """treeCorrectionFactor[protocol][log2(size >> 6)] of NCCL's tuning.cc, and none for messages beyond it."""
        for protocol, factors in TREE_CORRECTION.items():
            entry = TuningEntry("tree", protocol, 0.0, 100.0)
            for power, factor in enumerate(factors):
                for size in (64 << power, (128 << power) - 1):
                    assert entry.time_us(size) == pytest.approx(size / (1000.0 * 100.0 * factor))
            for size in (32, 64 << len(factors)):
                assert entry.time_us(size) == pytest.approx(size / 1e5)
        assert TuningEntry("ring", "ll", 2.0, 100.0).time_us(1024) == pytest.approx(2.0 + 1024 / 1e5)

    @pytest.mark.parametrize("shape", [(2, 8, 8), (4, 8, 8), (8, 8, 8), (2, 2, 1), (4, 4, 1), (8, 1, 1)])
    def test_between_nodes_the_least_estimate_is_taken_with_ring_simple_s_plateau_in_it(
        self, shape: tuple[int, int, int]
    ) -> None:
        """Ring Simple pays its latency 1.4 times from 64 bytes a rank and channel on (ncclTopoGetAlgoTime)."""
        n = shape[0] * shape[1]
        link = cluster(*shape).interconnect(n)
        graph = network_graph(link, gpu("hopper"), 29)
        for power in range(6, 31):
            size = 2**power
            estimates = {}
            for entry in network_tuning_table(ALL_REDUCE, link, gpu("hopper"), 29):
                plateau = (entry.algorithm, entry.protocol) == ("ring", "simple") and size >= 64 * graph.channels * n
                latency_us = entry.latency_us * (1.4 if plateau else 1.0)
                estimates[entry.algorithm, entry.protocol] = entry.time_us(size) - entry.latency_us + latency_us
            found = collective_cost(ALL_REDUCE, size, link, gpu("hopper"), bare(), CollectivePolicy())
            assert estimates[found.algorithm, found.protocol] == pytest.approx(min(estimates.values()))
