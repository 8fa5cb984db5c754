"""Requests to `serve`: files, traces, memory, what cannot be, and the answer's own bookkeeping."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kraken_sim import InfeasibleError, InputError, ServeRequest, load_serve_request, serve
from kraken_sim.cli import main
from kraken_sim.serving import service
from kraken_sim.serving.answer import Spread
from kraken_sim.serving.service import ServiceSimulator
from kraken_sim.serving.trace_file import read_trace_file

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.serving.answer import ServeAnswer

LENGTHS = {"mean": 300, "variation": 0.5, "least": 16, "most": 1000}
BASE: dict[str, Any] = {
    "hardware": "h200-sxm-x2",
    "model": {"model_type": "llama", "num_hidden_layers": 8, "hidden_size": 4096, "num_attention_heads": 32,
              "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000},
    "num_devices": 1,
    "traffic": {"requests_per_s": 20, "num_requests": 300, "prompt_tokens": LENGTHS, "output_tokens": LENGTHS},
}  # fmt: skip


def request(**changes: object) -> ServeRequest:
    return ServeRequest.model_validate({**BASE, **changes})


def traffic(**changes: object) -> dict[str, Any]:
    return {**BASE["traffic"], **changes}


@pytest.fixture(scope="module")
def answer() -> ServeAnswer:
    return serve(request(sla={"ttft": "200 ms", "tpot": "20 ms", "percentile": 90}))


def test_the_same_request_has_the_same_answer(answer: ServeAnswer) -> None:
    again = serve(answer.request)
    assert json.dumps(again.as_dict()) == json.dumps(answer.as_dict())


def test_all_that_is_asked_is_answered_and_adds_up(answer: ServeAnswer) -> None:
    data = answer.as_dict()
    assert data["num_requests"] == 300
    account = answer.served.accounts[0]
    assert account.computed_tokens == answer.served.requests.prompt_tokens.sum()
    assert account.generated_tokens == answer.served.requests.output_tokens.sum()
    assert 0.0 < data["utilisation"][0] <= 1.0
    assert data["ttft_s"]["p50_s"] <= data["ttft_s"]["p90_s"] <= data["ttft_s"]["p99_s"]
    assert data["tpot_s"]["low"]["mean_s"] < data["tpot_s"]["mean_s"] < data["tpot_s"]["high"]["mean_s"]
    assert len(answer.records) == 300


def test_what_is_predicted_lies_between_its_bounds(answer: ServeAnswer) -> None:
    for middle, low, high in answer.spreads.values():
        for name, value in middle.percentiles_s.items():
            assert low.percentiles_s[name] <= value <= high.percentiles_s[name]
    middle = Spread(2.0, {50.0: 2.0})
    low, high = middle.bounded(Spread(1.0, {50.0: 3.0}), Spread(1.5, {50.0: float("nan")}))
    assert (low.mean_s, low.percentiles_s[50.0]) == (1.0, 2.0)
    assert (high.mean_s, high.percentiles_s[50.0]) == (2.0, 3.0)


def test_steps_of_many_prompts_outgrow_a_table_of_positions_and_a_request_does_not() -> None:
    few = request(model={"preset": "125M"}, traffic=traffic(prompt_tokens={"mean": 200}, output_tokens={"mean": 50}))
    assert few.scheduler.max_num_batched_tokens > 1024
    assert serve(few).as_dict()["num_requests"] == 300
    with pytest.raises(InputError, match="learned positions"):
        serve(request(model={"preset": "125M"}, traffic=traffic(prompt_tokens={"mean": 2000})))


def test_the_limits_are_kept_by_the_share_of_requests_that_keep_both(answer: ServeAnswer) -> None:
    served = answer.served
    good = (served.ttft_s <= 0.2) & ~(served.tpot_s > 0.02)
    assert answer.kept == pytest.approx(good.mean())
    assert answer.keeps_sla == (np.percentile(served.ttft_s, 90) <= 0.2 and np.nanpercentile(served.tpot_s, 90) <= 0.02)


def test_more_load_waits_longer_and_uses_less_energy_a_token() -> None:
    few, many = (serve(request(traffic=traffic(requests_per_s=rate))) for rate in (4, 40))
    assert many.served.ttft_s.mean() > few.served.ttft_s.mean()
    tokens = float(few.served.requests.output_tokens.sum())
    assert many.energy_j / tokens < 0.5 * few.energy_j / tokens


def test_two_replicas_take_twice_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = request().traffic.requests()
    one, two = (ServiceSimulator(request(replicas=count)).capacity_per_s(requests) for count in (1, 2))
    assert two == pytest.approx(2.0 * one, rel=0.1)
    monkeypatch.setattr(service, "MOST_AT_ONCE", 1)
    assert ServiceSimulator(request(replicas=4096)).capacity_per_s(requests) == pytest.approx(4096 * one)


def test_a_rate_that_nobody_can_sustain_is_refused_with_the_stable_limit() -> None:
    with pytest.raises(InfeasibleError, match="stable limit") as raised:
        serve(request(traffic=traffic(requests_per_s=5000)))
    limit = float(raised.value.limit.split()[2])
    assert serve(request(traffic=traffic(requests_per_s=0.9 * limit))).capacity_per_s == pytest.approx(limit, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"sla": {"ttft": "1 s", "tpot": "1 ms"}}, "TPOT 1 ms"),
        ({"sla": {"ttft": "10 us"}}, "TTFT 10 us"),
        ({"scheduler": {"gpu_memory_utilization": 0.03}}, "device memory"),
        ({"traffic": traffic(prompt_tokens={"mean": 5_000_000}, num_requests=2)}, "blocks"),
    ],
)
def test_what_cannot_be_names_the_limiting_number(changes: dict[str, object], limit: str) -> None:
    with pytest.raises(InfeasibleError) as raised:
        serve(request(**changes))
    assert limit in raised.value.limit


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ("traffic: {requests_per_s: 1}", "traffic.prompt_tokens"),
        ("traffic: {requests_per_s: 1, trace: x.csv}", "traffic.requests_per_s"),
        ("traffic: {trace: missing.csv}", "traffic.trace"),
        ("scheduler: {max_num_seqs: 64, max_num_batched_tokens: 32}", "scheduler.max_num_batched_tokens"),
        ("scheduler: {prefix_tokens: 500}", "scheduler.prefix_tokens"),
        ("sla: {preset: mlperf-llama2-70b-interactiv}", "sla.preset"),
        ("traffic: {requests_per_s: 1.0e-9, prompt_tokens: {mean: 5}, output_tokens: {mean: 5}}", "requests_per_s"),
        ("traffic: {requests_per_s: 1, prompt_tokens: {mean: 5, least: 9}, output_tokens: {mean: 5}}", "least"),
        ("hardware: h200-sxm-x3", "hardware"),
        ("num_devices: 64", "num_devices"),
        ("trafic: {}", "trafic"),
    ],
)
def test_bad_input_is_named(changes: str, path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, _, value = changes.partition(":")
    data = {key: json.dumps(found) for key, found in BASE.items()} | {name: value}
    file = tmp_path / "service.yaml"
    file.write_text("\n".join(f"{key}: {found}" for key, found in data.items()))
    assert main(["serve", str(file)]) == 2
    assert path in capsys.readouterr().err


AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:16:01.0000000,879,0
"""
MOONCAKE = """{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}
{"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46]}
"""
OWN = "prompt_tokens,arrival_s,output_tokens\n10,5.5,3\n20,6.0,4\n"


@pytest.mark.parametrize(
    ("text", "arrivals", "prompts", "outputs"),
    [
        (AZURE, [0.0, 4.314579, 14.31941], [374, 396, 879], [44, 109, 1]),
        (MOONCAKE, [0.0, 3.053], [6955, 6472], [52, 26]),
        (OWN, [0.0, 0.5], [10, 20], [3, 4]),
    ],
)
def test_traces_are_read_as_they_are_published(
    text: str, arrivals: list[float], prompts: list[int], outputs: list[int], tmp_path: Path
) -> None:
    file = tmp_path / "trace"
    file.write_text(text)
    found = read_trace_file(file)
    assert found.arrival_s == pytest.approx(arrivals)
    assert found.prompt_tokens.tolist() == prompts
    assert found.output_tokens.tolist() == outputs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arrival_s,prompt_tokens,output_tokens\n2,1,1\n1,1,1\n", "line 3: requests must be in the order of arrival"),
        ("arrival_s,prompt_tokens,output_tokens\n0,-5,1\n", "line 2: prompt_tokens must be a whole number from 1"),
        ("arrival_s,prompt_tokens,output_tokens\n0,1,1e300\n", "line 2: output_tokens"),
        ("arrival_s,prompt_tokens,output_tokens\n0,1,99999999999\n", "line 2: output_tokens"),
        ("arrival_s,prompt_tokens,output_tokens\nnan,1,1\n", "line 2: the arrival"),
        ("arrival_s,prompt_tokens,output_tokens\n0,1\n", "line 2: has 2 cells"),
        ("arrival_s,prompt_tokens,output_tokens\n", "has no requests"),
        ("when,what\n1,2\n", "line 1: columns must be"),
        (
            "arrival_s,arrival_s,prompt_tokens,output_tokens\n0,1,2,3\n",
            "line 1: the column arrival_s stands there twice",
        ),
        (f"arrival_s,prompt_tokens,output_tokens\n0,{'9' * 200_000},1\n", "is no CSV: field larger than"),
        ("arrival_s,prompt_tokens,output_tokens\n1_0,1,1\n", "line 2: the arrival"),
        ("arrival_s,prompt_tokens,output_tokens\n0,٣,1\n", "line 2: prompt_tokens"),
        ('{"timestamp": 1}\n', "line 1: must have"),
        ('{"timestamp": 1, "input_length": true, "output_length": 5}\n', "line 1: input_length"),
        ("{not json\n", "line 1: is no JSON"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n", "line 2: the timestamp"),
    ],
)
def test_a_wrong_trace_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_text(text)
    with pytest.raises(InputError) as raised:
        read_trace_file(file)
    assert message in str(raised.value)


def test_a_trace_stands_beside_its_request_and_is_replayed_faster(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(OWN)
    data = {**BASE, "traffic": {"trace": "trace.csv", "speed": 2.0}}
    (tmp_path / "service.yaml").write_text(json.dumps(data))
    assert load_serve_request(tmp_path / "service.yaml").traffic.requests().arrival_s.tolist() == [0.0, 0.25]
    data["traffic"]["speed"] = 1e-12
    (tmp_path / "service.yaml").write_text(json.dumps(data))
    with pytest.raises(InputError, match="more than thirty years"):
        load_serve_request(tmp_path / "service.yaml").traffic.requests()


def test_the_parts_of_a_device_add_up_to_what_the_engine_uses() -> None:
    memory = ServiceSimulator(request()).memory
    parts = memory.weights_bytes + memory.activation_bytes + memory.communication_bytes + memory.graph_bytes
    assert parts + memory.context_bytes + memory.cache_bytes == pytest.approx(0.9 * memory.capacity_bytes)
    assert memory.num_blocks * memory.block_size * memory.token_bytes <= memory.cache_bytes
    assert memory.token_bytes == 2 * 8 * 8 * 128 * 2  # keys and values, layers, heads, width, bytes
    assert memory.largest_batch(1000) == memory.num_blocks // 63


def test_a_cache_in_fp8_holds_twice_as_much_and_kraken_less() -> None:
    wide = ServiceSimulator(request()).memory
    narrow = ServiceSimulator(request(kv_cache_dtype="float8", runtime={"kernels": "serving"})).memory
    assert narrow.num_blocks == pytest.approx(2 * wide.num_blocks, rel=1e-3)
    two = ServiceSimulator(request(num_devices=2)).memory
    kraken = ServiceSimulator(request(num_devices=2, architecture={"kind": "kraken"})).memory
    assert kraken.token_bytes > two.token_bytes
    assert two.communication_bytes > 0 == wide.communication_bytes


def test_the_command_writes_a_page_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "service.yaml").write_text(json.dumps({**BASE, "sla": {"ttft": "1 s", "tpot": "50 ms"}}))
    page, data = tmp_path / "page.html", tmp_path / "data.json"
    assert main(["serve", str(tmp_path / "service.yaml"), "--html", str(page), "--json", str(data)]) == 0
    assert "is kept" in capsys.readouterr().out
    assert "The queue over time" in page.read_text()
    assert json.loads(data.read_text())["sla"]["kept"] is True


def test_long_commands_say_how_far_they_are_and_quiet_ones_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kraken_sim.cli.progress.LINE_EVERY_S", 0.0)
    monkeypatch.setattr("kraken_sim.serving.fleet.TOLD_EVERY", 100)
    command = ["serve", "chat_service", "--set", "traffic.num_requests=300", "--set", "replicas=1"]
    command += ["--set", "traffic.requests_per_s=2", "--set", "scheduler.max_num_seqs=16"]
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main(command) == 0
    said = capsys.readouterr().err
    for what in ("as many as can be served", "steps at the low end", "steps at the high end", "as asked"):
        assert re.search(rf"\d+ of [\d,]+ requests, {what}", said)
