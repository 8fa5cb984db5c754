"""Sustained load: a card over its power limit lowers its clock, one below it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim import simulate
from kraken_sim.calibration.power import START, SustainedSample, fit_power
from kraken_sim.costs.power import Load, settled_clock, slowdown
from kraken_sim.hardware.load import load_profile

PEAK, HBM = 1000e12, 4.8e12
FULL = Load(1.0, 0.7 * PEAK, 0.1 * HBM)
STREAM = Load(1.0, 0.0, HBM)


def test_a_load_below_the_limit_keeps_the_boost_clock():
    assert settled_clock([STREAM], [], 0.0, PEAK, HBM, START) == 1.0
    assert slowdown(1.0, 1.0, START) == 1.0


def test_the_settled_clock_meets_the_power_limit():
    clock = settled_clock([FULL], [], 0.0, PEAK, HBM, START)
    assert clock < 1.0
    dynamic_w = START.active_w + 0.7 * START.tensor_w + 0.1 * START.hbm_w
    assert START.idle_w + dynamic_w * clock**START.power_exponent == pytest.approx(START.limit_w, rel=1e-6)


def test_rests_between_kernels_allow_a_higher_clock():
    busy = settled_clock([FULL], [], 0.0, PEAK, HBM, START)
    assert settled_clock([FULL], [], 0.5, PEAK, HBM, START) > busy


def test_short_steps_end_before_the_controller_acts():
    clock = settled_clock([FULL], [], 0.0, PEAK, HBM, START)
    short, long = slowdown(clock, 1e-3, START), slowdown(clock, 1.0, START)
    assert short == pytest.approx(1.0, abs=0.01)
    assert long == pytest.approx(clock**-START.rate_exponent)


@given(st.floats(0.1, 1.0), st.floats(1e-4, 1.0), st.floats(1.0, 3.0))
def test_slowdown_is_at_least_one_and_grows_with_the_load(clock: float, step_s: float, factor: float):
    assert 1.0 <= slowdown(clock, step_s, START) <= slowdown(clock, factor * step_s, START) * (1 + 1e-12)


def test_long_passes_are_slower_per_token_than_the_same_work_at_the_boost_clock():
    profile = load_profile("h200-sxm-x2")
    assert profile.power is not None
    asked = {"model": {"preset": "13B"}, "num_devices": 2, "context_length": 2048, "hardware": "h200-sxm-x2"}
    cool = simulate(asked, profile=replace(profile, power=None)).latency_s
    assert 1.02 * cool < simulate(asked, profile=profile).latency_s < 1.3 * cool


def chain(idle_s: float, clock: float, rate: float) -> SustainedSample:
    """A chain that runs at the boost clock for 50 ms and settles at `clock` then."""
    ends = tuple(0.002 * 1.2**index for index in range(32))
    settled = rate * clock**0.5
    flops = tuple(rate if end < 0.05 else settled for end in ends)
    samples = [(0.01, 1.98e9, 130.0), (0.04, 1.98e9, 1000.0)]
    samples += [(0.2 + 0.02 * index, clock * 1.98e9, 700.0) for index in range(1, 20)]
    return SustainedSample(idle_s, "float16", ends, flops, tuple(samples), 1e-3)


def test_the_fit_recovers_clock_limit_and_exponents():
    device = load_profile("h200-sxm-x2").device
    fit = fit_power([chain(1.0, 0.75, rate) for rate in (700e12, 720e12, 740e12)], device, START)
    assert fit.constants.limit_w == pytest.approx(700.0)
    assert fit.constants.idle_w == pytest.approx(130.0)
    assert fit.constants.rate_exponent == pytest.approx(0.5)
    assert (0.75**fit.constants.power_exponent) * (1000 - 130) == pytest.approx(700 - 130)
    assert 0.03 < fit.constants.settle_s < 0.08
    assert fit.residual < 0.05


def test_a_fit_without_settled_load_is_refused():
    short = replace(chain(1.0, 0.75, 7e14), chunk_end_s=(0.002, 0.004), chunk_flops=(7e14, 7e14))
    with pytest.raises(ValueError, match="too few sustained records"):
        fit_power([short, short], load_profile("h200-sxm-x2").device, START)
