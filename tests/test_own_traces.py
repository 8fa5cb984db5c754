"""What other tools look for in a trace of ours: the fields that Holistic Trace Analysis 0.5 and Perfetto read."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim import simulate
from kraken_sim.report.trace import write_traces

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}


def traces(folder: Path, launch: str, **fields: Any) -> list[dict[str, Any]]:
    question = {"hardware": "h200-sxm-x2", "model": {"preset": "125M"}, "context_length": 256}
    question |= {"architecture": {"kind": "kraken"}, "phase": "decode", "runtime": {"launch": launch}}
    files = write_traces(simulate(question | fields), folder)
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    assert [one["traceName"] for one in found] == [file.name for file in files]
    return found


def of(trace: dict[str, Any], *categories: str) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event.get("cat") in categories]


@pytest.mark.parametrize("launch", ["graph", "eager"])
def test_every_rank_has_a_file_that_says_whose_it_is(launch: str, tmp_path: Path) -> None:
    found = traces(tmp_path, launch)
    assert [one["distributedInfo"] for one in found] == [
        {"backend": "nccl", "rank": rank, "world_size": 2} for rank in range(2)
    ]
    for rank, trace in enumerate(found):
        # What readers look for with a regular expression, before they parse.
        assert f'"rank": {rank}' in (tmp_path / f"rank{rank}.pt.trace.json").read_text(encoding="utf-8")[:2000]
        assert [(one["id"], one["name"]) for one in trace["deviceProperties"]] == [(rank, "NVIDIA H200 SXM")]
        assert {event["pid"] for event in of(trace, *DEVICE)} == {rank}
        assert {event["args"]["device"] for event in of(trace, *DEVICE)} == {rank}


@pytest.mark.parametrize("launch", ["graph", "eager"])
def test_every_track_has_a_name_and_a_place(launch: str, tmp_path: Path) -> None:
    (trace, _) = traces(tmp_path, launch)
    named = Counter((event["name"], event["pid"]) for event in trace["traceEvents"] if event["ph"] == "M")
    used = {(event["pid"], event["tid"]) for event in trace["traceEvents"] if event["ph"] == "X"}
    for pid, _ in used:
        for what in ("process_name", "process_labels", "process_sort_index"):
            assert named[what, pid] == 1
    threads = {(e["pid"], e["tid"]) for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert used == threads
    assert {event["args"]["stream"] for event in of(trace, *DEVICE)} == {7, 8}


def test_kernels_of_a_graph_share_the_call_that_launched_it(tmp_path: Path) -> None:
    (trace, _) = traces(tmp_path, "graph")
    calls = {event["name"]: event for event in of(trace, "cuda_runtime")}
    assert set(calls) == {"cudaGraphLaunch", "cudaDeviceSynchronize"}
    number = calls["cudaGraphLaunch"]["args"]["correlation"]
    assert {event["args"]["correlation"] for event in of(trace, *DEVICE)} == {number}
    begin_us = min(event["ts"] for event in of(trace, *DEVICE))
    assert calls["cudaGraphLaunch"]["dur"] == pytest.approx(begin_us)


def test_every_kernel_that_is_launched_alone_has_its_call_and_an_arrow_from_it(tmp_path: Path) -> None:
    (trace, _) = traces(tmp_path, "eager")
    calls = {event["args"]["correlation"]: event for event in of(trace, "cuda_runtime") if "Launch" in event["name"]}
    kernels = {event["args"]["correlation"]: event for event in of(trace, *DEVICE)}
    assert calls.keys() == kernels.keys()
    assert len(kernels) == len(of(trace, *DEVICE))
    for number, kernel in kernels.items():
        assert calls[number]["ts"] + calls[number]["dur"] <= kernel["ts"] + 1e-6
        collective = kernel["name"].startswith("nccl")
        assert calls[number]["name"] == ("cudaLaunchKernelExC" if collective else "cudaLaunchKernel")
    arrows = of(trace, "ac2g")
    starts = {arrow["id"]: arrow["ts"] for arrow in arrows if arrow["ph"] == "s"}
    ends = {arrow["id"]: arrow["ts"] for arrow in arrows if arrow["ph"] == "f"}
    assert starts == {number: call["ts"] for number, call in calls.items()}
    assert ends == {number: kernel["ts"] for number, kernel in kernels.items()}


@pytest.mark.parametrize("launch", ["graph", "eager"])
def test_the_step_is_an_annotation_around_everything(launch: str, tmp_path: Path) -> None:
    (trace, _) = traces(tmp_path, launch)
    (step,) = of(trace, "user_annotation")
    assert step["name"] == "ProfilerStep#0"
    ends = [event["ts"] + event["dur"] for event in trace["traceEvents"] if event["ph"] == "X"]
    assert max(ends) == pytest.approx(step["ts"] + step["dur"])


def test_a_kernel_says_its_grid_its_bytes_and_its_operations(tmp_path: Path) -> None:
    (trace, _) = traces(tmp_path, "graph", phase="prefill", architecture={"kind": "standard"})
    assert {event["cat"] for event in of(trace, *DEVICE)} <= DEVICE
    for event in of(trace, *DEVICE):
        args = event["args"]
        assert len(args["grid"]) == 3
        assert min(args["grid"]) >= 1
        assert args["bytes"] >= 0.0
        assert args["class"] in ("collective", "copy", "gemm", "norm", "attention", "add", "activation", "embedding")
    head = next(event for event in of(trace, "kernel") if event["args"]["node"] == "lm_head")
    # One token, 768 wide, half of a vocabulary of 50,304 rows.
    assert head["args"]["flops"] == 2 * 768 * 50_304 / 2


def test_alike_ranks_of_a_large_machine_do_not_all_get_a_file(tmp_path: Path) -> None:
    sizes = {"num_hidden_layers": 1, "hidden_size": 576, "num_attention_heads": 72, "vocab_size": 7200}
    prediction = simulate({"hardware": "gb200-nvl72", "model": sizes, "context_length": 64})
    assert prediction.resolved.num_devices == 72
    assert len(write_traces(prediction, tmp_path)) == 64
