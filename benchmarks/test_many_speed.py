"""How many distinct points a second one core answers together, by architecture: `make bench`.

Lengths and batches are all new, so nothing is looked up. Window events are exact, so a change of the work shows too.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim.explore.design.bounded import BoundedSearch
from kraken_sim.explore.design.request import DesignRequest
from kraken_sim.explore.sweep.rows import Evaluator
from kraken_sim.predict.columns import prediction_columns
from kraken_sim.predict.pipeline import Predictor

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

NUM_POINTS = {"standard": 4_000, "parallel": 4_000, "kraken": 400}
DESIGNS = {
    "base": {
        "hardware": "h100-sxm-x8",
        "model": {"preset": "6.7B", "max_position_embeddings": 8192},
        "num_devices": 4,
        "context_length": 4096,
    },
    "budget": 7e9,
    "search": {
        "kind": ["standard", "parallel", "kraken"],
        "ways": [2, 4, 8],
        "num_hidden_layers": list(range(16, 65)),
        "hidden_size": list(range(1024, 8193, 64)),
        "head_dim": [64, 128],
        "num_key_value_groups": [1, 2, 4, 8],
        "ffn_expansion": [2, 2.5, 3, 3.5, 4],
        "channels": [None, 4, 8, 16],
    },
}
"""7,973,280 combinations, of which 970,200 divide and 17,000 meet the budget."""


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("kind", list(NUM_POINTS))
def test_distinct_points_together(benchmark: BenchmarkFixture, kind: str, phase: str) -> None:
    """Target: 20,000 a second without overlap, 5,000 with; the scenarios are there."""
    fixed = {"hardware": "h200-sxm-x8", "model": {"preset": "6.7B"}, "num_devices": 4, "phase": phase}
    evaluator = Evaluator({**fixed, "architecture": {"kind": kind}}, ["context_length", "batch_size"])
    num = NUM_POINTS[kind]
    scenarios = [evaluator.scenario((1 + number % 2_000, 1 + number // 2_000)) for number in range(num)]

    cpu_s: list[float] = []

    def go() -> Any:
        begin_s = time.process_time()
        found = Predictor().predict_many(scenarios)
        cpu_s.append(time.process_time() - begin_s)
        return found

    answers = benchmark.pedantic(go, rounds=3).answers
    place = [name for name, _ in prediction_columns()].index("num_events")
    events = sum(row[place] for row in answers)
    sys.stderr.write(
        f"\n{kind} {phase}: {num / min(cpu_s):,.0f} points a second of CPU, {events / num:.1f} events a point\n"
    )


def test_a_million_designs_by_bounds(benchmark: BenchmarkFixture) -> None:
    """Target: two minutes."""
    request = DesignRequest.model_validate(DESIGNS)

    def go() -> BoundedSearch:
        search = BoundedSearch(request, lambda *_: None)
        search.run()
        return search

    search = benchmark.pedantic(go, rounds=1)
    assert search.num_designs == 970_200
    sys.stderr.write(f"\n{search.num_designs:,} designs, {search.num_simulated:,} simulated, {len(search.best)} best\n")
