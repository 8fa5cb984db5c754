"""What serving engines pick for an AllReduce."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from collective_support import FASTEST, KIB, LEGACY, MIB, NCCL, VLLM, constants, forced, gpu, nvswitch, pcie
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim.costs.collectives import all_reduce_cost
from kraken_sim.costs.collectives.constants import extended_knots, interpolate_knots
from kraken_sim.costs.collectives.nccl import wire
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library, Transport
from kraken_sim.costs.collectives.tuning import NcclChoice
from kraken_sim.errors import InputError
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.profiles.load import load_profile

if TYPE_CHECKING:
    from kraken_sim.hardware.interconnect import Interconnect


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
