"""Many points at once: whatever is asked, each has the row that it has alone, to the last bit.

`KRAKEN_SIM_MANY_POINTS` says how many points are held together (`make many`: 10,000).
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
from typing import TYPE_CHECKING, Any

import numpy as np

from kraken_sim.architectures.registry import kinds
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.files.garbage import COLLECT_AFTER, collecting_seldom
from kraken_sim.predict.many import LEAST_TOGETHER
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.scenario.spec import Scenario, scenario_from

if TYPE_CHECKING:
    import pytest

NUM_POINTS = int(os.environ.get("KRAKEN_SIM_MANY_POINTS", "400"))
TOGETHER = 10
LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 8,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 5632,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
}
MISTRAL = LLAMA | {"model_type": "mistral", "sliding_window": 700}
MODELS = [{"preset": "1.3B"}, {"preset": "6.7B", "num_hidden_layers": 6}, LLAMA, MISTRAL]
MACHINES = ["h200-sxm-x8", "a100-sxm4-80gb-x8", "l40s-x8", "b200-sxm-x8", "h100-sxm-2x8", "v100-dgx1-x8"]
KERNELS = ["pytorch", "pytorch_composed", "fused", "compiled", "serving", "serving_fused"]
QUICK_KINDS = [kind for kind in kinds() if kind not in ("file", "sub_layer_file")]


def questions(seed: int) -> list[dict[str, Any]]:
    """A group of questions that differ in lengths and batch alone; many of them cannot be answered."""
    rng = random.Random(seed)
    collective = rng.choice([{}, {}, {"channels": 4}, {"library": "custom"}, {"algorithm": "ring"}, {"protocol": "ll"}])
    runtime: dict[str, Any] = {"launch": rng.choice(["graph", "graph", "eager"]), "kernels": rng.choice(KERNELS)}
    runtime |= {"load": rng.choice(["sustained", "rested"]), "overlap": rng.random() < 0.8, "collective": collective}
    asked: dict[str, Any] = {
        "hardware": rng.choice(MACHINES),
        "model": rng.choice(MODELS),
        "architecture": {"kind": rng.choice([*QUICK_KINDS, "standard", "parallel", "kraken"])},
        "num_devices": rng.choice([1, 2, 2, 4, 8]),
        "phase": rng.choice(["prefill", "prefill", "decode"]),
        "dtype": rng.choice(["float16", "float16", "bfloat16", "float32"]),
        "quantization": rng.choice([None, None, "fp8", "fp8_block"]),
        "runtime": runtime,
    }
    most = rng.choice([300, 2048, 2100, 8000])
    return [
        {**asked, "context_length": rng.randint(1, most), "batch_size": rng.choice([1, 1, 2, 7, rng.randint(1, 300)])}
        for _ in range(TOGETHER)
    ]


def points(num: int) -> list[Scenario]:
    found: list[Scenario] = []
    seed = 0
    while len(found) < num:
        with contextlib.suppress(InputError):
            found += [scenario_from(question) for question in questions(seed)]
        seed += 1
    return found[:num]


def test_every_point_has_the_row_or_the_error_that_it_has_alone() -> None:
    scenarios = points(NUM_POINTS)
    together, alone = Predictor().predict_many(scenarios).answers, Predictor()
    answered = 0
    for scenario, found in zip(scenarios, together, strict=True):
        try:
            expected: Any = alone.predict(scenario).row
        except (InputError, InfeasibleError) as error:
            expected = error
        answered += isinstance(expected, tuple)
        if isinstance(expected, tuple):
            assert found == expected, scenario
        else:
            assert (type(found), str(found)) == (type(expected), str(expected)), scenario
    assert answered > NUM_POINTS // 4


def test_a_row_holds_plain_numbers() -> None:
    scenario = {"hardware": "h200-sxm-x8", "model": LLAMA, "num_devices": 2, "phase": "decode"}
    asked = [scenario_from({**scenario, "context_length": length}) for length in range(100, 110)]
    for row in Predictor().predict_many(asked).answers:
        assert isinstance(row, tuple)
        assert {type(value) for value in row} <= {int, float, type(None)}


def test_equal_kernels_are_one_however_many_layers_are_simulated() -> None:
    """Their errors are common, so the interval depends on it: some are in a layer that repeats, some before it."""
    asked = {"hardware": "a100-sxm4-80gb-x8", "model": LLAMA, "num_devices": 2, "phase": "decode", "dtype": "float32"}
    asked["runtime"] = {"launch": "eager", "kernels": "pytorch_composed"}
    scenarios = [scenario_from({**asked, "context_length": length}) for length in range(100, 104)]
    found = Predictor().predict_many(scenarios).answers
    assert found == [Predictor().predict(scenario).row for scenario in scenarios]


def test_points_of_one_structure_are_simulated_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pays: none of them is predicted by itself."""
    predict, sizes = Predictor.predict, []

    def counted(self: Predictor, scenario: Scenario, **options: Any) -> Any:
        sizes.append(np.size(scenario.context_length))
        return predict(self, scenario, **options)

    monkeypatch.setattr(Predictor, "predict", counted)
    for kind in ("standard", "kraken"):
        asked = {"hardware": "h200-sxm-x8", "model": LLAMA, "num_devices": 2, "architecture": {"kind": kind}}
        Predictor().predict_many([scenario_from({**asked, "context_length": 7 * length}) for length in range(1, 60)])
    assert sizes[0] == 59
    assert min(sizes) >= LEAST_TOGETHER
    assert len(sizes) <= 6


def test_what_is_left_over_is_answered_one_by_one() -> None:
    asked = {"hardware": "h200-sxm-x8", "model": LLAMA, "num_devices": 2, "context_length": 100}
    few = [scenario_from({**asked, "batch_size": batch}) for batch in range(1, LEAST_TOGETHER)]
    whole = scenario_from({**asked, "phase": "generate", "output_length": 5})
    answers = Predictor().predict_many([*few, whole]).answers
    assert answers == [Predictor().predict(scenario).row for scenario in (*few, whole)]


def test_a_bug_at_many_points_leaves_each_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"hardware": "h200-sxm-x8", "model": LLAMA, "num_devices": 2}
    scenarios = [scenario_from({**asked, "context_length": length}) for length in range(100, 110)]
    expected = Predictor().predict_many(scenarios).answers
    predict = Predictor.predict

    def broken(self: Predictor, scenario: Scenario, **options: Any) -> Any:
        if np.size(scenario.context_length) > 1:
            raise ZeroDivisionError
        return predict(self, scenario, **options)

    monkeypatch.setattr(Predictor, "predict", broken)
    assert Predictor().predict_many(scenarios).answers == expected


def test_garbage_is_looked_for_seldom_while_points_are_answered_and_as_before_afterwards() -> None:
    own = gc.get_threshold()
    try:
        for first, within in ((700, COLLECT_AFTER), (2 * COLLECT_AFTER, 2 * COLLECT_AFTER), (0, 0)):
            gc.set_threshold(first, 10, 10)
            with contextlib.suppress(InputError), collecting_seldom():
                assert gc.get_threshold()[0] == within
                raise InputError.single("", "whatever happens")
            assert gc.get_threshold() == (first, 10, 10)
    finally:
        gc.set_threshold(*own)
