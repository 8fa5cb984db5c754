"""The ablation switches off what it says, and nothing stays off."""

from __future__ import annotations

from typing import Any

import pytest

from kraken_sim import simulate
from kraken_sim.calibration import contention as fitting
from validation.ablation import HEADERS, MECHANISMS, Errors, change, rows

OVERLAPPED = {
    "hardware": "h200-sxm-x2",
    "model": {"preset": "6.7B"},
    "architecture": {"kind": "kraken"},
    "num_devices": 2,
    "context_length": 512,
}
BY_NAME = {mechanism.name: mechanism for mechanism in MECHANISMS}


@pytest.mark.parametrize("name", [mechanism.name for mechanism in MECHANISMS])
def test_a_mechanism_that_was_off_is_on_again(name: Any) -> None:
    before, fitted = simulate(OVERLAPPED).timeline, dict(fitting.FITTED)
    with BY_NAME[name].off():
        simulate(OVERLAPPED)
    assert simulate(OVERLAPPED).timeline == before
    assert fitted == fitting.FITTED


def test_a_collective_that_holds_no_sms_displaces_nothing() -> None:
    full = simulate(OVERLAPPED).latency_s
    with BY_NAME["SMs held by a collective"].off():
        assert simulate(OVERLAPPED).latency_s < 0.97 * full


def test_a_constant_that_is_switched_off_is_not_fitted() -> None:
    with BY_NAME["collective slowed by memory traffic"].off():
        assert "collective_memory_slowdown" not in fitting.FITTED
        assert "compute_slowdown" in fitting.FITTED


def test_a_change_is_that_of_the_absolute_errors_with_their_scatter() -> None:
    more, uncertain = change([-0.03, 0.02, 0.01], [0.01, 0.01, -0.01])
    assert more == pytest.approx(0.01)
    assert uncertain == pytest.approx(0.01 / 3**0.5)
    full = Errors("full model", "", (0.01, 0.01), (0.02, -0.04))
    worse = Errors("a", "b", (0.02, -0.04), (0.02, -0.04))
    first, second = rows([full, worse])
    assert dict(zip(HEADERS[2:], first[2:], strict=True))["worst"] == "4.0"
    assert second[:4] == ("a", "b", "3.00", "+2.00 ± 1.00")
    assert second[5] == "+0.00 ± 0.00"
