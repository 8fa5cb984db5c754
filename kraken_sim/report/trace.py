"""Timelines as torch.profiler (Kineto) JSON, one file a rank: what Perfetto and chrome://tracing open.

Layout after pytorch/kineto's chrome trace output: complete events ("ph": "X") in microseconds, one track a
stream and one of the host, `"rank": 0` written with the space that readers' regular expressions expect. A kernel has
the correlation number of the host's call that launched it; a step is an annotation of the host.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kraken_sim.costs.collectives.tuning import TREE
from kraken_sim.engine.streams import launch_ps
from kraken_sim.engine.timeline import SpanKind
from kraken_sim.errors import InfeasibleError
from kraken_sim.files.ours import GENERATOR, signature
from kraken_sim.files.whole import write_whole
from kraken_sim.program.ops import Collective, CollectiveKind, Copy, DType
from kraken_sim.program.program import Kernel
from kraken_sim.traces.kernel_names import KernelClass, class_of_op

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping
    from pathlib import Path

    from kraken_sim.engine.timeline import Span, Timeline
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.program.ops import Op

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


HOST_PID = 10_000
"""Process number of rank 0's host; rank r's is r more. A choice of ours, as any number serves."""
GPU_SORT_INDEX = 5_000_000
"""Where the track of a device stands below the hosts': kineto libkineto/src/output_json.cpp."""
MOST_RANKS = 64
"""Ranks that get a file of their own although they are alike; a limit of ours, as all are the same but their number."""
MOST_SPANS = 10_000_000
"""Kernels and waits of the traces of one run, all ranks together; a limit of ours, 5 GB and two minutes."""

_MOST_WRITTEN = 10_000
"""Texts of events that are kept for their copies, then all are dropped; a limit of ours, so that memory stays flat."""
_HELD = '"@{}@"'
"""What stands in a text for a number that copies of a layer do not share."""
_EAGER_CALLS: Mapping[bool, str] = {False: "cudaLaunchKernel", True: "cudaLaunchKernelExC"}
"""By whether it is a collective's kernel: NVIDIA/nccl src/enqueue.cc launches with the extended call."""
_SYNCHRONIZE, _GRAPH_LAUNCH = "cudaDeviceSynchronize", "cudaGraphLaunch"


def trace_files(prediction: Prediction, folder: Path) -> dict[Path, int]:
    """The files that `write_traces` writes, each with its rank."""
    simulated = {span.rank for span in prediction.timeline.simulated}
    ranks = simulated.union(range(min(prediction.resolved.num_devices, MOST_RANKS)))
    return {folder / f"rank{rank}.pt.trace.json": rank for rank in sorted(ranks)}


def write_traces(prediction: Prediction, folder: Path) -> list[Path]:
    """Write one trace a rank and return the files; folded ranks have rank 0's timeline, the first 64 of them a file.

    Layers that were folded are written one by one, so that a trace takes room on the disk and none in memory.

    Raises:
        InfeasibleError: more than `MOST_SPANS` would be written.
    """
    ranks = defaultdict[int, list["Span"]](list)
    for span in prediction.timeline.simulated:
        ranks[span.rank].append(span)
    timelines = {rank: replace(prediction.timeline, simulated=tuple(spans)) for rank, spans in ranks.items()}
    writers = {
        path: _Writer(prediction, timelines.get(rank) or timelines[min(timelines)], rank, path.name)
        for path, rank in trace_files(prediction, folder).items()
    }
    num_spans = sum(writer.timeline.num_spans for writer in writers.values())
    if num_spans > MOST_SPANS:
        message = f"{num_spans:,} kernels and waits are too many for traces; ask again with fewer layers or devices"
        raise InfeasibleError(message, f"{MOST_SPANS:,} kernels and waits")
    for path, writer in writers.items():
        write_whole(path, (text.encode() for text in writer.document()))
    return list(writers)


@dataclass(slots=True)
class _Writer:
    """Writes the trace of one rank, event by event."""

    prediction: Prediction
    timeline: Timeline
    rank: int
    name: str
    texts: dict[Hashable, str] = field(default_factory=dict)
    """Of the events around a span, by everything that its copies share."""

    def document(self) -> Iterator[str]:
        """The text of the trace."""
        yield json.dumps(self._head(), indent=1).removesuffix("]\n}")
        yield "\n  " + ",\n  ".join(_indented(event) for event in self._fixed_events())
        for number, span in enumerate(self.timeline.in_order()):
            if span.kind is not SpanKind.WAIT:
                yield ",\n  " + self._span(span, number + _FIRST_CORRELATION)
        yield "\n ]\n}"

    def _head(self) -> dict[str, Any]:
        """What stands before the events, under torch's names, and the question under ours."""
        scenario, device = self.prediction.scenario, self.prediction.profile.device
        return {
            GENERATOR: signature(),
            "schemaVersion": 1,
            "deviceProperties": [
                {
                    "id": self.rank,
                    "name": device.name,
                    "totalGlobalMem": int(device.hbm_capacity_bytes),
                    "numSms": device.num_sms,
                }
            ],
            "distributedInfo": {
                "backend": "nccl",
                "rank": self.rank,
                "world_size": self.prediction.resolved.num_devices,
            },
            "kraken_sim": {
                "name": scenario.name,
                "hardware": scenario.hardware,
                "phase": scenario.phase.value,
                "launch": scenario.runtime.launch.value,
                "slowdown": self.prediction.slowdown,
            },
            "baseTimeNanoseconds": 0,
            "displayTimeUnit": "ms",
            "traceName": self.name,
            "traceEvents": [],
        }

    def _fixed_events(self) -> Iterator[dict[str, Any]]:
        """Names of tracks, the step, and what the host does once in it."""
        host, end_us = HOST_PID + self.rank, self.timeline.end_ps / 1e6
        yield from _process(host, "CPU", host)
        yield from _process(self.rank, f"GPU {self.rank}", GPU_SORT_INDEX + self.rank)
        yield _named(host, host, "thread_name", name=f"thread {host} (python)")
        for stream in sorted({span.stream for span in self.timeline.simulated}):
            number = FIRST_STREAM + stream
            yield _named(self.rank, number, "thread_name", name=f"stream {number}")
            yield _named(self.rank, number, "thread_sort_index", sort_index=number)
        yield self._host_event("user_annotation", "ProfilerStep#0", 0.0, end_us, {})
        launched_us = 0.0
        if self._eager:
            launched_us = max((span.queued_ps for span in self.timeline.in_order()), default=0) / 1e6
        else:
            launched_us = self.prediction.prepared.machine.launch.graph_launch_s * 1e6
            yield self._host_event("cuda_runtime", _GRAPH_LAUNCH, 0.0, launched_us, {"correlation": _GRAPH_CORRELATION})
        waited_us = max(0.0, end_us - launched_us)
        yield self._host_event("cuda_runtime", _SYNCHRONIZE, launched_us, waited_us, {"correlation": 0})

    @property
    def _eager(self) -> bool:
        return self.prediction.prepared.eager

    def _host_event(
        self, category: str, name: str, start_us: object, duration_us: float, args: Mapping[str, object]
    ) -> dict[str, Any]:
        host = HOST_PID + self.rank
        return {
            "ph": "X",
            "cat": category,
            "name": name,
            "pid": host,
            "tid": host,
            "ts": start_us,
            "dur": duration_us,
            "args": args,
        }

    def _span(self, span: Span, number: int) -> str:
        """The events around a span: its kernel, when eager its launch, and the arrow between them."""
        # Copies of a layer differ in when they begin, in their number, and in the number of their launch.
        key = (*span[:6], span.end_ps - span.start_ps, span.alone_s, span.detail, id(span.op))
        text = self.texts.get(key)
        if text is None:
            if len(self.texts) >= _MOST_WRITTEN:
                self.texts.clear()
            text = self.texts[key] = ",\n  ".join(_indented(event) for event in self._events(span))
        correlation = number if self._eager else _GRAPH_CORRELATION
        launch_us = (span.queued_ps - self._launch_ps(span)) / 1e6 if self._eager else 0.0
        held = (span.start_ps / 1e6, span.iteration, correlation, launch_us)
        for index, value in enumerate(held):
            text = text.replace(_HELD.format(index), repr(value))
        return text

    def _launch_ps(self, span: Span) -> int:
        assert span.op is not None
        step = Kernel(span.name, span.op, span.category, span.stream)
        return launch_ps(step, self.prediction.prepared.machine.launch)

    def _events(self, span: Span) -> Iterator[dict[str, Any]]:
        """Start, repetition, number of the launch and its time are left open."""
        correlation, launched = _open(2), _open(3)
        if self._eager:
            is_collective = isinstance(span.op, Collective)
            call, args = _EAGER_CALLS[is_collective], {"correlation": correlation}
            yield self._host_event("cuda_runtime", call, launched, self._launch_ps(span) / 1e6, args)
            host = HOST_PID + self.rank
            yield _arrow("s", host, host, correlation, launched)
            yield _arrow("f", self.rank, FIRST_STREAM + span.stream, correlation, _open(0)) | {"bp": "e"}
        yield {
            "ph": "X",
            "cat": _category_of(span.op),
            "name": self._kernel_name(span),
            "pid": self.rank,
            "tid": FIRST_STREAM + span.stream,
            "ts": _open(0),
            "dur": (span.end_ps - span.start_ps) / 1e6,
            "args": self._args(span) | {"correlation": correlation},
        }

    def _kernel_name(self, span: Span) -> str:
        if isinstance(span.op, Collective):
            cost, dtype = self.prediction.prepared.pricing.collective(span.op), self.prediction.scenario.dtype
            kernel = CUSTOM_NAMES.get(cost.kernel) or nccl_kernel(span.op.kind, cost.algorithm, dtype)
            return f"{kernel} ({span.name})"
        return f"Memcpy DtoD ({span.name})" if _category_of(span.op) == "gpu_memcpy" else span.name

    def _args(self, span: Span) -> dict[str, Any]:
        op, pricing = span.op, self.prediction.prepared.pricing
        args: dict[str, Any] = {
            "device": self.rank,
            "context": 1,
            "stream": FIRST_STREAM + span.stream,
            "queued": 0,
            "node": span.name,
            "class": class_of_op(op).value if op is not None else "",
            "segment": span.segment,
            "iteration": _open(1),
            "alone us": span.alone_s * 1e6,
            "how": span.detail,
        }
        if isinstance(op, Collective):
            cost = pricing.collective(op)
            sent, received = message_bytes(op)
            num_bytes = self.prediction.scenario.dtype.num_bytes
            args |= {
                "grid": [cost.channels, 1, 1],
                "bytes": cost.link_bytes,
                "Collective name": TORCH_NAMES[op.kind],
                "In msg nelems": sent // num_bytes,
                "Out msg nelems": received // num_bytes,
                "Group size": op.num_devices,
            }
        elif op is not None:
            kernel = pricing.kernel(op)
            args |= {"grid": [kernel.ctas, 1, 1], "flops": kernel.flops, "bytes": kernel.hbm_bytes}
        return args


_GRAPH_CORRELATION = 1
"""A graph's kernels share the number of its launch, as CUPTI has it; a definition."""
_FIRST_CORRELATION = 2
"""Of kernels that are launched one by one; a choice of ours."""


def _open(index: int) -> str:
    """What stands for a number that is filled in later: `_HELD` without its quotes."""
    return _HELD.format(index).strip('"')


def _indented(event: Mapping[str, Any]) -> str:
    return json.dumps(event, indent=1).replace("\n", "\n  ")


def _named(pid: int, tid: int, what: str, **args: object) -> dict[str, Any]:
    """A name or a place of a track."""
    return {"ph": "M", "name": what, "ts": 0.0, "pid": pid, "tid": tid, "args": args}


def _process(pid: int, label: str, sort_index: int) -> Iterator[dict[str, Any]]:
    yield _named(pid, 0, "process_name", name="python")
    yield _named(pid, 0, "process_labels", labels=label)
    yield _named(pid, 0, "process_sort_index", sort_index=sort_index)


def _arrow(phase: str, pid: int, tid: int, correlation: object, time_us: object) -> dict[str, Any]:
    """The beginning (s) or end (f) of the arrow from a launch to its kernel."""
    return {"ph": phase, "cat": "ac2g", "name": "ac2g", "id": correlation, "pid": pid, "tid": tid, "ts": time_us}


def _category_of(op: Op | None) -> str:
    """What kineto calls a kernel, a plain copy or a fill: libkineto/src/ActivityType.cpp."""
    if op is not None and class_of_op(op) is KernelClass.MEMSET:
        return "gpu_memset"
    return "gpu_memcpy" if isinstance(op, Copy) and not op.strided else "kernel"


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
