"""Sustained load: a card over its power limit lowers its clock, one below it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim import simulate
from kraken_sim.calibration.power import ASSUMED, START, fit_power
from kraken_sim.calibration.sustained import SETTLED_FROM_S, SustainedSample
from kraken_sim.costs.gemm import gemm_cost
from kraken_sim.costs.power import (
    Load,
    PowerConstants,
    average_w,
    clock_factor,
    clocked_w,
    expected_slowest,
    settled_clock,
    slowdown,
    slowdown_from_rest,
    slowest_of,
)
from kraken_sim.costs.slower import clocked_share, slower
from kraken_sim.predict.card_load import load_of
from kraken_sim.predict.pricing import Pricing
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.formats import Quantization
from kraken_sim.program.ops import DType, Gemm, Norm

HBM = 4.8e12
DEVICE = load_profile("h200-sxm-x2").device
TRUTH = replace(START, active_w=300.0, tensor_w=800.0, hbm_w=250.0, limit_w=650.0)
FULL = Load(1.0, 0.7, 0.1 * HBM)
STREAM = Load(1.0, 0.0, HBM)


def test_a_load_below_the_limit_keeps_the_boost_clock() -> None:
    light = STREAM._replace(hbm_bytes=0.5 * HBM)
    assert settled_clock([light], [], 0.0, HBM, START) == 1.0
    assert slowdown(1.0, 1.0, START) == 1.0


def test_the_settled_clock_meets_the_power_limit() -> None:
    clock = settled_clock([FULL], [], 0.0, HBM, START)
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
    loads = [Load(busy_s, rate * busy_s, 0.3 * busy_s * HBM, 1.0, clocked) for busy_s, rate, clocked in parts]

    def average_w(clock: float) -> float:
        times = [load.busy_s * clock ** (-START.rate_exponent * load.clocked) for load in loads]
        sms_j = sum(t * clocked_w(load, START) for t, load in zip(times, loads, strict=True))
        hbm_j = START.hbm_w * sum(load.hbm_bytes for load in loads) / HBM
        return float(START.idle_w + (sms_j * clock**START.power_exponent + hbm_j) / (sum(times) + other_s))

    clock = settled_clock(loads, [], other_s, HBM, START)
    if clock == 1.0:
        assert average_w(1.0) <= START.limit_w * (1 + 1e-12)
    elif clock > START.lowest_clock:
        assert average_w(clock) == pytest.approx(START.limit_w, rel=1e-9)


def test_no_limit_takes_the_clock_below_the_cards_lowest() -> None:
    card = replace(START, limit_w=START.idle_w, lowest_clock=0.4)
    assert settled_clock([FULL], [], 0.0, HBM, card) == 0.4


def test_rests_between_kernels_allow_a_higher_clock() -> None:
    busy = settled_clock([FULL], [], 0.0, HBM, START)
    assert settled_clock([FULL], [], 0.5, HBM, START) > busy


def test_a_kernel_follows_the_clock_as_far_as_it_does_not_wait_for_hbm() -> None:
    """HBM has a clock of its own, L2 has the SMs'."""
    cost = Pricing(load_profile("h200-sxm-x2")).kernel(Norm(8192, 8192, DType.FLOAT16))
    near = replace(cost, hbm_bytes=0.0)
    assert clocked_share(near, HBM) == 1.0
    assert slower(near, 1.2, HBM).busy_s == pytest.approx(1.2 * near.busy_s)
    far = replace(cost, compute_s=0.0, hbm_bytes=cost.memory_s * HBM)
    assert clocked_share(far, HBM) == 0.0
    assert slower(far, 1.2, HBM).busy_s == far.busy_s
    half = replace(far, compute_s=far.memory_s)
    assert slower(half, 1.44, HBM).busy_s == pytest.approx(1.2 * half.busy_s)


def test_a_number_format_draws_what_its_tensor_cores_do() -> None:
    card = replace(START, tensor_formats={"bfloat16": 0.9})
    gemm = Gemm(4096, 4096, 4096, DType.FLOAT16)
    profile = load_profile("h200-sxm-x2")
    cost = Pricing(profile).kernel(gemm)
    half, brain, eight = (
        load_of(op, cost, DEVICE, card).tensor_s
        for op in (gemm, replace(gemm, dtype=DType.BFLOAT16), replace(gemm, quantization=Quantization.FP8))
    )
    assert brain == pytest.approx(0.9 * half)
    # A format that no one measured draws as much at its own peak, of twice as many FLOPs.
    assert eight == pytest.approx(half / 2.0)
    assert settled_clock([FULL._replace(tensor_s=brain / half * FULL.tensor_s)], [], 0.0, HBM, START) > settled_clock(
        [FULL], [], 0.0, HBM, START
    )


def test_a_kernel_on_half_of_the_sms_draws_half_of_what_they_draw() -> None:
    half, full = (clocked_w(Load(1.0, 0.0, 0.0, sm_share=share), START) for share in (0.5, 1.0))
    assert full == START.active_w == 2.0 * half


def test_a_rested_card_runs_a_short_step_at_its_boost_clock_and_a_long_one_as_under_load() -> None:
    clock = settled_clock([FULL], [], 0.0, HBM, START)
    short, middle, long = (slowdown_from_rest(clock, step_s, START) for step_s in (5e-3, 0.1, 10.0))
    settled = clock**-START.rate_exponent
    assert short == pytest.approx(1.0, abs=1e-3)
    assert 1.0 < middle < long == pytest.approx(settled, rel=0.01)
    assert slowdown(clock, 5e-3, START) == pytest.approx(settled)


@given(st.floats(0.1, 1.0), st.floats(1e-4, 1.0), st.floats(1.0, 3.0))
def test_slowdown_is_at_least_one_and_grows_with_the_load(clock: float, step_s: float, factor: float) -> None:
    for lost in (slowdown, slowdown_from_rest):
        assert 1.0 <= lost(clock, step_s, START) <= lost(clock, factor * step_s, START) * (1 + 1e-12)
    assert slowdown_from_rest(clock, step_s, START) <= slowdown(clock, step_s, START) * (1 + 1e-12)


def test_a_busy_server_is_slower_than_a_lone_request_and_only_in_what_the_card_draws() -> None:
    profile = load_profile("h200-sxm-x2")
    assert profile.power is not None
    asked: dict[str, Any] = {"model": {"preset": "13B"}, "num_devices": 2, "hardware": "h200-sxm-x2"}
    asked |= {"context_length": 2048}
    rested = asked | {"runtime": {"load": "rested"}}
    wake_s = profile.launch.graph_launch_rested_s - profile.launch.graph_launch_s
    assert wake_s > 20e-6
    no_limit = replace(profile, power=None)
    cool, first = simulate(asked, profile=no_limit).latency_s, simulate(rested, profile=no_limit)
    assert first.latency_s == pytest.approx(cool + wake_s)
    busy, lone = simulate(asked, profile=profile), simulate(rested, profile=profile)
    assert 1.05 * cool < busy.latency_s < 1.3 * cool
    assert cool < lone.latency_s < busy.latency_s
    assert DEVICE.boost_clock_hz >= lone.clock_hz > busy.clock_hz > 0.6 * DEVICE.boost_clock_hz
    assert lone.interval.low_s < lone.latency_s


def test_what_the_limit_takes_from_a_long_kernel_is_not_taken_twice() -> None:
    long = Gemm(16384, 8192, 8192, DType.BFLOAT16)
    h100, a100 = load_profile("h100-sxm-x8"), load_profile("a100-sxm4-80gb-x8")
    for profile, again in ((h100, False), (a100, True)):
        assert profile.gemm.throttle_by_limit
        alone_s = gemm_cost(long, profile.device, profile.gemm).busy_s
        boost_s = gemm_cost(long, profile.device, replace(profile.gemm, throttle_depth=0.0)).busy_s
        assert boost_s < 0.95 * alone_s
        # of the A100 nobody measured what it draws, so its products keep what replays of them lost
        assert (profile.power is None) is again
        assert Pricing(profile).kernel(long).busy_s == (alone_s if again else boost_s)
    burst = load_profile("h200-sxm-x2")
    assert not burst.gemm.throttle_by_limit  # what its clock loses at once
    assert Pricing(burst).kernel(long) == gemm_cost(long, burst.device, burst.gemm)


def test_a_format_that_draws_less_runs_faster_under_load() -> None:
    asked: dict[str, Any] = {"model": {"preset": "13B"}, "num_devices": 2, "hardware": "h200-sxm-x2"}
    asked |= {"context_length": 2048}
    half, brain = (simulate(asked | {"dtype": dtype}) for dtype in ("float16", "bfloat16"))
    assert brain.clock_hz > half.clock_hz
    assert brain.latency_s < half.latency_s


def run_of(
    loads: tuple[Load, ...],
    idle_s: float = 1.0,
    truth: PowerConstants = TRUTH,
    dtype: DType | None = DType.FLOAT16,
) -> SustainedSample:
    """A chain as a card of `truth` would run it: at the boost clock for 50 ms, then settled."""
    weighed = [load._replace(tensor_s=load.tensor_s * truth.tensor_formats.get(str(dtype), 1.0)) for load in loads]
    clock = settled_clock(weighed, [], 0.0, DEVICE.hbm_bandwidth_bytes_per_s, truth)
    stretch = clock**-truth.rate_exponent
    boost_s = sum(load.busy_s for load in loads)
    settled_s = sum(load.busy_s * clock_factor(load.clocked, stretch) for load in loads)
    ends = tuple(0.002 * 1.2**index for index in range(36))
    rounds = tuple(1.0 / (boost_s if end < 0.05 else settled_s) for end in ends)
    watts = truth.limit_w if clock < 1.0 else average_w(weighed, 0.0, DEVICE.hbm_bandwidth_bytes_per_s, truth)
    samples = [(0.01, DEVICE.boost_clock_hz, truth.idle_w)]
    samples += [(0.2 + 0.02 * index, clock * DEVICE.boost_clock_hz, watts) for index in range(1, 20)]
    gemms_only = all(load.tensor_s > 0.0 for load in loads)
    formats = tuple(dtype if load.tensor_s > 0.0 else None for load in loads)
    return SustainedSample(idle_s, ends, rounds, tuple(samples), loads, formats, loads, gemms_only)


def gemms(rate: float) -> tuple[Load, ...]:
    """One large GEMM at a share of the peak rate, with little traffic."""
    return (Load(1e-3, rate * 1e-3, 1e6),)


STREAMING = (Load(1e-3, 0.0, 4e9, clocked=0.3),)
ATTENDING = (Load(1e-3, 0.38 * 1e-3, 5e8), Load(1e-4, 0.0, 1e8))
LIGHT = (Load(1e-3, 0.1 * 1e-3, 1e8, 0.5),)


def test_chains_of_several_kinds_and_formats_give_back_what_each_part_of_the_card_draws() -> None:
    truth = replace(TRUTH, tensor_formats={"bfloat16": 0.9})
    chains = [gemms(0.5 + 0.02 * index) for index in range(8)] + [STREAMING, ATTENDING, LIGHT] * 4
    samples = [
        replace(run_of(loads, truth=truth, dtype=dtype), shape=(index,))
        for index, loads in enumerate(chains)
        for dtype in (DType.FLOAT16, DType.BFLOAT16)
    ]
    fit = fit_power(samples, DEVICE, START)
    found = fit.constants
    assert not fit.kept
    held = {sample.shape for sample, _ in fit.held_out}
    # All forms of a shape are on one side.
    assert held
    assert not held & {sample.shape for sample in fit.fitted}
    for name in ("active_w", "tensor_w", "hbm_w", "power_exponent", "rate_exponent"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.03), name
    assert found.tensor_formats == {"bfloat16": pytest.approx(0.9, rel=0.02)}
    assert found.limit_w == pytest.approx(truth.limit_w, rel=0.01)
    assert found.idle_w == pytest.approx(truth.idle_w)
    assert 0.03 < found.settle_s < 0.08
    assert fit.residual is not None
    assert fit.residual < 0.005


def test_of_few_mixes_each_is_judged_by_a_fit_to_the_others() -> None:
    chains = [gemms(0.6), gemms(0.66), gemms(0.72), gemms(0.5), STREAMING, ATTENDING, LIGHT]
    fit = fit_power([run_of(loads) for loads in chains], DEVICE, START)
    assert {sample.shape for sample, _ in fit.held_out} == {sample.shape for sample in fit.fitted}
    assert len(fit.fitted) == len(chains)


def test_gemms_alone_leave_the_other_draws_assumed() -> None:
    fit = fit_power([run_of(gemms(rate)) for rate in (0.68, 0.7, 0.72)], DEVICE, START)
    assert fit.kept.keys() == ASSUMED.keys() == {"active_w", "hbm_w", "power_exponent"}
    assert (fit.constants.active_w, fit.constants.hbm_w) == (START.active_w, START.hbm_w)


def test_a_chain_that_waits_for_its_host_is_left_out() -> None:
    slow = run_of(STREAMING)
    slow = replace(slow, chunk_rounds_per_s=tuple(0.5 * rate for rate in slow.chunk_rounds_per_s))
    with_it = fit_power([*(run_of(gemms(rate)) for rate in (0.68, 0.7, 0.72)), slow], DEVICE, START)
    assert with_it.kept.keys() == ASSUMED.keys()


def test_a_fit_without_settled_load_is_refused() -> None:
    long = run_of(gemms(0.7))
    short = replace(long, chunk_end_s=long.chunk_end_s[:2], chunk_rounds_per_s=long.chunk_rounds_per_s[:2])
    with pytest.raises(ValueError, match="too few sustained records"):
        fit_power([short, short], DEVICE, START)


def test_dips_of_the_slow_loop_belong_to_the_settled_rate() -> None:
    run = run_of(gemms(0.7))
    settled, end = run.settled_rate, run.chunk_end_s[-1]
    dipped = replace(
        run,
        chunk_end_s=(*run.chunk_end_s, end + 0.1, end + 0.2),
        chunk_rounds_per_s=(*run.chunk_rounds_per_s, 0.8 * settled, settled),
    )
    since = next(at for at in run.chunk_end_s if at >= SETTLED_FROM_S)
    lost = 0.1 * 0.2 * settled / (end + 0.2 - since)
    assert dipped.settled_rate == pytest.approx(settled - lost)


def test_of_cards_that_dip_on_their_own_the_slowest_loses_more_the_more_there_are() -> None:
    """Against draws of an exponential excess over a floor of 1.1, of which a card loses 0.2 on average."""
    uneven = replace(START, unevenness=0.5)
    draws = np.random.default_rng(1).exponential(0.5 * 0.2, (200_000, 8)) + 0.1
    for number in (1, 2, 8):
        assert slowest_of(number, 1.2, uneven) == pytest.approx(1.0 + draws[:, :number].max(axis=1).mean(), rel=2e-3)
    assert slowest_of(8, 1.0, uneven) == 1.0


def test_of_cards_and_steps_that_differ_the_slowest_takes_longer_the_more_there_are() -> None:
    """Against draws of normal times; of two the formula is 5 % of the excess off."""
    draws = np.random.default_rng(3).normal(1.0, 0.02, (200_000, 8))
    spread = replace(START, spread=0.02)
    for number in (2, 4, 8):
        excess = draws[:, :number].max(axis=1).mean() - 1.0
        assert expected_slowest(number, spread) - 1.0 == pytest.approx(excess, rel=0.06)
    assert expected_slowest(1, spread) == 1.0
    assert expected_slowest(4096, replace(START, spread=0.0)) == 1.0


def test_how_unevenly_a_card_loses_is_read_off_a_long_load_cut_finely() -> None:
    excess_s = np.random.default_rng(2).exponential(0.03, 400)
    ends = tuple(0.02 * (index + 1) for index in range(400))
    rates = tuple(
        1.0 if end < SETTLED_FROM_S else 1.0 / (1.1 + float(more)) for end, more in zip(ends, excess_s, strict=True)
    )
    sample = SustainedSample(1.0, ends, rates, (), (FULL,), (DType.FLOAT16,), ())
    assert sample.has_cycles
    assert sample.unevenness == pytest.approx(0.03 / 0.13, rel=0.1)
    assert not replace(sample, chunk_end_s=ends[:50], chunk_rounds_per_s=rates[:50]).has_cycles


def test_the_energy_counter_tells_more_than_a_sensor_that_lags() -> None:
    run = run_of(gemms(0.7))
    counted = tuple((0.1 * index, 500.0 * 0.1 * index) for index in range(12))
    assert run.settled_w == pytest.approx(TRUTH.limit_w)
    assert replace(run, energy_j=counted).settled_w == pytest.approx(500.0)


def test_collectives_beside_compute_draw_power_at_a_clock_but_take_no_more_time() -> None:
    """Their SMs spin and their bytes pass HBM; the settled clock meets the limit with both counted."""
    transfers = [Load(0.5, 0.0, 0.2 * HBM, 0.2), Load(0.25, 0.0, 0.1 * HBM, 0.1)]
    alone = settled_clock([FULL], [], 0.0, HBM, START)
    clock = settled_clock([FULL], transfers, 0.0, HBM, START)
    assert START.lowest_clock < clock < alone
    duration_s = FULL.busy_s * clock**-START.rate_exponent
    sms_j = duration_s * clocked_w(FULL, START) + START.active_w * (0.5 * 0.2 + 0.25 * 0.1)
    hbm_j = START.hbm_w * (0.1 + 0.2 + 0.1)
    average_w = START.idle_w + (clock**START.power_exponent * sms_j + hbm_j) / duration_s
    assert average_w == pytest.approx(START.limit_w, rel=1e-6)
