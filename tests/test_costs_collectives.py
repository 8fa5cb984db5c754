"""AllReduce: what it moves, and how its time depends on the machine."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from collective_support import FASTEST, KIB, LEGACY, MIB, NCCL, VLLM, constants, forced, gpu, nvswitch, pcie
from hypothesis import example, given
from hypothesis import strategies as st

from kraken_sim.costs.collectives import all_reduce_cost, with_eager_nccl_latency
from kraken_sim.costs.collectives.constants import interpolate_knots
from kraken_sim.costs.collectives.graph import search_rings
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library, Transport
from kraken_sim.hardware.interconnect import InterconnectKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.hardware.interconnect import Interconnect


class TestWhatMoves:
    @given(num_bytes=st.integers(1, 2**30), num_devices=st.integers(2, 16))
    def test_ring_all_reduce_moves_2_n_minus_1_over_n_of_the_bytes(self, num_bytes: int, num_devices: int) -> None:
        cost = all_reduce_cost(num_bytes, nvswitch(num_devices), gpu("hopper"), constants(), forced("ring"))
        assert cost.link_bytes == pytest.approx(2 * (num_devices - 1) / num_devices * num_bytes, rel=1e-12)
        assert cost.link_bytes * num_devices == pytest.approx(2 * (num_devices - 1) * num_bytes, rel=1e-12)

    @pytest.mark.parametrize(
        ("algorithm", "share"),
        [("one_shot", lambda n: n - 1), ("two_shot", lambda n: 2 * (n - 1) / n), ("multimem", lambda n: (n + 1) / n)],
    )
    def test_custom_kernels_move_what_their_algorithm_says(self, algorithm: str, share: Callable[..., Any]) -> None:
        for n in (4, 8):
            policy = forced(algorithm, library=Library.CUSTOM)
            cost = all_reduce_cost(MIB, nvswitch(n), gpu("hopper"), constants(), policy)
            assert cost.algorithm == algorithm
            assert cost.link_bytes == pytest.approx(share(n) * MIB, rel=1e-12)

    def test_a_tree_sends_as_many_bytes_as_a_ring_in_total(self) -> None:
        tree = all_reduce_cost(MIB, nvswitch(8), gpu("hopper"), constants(), forced("tree", "simple"))
        assert tree.link_bytes * 8 == pytest.approx(2 * 7 * MIB)

    def test_nvls_moves_fewer_bytes_over_links_and_hbm_than_a_ring(self) -> None:
        nvls = all_reduce_cost(64 * MIB, nvswitch(8), gpu("hopper"), constants(), forced("nvls"))
        ring = all_reduce_cost(64 * MIB, nvswitch(8), gpu("hopper"), constants(), forced("ring"))
        assert nvls.link_bytes == pytest.approx(9 / 8 * 64 * MIB)
        assert nvls.link_bytes < ring.link_bytes
        assert nvls.hbm_bytes < ring.hbm_bytes

    @pytest.mark.parametrize("policy", [NCCL, LEGACY, VLLM, FASTEST])
    def test_one_device_or_no_bytes_cost_and_move_nothing(self, policy: CollectivePolicy) -> None:
        alone = all_reduce_cost(MIB, nvswitch(1), gpu("hopper"), constants(), policy)
        empty = all_reduce_cost(0, nvswitch(8), gpu("hopper"), constants(), policy)
        for cost in (alone, empty):
            assert (cost.busy_s, cost.link_bytes, cost.hbm_bytes, cost.channels) == (0.0, 0.0, 0.0, 0)

    @given(
        num_bytes=st.integers(1, 2**30),
        link=st.sampled_from([nvswitch(2), nvswitch(3), nvswitch(8), pcie(2), pcie(8), pcie(4, InterconnectKind.HOST)]),
        policy=st.sampled_from([NCCL, LEGACY, VLLM, FASTEST, CollectivePolicy(channels=2)]),
    )
    def test_every_cost_is_finite_positive_and_adds_up(
        self, num_bytes: int, link: Interconnect, policy: CollectivePolicy
    ) -> None:
        cost = all_reduce_cost(num_bytes, link, gpu("hopper"), constants(), policy)
        assert math.isfinite(cost.busy_s)
        assert min(cost.latency_s, cost.transfer_s, cost.link_bytes, cost.hbm_bytes) > 0.0
        assert cost.busy_s == pytest.approx(cost.latency_s + cost.transfer_s, rel=1e-12)
        assert cost.channels >= 1
        assert cost.transfer_s >= cost.link_bytes / link.bandwidth_bytes_per_s


class TestHowTimeDependsOnTheMachine:
    @given(
        num_bytes=st.integers(16, 2**29),
        factor=st.floats(1.0, 4.0),
        policy=st.sampled_from(
            [forced("ring", "ll"), forced("ring", "ll128"), forced("ring", "simple"), forced("nvls")]
        ),
        num_devices=st.sampled_from([3, 4, 8]),
    )
    def test_more_bytes_are_faster_only_by_what_a_further_channel_takes_off_the_others(
        self, num_bytes: int, factor: float, policy: CollectivePolicy, num_devices: int
    ) -> None:
        """NCCL opens channels one by one: two H200 take 7.7 us for 14 KiB and 6.9 us for 16 KiB, on two."""
        few, many = (
            all_reduce_cost(size, nvswitch(num_devices), gpu("hopper"), constants(), policy)
            for size in (num_bytes, int(num_bytes * factor))
        )
        least = 0.5 if many.channels > few.channels else 1.0
        assert many.transfer_s >= least * few.transfer_s * (1 - 1e-9)
        assert many.latency_s >= few.latency_s

    @pytest.mark.parametrize("num_devices", [2, 4, 8])
    @pytest.mark.parametrize("policy", [NCCL, FASTEST])
    def test_time_rises_with_size_over_the_powers_of_two(self, num_devices: int, policy: CollectivePolicy) -> None:
        times = [
            all_reduce_cost(2**power, nvswitch(num_devices), gpu("hopper"), constants(), policy).busy_s
            for power in range(10, 30)
        ]
        assert times == sorted(times)

    @given(num_bytes=st.integers(16, 2**29), bandwidth=st.floats(20e9, 900e9), factor=st.floats(1.0, 4.0))
    @example(num_bytes=511184, bandwidth=329508678977.0, factor=1.03125)
    def test_faster_links_never_slow_a_ring_of_as_many_channels(
        self, num_bytes: int, bandwidth: float, factor: float
    ) -> None:
        """NCCL's search may build fewer, faster channels on a faster link: 7 x 40 instead of 9 x 30 GB/s."""
        slow, fast = (nvswitch(8, bandwidth=rate) for rate in (bandwidth, bandwidth * factor))

        def busy(link: Interconnect) -> float:
            return all_reduce_cost(num_bytes, link, gpu("hopper"), constants(), forced("ring", "simple")).busy_s

        if search_rings(fast, gpu("hopper"), 29).ctas >= search_rings(slow, gpu("hopper"), 29).ctas:
            assert busy(fast) <= busy(slow) * (1 + 1e-9)

    @given(num_bytes=st.integers(16, 2**29), few=st.integers(1, 32), more=st.integers(0, 32))
    def test_more_channels_alone_never_slow_an_all_reduce(self, num_bytes: int, few: int, more: int) -> None:
        def busy(channels: int) -> float:
            policy = CollectivePolicy(channels=channels)
            return all_reduce_cost(num_bytes, nvswitch(4), gpu("hopper"), constants(), policy).busy_s

        assert busy(few + more) <= busy(few) * (1 + 1e-9)

    def test_few_channels_bound_the_rate_at_what_a_channel_carries(self) -> None:
        policy = CollectivePolicy(channels=2)
        cost = all_reduce_cost(256 * MIB, nvswitch(2), gpu("hopper"), constants(28, 0), policy)
        assert cost.link_bytes / cost.transfer_s == pytest.approx(2 * 19e9, rel=0.01)

    def test_many_channels_are_bound_by_the_link(self) -> None:
        cost = all_reduce_cost(256 * MIB, nvswitch(8), gpu("hopper"), constants(), forced("ring", "simple"))
        link = 450e9 * 0.83 * (1 - 0.16 * 4 / 64)
        assert 0.9 * link < cost.link_bytes / cost.transfer_s <= link

    def test_gpus_on_pcie_share_the_host_bridges_and_a_socket_link_costs_more(self) -> None:
        def rate(n: int) -> float:
            cost = all_reduce_cost(256 * MIB, pcie(n), gpu("ada"), constants(27, 0), NCCL)
            return cost.link_bytes / cost.transfer_s

        kept = {n: 1 - 0.16 * 4 / n**2 for n in (4, 8)}
        assert rate(4) == pytest.approx(31.5e9 * 0.64 * kept[4] / 4, rel=0.02)
        assert rate(8) == pytest.approx(31.5e9 * 0.64 * 0.55 * kept[8] / 8, rel=0.02)
        assert rate(2) > 3.0 * rate(4)

    def test_staging_through_the_host_is_slower_than_peer_to_peer(self) -> None:
        direct = all_reduce_cost(64 * MIB, pcie(2), gpu("ada"), constants(27, 0), NCCL)
        staged = all_reduce_cost(
            64 * MIB, pcie(2), gpu("ada"), constants(27, 0), CollectivePolicy(transport=Transport.SHM)
        )
        assert staged.busy_s > direct.busy_s

    def test_a_longer_flight_is_paid_every_step(self) -> None:
        near, far = nvswitch(8), replace(nvswitch(8), latency_s=3e-6)
        policy = forced("ring", "ll")
        costs = [all_reduce_cost(KIB, link, gpu("hopper"), constants(), policy) for link in (near, far)]
        assert costs[1].busy_s - costs[0].busy_s == pytest.approx(14 * 2e-6)

    def test_eager_nccl_is_slower_and_leaves_custom_kernels_alone(self) -> None:
        eager = with_eager_nccl_latency(constants())
        for size in (KIB, MIB, 64 * MIB):
            before = all_reduce_cost(size, nvswitch(8), gpu("hopper"), constants(), NCCL).busy_s
            after = all_reduce_cost(size, nvswitch(8), gpu("hopper"), eager, NCCL).busy_s
            assert 2e-6 < after - before < 2.2e-6 + 0.12 * before
        policy = forced("one_shot", library=Library.CUSTOM)
        assert all_reduce_cost(KIB, nvswitch(8), gpu("hopper"), eager, policy) == all_reduce_cost(
            KIB, nvswitch(8), gpu("hopper"), constants(), policy
        )

    def test_corrections_interpolate_between_knots_and_stay_flat_beyond(self) -> None:
        knots = {"20": 2.0, "24": 1.0}
        assert [interpolate_knots(knots, x) for x in (10.0, 20.0, 22.0, 24.0, 30.0)] == [2.0, 2.0, 1.5, 1.0, 1.0]
        assert interpolate_knots({}, 22.0) == 1.0
