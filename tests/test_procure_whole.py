"""Purchases for whole answers: machines counted by simulating requests, TTFT and TPOT both kept."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kraken_sim.cli import main
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.explore.procure.candidates import Procurement, procure
from kraken_sim.explore.procure.request import ProcureRequest, load_procure_request
from kraken_sim.explore.procure.sla import TpotStatus
from kraken_sim.explore.procure.whole import WholeOption

if TYPE_CHECKING:
    from pathlib import Path

PRICE = {"per_hour": 8.0, "source": "example price", "date": "2026-01-01"}
MODEL = {
    "model_type": "llama", "num_hidden_layers": 8, "hidden_size": 4096, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000,
}  # fmt: skip
CHAT = {
    "name": "chat", "share": 1.0, "model": MODEL, "prompt_tokens": 600, "output_tokens": 60, "variation": 0.4,
    "dtype": "bfloat16", "runtime": {"kernels": "serving"},
}  # fmt: skip
SMALL: dict[str, Any] = {
    "currency": "EUR",
    "sla": {"ttft": "200 ms", "tpot": "15 ms"},
    "load": {"requests_per_s": 100},
    "workloads": [CHAT],
    "candidates": [{"name": "two", "hardware": "h200-sxm-x2", "num_devices": [1], "price": PRICE}],
    "scheduler": {"max_num_seqs": 64, "max_num_batched_tokens": 2048},
}


def request(**changes: Any) -> ProcureRequest:
    return ProcureRequest.model_validate({**copy.deepcopy(SMALL), **changes})


def whole(result: Procurement) -> WholeOption:
    option = result.best.option
    assert isinstance(option, WholeOption)
    return option


@pytest.fixture(scope="module")
def answer() -> Procurement:
    return procure(request())


def test_what_is_offered_keeps_both_limits_and_says_so(answer: Procurement) -> None:
    option = whole(answer)
    spreads = option.answers[0].spreads
    assert spreads["ttft_s"].percentiles_s[99.0] <= 0.2
    assert spreads["tpot_s"].percentiles_s[99.0] <= 0.015
    assert option.services[0].tpot.status is TpotStatus.KEPT
    assert option.pools[0].num_replicas * option.pools[0].replica_per_s >= 100.0 * (1.0 - 1e-4)


def test_tokens_in_and_out_pay_for_the_machines_together(answer: Procurement) -> None:
    best = answer.best
    assert best.split_costs is not None
    prompt, output = best.split_costs
    paid = prompt * best.prompt_tokens_per_s + output * best.output_tokens_per_s
    assert paid * 3600.0 / 1e6 == pytest.approx(best.cost_per_hour)
    assert best.tokens_per_s == pytest.approx(100 * 660)
    assert output > prompt


def test_growth_needs_more_replicas_and_is_not_paid_by_more_tokens(answer: Procurement) -> None:
    grown = procure(request(load={"requests_per_s": 100, "growth": 1.5}))
    assert whole(grown).pools[0].arrivals_per_s == 250.0
    assert whole(grown).pools[0].num_replicas > whole(answer).pools[0].num_replicas
    assert grown.best.tokens_per_s == answer.best.tokens_per_s


def test_a_tighter_tpot_takes_fewer_requests_a_replica(answer: Procurement) -> None:
    tight = procure(request(sla={"ttft": "200 ms", "tpot": "4 ms"}))
    assert whole(tight).pools[0].replica_per_s < 0.8 * whole(answer).pools[0].replica_per_s


def test_bursts_take_fewer_requests_a_replica(answer: Procurement) -> None:
    bursts = {"factor": 5, "duration": "3 s", "every": "15 s"}
    burst = procure(request(load={"requests_per_s": 100, "bursts": bursts}))
    assert whole(burst).pools[0].replica_per_s < 0.8 * whole(answer).pools[0].replica_per_s


def test_what_ifs_have_fp8_and_prompts_apart(answer: Procurement) -> None:
    result = procure(
        request(what_if=[{"name": "fp8", "quantization": "fp8"}, {"name": "apart", "disaggregated": "50 GB/s"}])
    )
    narrow, apart = (outcome.offers[0].option for outcome in result.what_ifs)
    assert narrow.pools[0].replica_per_s > whole(answer).pools[0].replica_per_s
    assert isinstance(apart, WholeOption)
    assert apart.answers[0].prefill_replicas >= 1
    assert apart.pools[0].num_replicas % apart.pools[0].together == 0


def test_nothing_that_keeps_the_limits_names_the_nearest_that_would_be_kept() -> None:
    with pytest.raises(InfeasibleError, match="nearest is a TTFT of 200 ms with a TPOT of") as raised:
        procure(request(sla={"ttft": "200 ms", "tpot": "500 us"}))
    assert "TPOT" in raised.value.limit


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"load": {"requests_per_s": 5, "prompts_per_s": 5}}, "prompts_per_s"),
        ({"load": {"prompts_per_s": 5, "growth": 0.5}}, "growth"),
        ({"load": {"requests_per_s": 5, "growth": -1}}, "growth"),
        ({"load": {"requests_per_s": 1e300}}, "load.requests_per_s: line 1"),
        ({"workloads": [{**CHAT, "output_tokens": None}]}, "workloads.0.output_tokens"),
        ({"load": {"prompts_per_s": 5}, "what_if": [{"name": "x", "disaggregated": "1 GB/s"}]}, "what_if.0.disaggreg"),
        ({"what_if": [{"name": "x"}]}, "what_if.0.name"),
    ],
)  # fmt: skip
def test_bad_requests_are_named(changes: dict[str, Any], path: str, tmp_path: Path) -> None:
    file = tmp_path / "request.yaml"
    file.write_text(yaml.safe_dump({**copy.deepcopy(SMALL), **changes}), encoding="utf-8")
    with pytest.raises(InputError) as raised:
        load_procure_request(file)
    assert path in str(raised.value)


def test_the_command_answers_as_text_json_and_html(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, data, page = (tmp_path / name for name in ("request.yaml", "data.json", "page.html"))
    file.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    assert main(["procure", str(file), "--json", str(data), "--html", str(page)]) == 0
    assert "100 requests/s with a TTFT of at most 200 ms and a TPOT of at most 15 ms" in capsys.readouterr().out
    assert json.loads(data.read_text())["offers"][0]["cost_per_million_output_tokens"] > 0.0
    assert "What requests see" in page.read_text()
