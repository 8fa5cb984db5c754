"""Predictions on the machines that ship: physics that must hold whatever the constants are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kraken_sim import predict_op, simulate
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.predict.api import compare
from kraken_sim.profiles.load import list_profiles, load_profile

patient = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def question(kind: str = "standard", **changes: Any) -> dict[str, Any]:
    return {
        "hardware": "h200-sxm-x8",
        "model": {"preset": "1.3B"},
        "architecture": {"kind": kind},
        "num_devices": 4,
        "context_length": 512,
        **changes,
    }


@pytest.mark.parametrize("hardware", list_profiles())
@pytest.mark.parametrize("kind", ["standard", "parallel", "kraken"])
def test_every_profile_answers_for_every_architecture(hardware: str, kind: str) -> None:
    num_devices = min(2, len(load_profile(hardware).topology.gpus))
    prediction = simulate(question(kind, hardware=hardware, num_devices=num_devices))
    assert prediction.ttft_s is not None
    assert 1e-4 < prediction.ttft_s < 1.0
    assert sum(prediction.breakdown_s.values()) == pytest.approx(prediction.ttft_s, rel=1e-9)


@pytest.mark.parametrize("kind", ["standard", "parallel", "kraken"])
@pytest.mark.parametrize("launch", ["graph", "eager"])
@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_folding_is_exact_on_real_machines(kind: str, launch: str, num_devices: int) -> None:
    asked = question(kind, num_devices=num_devices, runtime={"launch": launch})
    folded, exact = simulate(asked), simulate(asked, exact=True)
    assert folded.latency_s == pytest.approx(exact.latency_s, rel=1e-9)
    assert folded.exposed_communication_s == pytest.approx(exact.exposed_communication_s, rel=1e-9, abs=1e-12)
    assert len(folded.timeline.spans) == len([span for span in exact.timeline.spans if span.rank == 0])


def test_standard_without_overlap_is_the_sum_of_its_kernels_and_gaps() -> None:
    prediction = simulate(question())
    launch = load_profile("h200-sxm-x8").launch
    spans = prediction.timeline.spans
    gap_s = launch.graph_node_gap_s + launch.graph_node_wait_s
    total = sum(span.alone_s for span in spans) + gap_s * (len(spans) - 1)
    assert prediction.latency_s == pytest.approx(total + launch.graph_launch_s, rel=1e-6)


def test_one_device_has_no_communication() -> None:
    for kind in ("standard", "parallel", "kraken"):
        prediction = simulate(question(kind, num_devices=1))
        assert prediction.exposed_communication_s == 0.0
        assert prediction.communication_alone_s == 0.0


def test_blocking_kraken_hides_nothing() -> None:
    prediction = simulate(question("kraken", runtime={"overlap": False}))
    assert prediction.hidden_communication_s == 0.0
    assert prediction.exposed_communication_s > 0.0


def test_more_tokens_take_longer() -> None:
    latencies = [simulate(question(context_length=tokens)).latency_s for tokens in (128, 512, 1024, 2048)]
    assert latencies == sorted(latencies)


def test_eager_launch_is_never_faster_than_a_graph() -> None:
    for kind in ("standard", "parallel", "kraken"):
        eager = simulate(question(kind, context_length=128, runtime={"launch": "eager"}))
        graph = simulate(question(kind, context_length=128))
        assert eager.latency_s > graph.latency_s


def test_a_small_model_in_eager_mode_is_host_bound_and_a_large_one_is_not() -> None:
    small = simulate(question(context_length=16, model={"preset": "125M"}, runtime={"launch": "eager"}))
    large = simulate(question(context_length=2048, model={"preset": "13B"}, batch_size=8, runtime={"launch": "eager"}))
    assert small.host_wait_s > 0.15 * small.latency_s
    assert large.host_wait_s < 0.01 * large.latency_s


def test_faster_links_never_make_a_pass_slower() -> None:
    profile = load_profile("a100-sxm4-80gb-x8")
    latencies = []
    for factor in (0.25, 0.5, 1.0, 2.0):
        links = tuple(
            replace(link, bandwidth_bytes_per_s=link.bandwidth_bytes_per_s * factor) if link.kind == "nvlink" else link
            for link in profile.topology.links
        )
        machine = replace(profile, topology=replace(profile.topology, links=links))
        asked = question(hardware="a100-sxm4-80gb-x8", context_length=2048)
        latencies.append(simulate(asked, profile=machine).latency_s)
    assert latencies == sorted(latencies, reverse=True)
    assert latencies[0] > 1.1 * latencies[-1]


def test_decode_answers_tpot_and_grows_with_the_cache() -> None:
    short = simulate(question(phase="decode", context_length=256, batch_size=8))
    long = simulate(question(phase="decode", context_length=2000, batch_size=8))
    assert short.ttft_s is None
    assert short.tpot_s is not None
    assert long.tpot_s is not None
    assert short.tpot_s < long.tpot_s


def test_a_model_too_large_for_the_machine_names_the_limiting_number() -> None:
    with pytest.raises(InfeasibleError, match="limiting number") as caught:
        simulate(question(model={"preset": "175B"}, num_devices=2))
    assert caught.value.exit_code == 3


def test_kraken_at_equal_budget_has_about_the_parameters_of_standard() -> None:
    standard, _, kraken, *_ = compare_of("6.7B")
    assert kraken.num_parameters == pytest.approx(standard.num_parameters, rel=0.08)


def compare_of(preset: str) -> list[Any]:
    from kraken_sim.scenario.spec import scenario_from

    return compare(scenario_from(question(model={"preset": preset})))


@patient
@given(
    kind=st.sampled_from(["standard", "parallel", "kraken"]),
    hardware=st.sampled_from(list_profiles()),
    preset=st.sampled_from(["125M", "1.3B", "6.7B", "65B"]),
    num_devices=st.integers(1, 9),
    context_length=st.integers(1, 3000),
    batch_size=st.integers(1, 64),
    phase=st.sampled_from(["prefill", "decode"]),
    launch=st.sampled_from(["graph", "eager"]),
    ways=st.one_of(st.none(), st.integers(1, 9)),
    transport=st.sampled_from(["auto", "shm"]),
    library=st.sampled_from(["nccl", "custom"]),
)
def test_random_scenarios_are_answered_or_refused_but_never_crash(**asked: Any) -> None:
    data = {
        "hardware": asked["hardware"],
        "model": {"preset": asked["preset"]},
        "architecture": {"kind": asked["kind"]},
        "num_devices": asked["num_devices"],
        "context_length": asked["context_length"],
        "batch_size": asked["batch_size"],
        "phase": asked["phase"],
        "runtime": {
            "launch": asked["launch"],
            "collective": {"library": asked["library"], "transport": asked["transport"]},
        },
    }
    if asked["ways"] is not None and asked["kind"] == "kraken":
        data["architecture"]["ways"] = asked["ways"]
    try:
        prediction = simulate(data)
    except (InputError, InfeasibleError):
        return
    assert 0.0 < prediction.latency_s < 1e4
    assert sum(prediction.breakdown_s.values()) == pytest.approx(prediction.latency_s, rel=1e-9)
    assert min(prediction.breakdown_s.values()) >= -1e-12
    assert prediction.hidden_communication_s >= 0.0


@pytest.mark.parametrize(
    "spec",
    [
        {"op": "gemm", "m": 512, "n": 4096, "k": 1024, "dtype": "float16"},
        {"op": "attention", "q_len": 2048, "kv_len": 2048, "num_heads": 16, "head_dim": 128},
        {"op": "all_reduce", "bytes": 4194304, "num_devices": 2, "library": "nccl"},
        {"op": "norm", "num_tokens": 512, "hidden_size": 4096},
        {"op": "norm", "num_tokens": 512, "hidden_size": 4096, "function": "rms_norm", "fused": True, "adds": 1},
        {"op": "elementwise", "num_elements": 1 << 20, "num_inputs": 2},
        {"op": "copy", "bytes": 1 << 20},
        {"op": "embedding", "num_tokens": 512, "hidden_size": 4096},
    ],
)
@pytest.mark.parametrize("hardware", list_profiles())
def test_predict_op_answers_in_microseconds(hardware: str, spec: dict[str, Any]) -> None:
    if len(load_profile(hardware).topology.gpus) < spec.get("num_devices", 1):
        with pytest.raises(InfeasibleError, match="1 GPUs"):
            predict_op(hardware, spec)
    else:
        assert 5e-7 < predict_op(hardware, spec) < 1e-2


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"op": "gem", "m": 1, "n": 1, "k": 1}, "gemm"),
        ({"op": "gemm", "m": 0, "n": 1, "k": 1}, "m"),
        ({"op": "gemm", "n": 1, "k": 1, "q": 3}, "q"),
        ({}, "op"),
        ({"op": "all_reduce", "bytes": 8, "num_devices": 2, "algorithm": "rong"}, "ring"),
        ({"op": "norm", "num_tokens": 8, "hidden_size": 64, "adds": 1}, "adds: is for a fused norm only"),
    ],
)
def test_predict_op_names_what_is_wrong(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        predict_op("h200-sxm-x2", spec)


def test_predict_op_refuses_more_devices_than_there_are() -> None:
    with pytest.raises(InfeasibleError, match="2 GPUs"):
        predict_op("h200-sxm-x2", {"op": "all_reduce", "bytes": 8, "num_devices": 4})
