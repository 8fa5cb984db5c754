"""Traces as profilers write them, and as they arrive: gzipped, cut, of another kind, very long."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from trace_support import DATA, document, host, kernel, written

from kraken_sim.errors import InputError
from kraken_sim.traces.device_trace import read_trace

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = [
    host("user_annotation", "ProfilerStep#4", 0.0, 50.0),
    host("cpu_op", "aten::mm", 1.0, 5.0),
    host("cuda_runtime", "cudaLaunchKernel", 2.0, 3.0, correlation=9),
    kernel("gemm_b", 20.5, 4.0, correlation=10),
    kernel("gemm_a", 10.0, 8.25, correlation=9),
    host("cuda_runtime", "cudaLaunchKernel", 6.0, 2.0, correlation=10),
    kernel("Memset (Device)", 30.0, 1.0, correlation=11, stream=8),
]


def times_of(path: Path) -> list[tuple[str, float, float]]:
    trace = read_trace(path)
    (kernels,) = trace.devices.values()
    return [
        (trace.names[name], round(1e6 * start, 6), round(1e6 * duration, 6))
        for name, start, duration in zip(kernels.name, kernels.start_s, kernels.duration_s, strict=True)
    ]


WHOLE = [("gemm_a", 10.0, 8.25), ("gemm_b", 20.5, 4.0), ("Memset (Device)", 30.0, 1.0)]


def test_kernels_copies_and_fills_are_read_in_order_of_their_start(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", EVENTS, distributedInfo={"rank": 3, "world_size": 8})
    assert times_of(path) == WHOLE
    trace = read_trace(path)
    assert (trace.rank, trace.world_size, trace.num_events) == (3, 8, len(EVENTS))
    assert trace.device_names[0] == "NVIDIA H200"
    assert [(step.number, step.start_s) for step in trace.steps] == [(4, 0.0)]
    assert trace.devices[0].stream.tolist() == [7, 7, 8]


def test_a_kernel_was_launched_when_its_call_ended_and_a_graphs_when_it_began(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path / "a.json", EVENTS))
    np.testing.assert_allclose(1e6 * trace.devices[0].launched_s, [5.0, 8.0, np.nan])
    graph = [host("cuda_runtime", "cudaGraphLaunch", 2.0, 90.0, correlation=1)]
    graph += [kernel("gemm", 10.0 + 5 * index, 4.0, correlation=1) for index in range(3)]
    trace = read_trace(written(tmp_path / "b.json", graph))
    np.testing.assert_allclose(1e6 * trace.devices[0].launched_s, [2.0, 2.0, 2.0])


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("shape", ["object", "list", "keys behind", "gzip", "byte order mark"])
def test_however_it_is_written_it_is_the_same_trace(shape: str, indent: int | None, tmp_path: Path) -> None:
    whole: Any = document(EVENTS)
    if shape == "list":
        whole = EVENTS
    if shape == "keys behind":
        whole = {"traceEvents": whole.pop("traceEvents"), "more": {"traceEvents": [1]}, **whole}
    data = json.dumps(whole, indent=indent).encode()
    data = gzip.compress(data) if shape == "gzip" else b"\xef\xbb\xbf" + data if shape == "byte order mark" else data
    path = tmp_path / "trace"
    path.write_bytes(data)
    assert times_of(path) == WHOLE


def test_a_trace_longer_than_a_piece_is_read_through(tmp_path: Path) -> None:
    events = [kernel(f"gemm_{index % 7}_" + "ä" * (index % 50), 2.0 * index, 1.0) for index in range(9_000)]
    path = written(tmp_path / "a.json", events)
    assert path.stat().st_size > 1_500_000
    found = times_of(path)
    assert [start for _, start, _ in found] == [2.0 * index for index in range(9_000)]
    assert found[8_999][0] == events[8_999]["name"]


def test_the_memory_of_a_trace_is_that_of_its_kernels_and_not_of_its_text(tmp_path: Path) -> None:
    filler = [host("cpu_op", f"aten::{index}" + "x" * 400, index, 1.0) for index in range(20_000)]
    path = written(tmp_path / "a.json", [*filler, *EVENTS])
    size = path.stat().st_size
    tracemalloc.start()
    read_trace(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 10_000_000
    assert peak < 0.6 * size


def test_what_comes_before_a_cut_is_read_and_the_cut_is_said(tmp_path: Path) -> None:
    text = json.dumps(document(EVENTS))
    path = tmp_path / "a.json"
    path.write_text(text[: text.index("Memset") - 3], encoding="utf-8")
    assert times_of(path) == WHOLE[:2]
    assert "ends in the middle" in str(read_trace(path).cut)
    many = json.dumps(document([kernel(f"gemm_{index}", index, 0.5) for index in range(5_000)])).encode()
    path.write_bytes(gzip.compress(many)[:-20_000])
    trace = read_trace(path)
    assert "compressed data" in str(trace.cut)
    assert 0 < trace.num_kernels < 5_000


def test_what_is_no_json_any_more_is_said_with_its_place(tmp_path: Path) -> None:
    text = json.dumps(document(EVENTS))
    at = text.index('"gemm_a"')
    path = tmp_path / "a.json"
    path.write_text(text[:at] + "oops" + text[at:], encoding="utf-8")
    cut = read_trace(path).cut
    assert cut is not None
    assert abs(int(cut.split("byte ")[1].split(" ")[0].replace(",", "")) - at) < 200
    assert times_of(path) == WHOLE[1:2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("hello", "is no trace"),
        ("{}", "holds no events"),
        ('{"traceEvents": 3}', "holds no events"),
        ('{"traceEvents": [', "holds no events; it ends in the middle"),
        (json.dumps(document(EVENTS[:3])), "none of a GPU (1 of user_annotation, 1 of cpu_op, 1 of cuda_runtime)"),
        ("[" * 100_000, "holds no events"),
        ('{"traceEvents": [{"cat": "kernel", "ts": "soon", "dur": 1}]}', "none of a GPU"),
        ('{"traceEvents": [{"cat": "kernel", "ts": 1e999, "dur": 1}]}', "none of a GPU"),
    ],
)
def test_what_is_no_trace_of_a_gpu_is_named(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert words in str(caught.value)


def test_odd_values_in_an_event_are_no_more_than_odd(tmp_path: Path) -> None:
    odd = [
        kernel("gemm", 1.0, 2.0, correlation="x", stream=10**30, device=None),
        kernel("gemm", 5.0, -2.0),
        {"cat": "kernel", "name": None, "ts": "7.5", "dur": True},
        {"cat": 3},
        ["kernel"],
        None,
    ]
    trace = read_trace(written(tmp_path / "a.json", [*EVENTS, *odd]))  # type: ignore[list-item]
    assert trace.num_kernels == len(WHOLE) + 1


@pytest.mark.parametrize("name", ["h200-llama-8b-decode", "h200-qwen3-8b-prefill-compiled"])
def test_a_measured_trace_is_of_an_h200_and_says_what_its_step_took(name: str) -> None:
    trace = read_trace(DATA / f"{name}.trace.json")
    assert trace.device_names[0] == "NVIDIA H200"
    assert trace.num_kernels == 48
    assert trace.is_beginning
    assert trace.period_s is not None
    assert trace.period_s > float(np.max(trace.devices[0].start_s) - np.min(trace.devices[0].start_s))
