"""Scenarios that the tests of explorations share."""

from __future__ import annotations

from typing import Any

from kraken_sim.scenario.spec import Scenario, scenario_from


def asked(**changes: Any) -> Scenario:
    return scenario_from(
        {
            "hardware": "h200-sxm-x2",
            "model": {"preset": "6.7B"},
            "architecture": {"kind": "kraken"},
            "num_devices": 2,
            "context_length": 512,
            **changes,
        }
    )
