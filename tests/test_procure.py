"""Purchases: machines for a load under an SLA, their cost, and what is not claimed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from procure_support import PRICE, SMALL, request, with_file

from kraken_sim import simulate
from kraken_sim.cli import main
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.explore.procure.candidates import Procurement, procure
from kraken_sim.explore.procure.economics import (
    cost_per_million_tokens,
    energy_kwh_per_million_tokens,
    ownership_cost_per_hour,
)
from kraken_sim.explore.procure.option import replicas_needed
from kraken_sim.explore.procure.queueing import ServiceClass, in_time_probability
from kraken_sim.explore.procure.request import load_procure_request
from kraken_sim.explore.procure.sla import TpotStatus, judge_tpot
from kraken_sim.report.procure_html import procure_page
from kraken_sim.serving.sla import MLPERF_PRESETS

EXAMPLE = Path(__file__).parent.parent / "scenarios" / "assistant_purchase.yaml"


def machines(result: Procurement) -> int:
    return result.best.option.num_machines


def test_cost_formulas() -> None:
    assert cost_per_million_tokens(3.6, 1000.0) == pytest.approx(1.0)
    assert energy_kwh_per_million_tokens(3600.0, 1000.0) == pytest.approx(1.0)
    # Half a unit an hour of capital, and 2 kW with 1.5 PUE at 0.1 a kWh.
    assert ownership_cost_per_hour(4383.0, 1.0, 2000.0, 0.1, 1.5) == pytest.approx(0.5 + 0.3)


def test_rented_machines_cost_their_rent_over_the_tokens() -> None:
    result = procure(request())
    best = result.best
    assert best.cost_per_hour == 8.0 * machines(result)
    assert best.cost_per_million_tokens == pytest.approx(best.cost_per_hour / 3600.0 / (400 * 512) * 1e6)
    assert best.option.pools[0].arrivals_per_s == 400.0


def test_bought_machines_pay_for_electricity_too() -> None:
    electricity = {"per_kwh": 0.3, "pue": 1.2, "source": "contract", "date": "2026-01-01"}
    price = {"purchase": 50_000.0, "lifetime_years": 5.0, "source": "quote", "date": "2026-01-01"}
    candidate = {**SMALL["candidates"][0], "price": price, "host_power": "1 kW"}
    best = procure(request(candidates=[candidate], electricity=electricity)).best
    number = best.option.num_machines
    assert best.fleet_w > 1000.0 * number
    expected = number * 50_000.0 / (5.0 * 8766.0) + best.fleet_w / 1e3 * 1.2 * 0.3
    assert best.cost_per_hour == pytest.approx(expected)
    assert best.kwh_per_million_tokens == pytest.approx(best.fleet_w * 1.2 / (400 * 512) * 1e6 / 3.6e6)


def test_headroom_is_what_the_same_machines_still_take() -> None:
    result = procure(request())
    room = result.best.option.headroom
    assert room >= 0.0
    below = procure(request(load={"prompts_per_s": 400 * (1.0 + room) * 0.999}))
    beyond = procure(request(load={"prompts_per_s": 400 * (1.0 + room) * 1.001}))
    assert machines(below) == machines(result) < machines(beyond)


@settings(max_examples=20, deadline=None)
@given(ttft=st.floats(8.0, 400.0), looser=st.floats(1.0, 4.0), load=st.floats(10.0, 3000.0))
def test_a_looser_sla_never_needs_more_machines(ttft: float, looser: float, load: float) -> None:
    strict = request(sla={"ttft": f"{ttft} ms"}, load={"prompts_per_s": load})
    loose = request(sla={"ttft": f"{ttft * looser} ms"}, load={"prompts_per_s": load})
    try:
        needed = machines(procure(strict))
    except InfeasibleError:
        return
    assert machines(procure(loose)) <= needed


@settings(max_examples=15, deadline=None)
@given(load=st.floats(10.0, 3000.0), more=st.floats(1.0, 5.0))
def test_more_load_never_needs_fewer_machines(load: float, more: float) -> None:
    few = machines(procure(request(load={"prompts_per_s": load})))
    assert machines(procure(request(load={"prompts_per_s": load * more}))) >= few


def test_workloads_of_one_model_share_replicas_and_other_models_get_their_own() -> None:
    long = {"name": "documents", "share": 0.5, "model": {"preset": "1.3B"}, "prompt_tokens": 1024}
    chat = {**SMALL["workloads"][0], "share": 0.5}
    assert len(procure(request(workloads=[chat, long])).best.option.pools) == 1
    other = {**long, "model": {"preset": "350M"}}
    pools = procure(request(workloads=[chat, other])).best.option.pools
    assert [pool.workloads for pool in pools] == [("chat",), ("documents",)]


def test_the_cheapest_size_of_a_replica_is_taken() -> None:
    tried = [
        procure(request(candidates=[{**SMALL["candidates"][0], "num_devices": [size]}])).best.cost_per_million_tokens
        for size in (1, 2)
    ]
    free = procure(request(candidates=[{**SMALL["candidates"][0], "num_devices": None}])).best
    assert free.cost_per_million_tokens == min(tried)


def test_slow_latencies_need_at_least_as_many_machines_as_fast_ones() -> None:
    for offer in procure(load_procure_request(EXAMPLE)).base.offers:
        few, many = offer.option.machines_range
        assert few <= offer.option.num_machines <= (many or 10**9)
        low, high = offer.cost_range
        assert low <= offer.cost_per_million_tokens <= (high or 1e9)


def test_tpot_is_never_passed_silently_and_can_be_missed_for_sure() -> None:
    result = procure(request(sla={"ttft": "60 ms", "tpot": "50 ms"}))
    verdict = result.best.option.services[0].tpot
    assert verdict.status is TpotStatus.NOT_JUDGED
    assert verdict.step_s is not None
    assert verdict.step_s < 0.05
    with pytest.raises(InfeasibleError, match="one undisturbed decode step"):
        procure(request(sla={"ttft": "60 ms", "tpot": "100 us"}))
    assert procure(request()).best.option.services[0].tpot.status is TpotStatus.NOT_ASKED


def test_what_ifs_change_what_they_say() -> None:
    what_if = [
        {"name": "thin", "bandwidth_factor": 0.02},
        {"name": "kraken", "architecture": {"kind": "kraken"}},
        {"name": "eager", "runtime": {"launch": "eager"}},
    ]
    result = procure(request(what_if=what_if, sla={"ttft": "600 ms"}))
    thin, kraken, eager = (outcome.offers[0].option.services[0].prediction for outcome in result.what_ifs)
    base = result.best.option.services[0].prediction
    assert thin.latency_s > base.latency_s
    assert kraken.resolved.own_block is not None
    assert eager.latency_s > base.latency_s
    assert [row["what_if"] for row in result.records()] == ["as asked", "thin", "kraken", "eager"]


def test_a_kraken_is_never_offered_on_one_gpu() -> None:
    candidate = {**SMALL["candidates"][0], "num_devices": [1, 2]}
    workload = {**SMALL["workloads"][0], "architecture": {"kind": "kraken"}}
    assert procure(request(candidates=[candidate], workloads=[workload])).best.option.num_devices == 2


def test_mlperf_presets_are_limits_at_the_99th_percentile() -> None:
    # github.com/mlcommons/inference, loadgen/mlperf.conf: llama2-70b-interactive.Server.ttft_latency = 450, tpot 40.
    interactive = MLPERF_PRESETS["mlperf-llama2-70b-interactive"]
    assert (interactive.ttft_s, interactive.tpot_s, interactive.percentile) == (0.45, 0.04, 99.0)
    assert all(sla.source and 0.0 < (sla.tpot_s or 0.0) < sla.ttft_s for sla in MLPERF_PRESETS.values())


def test_every_problem_of_a_request_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    path = with_file(
        tmp_path,
        sla={"preset": "mlperf-llama2-70b-interactiv"},
        workloads=[
            {**SMALL["workloads"][0], "share": 0.5},
            {**SMALL["workloads"][0], "share": 0.4, "model": {"preset": "1.4B"}},
        ],
        candidates=[
            {**SMALL["candidates"][0], "hardware": "h200-sxm-x3", "name": "two"},
            {
                **SMALL["candidates"][0],
                "num_devices": [4],
                "price": {"purchase": 1e5, "lifetime_years": 4, "source": "quote", "date": "2026-01-01"},
            },
        ],
    )
    with pytest.raises(InputError) as caught:
        load_procure_request(path)
    text = str(caught.value)
    for words in (
        "shares add up to 0.9",
        "used more than once",
        "did you mean 'mlperf-llama2-70b-interactive'",
        "did you mean '1.3B'",
        "did you mean 'h200-sxm-x",
        "candidates.1.num_devices.0",
        "electricity: is required because candidates.1",
        "line ",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"candidates": []}, "candidates"),
        ({"workloads": []}, "workloads"),
        ({"candidates": [{"name": "two", "hardware": "h200-sxm-x2"}]}, "per_hour: 40.0, source"),
        ({"candidates": [{**SMALL["candidates"][0], "price": {"per_hour": 8}}]}, "candidates.0.price.source"),
        ({"candidates": [{**SMALL["candidates"][0], "price": {**PRICE, "purchase": 1}}]}, "one of the two"),
        ({"candidates": [{**SMALL["candidates"][0], "price": {**PRICE, "date": "last week"}}]}, "year-month-day"),
        ({"candidates": [{**SMALL["candidates"][0], "price": {**PRICE, "per_hour": -1}}]}, "per_hour"),
        ({"sla": {"preset": "mlperf-llama2-70b", "ttft": "1 s"}}, "not both"),
        ({"sla": {}}, "is required without a preset"),
        ({"sla": {"ttft": "450"}}, "needs a unit"),
        ({"sla": {"ttft": "450 mss"}}, "did you mean"),
        ({"sla": {"ttft": "1 s", "percentile": 100}}, "percentile"),
        ({"load": {"prompts_per_s": 0}}, "prompts_per_s"),
        ({"load": {"prompts_per_s": 5, "max_utilisation": 1.0}}, "max_utilisation"),
        ({"what_if": [{"name": "nothing"}]}, "changes nothing"),
        ({"currncy": "EUR"}, "did you mean 'currency'"),
        ({"workloads": [{**SMALL["workloads"][0], "prompt_tokens": 4096}]}, "workloads.0.prompt_tokens"),
    ],
)
def test_bad_requests_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    assert main(["procure", str(with_file(tmp_path, **changes))]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_nothing_that_meets_the_sla_is_infeasible_with_the_limiting_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["procure", str(with_file(tmp_path, sla={"ttft": "1 ms"}))]) == 3
    error = capsys.readouterr().err
    assert "even without waiting" in error
    assert "limiting number: TTFT 1 ms" in error
    big = [{**SMALL["workloads"][0], "model": {"preset": "175B"}}]
    assert main(["procure", str(with_file(tmp_path, workloads=big))]) == 3
    assert "device memory" in capsys.readouterr().err


def test_what_can_be_built_nowhere_is_bad_input_and_what_is_too_slow_is_said_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {**SMALL["workloads"][0], "architecture": {"kind": "kraken", "ways": 3}}
    assert main(["procure", str(with_file(tmp_path, workloads=[odd]))]) == 2
    assert "3 ways do not fit 2 devices" in capsys.readouterr().err
    candidate = {**SMALL["candidates"][0], "num_devices": [1, 2]}
    five = [{**SMALL["workloads"][0], "model": {"preset": "1.3B", "num_attention_heads": 1, "head_dim": 128}}]
    slow = with_file(tmp_path, candidates=[candidate], workloads=five, sla={"ttft": "1 ms"})
    assert main(["procure", str(slow)]) == 3
    assert "even without waiting" in capsys.readouterr().err


def test_the_command_answers_as_text_json_and_html(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "out" / "page.html"
    assert main(["procure", "assistant_purchase", "--html", str(page)]) == 0
    text = capsys.readouterr().out
    for words in ("TPOT is not judged yet", "example price, replace with your quote", "SLA missed", "headroom"):
        assert words in text
    assert "Kraken instead of standard" in page.read_text(encoding="utf-8")
    assert main(["procure", str(EXAMPLE), "--json", "-"]) == 0
    answer = json.loads(capsys.readouterr().out)
    costs = [offer["cost_per_million_tokens"] for offer in answer["offers"]]
    assert costs == sorted(costs)
    assert answer["best"] == answer["offers"][0]["candidate"]
    assert answer["offers"][0]["services"][0]["tpot"]["status"] == "not judged yet"
    assert answer["rejected"][0]["candidate"] == "bought-l40s"


def test_headroom_of_a_workload_with_hardly_any_prompts_is_found_too() -> None:
    rare = {"name": "rare", "share": 1e-7, "model": {"preset": "350M"}, "prompt_tokens": 128}
    chat = {**SMALL["workloads"][0], "share": 1.0 - 1e-7}
    assert procure(request(workloads=[chat, rare], load={"prompts_per_s": 0.001})).best.option.headroom > 1.0


def test_replicas_and_machines_are_whole_and_always_enough() -> None:
    assert [replicas_needed(rate, 3.0) for rate in (0.1, 3.0, 3.1, 9.0, 9.1)] == [1, 1, 2, 3, 4]
    assert replicas_needed(9.0 * (1 + 1e-5), 3.0) == 3  # the rate is not known more exactly
    candidate = {**SMALL["candidates"][0], "hardware": "h200-sxm-x8", "num_devices": [4]}
    for load in (100.0, 600.0, 1600.0, 2500.0):
        option = procure(request(candidates=[candidate], load={"prompts_per_s": load})).best.option
        room = option.num_machines * option.replicas_per_machine
        needed = sum(pool.num_replicas for pool in option.pools)
        assert room - option.replicas_per_machine < needed <= room
        assert sum(pool.num_replicas * pool.replica_per_s for pool in option.pools) >= load * (1 - 2e-4)


def test_a_fleet_draws_its_idle_power_and_what_each_prompt_adds() -> None:
    candidate = {**SMALL["candidates"][0], "host_power": "1 kW"}
    best = procure(request(candidates=[candidate])).best
    (service,) = best.option.services
    machines_, energy = best.option.num_machines, service.energy
    added_j = energy.energy_j - energy.idle_w * service.prediction.latency_s * 2
    assert added_j > 0.0
    assert best.fleet_w == pytest.approx(machines_ * (1000.0 + 2 * energy.idle_w) + 400.0 * added_j)
    # As if every GPU drew its step's power while it serves and idled else.
    busy = 400.0 * service.prediction.latency_s * 2
    by_time = machines_ * 1000.0 + busy * energy.device_w + (2 * machines_ - busy) * energy.idle_w
    assert best.fleet_w == pytest.approx(by_time)


def test_a_limit_within_the_interval_of_a_step_is_neither_met_nor_missed() -> None:
    step = simulate(
        {"hardware": "h200-sxm-x2", "model": {"preset": "1.3B"}, "architecture": {"kind": "standard"},
         "num_devices": 2, "context_length": 512, "phase": "decode"}
    )  # fmt: skip
    low_s, high_s = step.interval.low_s, step.interval.high_s
    assert judge_tpot(0.999 * low_s, step).status is TpotStatus.MISSED
    for limit_s in (1.001 * low_s, 0.999 * high_s, 2.0 * high_s):
        assert judge_tpot(limit_s, step).status is TpotStatus.NOT_JUDGED
    assert judge_tpot(None, step).status is TpotStatus.NOT_ASKED


def why(result: Procurement) -> str:
    headline = procure_page(result).headline
    assert headline is not None
    return headline.why


def test_who_may_be_as_cheap_within_the_intervals_is_a_contender() -> None:
    def offers(*prices: float) -> Procurement:
        candidates = [
            {**SMALL["candidates"][0], "name": f"at {price:g}", "price": {**PRICE, "per_hour": price}}
            for price in prices
        ]
        return procure(request(candidates=candidates, load={"prompts_per_s": 5000}))

    assert offers(8.0, 8.001).contenders == ["at 8.001"]
    assert offers(8.0, 80.0).contenders == []
    assert why(offers(8.0, 8.001)) == (
        "The cheapest of 2 that meet the SLA: the next, at 8.001, costs as much; within the intervals at 8.001 may be "
        "as cheap."
    )
    apart = "The cheapest of 2 that meet the SLA: the next, at 80, costs 900 % more, and no interval reaches that far."
    assert why(offers(8.0, 80.0)) == apart
    assert "at 8.001, at 8.002, at 8.003 and 1 more may be" in why(offers(8.0, 8.001, 8.002, 8.003, 8.004))
    best = offers(8.0).best
    low, high = best.cost_range
    assert high is not None
    assert low < best.cost_per_million_tokens < high
    few, many = best.option.machines_range
    assert few < best.option.num_machines < (many or 0)


def test_each_workload_of_a_pool_must_keep_the_limit_not_only_the_easiest() -> None:
    """Long prompts take longer themselves and keep the limit less often than short ones that wait as long."""
    long = {"name": "documents", "share": 0.1, "model": {"preset": "1.3B"}, "prompt_tokens": 2048}
    chat = {**SMALL["workloads"][0], "share": 0.9}
    option = procure(request(workloads=[chat, long])).best.option
    (pool,) = option.pools
    slow = next(service for service in option.services if service.workload.name == "documents")
    classes = [ServiceClass(service.workload.share, service.prediction.latency_s, 0.060) for service in option.services]
    probabilities = in_time_probability(classes, pool.replica_per_s)
    assert min(probabilities) >= 0.99
    assert slow.prediction.latency_s == max(service.prediction.latency_s for service in option.services)


def test_a_card_that_cannot_compute_in_the_format_is_ruled_out_by_name() -> None:
    """And one that can takes fewer machines than in 16 bits."""
    work = {"name": "chat", "share": 1.0, "model": {"preset": "6.7B"}, "prompt_tokens": 2048, "quantization": "fp8"}
    hopper = {"name": "hopper", "hardware": "h200-sxm-x2", "num_devices": [2], "price": PRICE}
    ampere = {"name": "ampere", "hardware": "a100-sxm4-80gb-x8", "num_devices": [2], "price": PRICE}
    changes: dict[str, Any] = {"sla": {"ttft": "1 s"}, "load": {"prompts_per_s": 100}}
    result = procure(request(workloads=[work], candidates=[hopper, ampere], **changes))
    (rejected,) = result.base.rejected
    assert result.best.candidate.name == "hopper"
    assert "quantization" in rejected.reason
    assert "null" in rejected.reason
    plain = procure(request(workloads=[work | {"quantization": None}], candidates=[hopper], **changes))
    assert result.best.cost_per_million_tokens < plain.best.cost_per_million_tokens
