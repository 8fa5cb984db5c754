"""Microbenchmarks of what the server runs and profiles do not know: its attention calls, and what its host does.

Attention is timed alone, in graphs, over the caches of all layers in turn, at lengths that are alike. The host's
launches are timed one kind at a time on tensors so small that the device never lags, its bookkeeping on an engine that
answers at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as nnf

from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.serving.arrivals import Lengths, drawn_requests
from validation.models import fused
from validation.serving.attention import attend
from validation.serving.engine import Inputs, Part
from validation.serving.server import replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from validation.serving.engine import ServingEngine

BATCHES = (1, 2, 4, 8, 16, 24, 32, 48, 64)
CACHED = (32, 128, 256, 512, 768, 1024, 1536, 2048)
CHUNKS = (16, 64, 128, 256, 512, 1024)
BEFORE = (0, 256, 512, 1024)
_REPEATS = 7
_LAUNCHES = 200


def attention_lines(engine: ServingEngine) -> Iterator[dict[str, Any]]:
    """Seconds of one call by shape: decode batches on caches alike, chunks of one prompt behind what is cached."""
    for batch in BATCHES:
        for cached in CACHED:
            if batch <= engine.num_rows and cached < engine.row:
                parts = [Part(row, cached, (0,)) for row in range(batch)]
                yield _line(engine, parts, batch, 1, cached)
    for length in CHUNKS:
        for before in BEFORE:
            if length + before <= engine.row:
                yield _line(engine, [Part(0, before, (0,) * length)], 1, length, before)


def _line(engine: ServingEngine, parts: Sequence[Part], batch: int, length: int, cached: int) -> dict[str, Any]:
    inputs = Inputs(batch * length, batch, engine.device)
    inputs.fill(parts, engine.row)
    rows = engine._rows(inputs, 0, batch, length)
    attention = _layer(engine).attention
    width = (batch * length, attention.num_heads, attention.head_dim)
    q = torch.randn(width, dtype=engine.cache.data.dtype, device=engine.device)
    layers = [data.flatten(0, 1) for data in engine.cache.data]

    def chain() -> None:
        for kv in layers:
            attend(q, kv[:, 0], kv[:, 1], rows, flash=engine.flash)

    return {
        "kind": "attention",
        "batch": batch,
        "q_len": length,
        "cached": cached,
        "time_s": _seconds(chain, engine.device) / len(layers),
    }


def _layer(engine: ServingEngine) -> Any:
    return engine.model.layers[0]


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Median time of a call: of a graph of it on CUDA."""
    with torch.inference_mode():
        call()
        if device.type != "cuda":
            begun = time.perf_counter()
            call()
            return time.perf_counter() - begun
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        samples = []
        for _ in range(_REPEATS):
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            graph.replay()
            last.record()
            torch.cuda.synchronize()
            samples.append(1e-3 * float(first.elapsed_time(last)))
        return sorted(samples)[_REPEATS // 2]


def launch_lines(engine: ServingEngine) -> Iterator[dict[str, Any]]:
    """Host seconds of launching each kind of call of a layer once, the device being faster."""
    model, device = engine.model, engine.device
    layer, kernels = _layer(engine), KernelSet.COMPILED
    attention = layer.attention
    dtype = engine.cache.data.dtype
    with torch.inference_mode():
        x = torch.randn(8, model.config.hidden_size, dtype=dtype, device=device)
        heads = attention.num_heads + 2 * attention.num_kv_heads
        qkv = torch.randn(8, heads, attention.head_dim, dtype=dtype, device=device)
        table = torch.randn(8, attention.head_dim, dtype=dtype, device=device)
        places = torch.arange(8, device=device).unsqueeze(1)
        kv = engine.cache.data[0].flatten(0, 1)
        inputs = Inputs(8, 1, device)
        inputs.fill([Part(0, 0, (0,) * 8)], engine.row)
        rows = engine._rows(inputs, 0, 1, 8)
        small = torch.randn(8, 64, dtype=dtype, device=device)
        weight = torch.randn(64, 64, dtype=dtype, device=device)
        gates = torch.randn(8, 128, dtype=dtype, device=device)
        calls: dict[str, Callable[[], object]] = {
            "gemm": lambda: nnf.linear(small, weight),
            "add_norm": lambda: layer.attention_norm.after(x, x, kernels),
            "rope_store": lambda: fused.rope_store_at(qkv, table, table, kv, places),
            "silu_mul": lambda: fused.silu_mul(gates),
            "attention": lambda: attend(
                qkv[:, : attention.num_heads].contiguous(), kv[:, 0], kv[:, 1], rows, flash=engine.flash
            ),
        }
        for name, call in calls.items():
            yield {"kind": "launch", "call": name, "time_s": _host_seconds(call, device)}


def _host_seconds(call: Callable[[], object], device: torch.device) -> float:
    samples = []
    for _ in range(_REPEATS):
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(_LAUNCHES):
            call()
        samples.append((time.perf_counter() - begun) / _LAUNCHES)
    return sorted(samples)[_REPEATS // 2]


class _AtOnce:
    """An engine that answers at once."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def step(self, decode: Sequence[Part], chunks: Sequence[Part]) -> list[int]:
        return [0] * (len(decode) + len(chunks))


def host_lines(engine: ServingEngine) -> Iterator[dict[str, Any]]:
    """What the host does in a step beside launching kernels: inputs and answer, and bookkeeping, by batch."""
    for batch in (1, 8, 32, engine.num_rows):
        inputs = Inputs(batch, batch, engine.device)
        parts = [Part(row, 100, (0,)) for row in range(batch)]

        def exchange(inputs: Inputs = inputs, parts: list[Part] = parts) -> None:
            inputs.fill(parts, engine.row)
            inputs.used.tolist()

        samples = []
        for _ in range(50):
            begun = time.perf_counter()
            exchange()
            samples.append(time.perf_counter() - begun)
        yield {"kind": "exchange", "batch": batch, "time_s": sorted(samples)[25]}
        requests = drawn_requests(batch, 1e9, Lengths(16), Lengths(200), 0)
        log = replay(_AtOnce(batch), requests, max_num_batched_tokens=1 << 20)  # type: ignore[arg-type]
        samples = [step["end_s"] - step["start_s"] - step["device_s"] for step in log.steps if not step["chunks"]]
        yield {"kind": "bookkeeping", "batch": batch, "time_s": sorted(samples)[len(samples) // 2]}
