"""How many design points a second one core answers, from scenario to row: `make bench`. Points are all distinct."""

from __future__ import annotations

import resource
import sys
import time
from typing import TYPE_CHECKING, Any

from kraken_sim.explore.sweep.plan import plan_of
from kraken_sim.explore.sweep.runners import evaluator_of, recipe_of, run_chunk

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

SWEEP: dict[str, Any] = {
    "hardware": ["h200-sxm-x8", "a100-sxm4-80gb-x8"],
    "model": {"preset": ["1.3B", "6.7B"]},
    "architecture": [{"kind": "standard"}, {"kind": "parallel"}, {"kind": "kraken"}],
    "num_devices": [2, 4],
    "batch_size": [1, 2, 3, 4],
    "context_length": {"start": 20, "stop": 2048, "step": 8},
    "runtime": {"launch": ["graph", "eager"], "collective": {"channels": [None, 4]}},
}
"""97,536 points."""

MEMORY_GROWTH_BYTES = 200e6
"""The bounded caches of a worker once they are full."""


def test_chunks_of_a_sweep_on_one_core(benchmark: BenchmarkFixture) -> None:
    """Target: 0.25 ms of CPU a point, a third of them overlapped; 16 chunks from all over the sweep, caches cold."""
    plan = plan_of(SWEEP)
    recipe = recipe_of(plan)
    chunks = range(0, plan.num_chunks, plan.num_chunks // 16)
    num_points = sum(len(plan.chunk(chunk)) for chunk in chunks)

    def go() -> float:
        evaluator_of.cache_clear()
        begin_s = time.process_time()
        failed = sum(run_chunk(recipe, chunk, 0, plan.chunk(chunk))[1] for chunk in chunks)
        assert failed == 0
        return time.process_time() - begin_s

    seconds = benchmark.pedantic(go, rounds=3)
    sys.stderr.write(f"\n{num_points} points, {1e6 * seconds / num_points:.0f} us of CPU a point\n")


def test_memory_stays_flat_in_a_long_sweep(benchmark: BenchmarkFixture) -> None:
    """A worker that has answered a part of the sweep answers four times as much in little more memory."""
    plan = plan_of(SWEEP)
    recipe = recipe_of(plan)
    evaluator_of.cache_clear()
    peaks: list[int] = []

    def go() -> None:
        for number in range(0, plan.num_chunks, 8):
            run_chunk(recipe, number, 0, plan.chunk(number))
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

    benchmark.pedantic(go, rounds=1)
    assert peaks[-1] - peaks[len(peaks) // 4] < MEMORY_GROWTH_BYTES
