"""Energy of a step: between idle and the card's limit, and marked where it is only assumed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from explore_support import asked

from kraken_sim import simulate
from kraken_sim.predict.energy import step_energy
from kraken_sim.profiles.load import load_profile

H200 = load_profile("h200-sxm-x2")


def test_average_power_lies_between_idle_and_the_limit() -> None:
    for tokens in (1, 128, 2048):
        energy = step_energy(simulate(asked(context_length=tokens)))
        assert H200.power is not None
        assert H200.power.idle_w < energy.device_w <= H200.power.limit_w
        assert energy.basis == "power model of the profile"


def test_a_step_that_throttles_draws_what_the_controller_allows() -> None:
    # The clock is set so that the power is the limit; the step is shorter than the controller needs to settle fully.
    prediction = simulate(asked(context_length=2048, batch_size=8, architecture={"kind": "standard"}))
    assert prediction.slowdown > 1.02
    energy = step_energy(prediction)
    assert H200.power is not None
    assert energy.device_w == pytest.approx(H200.power.limit_w, rel=0.05)


def test_a_lone_prefill_on_a_rested_card_draws_more_than_the_limit_for_a_while() -> None:
    fields: dict[str, Any] = {"context_length": 2048, "architecture": {"kind": "standard"}}
    busy, lone = (step_energy(simulate(asked(**fields, runtime={"load": load}))) for load in ("sustained", "rested"))
    assert H200.power is not None
    assert lone.device_w > 1.05 * H200.power.limit_w
    assert busy.device_w <= H200.power.limit_w
    # At a lower clock and voltage the same work takes less energy.
    assert busy.energy_j < lone.energy_j


def test_energy_is_power_times_time_on_all_devices() -> None:
    prediction = simulate(asked())
    energy = step_energy(prediction)
    assert energy.energy_j == pytest.approx(2 * energy.device_w * prediction.latency_s)


def test_without_a_power_model_the_tdp_is_an_upper_bound_and_says_so() -> None:
    machine = replace(H200, power=None)
    energy = step_energy(simulate(asked(), profile=machine))
    assert energy.is_assumed
    assert energy.device_w == energy.idle_w == H200.device.tdp_w


def test_more_work_takes_more_energy() -> None:
    small, large = (step_energy(simulate(asked(context_length=tokens))).energy_j for tokens in (128, 1024))
    assert large > 3 * small
