"""Searches for designs by what whole answers and requests see of them."""

from __future__ import annotations

from typing import Any

import pytest

from kraken_sim import DesignRequest, InputError, search_designs
from kraken_sim.report.design import front_grid

BASE: dict[str, Any] = {
    "hardware": "h200-sxm-x8",
    "model": {"preset": "6.7B", "max_position_embeddings": 4096},
    "phase": "generate",
    "context_length": 1000,
    "output_length": 100,
}
PRICE = {"per_hour": 24.0, "source": "example price", "date": "2026-01-01"}


def request(**changes: Any) -> DesignRequest:
    asked = {
        "base": BASE,
        "search": {"num_devices": [1, 4], "kind": ["standard"], "num_hidden_layers": [32], "hidden_size": [4096]},
        "objectives": ["ttft", "tpot", "cost", "goodput"],
        "sla": {"ttft": "500 ms", "tpot": "30 ms"},
        "scheduler": {"max_num_seqs": 64, "max_num_batched_tokens": 1024},
        "currency": "EUR",
        "prices": {"h200-sxm-x8": PRICE},
    }
    return DesignRequest.model_validate({**asked, **changes})


def test_more_gpus_answer_sooner_and_fewer_requests_a_gpu() -> None:
    result = search_designs(request())
    one, four = sorted(result.evaluated, key=lambda item: item.design.num_devices)
    assert four.latency_s < one.latency_s
    assert one.tpot_s is not None
    assert four.tpot_s is not None
    assert four.tpot_s < one.tpot_s
    assert one.goodput_per_s is not None
    assert four.goodput_per_s is not None
    assert one.goodput_per_s > four.goodput_per_s > 0.0
    assert len(result.front) == 2
    assert {"TPOT", "requests/s a GPU", "EUR/M tokens"} <= set(front_grid(result).columns)


def test_tighter_limits_leave_less_goodput() -> None:
    search = {"num_devices": [1], "kind": ["standard"], "num_hidden_layers": [32], "hidden_size": [4096]}
    loose, tight = (
        search_designs(request(search=search, objectives=["goodput"], sla={"ttft": "500 ms", "tpot": tpot})).best
        for tpot in ("40 ms", "9 ms")
    )
    assert (tight.goodput_per_s or 0.0) < 0.8 * (loose.goodput_per_s or 0.0)


def test_goodput_needs_limits_and_whole_answers() -> None:
    base = {**BASE, "phase": "prefill"}
    del base["output_length"]
    with pytest.raises(InputError) as raised:
        search_designs(request(base=base, sla=None, objectives=["goodput"]))
    assert {problem.path for problem in raised.value.problems} >= {"objectives.0", "sla"}
