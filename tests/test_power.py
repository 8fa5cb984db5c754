"""Sustained load: a card over its power limit lowers its clock, one below it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim import simulate
from kraken_sim.calibration.power import START, SustainedSample, fit_power
from kraken_sim.costs.power import Load, PowerConstants, clock_factor, clocked_w, settled_clock, slowdown
from kraken_sim.predict.pricing import Pricing, slower
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import DType, Norm

PEAK, HBM = 1000e12, 4.8e12
DEVICE = load_profile("h200-sxm-x2").device
TRUTH = replace(START, active_w=300.0, tensor_w=700.0, hbm_w=250.0, limit_w=650.0)
FULL = Load(1.0, 0.7 * PEAK, 0.1 * HBM)
STREAM = Load(1.0, 0.0, HBM)


def test_a_load_below_the_limit_keeps_the_boost_clock() -> None:
    light = STREAM._replace(hbm_bytes=0.5 * HBM)
    assert settled_clock([light], [], 0.0, PEAK, HBM, START) == 1.0
    assert slowdown(1.0, 1.0, START) == 1.0


def test_the_settled_clock_meets_the_power_limit() -> None:
    clock = settled_clock([FULL], [], 0.0, PEAK, HBM, START)
    assert clock < 1.0
    sms_w = (START.active_w + 0.7 * START.tensor_w) * clock**START.power_exponent
    # Memory moves the same bytes in a longer second.
    hbm_w = 0.1 * START.hbm_w * clock**START.rate_exponent
    assert START.idle_w + sms_w + hbm_w == pytest.approx(START.limit_w, rel=1e-6)


@given(
    st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(0.0, 0.9), st.floats(0.1, 1.0)), min_size=1, max_size=6),
    st.floats(0.0, 0.5),
)
def test_the_clock_is_the_highest_that_meets_the_limit(parts: list[tuple[float, float, float]], other_s: float) -> None:
    """Checked against what the formula says of the power at that clock, kernel by kernel."""
    loads = [Load(busy_s, rate * busy_s * PEAK, 0.3 * busy_s * HBM, 1.0, clocked) for busy_s, rate, clocked in parts]

    def average_w(clock: float) -> float:
        stretch = clock**-START.rate_exponent
        times = [load.busy_s * max(1.0, load.clocked * stretch) for load in loads]
        sms_j = sum(t * clocked_w(load, PEAK, START) for t, load in zip(times, loads, strict=True))
        hbm_j = START.hbm_w * sum(load.hbm_bytes for load in loads) / HBM
        return float(START.idle_w + (sms_j * clock**START.power_exponent + hbm_j) / (sum(times) + other_s))

    clock = settled_clock(loads, [], other_s, PEAK, HBM, START)
    if clock == 1.0:
        assert average_w(1.0) <= START.limit_w * (1 + 1e-12)
    elif clock > START.lowest_clock:
        assert average_w(clock) == pytest.approx(START.limit_w, rel=1e-9)


def test_no_limit_takes_the_clock_below_the_cards_lowest() -> None:
    card = replace(START, limit_w=START.idle_w, lowest_clock=0.4)
    assert settled_clock([FULL], [], 0.0, PEAK, HBM, card) == 0.4


def test_rests_between_kernels_allow_a_higher_clock() -> None:
    busy = settled_clock([FULL], [], 0.0, PEAK, HBM, START)
    assert settled_clock([FULL], [], 0.5, PEAK, HBM, START) > busy


def test_a_kernel_that_waits_for_hbm_keeps_its_pace_until_the_sms_are_as_slow() -> None:
    """HBM has a clock of its own: with arithmetic at half of the time, only a stretch beyond two shows."""
    assert clock_factor(0.5, 1.9) == 1.0
    assert clock_factor(0.5, 2.2) == pytest.approx(1.1)
    cost = Pricing(load_profile("h200-sxm-x2")).kernel(Norm(8192, 8192, DType.FLOAT16))
    streaming = replace(cost, memory_s=4.0 * cost.compute_s)
    assert slower(streaming, 1.2).busy_s == streaming.busy_s
    computing = replace(cost, memory_s=0.5 * cost.compute_s)
    assert slower(computing, 1.2).busy_s == pytest.approx(1.2 * computing.busy_s)


def test_a_kernel_on_half_of_the_sms_draws_half_of_what_they_draw() -> None:
    half, full = (clocked_w(Load(1.0, 0.0, 0.0, sm_share=share), PEAK, START) for share in (0.5, 1.0))
    assert full == START.active_w == 2.0 * half


def test_short_steps_end_before_the_controller_acts() -> None:
    clock = settled_clock([FULL], [], 0.0, PEAK, HBM, START)
    short, long = slowdown(clock, 1e-3, START), slowdown(clock, 1.0, START)
    assert short == pytest.approx(1.0, abs=0.01)
    assert long == pytest.approx(clock**-START.rate_exponent)


@given(st.floats(0.1, 1.0), st.floats(1e-4, 1.0), st.floats(1.0, 3.0))
def test_slowdown_is_at_least_one_and_grows_with_the_load(clock: float, step_s: float, factor: float) -> None:
    assert 1.0 <= slowdown(clock, step_s, START) <= slowdown(clock, factor * step_s, START) * (1 + 1e-12)


def test_long_passes_are_slower_per_token_than_the_same_work_at_the_boost_clock() -> None:
    profile = load_profile("h200-sxm-x2")
    assert profile.power is not None
    asked = {"model": {"preset": "13B"}, "num_devices": 2, "context_length": 2048, "hardware": "h200-sxm-x2"}
    cool = simulate(asked, profile=replace(profile, power=None)).latency_s
    assert 1.02 * cool < simulate(asked, profile=profile).latency_s < 1.3 * cool
    assert simulate(asked | {"runtime": {"load": "rested"}}, profile=profile).latency_s == cool


def run_of(loads: tuple[Load, ...], idle_s: float = 1.0, truth: PowerConstants = TRUTH) -> SustainedSample:
    """A chain as a card of `truth` would run it: at the boost clock for 50 ms, then settled."""
    clock = settled_clock(loads, [], 0.0, PEAK, DEVICE.hbm_bandwidth_bytes_per_s, truth)
    stretch = clock**-truth.rate_exponent
    boost_s = sum(load.busy_s for load in loads)
    settled_s = sum(load.busy_s * clock_factor(load.clocked, stretch) for load in loads)
    ends = tuple(0.002 * 1.2**index for index in range(32))
    rounds = tuple(1.0 / (boost_s if end < 0.05 else settled_s) for end in ends)
    watts = power_w(loads, clock, truth)
    samples = [(0.01, DEVICE.boost_clock_hz, truth.idle_w), (0.04, DEVICE.boost_clock_hz, power_w(loads, 1.0, truth))]
    samples += [(0.2 + 0.02 * index, clock * DEVICE.boost_clock_hz, watts) for index in range(1, 20)]
    gemms_only = all(load.flops > 0.0 for load in loads)
    return SustainedSample(idle_s, ends, rounds, tuple(samples), loads, PEAK, loads, gemms_only)


def power_w(loads: tuple[Load, ...], clock: float, c: PowerConstants) -> float:
    """Average power of a chain at a clock."""
    times = [load.busy_s * clock_factor(load.clocked, clock**-c.rate_exponent) for load in loads]
    sms_j = sum(time_s * clocked_w(load, PEAK, c) for time_s, load in zip(times, loads, strict=True))
    hbm_j = c.hbm_w * sum(load.hbm_bytes for load in loads) / DEVICE.hbm_bandwidth_bytes_per_s
    return float(c.idle_w + (sms_j * clock**c.power_exponent + hbm_j) / sum(times))


def gemms(rate: float) -> tuple[Load, ...]:
    """One large GEMM at a share of the peak rate, with little traffic."""
    return (Load(1e-3, rate * PEAK * 1e-3, 1e6),)


STREAMING = (Load(1e-3, 0.0, 4e9, clocked=0.3),)
ATTENDING = (Load(1e-3, 0.38 * PEAK * 1e-3, 5e8),)


def test_chains_of_several_kinds_give_back_what_each_part_of_the_card_draws() -> None:
    chains = [gemms(0.72)] * 8 + [STREAMING, ATTENDING] * 3
    samples = [replace(run_of(loads), shape=(index,)) for index, loads in enumerate(chains)]
    fit = fit_power(samples, DEVICE, START)
    found = fit.constants
    assert not fit.kept
    assert {sample.shape for sample, _ in fit.held_out} == {sample.shape for sample in samples}
    assert (found.active_w, found.tensor_w, found.hbm_w) == pytest.approx(
        (TRUTH.active_w, TRUTH.tensor_w, TRUTH.hbm_w), rel=0.06
    )
    assert found.limit_w == pytest.approx(TRUTH.limit_w, rel=1e-3)
    assert found.idle_w == pytest.approx(TRUTH.idle_w)
    assert found.rate_exponent == pytest.approx(TRUTH.rate_exponent, rel=0.05)
    assert 0.03 < found.settle_s < 0.08
    assert fit.residual is not None
    assert fit.residual < 0.05


def test_gemms_alone_leave_the_other_draws_assumed() -> None:
    fit = fit_power([run_of(gemms(rate)) for rate in (0.68, 0.7, 0.72)], DEVICE, START)
    assert fit.kept.keys() == {"active_w", "hbm_w"}
    assert (fit.constants.active_w, fit.constants.hbm_w) == (START.active_w, START.hbm_w)


def test_a_chain_that_waits_for_its_host_is_left_out() -> None:
    slow = run_of(STREAMING)
    slow = replace(slow, chunk_rounds_per_s=tuple(0.5 * rate for rate in slow.chunk_rounds_per_s))
    with_it = fit_power([*(run_of(gemms(rate)) for rate in (0.68, 0.7, 0.72)), slow], DEVICE, START)
    assert with_it.kept.keys() == {"active_w", "hbm_w"}


def test_a_fit_without_settled_load_is_refused() -> None:
    long = run_of(gemms(0.7))
    short = replace(long, chunk_end_s=long.chunk_end_s[:2], chunk_rounds_per_s=long.chunk_rounds_per_s[:2])
    with pytest.raises(ValueError, match="too few sustained records"):
        fit_power([short, short], DEVICE, START)


def test_arithmetic_draws_no_more_than_at_the_peak_rate() -> None:
    at_peak, beyond = (clocked_w(Load(1.0, rate * PEAK, 0.0), PEAK, START) for rate in (1.0, 3.0))
    assert beyond == at_peak == START.active_w + START.tensor_w
    assert clocked_w(Load(1.0, 0.0, 0.0, sm_share=0.25), PEAK, START) == 0.25 * START.active_w
    assert clocked_w(Load(0.0, 1.0, 0.0), PEAK, START) == 0.0


def test_collectives_beside_compute_draw_power_at_a_clock_but_take_no_more_time() -> None:
    """Their SMs spin and their bytes pass HBM; the settled clock meets the limit with both counted."""
    transfers = [Load(0.5, 0.0, 0.2 * HBM, 0.2), Load(0.25, 0.0, 0.1 * HBM, 0.1)]
    alone = settled_clock([FULL], [], 0.0, PEAK, HBM, START)
    clock = settled_clock([FULL], transfers, 0.0, PEAK, HBM, START)
    assert START.lowest_clock < clock < alone
    duration_s = FULL.busy_s * clock**-START.rate_exponent
    sms_j = duration_s * clocked_w(FULL, PEAK, START) + START.active_w * (0.5 * 0.2 + 0.25 * 0.1)
    hbm_j = START.hbm_w * (0.1 + 0.2 + 0.1)
    average_w = START.idle_w + (clock**START.power_exponent * sms_j + hbm_j) / duration_s
    assert average_w == pytest.approx(START.limit_w, rel=1e-6)
