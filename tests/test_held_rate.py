"""What share of its tensor cores' rate a card holds that nobody measured."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim.profiles.held_rate import (
    MAX_MMA_EFFICIENCY,
    RATE_BY_WATTS,
    SHORT_OVER_LONG,
    held_share,
    near,
    share_doubt,
)
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.formats import DType

if TYPE_CHECKING:
    from kraken_sim.hardware.device import Device

A100, L40S, H100, B200 = (
    load_profile(name).device for name in ("a100-sxm4-80gb-x8", "l40s-x8", "h100-sxm-x8", "b200-sxm-x8")
)
CARDS = (A100, L40S, H100, B200)


def slower_tensor_cores(device: Device, factor: float) -> Device:
    rates = {dtype: rate * factor for dtype, rate in device.peak_flops.items()}
    return replace(device, name="slower", peak_flops=rates)


@pytest.mark.parametrize("device", CARDS, ids=lambda device: device.name)
def test_a_card_holds_what_it_holds(device: Device) -> None:
    assert held_share(0.7, device, device) == 0.7
    assert near(device, device)


@pytest.mark.parametrize("name", ["h20-sxm-x8", "l20-x8", "rtx4090-x8", "rtx5090-x8"])
def test_cards_with_cut_tensor_cores_reach_nearly_all_of_their_rate(name: str) -> None:
    assert load_profile(name).gemm.mma_efficiency > 0.92


@pytest.mark.parametrize(
    ("name", "relative"), [("rtx6000-ada-x8", "l40s-x8"), ("l4-x8", "l40s-x8"), ("h100-pcie-x4", "h100-sxm-x8")]
)
def test_cards_with_few_watts_for_their_rate_hold_less_than_their_relatives(name: str, relative: str) -> None:
    assert load_profile(name).gemm.mma_efficiency < 0.95 * load_profile(relative).gemm.mma_efficiency


def test_half_of_the_watts_cost_the_measured_power_of_the_rate() -> None:
    frugal = replace(H100, name="half", tdp_w=H100.tdp_w / 2.0)
    assert held_share(0.7, H100, frugal) == pytest.approx(0.7 * 0.5**RATE_BY_WATTS)
    assert not near(H100, frugal)


def test_a_card_with_watts_to_spare_says_what_its_kernels_reach_and_not_what_watts_buy() -> None:
    fewer = replace(A100, name="fewer", tdp_w=0.97 * A100.tdp_w)
    assert held_share(0.8, A100, fewer) == 0.8
    frugal = [replace(A100, name="frugal", tdp_w=part * A100.tdp_w) for part in (0.5, 0.25)]
    half, quarter = (held_share(0.8, A100, card) for card in frugal)
    assert half < 0.8
    assert quarter == pytest.approx(half * 0.5**RATE_BY_WATTS)
    assert held_share(0.8, A100, frugal[0], short=True) == pytest.approx(min(0.8, SHORT_OVER_LONG * half))


def test_what_watts_buy_is_the_less_sure_the_farther_cards_are_apart() -> None:
    cards = [replace(H100, name="card", tdp_w=part * H100.tdp_w) for part in (1.0, 0.9, 0.5)]
    doubts = [share_doubt(0.7, H100, card) for card in cards]
    assert doubts[0] == 0.0
    assert 0.0 < doubts[1] < doubts[2]
    assert share_doubt(0.7, H100, slower_tensor_cores(H100, 0.1)) == 0.0, "watts to spare at any exponent"


def test_more_watts_do_not_let_the_same_sms_issue_more_a_clock() -> None:
    assert held_share(0.7, B200, replace(B200, name="hot", tdp_w=1400.0)) == pytest.approx(0.7)


def test_a_rate_that_is_stated_at_a_higher_clock_makes_a_chip_faster_by_the_clock_only() -> None:
    gb200 = load_profile("gb200-nvl72").device
    rates = [
        held_share(share, B200, device) * device.peak_flops[DType.BFLOAT16]
        for share, device in ((0.77, B200), (0.77, gb200))
    ]
    assert rates[1] / rates[0] == pytest.approx(gb200.boost_clock_hz / B200.boost_clock_hz)
    assert near(B200, gb200)


def test_a_newer_generation_does_more_with_the_same_watts() -> None:
    newer = replace(A100, name="newer", generation="hopper", tdp_w=200.0)
    assert held_share(0.8, A100, newer) > held_share(0.8, A100, replace(newer, generation="ampere"))


def test_a_number_format_of_twice_the_rate_has_half_of_the_watts_an_operation() -> None:
    by_format = [held_share(0.6, L40S, H100, None), held_share(0.6, H100, H100, DType.FLOAT8_E4M3)]
    assert by_format[1] == 0.6  # what one format holds says nothing of another
    assert by_format[0] != 0.6


@given(
    share=st.floats(0.1, 1.0),
    watts=st.floats(50.0, 2000.0),
    more=st.floats(1.0, 4.0),
    cut=st.floats(0.05, 1.0),
    pair=st.tuples(st.sampled_from(CARDS), st.sampled_from(CARDS)),
)
def test_more_watts_never_lower_the_rate_and_nothing_passes_the_full_one(
    share: float, watts: float, more: float, cut: float, pair: tuple[Device, Device]
) -> None:
    source, like = pair
    target = replace(slower_tensor_cores(like, cut), tdp_w=watts)
    less, held = (held_share(share, source, replace(target, tdp_w=w)) for w in (watts, watts * more))
    assert 0.0 < less <= held * (1.0 + 1e-12)
    assert held <= max(share, MAX_MMA_EFFICIENCY)


def test_blackwell_cards_without_tensor_memory_run_kernels_like_ada_s() -> None:
    kinds = {name: load_profile(name).device.kernel_generation for name in ("rtx5090-x8", "rtx-pro-6000-server-x8")}
    assert set(kinds.values()) == {"ada"}
    assert B200.kernel_generation == "blackwell"
    assert load_profile("h20-sxm-x8").device.kernel_generation == "hopper"
    assert load_profile("rtx5090-x8").provenance["gemm.launch_s"].source.startswith("carried over from l40s-x8")
