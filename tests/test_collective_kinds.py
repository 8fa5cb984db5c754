"""AllGather, ReduceScatter, AllToAll, Broadcast: NCCL's table, what they cost, and the fit of what differs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from collective_support import constants, gpu, nvswitch, pcie
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim.calibration.collective_kinds import CollectiveSample, fit_kind, predict_s, with_factors
from kraken_sim.costs.collectives import collective_cost
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library
from kraken_sim.costs.collectives.send_recv import send_recv_channels
from kraken_sim.costs.collectives.tuning import tuning_table
from kraken_sim.errors import InputError
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.profiles.profile import HardwareProfile

MIB = 2**20
AR, AG, RS, A2A, BC, P2P = CollectiveKind
NCCL = CollectivePolicy()


def cost(
    kind: CollectiveKind,
    num_bytes: int,
    n: int = 8,
    policy: CollectivePolicy = NCCL,
    link: Interconnect | None = None,
    generation: str = "hopper",
) -> CollectiveCost:
    return collective_cost(kind, num_bytes, link or nvswitch(n, generation), gpu(generation), constants(), policy)


def table(kind: CollectiveKind, generation: str, n: int, minor: int = 29) -> dict[str, tuple[float, float]]:
    entries = tuning_table(nvswitch(n, generation), gpu(generation), minor, nvls=True, kind=kind)
    return {
        entry.protocol: (round(entry.latency_us, 1), round(entry.bandwidth_gbps, 1))
        for entry in entries
        if entry.algorithm == "ring"
    }


class TestNcclsTable:
    """Latency base + (n-1) steps, bandwidth n/(n-1) of the bus (tuning.cc); an AllReduce has twice as many steps."""

    @pytest.mark.parametrize("kind", [AG, RS])
    def test_all_gather_and_reduce_scatter_have_half_the_steps(self, kind: CollectiveKind) -> None:
        assert table(kind, "hopper", 8) == {"ll": (10.8, 161.1), "ll128": (27.3, 378.5), "simple": (32.2, 411.4)}
        assert table(kind, "ampere", 4) == {"ll": (8.4, 116.9), "ll128": (19.7, 294.4), "simple": (18.6, 320.0)}

    def test_a_broadcast_has_one_latency_and_the_whole_bus(self) -> None:
        assert table(BC, "hopper", 8) == {"ll": (7.2, 141.0), "ll128": (15.9, 331.2), "simple": (11.8, 360.0)}

    def test_before_2_21_ll_had_a_third_of_the_bus(self) -> None:
        assert table(AG, "ampere", 8, 18)["ll"][1] == pytest.approx(80.0 * 8 / 7, abs=0.1)

    def test_only_an_all_reduce_has_other_algorithms_within_a_node(self) -> None:
        for kind in (AG, RS, BC):
            entries = tuning_table(nvswitch(8), gpu("hopper"), 29, nvls=True, kind=kind)
            assert {entry.algorithm for entry in entries} == {"ring"}

    @pytest.mark.parametrize(
        ("num_bytes", "channels"), [(8 * 1024, 1), (64 * 1024, 2), (256 * 1024, 8), (64 * MIB, 24)]
    )
    def test_channels_follow_nccls_enqueue(self, num_bytes: int, channels: int) -> None:
        """32 KiB of traffic a channel at least, each byte of LL counted four times."""
        assert cost(AG, num_bytes).channels == channels

    @given(
        num_bytes=st.integers(1, 2**30),
        protocol=st.sampled_from(["ll", "simple"]),
        n=st.integers(2, 16),
        most=st.integers(1, 32),
    )
    def test_send_and_receive_channels_stay_within_the_communicators(
        self, num_bytes: int, protocol: str, n: int, most: int
    ) -> None:
        channels, parallelism = send_recv_channels(num_bytes, protocol, n, most)
        assert 1 <= channels <= max(most, n)
        assert parallelism >= 1.0


class TestCost:
    @pytest.mark.parametrize(("kind", "share"), [(AG, 7 / 8), (RS, 7 / 8), (A2A, 7 / 8), (BC, 1.0), (AR, 7 / 4)])
    def test_a_rank_sends_what_the_collective_says(self, kind: CollectiveKind, share: float) -> None:
        policy = CollectivePolicy(algorithm="ring") if kind is AR else NCCL
        assert cost(kind, MIB, policy=policy).link_bytes == pytest.approx(share * MIB)

    @pytest.mark.parametrize("kind", list(CollectiveKind))
    def test_one_device_and_no_bytes_cost_nothing(self, kind: CollectiveKind) -> None:
        assert cost(kind, MIB, 1).busy_s == 0.0
        assert cost(kind, 0).busy_s == 0.0

    @given(kind=st.sampled_from([AG, RS, A2A, BC]), num_bytes=st.integers(1, 2**30), n=st.integers(2, 8))
    def test_half_of_an_all_reduce_is_cheaper_than_all_of_it(
        self, kind: CollectiveKind, num_bytes: int, n: int
    ) -> None:
        if kind in (AG, RS):
            for protocol in ("ll", "ll128", "simple"):
                forced = CollectivePolicy(algorithm="ring", protocol=protocol)
                assert cost(kind, num_bytes, n, forced).busy_s < cost(AR, num_bytes, n, forced).busy_s
        part = cost(kind, num_bytes, n)
        assert part.busy_s == pytest.approx(part.latency_s + part.transfer_s)

    @given(kind=st.sampled_from(list(CollectiveKind)), power=st.integers(3, 29), n=st.integers(2, 8))
    def test_a_faster_link_never_hurts(self, kind: CollectiveKind, power: int, n: int) -> None:
        fast, slow = (
            cost(kind, 2**power, n, CollectivePolicy(protocol="simple"), nvswitch(n, bandwidth=rate))
            for rate in (450e9, 300e9)
        )
        if fast.channels == slow.channels and fast.algorithm == slow.algorithm:
            assert fast.busy_s <= slow.busy_s * (1 + 1e-9)

    def test_custom_kernels_exist_for_few_collectives(self) -> None:
        with pytest.raises(InputError, match="all_reduce and send_recv only"):
            cost(AG, MIB, policy=CollectivePolicy(library=Library.CUSTOM))

    def test_gpus_on_pcie_share_the_bridges_in_every_collective(self) -> None:
        for kind in (AG, RS, A2A, BC):
            pair, four = (cost(kind, 64 * MIB, n, link=pcie(n), generation="ada") for n in (2, 4))
            assert four.link_bytes / four.transfer_s < 0.5 * pair.link_bytes / pair.transfer_s


class TestFit:
    def samples(self, profile: HardwareProfile, kind: CollectiveKind) -> list[CollectiveSample]:
        return [
            CollectiveSample(kind, 2**power, n, predict_s(CollectiveSample(kind, 2**power, n, 1.0), profile, truth))
            for truth in [profile.collectives]
            for power in range(9, 30)
            for n in (2, 4, 8)
        ]

    def test_it_recovers_the_machine_that_made_the_samples(self) -> None:
        profile = load_profile("h100-sxm-x8")
        base = replace(profile.collectives, kind_factors={}, kind_link_correction={})
        factors = {
            "ll": {"base": 1.3, "step": 0.8, "link": 0.9, "pair_loss": 1.0},
            "simple": {"base": 0.8, "step": 1.2, "link": 0.8, "pair_loss": 1.5},
        }
        truth = replace(profile, collectives=with_factors(base, AG, factors, {}))
        fit = fit_kind(self.samples(truth, AG), replace(profile, collectives=base))
        assert fit.residual is not None
        assert fit.residual < 0.02
        assert fit.constants.factor(AG, "ll", "base") == pytest.approx(1.3, rel=0.05)
        assert fit.constants.factor(AG, "simple", "link") == pytest.approx(0.8, rel=0.05)
        assert fit.constants.kind_factors.keys() == {AG}

    def test_a_third_is_held_out_and_order_does_not_matter(self) -> None:
        profile = load_profile("l40s-x8")
        samples = self.samples(profile, RS)
        first, again = fit_kind(samples, profile), fit_kind(samples[::-1], profile)
        assert first.constants == again.constants
        assert len(first.held_out) / len(samples) == pytest.approx(0.3, abs=0.12)

    def test_samples_of_one_collective_are_needed(self) -> None:
        profile = load_profile("l40s-x8")
        for samples in (
            [],
            [CollectiveSample(AR, 8, 2, 1.0)],
            [CollectiveSample(kind, 8, 2, 1.0) for kind in (AG, RS)],
        ):
            with pytest.raises(InputError, match="one collective"):
                fit_kind(samples, profile)
