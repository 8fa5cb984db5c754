"""Constants carried to a GPU that nobody measured: what the two datasheets say of each, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kraken_sim.profiles.gemm_transfer import carry_over_gemm
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.transfer import carry_over_attention, carry_over_memory_bound, carry_over_power

PROFILE = load_profile("h200-sxm-x2")
SOURCE = PROFILE.device
FASTER = replace(SOURCE, name="faster", boost_clock_hz=1.25 * SOURCE.boost_clock_hz)
WIDER = replace(SOURCE, name="wider", num_sms=2 * SOURCE.num_sms)
HUNGRIER = replace(SOURCE, name="hungrier", tdp_w=2 * SOURCE.tdp_w)


def test_to_the_same_card_nothing_changes() -> None:
    assert PROFILE.power is not None
    assert carry_over_power(PROFILE.power, SOURCE, SOURCE) == PROFILE.power
    assert carry_over_attention(PROFILE.attention, SOURCE, SOURCE) == PROFILE.attention
    assert carry_over_memory_bound(PROFILE.memory_bound, SOURCE, SOURCE) == PROFILE.memory_bound
    assert carry_over_gemm(PROFILE.gemm, SOURCE, SOURCE) == PROFILE.gemm


def test_every_part_of_a_card_s_power_is_the_same_share_of_its_limit() -> None:
    assert PROFILE.power is not None
    found = carry_over_power(PROFILE.power, SOURCE, HUNGRIER)
    for name in ("idle_w", "active_w", "tensor_w", "hbm_w", "limit_w"):
        assert getattr(found, name) == pytest.approx(2 * getattr(PROFILE.power, name))
    for name in ("power_exponent", "rate_exponent", "settle_s", "settle_shape", "repeats"):
        assert getattr(found, name) == getattr(PROFILE.power, name)


def test_what_an_sm_computes_takes_less_time_at_a_higher_clock() -> None:
    found = carry_over_attention(PROFILE.attention, SOURCE, FASTER)
    for name in ("prologue_s", "cta_s", "tile_s"):
        assert getattr(found, name) == pytest.approx(getattr(PROFILE.attention, name) / 1.25)
    assert found.launch_s == PROFILE.attention.launch_s  # the front end's
    assert found.hbm_efficiency == PROFILE.attention.hbm_efficiency


def test_l2_delivers_more_with_the_clock_and_with_the_number_of_sms() -> None:
    for target, factor in ((FASTER, 1.25), (WIDER, 2.0)):
        attention = carry_over_attention(PROFILE.attention, SOURCE, target)
        pointwise = carry_over_memory_bound(PROFILE.memory_bound, SOURCE, target)
        assert attention.l2_bytes_per_s == pytest.approx(factor * PROFILE.attention.l2_bytes_per_s)
        assert attention.serving_l2_bytes_per_s == pytest.approx(factor * PROFILE.attention.serving_l2_bytes_per_s)
        assert pointwise.l2_bytes_per_s == pytest.approx(factor * PROFILE.memory_bound.l2_bytes_per_s)


def test_a_kernel_s_own_numbers_move_by_what_their_names_say() -> None:
    found = carry_over_memory_bound(PROFILE.memory_bound, SOURCE, FASTER)
    for kernel, values in PROFILE.memory_bound.kernels.items():
        moved = found.kernels[kernel]
        assert moved["launch_s"] == values["launch_s"]
        assert moved["cta_s"] == pytest.approx(values["cta_s"] / 1.25)
        assert moved["cta_bytes_per_s"] == pytest.approx(1.25 * values["cta_bytes_per_s"])
        assert moved["ctas_per_sm"] == values["ctas_per_sm"]


def test_a_higher_clock_is_held_for_less_of_the_time_and_never_makes_efficiency_perfect() -> None:
    efficiency = PROFILE.gemm.mma_efficiency
    slower = replace(SOURCE, name="slower", boost_clock_hz=SOURCE.boost_clock_hz / 100.0)
    assert carry_over_gemm(PROFILE.gemm, SOURCE, FASTER).mma_efficiency == pytest.approx(efficiency / 1.25**0.5)
    assert efficiency < carry_over_gemm(PROFILE.gemm, SOURCE, slower).mma_efficiency < 1.0
    moved = carry_over_gemm(PROFILE.gemm, SOURCE, FASTER)
    assert moved.l2_bytes_per_clock * FASTER.boost_clock_hz == pytest.approx(
        PROFILE.gemm.l2_bytes_per_clock * SOURCE.boost_clock_hz
    )
