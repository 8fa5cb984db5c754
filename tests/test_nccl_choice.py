"""What NCCL picks for an AllReduce, and how many channels."""

from __future__ import annotations

from typing import Any

import pytest
from collective_support import KIB, MIB, NCCL, constants, gpu, nvswitch, pcie
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim.costs.collectives import all_reduce_cost
from kraken_sim.costs.collectives.choice import nccl_choice
from kraken_sim.costs.collectives.graph import nccl_link_gbps, search_rings
from kraken_sim.costs.collectives.policy import CollectivePolicy
from kraken_sim.costs.collectives.tuning import channel_count, tuning_table


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
