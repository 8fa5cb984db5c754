"""Timelines as torch.profiler (Kineto) JSON, one file a rank: what Perfetto and chrome://tracing open.

Layout after pytorch/kineto's chrome trace output: complete events ("ph": "X") in microseconds, one track a
stream, `"rank": 0` written with the space that readers' regular expressions expect.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kraken_sim.engine.timeline import SpanKind
from kraken_sim.program.ops import AllReduce

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.engine.timeline import Span
    from kraken_sim.predict.prediction import Prediction

FIRST_STREAM = 7
"""torch's own first stream number in a trace; the number itself carries no meaning."""


def write_traces(prediction: Prediction, folder: Path) -> list[Path]:
    """Write one trace a simulated rank and return the files; folded ranks share rank 0's timeline."""
    folder.mkdir(parents=True, exist_ok=True)
    spans = prediction.timeline.spans
    files = []
    for rank in sorted({span.rank for span in spans}):
        path = folder / f"rank{rank}.pt.trace.json"
        document = _document(prediction, [span for span in spans if span.rank == rank], rank)
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")
        files.append(path)
    return files


def _document(prediction: Prediction, spans: list[Span], rank: int) -> dict[str, Any]:
    devices = prediction.resolved.num_devices
    streams = sorted({span.stream for span in spans})
    names = [
        {
            "ph": "M",
            "name": "thread_name",
            "pid": rank,
            "tid": FIRST_STREAM + stream,
            "args": {"name": f"stream {FIRST_STREAM + stream}"},
        }
        for stream in streams
    ]
    events = [_event(span, rank, devices) for span in spans if span.kind is not SpanKind.WAIT]
    return {
        "schemaVersion": 1,
        "distributedInfo": {"backend": "nccl", "rank": rank, "world_size": devices},
        "traceName": prediction.scenario.name,
        "displayTimeUnit": "ms",
        "traceEvents": [*names, *events],
    }


def _event(span: Span, rank: int, num_devices: int) -> dict[str, Any]:
    args: dict[str, Any] = {
        "device": rank,
        "stream": FIRST_STREAM + span.stream,
        "segment": span.segment,
        "iteration": span.iteration,
        "alone us": span.alone_s * 1e6,
        "how": span.detail,
    }
    name = span.name
    if isinstance(span.op, AllReduce):
        name = f"ncclDevKernel_AllReduce_Sum_f16 ({span.name})"
        args |= {
            "Collective name": "allreduce",
            "In msg nelems": span.op.num_bytes // 2,
            "Out msg nelems": span.op.num_bytes // 2,
            "Group size": num_devices,
        }
    return {
        "ph": "X",
        "cat": "kernel",
        "name": name,
        "pid": rank,
        "tid": FIRST_STREAM + span.stream,
        "ts": span.start_ps / 1e6,
        "dur": (span.end_ps - span.start_ps) / 1e6,
        "args": args,
    }
