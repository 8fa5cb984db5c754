"""Searches by bounds: their front is that of all designs, and a bound is never above what is simulated."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kraken_sim import InputError
from kraken_sim.explore.design.bounds import bounds_of, roofline_s
from kraken_sim.explore.design.pareto import beaten, front_of_many, pareto_front
from kraken_sim.explore.design.request import DesignRequest, base_config, designs
from kraken_sim.explore.design.search import search_designs
from kraken_sim.explore.design.space import candidates
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.formats import Quantization
from kraken_sim.program.kernel_sets import KernelSet

if TYPE_CHECKING:
    from kraken_sim.scenario.spec import Scenario

BASE = {"hardware": "h200-sxm-x2", "model": {"preset": "1.3B"}, "num_devices": 2, "context_length": 128}
VARIED: dict[str, Any] = {
    "num_hidden_layers": [20, 24],
    "head_dim": [64, 128],
    "kind": ["standard", "kraken", "ladder"],
    "num_key_value_groups": [4],
    "channels": [None, 8],
}


def request(base: dict[str, Any] | None = None, **changes: Any) -> DesignRequest:
    return DesignRequest.model_validate(
        {"base": {**BASE, **(base or {})}, "search": VARIED, "constraints": {"budget_tolerance": 0.2}, **changes}
    )


def test_candidates_are_the_designs_in_their_order() -> None:
    for search in (VARIED, {**VARIED, "hidden_size": [1024, 2048, 1000], "ways": [1, 2, 4], "num_devices": [1, 2]}):
        asked = request(search=search)
        found = [(part.rank[index], part.design(index)) for part in candidates(asked) for index in range(len(part))]
        assert [design for _, design in sorted(found, key=lambda item: item[0])] == list(designs(asked))


QUESTIONS: dict[str, dict[str, Any]] = {
    "ttft and width": {"objectives": ["ttft", "width"]},
    "ttft, depth and memory": {"objectives": ["ttft", "depth", "memory"]},
    "ttft and energy": {"objectives": ["ttft", "energy"]},
    "ttft, parameters and gpus": {
        "objectives": ["ttft", "parameters", "gpus"],
        "search": {**VARIED, "num_devices": [1, 2], "channels": [None]},
    },
    "tpot": {"objectives": ["tpot"], "base": {"phase": "decode", "batch_size": 8}},
    "eager ttft": {"objectives": ["ttft", "width"], "base": {"runtime": {"launch": "eager"}}},
    "limits": {"constraints": {"budget_tolerance": 0.2, "max_latency": "4.5 ms", "max_memory": "3 GB"}},
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_front_is_that_of_all_designs(question: str) -> None:
    asked = request(**QUESTIONS[question])
    whole, bounded = (search_designs(asked.model_copy(update={"method": method})) for method in ("all", "bounds"))
    assert whole.num_designs == bounded.num_designs >= 20
    assert [item.as_dict() for item in bounded.front] == [item.as_dict() for item in whole.front]
    assert bounded.rejections.counts["parameters"] == whole.rejections.counts["parameters"]


@pytest.mark.parametrize("launch", ["graph", "eager"])
def test_bounds_are_below_what_is_simulated_and_exact_where_nothing_overlaps(launch: str) -> None:
    asked, predictor = request(base={"runtime": {"launch": launch}, "context_length": 700}), Predictor()
    profile, config, overlapped = load_profile("h200-sxm-x2"), base_config(asked), 0
    for part in candidates(asked):
        bounds, answers = (bounds_of(predictor, asked, part, simulate=simulate) for simulate in (False, True))
        scenario = part.design(0).scenario(asked.base)
        assert (roofline_s(scenario, config, profile, part) <= bounds.latency_s).all()
        assert (bounds.latency_s <= answers.latency_s).all()
        assert (bounds.energy_j <= answers.energy_j * (1.0 + 1e-12)).all()
        assert (bounds.latency_s == answers.latency_s)[bounds.exact].all()
        one = predictor.predict(scenario)
        assert answers.latency_s[0] == one.latency_s
        assert answers.memory_bytes[0] == one.memory.total_bytes
        overlapped += int((~bounds.exact).sum())
    assert overlapped > 4


def test_most_designs_are_dropped_by_their_bounds() -> None:
    search = {"num_hidden_layers": list(range(8, 48)), "hidden_size": list(range(512, 4097, 64)), "channels": [None, 4]}
    result = search_designs(request(search=search))
    simulated = int(result.method.split(", ")[1].split()[0].replace(",", ""))
    assert result.num_designs > 5_000
    assert simulated < result.num_designs / 50
    assert result.method.endswith("simulated")
    assert result.decision is not None


def test_an_interrupted_search_has_the_front_of_what_it_knows() -> None:
    def interrupt(count: int) -> None:
        if count >= 10:
            raise KeyboardInterrupt

    result = search_designs(request(method="bounds"), interrupt)
    assert not result.complete
    assert result.front


def test_number_formats_and_kernel_sets_are_searched_too() -> None:
    llama = {"model_type": "llama", "num_hidden_layers": 8, "hidden_size": 2048, "num_attention_heads": 16}
    llama |= {"num_key_value_heads": 4, "intermediate_size": 5632, "vocab_size": 32000}
    search = {"kind": ["standard"], "quantization": [None, "fp8"], "kernels": ["pytorch", "serving"]}
    asked = request(base={"model": llama, "phase": "decode"}, search=search, objectives=["tpot", "memory"])
    assert [part.template for part in candidates(asked)] == [
        replace(part.template, quantization=quantization, kernels=kernels)
        for part, (quantization, kernels) in zip(
            candidates(asked), product((None, Quantization.FP8), (KernelSet.PYTORCH, KernelSet.SERVING)), strict=True
        )
    ]
    whole, bounded = (search_designs(asked.model_copy(update={"method": method})) for method in ("all", "bounds"))
    assert [item.as_dict() for item in bounded.front] == [item.as_dict() for item in whole.front]
    # Quantised weights need less memory, and fused kernels less time whatever the format.
    found = {(item.design.quantization, item.design.kernels) for item in whole.front}
    assert (Quantization.FP8, KernelSet.SERVING) in found
    assert {kernels for _, kernels in found} == {KernelSet.SERVING}
    smallest = whole.front[-1]
    assert smallest.design.label.endswith("2 x h200-sxm-x2, fp8, serving kernels")
    assert smallest.latency_s == predict_one(smallest.design.scenario(asked.base))


def predict_one(scenario: Scenario) -> float:
    return Predictor().predict(scenario).latency_s


def test_what_has_no_bound_is_not_searched_by_bounds() -> None:
    with pytest.raises(InputError, match="have no bounds"):
        search_designs(request(base={"phase": "generate", "output_length": 10}, objectives=["ttft"], method="bounds"))


def test_a_front_of_arrays_is_the_front() -> None:
    rng = np.random.default_rng(1)
    for num_objectives in (1, 2, 3):
        points = rng.integers(0, 12, (200, num_objectives)).astype(float)
        ranks = np.arange(200)
        front = front_of_many(points, ranks)
        assert front.tolist() == pareto_front(points.tolist())
        left = np.setdiff1d(ranks, front)
        assert beaten(points, ranks, points[front], front)[left].all()
        assert not beaten(points[front], front, points[front], front).any()
