"""Steps of a service from few simulated ones, against the same steps simulated whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kraken_sim.predict.pipeline import Predictor
from kraken_sim.scenario.spec import scenario_from
from kraken_sim.serving.captured import captured
from kraken_sim.serving.plan import Chunk, Sequence
from kraken_sim.serving.steps import End, PredictedSteps

BASE: dict[str, Any] = {
    "hardware": "h200-sxm-x8",
    "model": {
        "model_type": "llama",
        "num_hidden_layers": 16,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
    },
    "num_devices": 4,
    "runtime": {"kernels": "serving"},
}


@pytest.fixture(scope="module")
def steps() -> PredictedSteps:
    return PredictedSteps(Predictor(), scenario_from({**BASE, "context_length": 1}))


@pytest.mark.parametrize(("batch", "cached"), [(1, 100), (8, 777), (64, 3000), (200, 1500)])
def test_a_decode_step_is_that_of_its_batch_and_mean_cache(steps: PredictedSteps, batch: int, cached: int) -> None:
    whole = steps.predictor.predict(
        scenario_from({**BASE, "phase": "decode", "batch_size": batch, "context_length": cached})
    )
    assert steps.decode(batch, batch * cached).first_s == pytest.approx(whole.latency_s, rel=2e-3)


def test_a_stretch_of_decode_steps_takes_what_they_take_one_by_one(steps: PredictedSteps) -> None:
    line = steps.decode(32, 32 * 600)
    assert line.steps > 50
    singly = sum(steps.decode(32, 32 * (600 + step)).first_s for step in range(50))
    assert line.seconds(50) == pytest.approx(singly, rel=1e-9)


def test_a_batch_costs_as_the_captured_one_above_it(steps: PredictedSteps) -> None:
    assert [captured(batch) for batch in (1, 3, 5, 9, 256, 257)] == [1, 4, 8, 16, 256, 272]
    assert steps.decode(9, 9 * 500).first_s == steps.decode(16, 16 * 500).first_s


@pytest.mark.parametrize("seed", range(6))
def test_a_step_with_prompts_is_within_two_per_cent_of_that_simulated_whole(steps: PredictedSteps, seed: int) -> None:
    random = np.random.default_rng(seed)
    batch, cached = int(random.integers(1, 65)), int(random.integers(50, 4000))
    parts = [(int(random.integers(16, 800)), int(random.choice([0, 512]))) for _ in range(1 + seed % 2)]
    sequences = [{"num_sequences": batch, "num_new_tokens": 1, "num_cached_tokens": cached}]
    sequences += [{"num_new_tokens": new, "num_cached_tokens": before} for new, before in parts]
    whole = steps.predictor.predict(scenario_from({**BASE, "sequences": sequences}))
    chunks = [Chunk(Sequence(0, 1, 1), new, before) for new, before in parts]
    assert steps.mixed(batch, batch * cached, chunks)[0] == pytest.approx(whole.latency_s, rel=0.02)


def test_the_ends_of_the_intervals_enclose_the_middle_and_the_host_comes_on_top(steps: PredictedSteps) -> None:
    low, high = (PredictedSteps(steps.predictor, steps.scenario, end=end) for end in (End.LOW, End.HIGH))
    chunk = [Chunk(Sequence(0, 1, 1), 300, 0)]
    assert low.decode(8, 8000).first_s < steps.decode(8, 8000).first_s < high.decode(8, 8000).first_s
    assert low.mixed(8, 8000, chunk)[0] < steps.mixed(8, 8000, chunk)[0] < high.mixed(8, 8000, chunk)[0]
    hosted = PredictedSteps(steps.predictor, steps.scenario, host_s=1e-3)
    assert hosted.decode(8, 8000).first_s == pytest.approx(steps.decode(8, 8000).first_s + 1e-3)
    assert hosted.mixed(8, 8000, chunk)[0] == pytest.approx(steps.mixed(8, 8000, chunk)[0] + 1e-3)
