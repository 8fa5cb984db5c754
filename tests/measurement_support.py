"""Measurement files made of predictions, so that what a calibration should find is known."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from kraken_sim.calibration.small_kernels import memory_bound_op
from kraken_sim.costs.collectives.policy import CollectivePolicy, Transport
from kraken_sim.measurements.records.kernels import AllReduceRecord, AttentionRecord, GemmRecord, MemoryBoundRecord
from kraken_sim.measurements.records.launched import LaunchRecord
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.schema import CONDITIONS, Header, to_text
from kraken_sim.predict.pricing import Pricing
from kraken_sim.program.ops import Attention, Collective, CollectiveKind, DType, Gemm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kraken_sim.profiles.profile import HardwareProfile

F16 = DType.FLOAT16
NOISE = 0.01
TIMED: dict[str, Any] = {"calls": 10, "repeats": 5}
GRAPH: dict[str, Any] = {"dtype": "float16", "launch": "graph"} | TIMED


def header(**changes: Any) -> Header:
    """Two H200, or what `changes` make of them."""
    fields: dict[str, Any] = {
        "started_at": "2026-01-01T00:00:00+00:00",
        "suite": "full",
        "device_type": "cuda",
        "device_name": "NVIDIA H200",
        "num_devices": 2,
        "num_sms": 132,
        "memory_bytes": 150_109_880_320,
        "torch": "2.11.0",
        "nccl": "2.28.9",
        "host": {"num_cpus": 32, "platform": "Linux", "python": "3.12.3"},
        "environment": {"NCCL_NVLS_ENABLE": "0"},
        "conditions": {
            name: dict(found.collective) if (found := CONDITIONS[name]).collective else None
            for name in ("nccl-default", "channels-4", "p2p-off")
        },
    }
    return Header.model_validate(fields | changes)


def write(path: Path, records: Sequence[Any], **changes: Any) -> Path:
    """A measurement file."""
    path.write_text(to_text([header(**changes), *records]), encoding="utf-8")
    return path


def microbenchmarks(truth: HardwareProfile) -> list[Any]:
    """Single kernels and collectives as `truth` predicts them, one per cent of noise on each."""
    noise = random.Random(7)

    def times(busy_s: float) -> list[float]:
        period_s = (busy_s + truth.launch.graph_node_gap_s) * noise.gauss(1.0, NOISE)
        return [0.998 * period_s, period_s, 1.002 * period_s]

    pricing = Pricing(truth)
    return [
        *_launch(truth),
        *_gemms(pricing, times),
        *_attentions(pricing, times),
        *_memory_bound(pricing, times),
        *_all_reduces(truth, times),
    ]


def _gemms(pricing: Pricing, times: Any) -> list[GemmRecord]:
    shapes = [(m, n, k) for m in (1, 16, 128, 512, 2048) for n in (1024, 3072, 8192) for k in (1024, 3584, 8192)]
    shapes += [(m, n, 4096) for m in (256, 1024, 4096) for n in (1536, 2048, 4096, 6144, 12288)]
    return [
        GemmRecord(m=m, n=n, k=k, time_s=times(pricing.kernel(Gemm(m, n, k, F16)).busy_s), **GRAPH)
        for m, n, k in shapes
    ]


def _attentions(pricing: Pricing, times: Any) -> list[AttentionRecord]:
    prefill = [(1, t, t, h, True) for t in (128, 512, 1024, 2048, 4096) for h in (4, 8, 14, 16, 28, 32)]
    decode = [(b, 1, t, h, False) for b in (1, 4, 16, 64) for t in (128, 512, 2048, 8192) for h in (8, 32)]
    records = []
    for batch, q_len, kv_len, heads, causal in prefill + decode:
        op = Attention(batch, q_len, kv_len, heads, heads, 128, causal, F16)
        shape: dict[str, Any] = {
            "batch": batch,
            "q_len": q_len,
            "kv_len": kv_len,
            "num_heads": heads,
            "num_kv_heads": heads,
        }
        time_s = times(pricing.kernel(op).busy_s)
        records.append(AttentionRecord(head_dim=128, causal=causal, time_s=time_s, **shape, **GRAPH))
    return records


def _memory_bound(pricing: Pricing, times: Any) -> list[MemoryBoundRecord]:
    records = []
    for function in ("norm", "gelu", "add", "copy", "kv_write", "embedding"):
        for tokens in (1, 16, 128, 512, 2048, 8192):
            for width in (1024, 3584, 8192):
                shape = {"function": function, "num_tokens": tokens, "hidden_size": width}
                blank = MemoryBoundRecord.model_validate(shape | GRAPH | {"time_s": [1.0, 1.0, 1.0]})
                op = memory_bound_op(blank)
                assert op is not None
                time_s = times(pricing.kernel(op).busy_s)
                records.append(MemoryBoundRecord.model_validate(shape | GRAPH | {"time_s": time_s}))
    return records


def _all_reduces(truth: HardwareProfile, times: Any) -> list[AllReduceRecord]:
    policies = {
        "nccl-default": CollectivePolicy(),
        "channels-4": CollectivePolicy(channels=4),
        "p2p-off": CollectivePolicy(transport=Transport.SHM),
    }
    records = []
    for condition, policy in policies.items():
        pricing = Pricing(truth, policy)
        for exponent in range(10, 28):
            size = 1 << exponent
            time_s = times(pricing.collective(Collective(CollectiveKind.ALL_REDUCE, size, 2)).busy_s)
            records.append(AllReduceRecord(num_bytes=size, num_devices=2, condition=condition, time_s=time_s, **GRAPH))
    return records


def launch_record(
    quantity: str, detail: str, microseconds: float, condition: str | None = None, process: int = 1
) -> LaunchRecord:
    """One cost around kernels."""
    seconds = microseconds * 1e-6
    times = (0.99 * seconds, seconds, 1.01 * seconds)
    fields: dict[str, Any] = {"condition": condition, "process": process, "time_s": times}
    return LaunchRecord(quantity=quantity, detail=detail, **fields, **TIMED)


def _launch(truth: HardwareProfile) -> list[LaunchRecord]:
    gap_us = 1e6 * truth.launch.graph_node_gap_s
    return [
        *(launch_record("host_kernel", name, 6.0) for name in ("add", "copy", "attention", "gelu", "gemm", "norm")),
        *(launch_record("host_module", name, 6.0) for name in ("linear", "layer_norm")),
        launch_record("host_layer", "standard", 66.0),
        launch_record("host_event", "record", 1.0),
        launch_record("host_event", "wait", 2.0),
        launch_record("graph_node_gap", "", gap_us),
        launch_record("graph_chain", "", gap_us + 0.5),
        launch_record("graph_edge", "", 0.2),
        launch_record("graph_start", "nodes=1", 5.0),
        launch_record("graph_start", "nodes=100", 7.0),
        launch_record("queued_chain", "", 1.7),
        *(launch_record("host_all_reduce", "blocking", 30.0, name) for name in ("nccl-default", "channels-4")),
        *(launch_record("host_all_reduce", "side_stream", 60.0, name) for name in ("nccl-default", "channels-4")),
    ]


def pass_record(architecture: str, time_s: float, **changes: Any) -> PassRecord:
    """One measured prefill of the smallest preset."""
    fields: dict[str, Any] = {
        "architecture": {"kind": architecture},
        "model": {"preset": "1.3B"},
        "num_devices": 2,
        "phase": "prefill",
        "batch_size": 1,
        "context_length": 128,
        "overlap": architecture == "kraken",
        "condition": "nccl-default",
        "time_s": [0.99 * time_s, time_s, 1.01 * time_s],
    }
    return PassRecord.model_validate(GRAPH | fields | changes)
