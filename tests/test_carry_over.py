"""Constants carried to a GPU that nobody measured: what the two datasheets say of each, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kraken_sim.profiles.carried_errors import LEFT_OUT_ERRORS, OTHER_MAKER_ERROR, carried_error
from kraken_sim.profiles.gemm_transfer import carry_over_gemm
from kraken_sim.profiles.held_rate import MAX_MMA_EFFICIENCY, WORK_PER_JOULE, held_clock
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.profile import ProvenanceKind
from kraken_sim.profiles.transfer import carry_over_attention, carry_over_memory_bound, carry_over_power

PROFILE = load_profile("h200-sxm-x2")
SOURCE = PROFILE.device
FASTER = replace(SOURCE, name="faster", boost_clock_hz=1.25 * SOURCE.boost_clock_hz)
WIDER = replace(SOURCE, name="wider", num_sms=2 * SOURCE.num_sms)
HUNGRIER = replace(SOURCE, name="hungrier", tdp_w=2 * SOURCE.tdp_w)
FASTER_MEMORY = replace(SOURCE, name="memory", hbm_bandwidth_bytes_per_s=2 * SOURCE.hbm_bandwidth_bytes_per_s)
MORE_TENSOR = replace(SOURCE, name="tensor", peak_flops={d: 2 * rate for d, rate in SOURCE.peak_flops.items()})
POWER_PARTS = ("idle_w", "active_w", "tensor_w", "hbm_w", "limit_w")


def test_to_the_same_card_nothing_changes() -> None:
    assert PROFILE.power is not None
    assert carry_over_power(PROFILE.power, SOURCE, SOURCE) == PROFILE.power
    assert carry_over_attention(PROFILE.attention, SOURCE, SOURCE) == PROFILE.attention
    assert carry_over_memory_bound(PROFILE.memory_bound, SOURCE, SOURCE) == PROFILE.memory_bound
    assert carry_over_gemm(PROFILE.gemm, SOURCE, SOURCE) == PROFILE.gemm


def test_idle_power_and_limit_follow_the_rating_and_the_rest_what_it_is_spent_on() -> None:
    assert PROFILE.power is not None
    changes = {"limit_w": HUNGRIER, "active_w": WIDER, "hbm_w": FASTER_MEMORY, "tensor_w": MORE_TENSOR}
    for name, device in changes.items():
        found = carry_over_power(PROFILE.power, SOURCE, device)
        moved = {part for part in POWER_PARTS if getattr(found, part) != getattr(PROFILE.power, part)}
        assert moved == ({"limit_w", "idle_w"} if name == "limit_w" else {name})
        assert getattr(found, name) == pytest.approx(2 * getattr(PROFILE.power, name))
        for part in ("power_exponent", "rate_exponent", "settle_s", "settle_shape", "repeats"):
            assert getattr(found, part) == getattr(PROFILE.power, part)


def test_tensor_cores_of_a_newer_generation_draw_less_for_the_same_rate() -> None:
    assert PROFILE.power is not None
    found = carry_over_power(PROFILE.power, SOURCE, replace(SOURCE, name="newer", generation="blackwell"))
    assert found.tensor_w == pytest.approx(
        PROFILE.power.tensor_w * WORK_PER_JOULE["hopper"] / WORK_PER_JOULE["blackwell"]
    )


def test_attention_of_like_kernels_takes_what_its_products_take_and_the_rest_stays() -> None:
    l40s = load_profile("l40s-x8")
    halved = replace(l40s.device, name="half", peak_flops={d: r / 2 for d, r in l40s.device.peak_flops.items()})
    found = carry_over_attention(l40s.attention, l40s.device, halved)
    for dim, row in l40s.attention.prefill.items():
        before, after = 1.0 / row["efficiency"], 2.0 / found.prefill[dim]["efficiency"]
        assert after - before == pytest.approx(1.0 / MAX_MMA_EFFICIENCY)
    assert carry_over_attention(l40s.attention, l40s.device, SOURCE).prefill == l40s.attention.prefill  # other kernels


def test_twice_the_exponentials_help_narrow_heads_most_and_no_faster_than_their_products() -> None:
    b200 = load_profile("b200-sxm-x8")
    ultra = replace(b200.device, name="ultra", exponentials_per_clock=32.0)
    moved = carry_over_attention(b200.attention, b200.device, ultra, b200.gemm.mma_efficiency)
    gain = {dim: moved.prefill[dim]["efficiency"] / row["efficiency"] for dim, row in b200.attention.prefill.items()}
    assert 2.0 > gain["64"] > gain["128"] > 1.1
    assert gain["128"] >= gain["256"] >= 1.0
    held = MAX_MMA_EFFICIENCY * held_clock(b200.gemm.mma_efficiency)
    most = {dim: max(held, row["efficiency"]) for dim, row in b200.attention.prefill.items()}
    assert all(row["efficiency"] <= most[dim] for dim, row in moved.prefill.items())


def test_flash_attention_takes_its_products_and_then_its_exponentials() -> None:
    h100 = load_profile("h100-sxm-x8").device
    own, half = (replace(h100, name=name, exponentials_per_clock=rate) for name, rate in (("own", 16.0), ("half", 8.0)))
    start = replace(load_profile("h100-sxm-x8").attention, prefill={"128": {"efficiency": 0.64, "serial_ratio": 0.5}})
    moved = carry_over_attention(start, own, half).prefill["128"]["efficiency"]
    clocks = [1.0 / 0.95 + own.unquantised_flops / (own.num_sms * own.boost_clock_hz * 512 * x) for x in (16.0, 8.0)]
    assert 1.0 / moved - 1.0 / 0.64 == pytest.approx(clocks[1] - clocks[0])


def test_what_overlapped_overlaps_on_a_relative_too() -> None:
    b200 = load_profile("b200-sxm-x8")
    ultra = replace(b200.device, name="ultra", exponentials_per_clock=32.0)
    engine = b200.serving_attention or b200.attention
    moved = carry_over_attention(engine, b200.device, ultra, b200.gemm.mma_efficiency)
    shares = [constants.prefill["128"]["efficiency"] for constants in (engine, moved)]
    clocks = [1.0 / 0.95 + b200.device.unquantised_flops / (148 * 1.965e9 * 512 * x) for x in (16.0, 32.0)]
    assert shares[1] / shares[0] == pytest.approx(clocks[0] / clocks[1], rel=0.01)
    assert load_profile("b300-sxm-x8").device.exponentials_per_clock == 32.0


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


def test_a_card_without_ecc_moves_a_fifteenth_more_data_and_no_card_more_than_its_rate() -> None:
    assert SOURCE.ecc_share == 0.0625
    plain = replace(SOURCE, name="plain", ecc_share=0.0)
    gemm = carry_over_gemm(PROFILE.gemm, SOURCE, plain)
    assert gemm.hbm_efficiency == pytest.approx(PROFILE.gemm.hbm_efficiency * 16 / 15)
    assert gemm.gemv_hbm_efficiency == pytest.approx(min(PROFILE.gemm.gemv_hbm_efficiency * 16 / 15, 1.0))
    pointwise = carry_over_memory_bound(PROFILE.memory_bound, SOURCE, plain)
    assert pointwise.hbm_efficiency == pytest.approx(min(PROFILE.memory_bound.hbm_efficiency * 16 / 15, 1.0))
    full = replace(PROFILE.attention, hbm_efficiency=0.99)
    moved = carry_over_attention(full, SOURCE, plain)
    assert moved.hbm_efficiency == 1.0
    for kernel, values in PROFILE.attention.decode.items():
        assert moved.decode[kernel]["hbm_efficiency"] == pytest.approx(min(values["hbm_efficiency"] * 16 / 15, 1.0))
    assert carry_over_gemm(gemm, plain, SOURCE).hbm_efficiency == pytest.approx(PROFILE.gemm.hbm_efficiency)


def test_an_sm_s_feed_from_l2_is_the_same_bytes_a_second_at_any_clock() -> None:
    moved = carry_over_gemm(PROFILE.gemm, SOURCE, FASTER)
    assert moved.l2_bytes_per_clock * FASTER.boost_clock_hz == pytest.approx(
        PROFILE.gemm.l2_bytes_per_clock * SOURCE.boost_clock_hz
    )


def test_long_products_lose_no_clock_on_a_card_with_watts_to_spare() -> None:
    frugal = replace(SOURCE, name="cut", peak_flops={d: rate / 8 for d, rate in SOURCE.peak_flops.items()})
    assert PROFILE.gemm.throttle_depth > 0.0
    assert carry_over_gemm(PROFILE.gemm, SOURCE, frugal).throttle_depth == 0.0


def test_what_is_carried_over_twice_is_as_sure_as_once_and_as_its_least_sure_number() -> None:
    l40s, l20 = load_profile("l40s-x8"), load_profile("l20-x8").device
    # L40S's prefill is A100's, its decode steps are fitted
    assert l40s.provenance["attention.decode.packed.token_s"].residual == pytest.approx(0.0608, rel=0.01)
    once = l40s.provenance["attention.prefill.128.efficiency"].residual
    assert carried_error("attention", l40s, l20) == once == LEFT_OUT_ERRORS["attention"]
    # of what was measured on the card itself the error grows
    own = l40s.provenance["gemm.mma_efficiency"].residual
    alike = replace(l40s.device, name="alike", hbm_capacity_bytes=2 * l40s.device.hbm_capacity_bytes, generation="ada")
    assert carried_error("gemm", l40s, alike) == pytest.approx(2.0 * (own or 0.0))
    # and by what the watts of another card may buy
    assert (carried_error("gemm", l40s, l20) or 0.0) > 3.0 * (own or 0.0)


def test_nothing_carried_to_another_maker_s_card_counts_as_fitted() -> None:
    mi300x, h20 = load_profile("mi300x-x8"), load_profile("h20-sxm-x8")
    blocks = ("gemm", "gemm_fp8", "attention", "memory_bound", "collectives", "power")
    for block in blocks:
        own = [where for path, where in mi300x.provenance.items() if path.startswith(f"{block}.")]
        assert {where.kind for where in own} == {ProvenanceKind.ASSUMED}
        assert {where.residual for where in own if where.residual} == {OTHER_MAKER_ERROR}
    assert h20.provenance["gemm.mma_efficiency"].kind is ProvenanceKind.FITTED
