"""How fast the simulator answers: `make bench`. Event counts are exact, so a change of the work shows too."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kraken_sim import load_scenario, simulate
from kraken_sim.files.shipped import data_dir

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

SCENARIO = data_dir("scenarios") / "kraken-6.7b-on-two-h200.yaml"
FULL = {
    "hardware": "h200-sxm-x8",
    "model": {"preset": "175B"},
    "num_devices": 8,
    "context_length": 2048,
}
EVENTS_FOLDED = {"standard": 16, "parallel": 13, "kraken": 48}
EVENTS_EXACT = {"standard": 31184, "kraken": 40231}


def _cli(*arguments: str) -> None:
    command = [sys.executable, "-m", "kraken_sim.cli", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_help_as_a_cold_process(benchmark: BenchmarkFixture) -> None:
    """Target: 0.3 s."""
    benchmark(_cli, "--help")


def test_run_as_a_cold_process(benchmark: BenchmarkFixture) -> None:
    """Target: 1.5 s."""
    benchmark(_cli, "run", str(SCENARIO))


@pytest.mark.parametrize("kind", ["standard", "parallel", "kraken"])
def test_a_folded_prediction(benchmark: BenchmarkFixture, kind: str) -> None:
    """Target: 10 ms, inside one process."""
    scenario = load_scenario(SCENARIO)
    data = {**scenario.model_dump(mode="json"), "architecture": {"kind": kind}}
    prediction = benchmark(simulate, data)
    assert prediction.timeline.num_events == EVENTS_FOLDED[kind]


@pytest.mark.parametrize("kind", ["standard", "kraken"])
def test_the_full_96_layer_8_device_simulation(benchmark: BenchmarkFixture, kind: str) -> None:
    """Target: 2 s."""
    prediction = benchmark.pedantic(
        simulate, args=({**FULL, "architecture": {"kind": kind}},), kwargs={"exact": True}, rounds=3
    )
    assert prediction.timeline.num_events == EVENTS_EXACT[kind]
