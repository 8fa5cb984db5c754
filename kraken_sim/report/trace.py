"""Timelines as torch.profiler (Kineto) JSON, one file a rank: what Perfetto and chrome://tracing open.

Layout after pytorch/kineto's chrome trace output: complete events ("ph": "X") in microseconds, one track a
stream, `"rank": 0` written with the space that readers' regular expressions expect.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kraken_sim.costs.collectives.tuning import TREE
from kraken_sim.engine.timeline import SpanKind
from kraken_sim.files.ours import GENERATOR, signature
from kraken_sim.files.whole import write_whole
from kraken_sim.program.ops import Collective, CollectiveKind, DType

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping
    from pathlib import Path

    from kraken_sim.engine.timeline import Span, Timeline
    from kraken_sim.predict.prediction import Prediction

FIRST_STREAM = 7
"""torch's own first stream number in a trace; the number itself carries no meaning."""
NCCL_NAMES: Mapping[CollectiveKind, str] = {
    CollectiveKind.ALL_REDUCE: "AllReduce",
    CollectiveKind.ALL_GATHER: "AllGather",
    CollectiveKind.REDUCE_SCATTER: "ReduceScatter",
    CollectiveKind.ALL_TO_ALL: "SendRecv",
    CollectiveKind.BROADCAST: "Broadcast",
    CollectiveKind.SEND_RECV: "SendRecv",
}
"""NCCL's kernels; sends and receives of any pattern are one kernel."""
TORCH_NAMES: Mapping[CollectiveKind, str] = {
    CollectiveKind.ALL_REDUCE: "allreduce",
    CollectiveKind.ALL_GATHER: "_allgather_base",
    CollectiveKind.REDUCE_SCATTER: "_reduce_scatter_base",
    CollectiveKind.ALL_TO_ALL: "all_to_all",
    CollectiveKind.BROADCAST: "broadcast",
    CollectiveKind.SEND_RECV: "send",
}
"""What torch's ProcessGroupNCCL calls them (c10d::RECORD_PARAM_COMMS_DATA)."""
CUSTOM_NAMES: Mapping[str, str] = {
    "one_shot_vllm": "vllm::cross_device_reduce_1stage",
    "two_shot_vllm": "vllm::cross_device_reduce_2stage",
    "one_shot_tensorrt_llm": "tensorrt_llm::kernels::oneShotAllReduceKernel",
    "two_shot_tensorrt_llm": "tensorrt_llm::kernels::twoShotAllReduceKernel",
    "multimem": "multimem_all_reduce_kernel",
}
"""By the names of the profiles: vLLM csrc/custom_all_reduce.cuh, TensorRT-LLM customAllReduceKernels.cu, torch's
CUDASymmetricMemoryOps.cu."""
NCCL_TYPES: Mapping[DType, str] = {DType.FLOAT16: "f16", DType.BFLOAT16: "bf16", DType.FLOAT32: "f32"}


_MOST_WRITTEN = 10_000
"""Texts of events that are kept for their copies, then all are dropped; a limit of ours, so that memory stays flat."""


def trace_files(prediction: Prediction, folder: Path) -> dict[Path, int]:
    """The files that `write_traces` writes, each with its rank."""
    ranks = sorted({span.rank for span in prediction.timeline.simulated})
    return {folder / f"rank{rank}.pt.trace.json": rank for rank in ranks}


def write_traces(prediction: Prediction, folder: Path) -> list[Path]:
    """Write one trace a simulated rank and return the files; folded ranks share rank 0's timeline.

    Layers that were folded are written one by one, so that a trace takes room on the disk and none in memory.
    """
    ranks = defaultdict[int, list["Span"]](list)
    for span in prediction.timeline.simulated:
        ranks[span.rank].append(span)
    files = trace_files(prediction, folder)
    for path, rank in files.items():
        timeline = replace(prediction.timeline, simulated=tuple(ranks[rank]))
        write_whole(path, (text.encode() for text in _document(prediction, timeline, rank)))
    return list(files)


def _document(prediction: Prediction, timeline: Timeline, rank: int) -> Iterator[str]:
    """The text of a trace, event by event."""
    document = {
        GENERATOR: signature(),
        "schemaVersion": 1,
        "distributedInfo": {"backend": "nccl", "rank": rank, "world_size": prediction.resolved.num_devices},
        "traceName": prediction.scenario.name,
        "displayTimeUnit": "ms",
        "traceEvents": [],
    }
    yield json.dumps(document, indent=1).removesuffix("]\n}")
    separator = "\n  "
    for stream in sorted({span.stream for span in timeline.simulated}):
        yield separator + _indented(_thread(rank, stream))
        separator = ",\n  "
    written: dict[Hashable, tuple[str, str, str]] = {}
    for span in timeline.in_order():
        if span.kind is SpanKind.WAIT:
            continue
        # Copies of a layer differ in when they begin and in their number alone.
        key = (*span[:6], span.end_ps - span.start_ps, span.alone_s, span.detail, id(span.op))
        if key not in written:
            if len(written) >= _MOST_WRITTEN:
                written.clear()
            written[key] = _around(_indented(_event(span, rank, prediction)))
        before, between, after = written[key]
        yield f"{separator}{before}{span.start_ps / 1e6!r}{between}{span.iteration}{after}"
    yield "\n ]\n}"


def _indented(event: Mapping[str, Any]) -> str:
    return json.dumps(event, indent=1).replace("\n", "\n  ")


def _around(event: str) -> tuple[str, str, str]:
    """The text of an event before, between and after its time and the number of its layer."""
    before, rest = event.split('\n   "ts": ', 1)
    between, after = rest.split('\n    "iteration": ', 1)
    return f'{before}\n   "ts": ', between[between.index(",") :] + '\n    "iteration": ', after[after.index(",") :]


def _thread(rank: int, stream: int) -> dict[str, Any]:
    """The name of a stream's track."""
    number = FIRST_STREAM + stream
    return {"ph": "M", "name": "thread_name", "pid": rank, "tid": number, "args": {"name": f"stream {number}"}}


def _event(span: Span, rank: int, prediction: Prediction) -> dict[str, Any]:
    args: dict[str, Any] = {
        "device": rank,
        "stream": FIRST_STREAM + span.stream,
        "segment": span.segment,
        "iteration": span.iteration,
        "alone us": span.alone_s * 1e6,
        "how": span.detail,
    }
    name = span.name
    if isinstance(span.op, Collective):
        dtype, cost = prediction.scenario.dtype, prediction.prepared.pricing.collective(span.op)
        sent, received = message_bytes(span.op)
        name = f"{CUSTOM_NAMES.get(cost.kernel) or nccl_kernel(span.op.kind, cost.algorithm, dtype)} ({span.name})"
        args |= {
            "Collective name": TORCH_NAMES[span.op.kind],
            "In msg nelems": sent // dtype.num_bytes,
            "Out msg nelems": received // dtype.num_bytes,
            "Group size": span.op.num_devices,
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


def nccl_kernel(kind: CollectiveKind, algorithm: str, dtype: DType) -> str:
    """NCCL's kernel as a profiler shows it, such as ncclDevKernel_AllReduce_Sum_f16_RING_LL.

    Few kernels are compiled and stand for all protocols, and RING for all algorithms but trees. Source: NVIDIA/nccl
    src/device/generate.py (best_kernel).
    """
    parts = ["ncclDevKernel", NCCL_NAMES[kind]]
    if kind in (CollectiveKind.ALL_REDUCE, CollectiveKind.REDUCE_SCATTER):
        parts += ["Sum", NCCL_TYPES[dtype]]
    if NCCL_NAMES[kind] != "SendRecv":
        parts += ["TREE" if algorithm == TREE else "RING", "LL"]
    return "_".join(parts)


def message_bytes(op: Collective) -> tuple[int, int]:
    """Bytes of a rank's input and output buffers."""
    share = op.num_bytes // op.num_devices
    received = share if op.kind is CollectiveKind.REDUCE_SCATTER else op.num_bytes
    return share if op.kind is CollectiveKind.ALL_GATHER else op.num_bytes, received
