"""AllReduce: what NCCL and serving engines pick, what it moves, and how its time depends on the machine."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from collective_support import constants, gpu, nvswitch, pcie
from hypothesis import example, given
from hypothesis import strategies as st

from kraken_sim.costs.collectives import all_reduce_cost, with_eager_nccl_latency
from kraken_sim.costs.collectives.choice import nccl_choice
from kraken_sim.costs.collectives.constants import extended_knots, interpolate_knots
from kraken_sim.costs.collectives.graph import nccl_link_gbps, search_rings
from kraken_sim.costs.collectives.nccl import wire
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library, Selection, Transport
from kraken_sim.costs.collectives.tuning import NcclChoice, channel_count, tuning_table
from kraken_sim.errors import InputError
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.profiles.load import load_profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.hardware.interconnect import Interconnect

KIB, MIB = 1024, 1024 * 1024
NCCL = CollectivePolicy()
LEGACY = CollectivePolicy(library=Library.CUSTOM, selection=Selection.TENSORRT_LLM_LEGACY)
VLLM = CollectivePolicy(library=Library.CUSTOM, selection=Selection.VLLM)
FASTEST = CollectivePolicy(library=Library.CUSTOM)


def forced(algorithm: str, protocol: str | None = None, library: Library = Library.NCCL) -> CollectivePolicy:
    return CollectivePolicy(library=library, algorithm=algorithm, protocol=protocol)


def table(generation: str, num_devices: int, minor: int = 29) -> dict[tuple[str, str], tuple[float, float]]:
    entries = tuning_table(nvswitch(num_devices, generation), gpu(generation), minor, nvls=True)
    return {
        (entry.algorithm, entry.protocol): (round(entry.latency_us, 1), round(entry.bandwidth_gbps, 1))
        for entry in entries
    }


class TestWhatNcclPicks:
    @pytest.mark.parametrize(
        ("generation", "num_devices", "ll", "ll128", "simple", "nvls"),
        [
            ("hopper", 2, (7.8, 141.0), (17.8, 331.2), (15.2, 360.0), (25.0, 102.0)),
            ("hopper", 4, (10.2, 94.0), (25.4, 220.8), (28.8, 240.0), (25.0, 160.0)),
            ("hopper", 8, (15.0, 80.6), (40.6, 189.3), (56.0, 205.7), (25.0, 272.0)),
            ("ampere", 2, (7.8, 87.7), (17.8, 220.8), (15.2, 240.0), None),
            ("ampere", 4, (10.2, 58.5), (25.4, 147.2), (28.8, 160.0), None),
            ("ampere", 8, (15.0, 50.1), (40.6, 126.2), (56.0, 137.1), None),
        ],
    )
    def test_tuning_table_is_the_one_nccl_logs(
        self,
        generation: str,
        num_devices: int,
        ll: tuple[float, float],
        ll128: tuple[float, float],
        simple: tuple[float, float],
        nvls: tuple[float, float] | None,
    ) -> None:
        rows = table(generation, num_devices)
        assert rows["ring", "ll"] == ll
        assert rows["ring", "ll128"] == ll128
        assert rows["ring", "simple"] == simple
        assert rows.get(("nvls", "simple")) == nvls

    @pytest.mark.parametrize(("generation", "channels", "speed"), [("ampere", 12, 20.0), ("hopper", 12, 30.0)])
    def test_ring_search_finds_the_channels_that_nccl_logs(self, generation: str, channels: int, speed: float) -> None:
        graph = search_rings(nvswitch(8, generation), gpu(generation), 29)
        assert (graph.channels, graph.bandwidth_gbps, graph.ctas) == (channels, speed, 24)

    @pytest.mark.parametrize(
        ("minor", "factor", "channels", "speed", "ctas"),
        [
            (28, 1, 12, 30.0, 24),
            (28, 2, 24, 30.0, 48),
            (28, 4, 32, 40.0, 64),
            (28, 8, 32, 60.0, 64),
            (24, 2, 16, 40.0, 32),
            (24, 4, 16, 60.0, 32),
        ],
    )
    def test_faster_links_get_no_more_channels_than_nccl_has_but_faster_ones(
        self, minor: Any, factor: Any, channels: Any, speed: Any, ctas: Any
    ) -> None:
        graph = search_rings(nvswitch(8, bandwidth=factor * 450e9), gpu("hopper"), minor)
        assert (graph.channels, graph.bandwidth_gbps, graph.ctas) == (channels, speed, ctas)

    @given(minor=st.integers(19, 30), rate=st.floats(10e9, 2e13), generation=st.sampled_from(["ampere", "hopper"]))
    def test_rings_stay_within_the_links_and_the_most_channels(self, minor: Any, rate: Any, generation: Any) -> None:
        graph = search_rings(nvswitch(8, generation, rate), gpu(generation), minor)
        assert graph.ctas <= (64 if minor >= 25 else 32)
        assert graph.bus_gbps <= nccl_link_gbps(nvswitch(8, generation, rate), gpu(generation), minor) * (1 + 1e-9)

    @pytest.mark.parametrize(("minor", "channels"), [(19, 24), (21, 24), (22, 24), (23, 23), (28, 23), (29, 19)])
    def test_a_channel_has_as_little_traffic_as_its_version_of_nccl_allows(self, minor: Any, channels: Any) -> None:
        """224 KiB in LL are 1.75 MiB of traffic: 5 cells of 16 KiB in each of 23 channels, 3 of 32 KiB in 19."""
        graph = search_rings(nvswitch(2), gpu("hopper"), minor)
        assert channel_count(224 * KIB, "ring", "ll", 2, graph, 24, minor)[0] == channels

    @pytest.mark.parametrize(
        ("generation", "num_devices", "switches"),
        [
            ("hopper", 8, [(1.15e6, "nvls simple")]),
            ("hopper", 4, [(2.5e6, "ring ll128"), (9.5e6, "ring simple")]),
            ("hopper", 2, [(1.7e6, "ring simple")]),
            ("ampere", 8, [(2.1e6, "ring ll128"), (24e6, "ring simple")]),
            ("ampere", 4, [(1.5e6, "ring ll128"), (6.3e6, "ring simple")]),
            ("ampere", 2, [(1.0e6, "ring simple")]),
        ],
    )
    def test_nccl_switches_protocol_at_the_published_sizes(
        self, generation: str, num_devices: int, switches: list[tuple[float, str]]
    ) -> None:
        def pick(num_bytes: float) -> str:
            link, nvls = nvswitch(num_devices, generation), int(generation == "hopper")
            choice = nccl_choice(int(num_bytes), link, gpu(generation), constants(29, nvls), NCCL)
            return f"{choice.algorithm} {choice.protocol}"

        before = "ring ll"
        for size, after in switches:
            assert (pick(size * 0.95), pick(size * 1.05)) == (before, after)
            before = after

    @pytest.mark.parametrize(
        ("num_devices", "sizes", "expected"),
        [
            (8, [64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB, 2 * MIB, 4 * MIB], [2, 4, 8, 16, 24, 16, 16]),
            (4, [64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB, 2 * MIB, 4 * MIB], [4, 8, 16, 22, 24, 24, 24]),
            (2, [64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, 2 * MIB, 4 * MIB], [8, 16, 22, 22, 22, 24]),
        ],
    )
    def test_channels_by_size_follow_nccls_enqueue(
        self, num_devices: int, sizes: list[int], expected: list[int]
    ) -> None:
        link = nvswitch(num_devices)
        found = [all_reduce_cost(size, link, gpu("hopper"), constants(), NCCL).channels for size in sizes]
        assert found == expected

    def test_appendix_example_4_a100_4_mib(self) -> None:
        best = min(
            tuning_table(nvswitch(4, "ampere"), gpu("ampere"), 29, nvls=False),
            key=lambda entry: entry.time_us(4 * MIB),
        )
        assert (best.algorithm, best.protocol) == ("ring", "ll128")
        assert best.time_us(4 * MIB) == pytest.approx(53.9, abs=0.05)

    def test_before_2_21_ll_had_a_quarter_of_the_bus_and_hopper_the_cap_of_ampere(self) -> None:
        assert table("ampere", 8, 18)["ring", "ll"][1] == pytest.approx(60.0 * 8 / 14, abs=0.06)
        assert table("hopper", 2, 20)["ring", "ll"][1] == pytest.approx(87.7)

    def test_nvls_for_two_gpus_came_with_2_28(self) -> None:
        assert ("nvls", "simple") not in table("hopper", 2, 27)
        assert ("nvls", "simple") in table("hopper", 2, 28)

    def test_ll128_is_not_offered_on_pcie(self) -> None:
        entries = tuning_table(pcie(4), gpu("ada"), 27, nvls=False)
        assert {entry.protocol for entry in entries} == {"ll", "simple"}

    def test_a_channel_limit_keeps_the_algorithm_and_caps_the_channels(self) -> None:
        for limit in (1, 2, 4, 8, 64):
            cost = all_reduce_cost(
                16 * MIB, nvswitch(2), gpu("hopper"), constants(28, 0), CollectivePolicy(channels=limit)
            )
            assert (cost.algorithm, cost.protocol) == ("ring", "simple")
            assert cost.channels == min(limit, 24)

    @given(
        num_bytes=st.integers(1, 2**30),
        protocol=st.sampled_from(["ll", "ll128", "simple"]),
        num_devices=st.integers(2, 8),
        limit=st.integers(1, 32),
    )
    def test_channels_stay_within_the_limit(self, num_bytes: int, protocol: str, num_devices: int, limit: int) -> None:
        graph = search_rings(nvswitch(num_devices), gpu("hopper"), 29)
        used, share = channel_count(num_bytes, "ring", protocol, num_devices, graph, limit, 29)
        assert 1 <= used <= limit
        assert 1.0 <= share <= limit


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


class TestWhatServingEnginesPick:
    def algorithm(
        self, num_bytes: int, link: Interconnect, policy: CollectivePolicy, nvls: int = 0, generation: str = "ampere"
    ) -> str:
        return all_reduce_cost(num_bytes, link, gpu(generation), constants(27, nvls), policy).algorithm

    @pytest.mark.parametrize(
        ("num_devices", "num_bytes", "expected"),
        [
            (2, 15_999_984, "one_shot"),
            (2, 16_000_016, "ring"),
            (4, 999_984, "one_shot"),
            (4, 1_000_000, "two_shot"),
            (4, 8_000_000, "two_shot"),
            (4, 8_000_016, "ring"),
            (8, 499_984, "one_shot"),
            (8, 500_000, "two_shot"),
            (8, 8_000_016, "ring"),
        ],
    )
    def test_legacy_tensorrt_llm_switches_at_its_thresholds(
        self, num_devices: int, num_bytes: int, expected: str
    ) -> None:
        assert self.algorithm(num_bytes, nvswitch(num_devices, "ampere"), LEGACY) == expected

    @pytest.mark.parametrize(
        ("num_devices", "num_bytes", "expected"),
        [
            (2, 8 * MIB - 16, "one_shot"),
            (2, 8 * MIB, "ring"),
            (4, 512 * KIB - 16, "one_shot"),
            (4, 512 * KIB, "two_shot"),
            (8, 256 * KIB - 16, "one_shot"),
            (8, 256 * KIB, "two_shot"),
            (8, 8 * MIB, "ring"),
        ],
    )
    def test_vllm_switches_at_its_thresholds(self, num_devices: int, num_bytes: int, expected: str) -> None:
        assert self.algorithm(num_bytes, nvswitch(num_devices, "ampere"), VLLM) == expected

    def test_vllm_uses_the_switch_on_hopper(self) -> None:
        sizes = [128 * KIB, 256 * KIB, 64 * MIB, 65 * MIB]
        found = [self.algorithm(size, nvswitch(8), VLLM, 1, "hopper") for size in sizes]
        assert found == ["one_shot", "multimem", "multimem", "nvls"]

    @pytest.mark.parametrize("policy", [LEGACY, VLLM, FASTEST])
    def test_custom_kernels_fall_back_to_nccl_without_peer_access(self, policy: CollectivePolicy) -> None:
        for link in (pcie(4), pcie(2, InterconnectKind.HOST)):
            assert self.algorithm(64 * KIB, link, policy) in ("ring", "tree")

    def test_legacy_tensorrt_llm_leaves_pcie_to_nccl_where_vllm_does_not(self) -> None:
        assert self.algorithm(64 * KIB, pcie(2), LEGACY) == "ring"
        assert self.algorithm(64 * KIB, pcie(2), VLLM) == "one_shot"

    @given(num_bytes=st.integers(1, 2**27), num_devices=st.sampled_from([2, 4, 8]))
    def test_fastest_is_no_slower_than_any_rule_within_its_buffers(self, num_bytes: int, num_devices: int) -> None:
        def busy(policy: CollectivePolicy) -> float:
            return all_reduce_cost(num_bytes, nvswitch(num_devices), gpu("hopper"), constants(), policy).busy_s

        rules = [NCCL] if num_bytes > constants().custom_max_bytes else [NCCL, LEGACY, VLLM]
        assert busy(FASTEST) <= min(busy(rule) for rule in rules)


class TestBadInput:
    @pytest.mark.parametrize(
        ("link", "policy", "word"),
        [
            (pcie(4), forced("nvls"), "NVSwitch"),
            (replace(nvswitch(4), kind=InterconnectKind.NVLINK), forced("nvls"), "NVSwitch"),
            (nvswitch(2), forced("nvls"), "2 GPUs"),
            (pcie(4), forced("ring", "ll128"), "LL128 needs NVLink"),
            (nvswitch(4), forced("nvls", "ll"), "simple"),
            (pcie(4), forced("one_shot", library=Library.CUSTOM), "peer access"),
            (pcie(2), forced("multimem", library=Library.CUSTOM), "multimem needs NVSwitch"),
            (nvswitch(4), forced("two_shot"), "not one of NCCL's"),
            (nvswitch(4), CollectivePolicy(channels=0), "at least 1"),
            (nvswitch(4), CollectivePolicy(transport=Transport.SHM), "host memory"),
            (pcie(4, InterconnectKind.HOST), CollectivePolicy(transport=Transport.P2P), "only through host"),
        ],
    )
    def test_what_cannot_run_is_named_with_the_repair(
        self, link: Interconnect, policy: CollectivePolicy, word: str
    ) -> None:
        with pytest.raises(InputError, match=word) as caught:
            all_reduce_cost(MIB, link, gpu("hopper"), constants(27), policy)
        problem = caught.value.problems[0]
        assert problem.path.startswith("runtime.collective.")
        assert problem.example

    def test_all_problems_of_a_policy_are_reported_with_suggestions(self) -> None:
        policy = CollectivePolicy(algorithm="rin", protocol="LL12", channels=-1)
        with pytest.raises(InputError) as caught:
            all_reduce_cost(MIB, nvswitch(4), gpu("hopper"), constants(), policy)
        assert len(caught.value.problems) == 3
        assert [problem.suggestion for problem in caught.value.problems[:2]] == ["ring", "ll128"]

    def test_nvls_switched_off_is_said(self) -> None:
        with pytest.raises(InputError, match="nvls_enabled"):
            all_reduce_cost(MIB, nvswitch(8), gpu("hopper"), constants(29, 0), forced("nvls"))

    def test_negative_bytes_are_refused(self) -> None:
        with pytest.raises(InputError, match="num_bytes"):
            all_reduce_cost(-1, nvswitch(8), gpu("hopper"), constants(), NCCL)

    def test_a_link_without_constants_is_named(self) -> None:
        link = replace(pcie(4), kind=InterconnectKind.NETWORK)
        with pytest.raises(InputError, match="network"):
            all_reduce_cost(MIB, link, gpu("hopper"), constants(), NCCL)


def test_nvls_of_many_gpus_is_as_slow_to_fill_as_that_of_eight_with_as_small_parts() -> None:
    """The correction by size of a rack's 576 MiB is that of 64 MiB over eight: 8 MiB a GPU."""
    profile = load_profile("b200-sxm-x8")

    def correction(num_bytes: int, num_devices: int) -> float:
        link = replace(profile.topology.interconnect(8), num_devices=num_devices)
        choice = NcclChoice("nvls", "simple", 24, 1e6)  # so many channels that links bind
        line = link.bandwidth_bytes_per_s * profile.collectives.link_efficiency["nvlink"]["nvls"]
        return float(line / wire(num_bytes, choice, "nvls", link, profile.collectives).rate_bytes_per_s)

    assert correction(576 * MIB, 72) == pytest.approx(correction(64 * MIB, 8))
    assert correction(64 * MIB, 4) == pytest.approx(correction(64 * MIB, 8))
    assert correction(64 * MIB, 8) > 1.2 * correction(576 * MIB, 8)


class TestBeyondTheLargestMeasuredMessage:
    def test_each_further_byte_takes_what_one_of_the_last_octave_took(self) -> None:
        """Twice the last size: the time of the last one, and as much again at the last octave's pace."""
        knots = {"27": 1.0, "28": 0.9}
        time = {x: 2**x * extended_knots(knots, x) for x in (27, 28, 29, 30)}
        pace = (time[28] - time[27]) / 2**27
        assert time[29] - time[28] == pytest.approx(2**28 * pace)
        assert time[30] - time[29] == pytest.approx(2**29 * pace)

    def test_it_is_continuous_at_the_last_knot_and_the_same_below(self) -> None:
        knots = {"24": 1.2, "28": 0.9, "29": 0.88}
        assert extended_knots(knots, 29.0) == 0.88
        assert extended_knots(knots, 29.0 + 1e-12) == pytest.approx(0.88)
        assert [extended_knots(knots, x) for x in (20, 26, 28.5)] == [
            interpolate_knots(knots, x) for x in (20, 26, 28.5)
        ]

    def test_a_falling_pace_is_not_extended_beyond_reason(self) -> None:
        """Where the last octave was faster than its bytes can be, or slower than the mean, the limit holds."""
        assert extended_knots({"27": 2.0, "28": 1.0}, 60.0) == pytest.approx(0.5)
        assert extended_knots({"27": 1.0, "28": 1.1}, 60.0) == pytest.approx(1.1)
        assert extended_knots({}, 30.0) == 1.0
