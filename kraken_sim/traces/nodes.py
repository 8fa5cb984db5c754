"""Kernels of one step on one device, ours or theirs, in one shape; and where the time of the step went among them."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from kraken_sim.engine.clock import to_s
from kraken_sim.engine.timeline import SpanKind
from kraken_sim.errors import InfeasibleError
from kraken_sim.program.ops import Gemm
from kraken_sim.traces.kernel_names import KernelClass, class_of_name, class_of_op

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.program.ops import Op
    from kraken_sim.traces.device_trace import DeviceKernels, DeviceTrace


MOST_NODES: Final = 1 << 20
"""Kernels of a predicted step that are lined up; a limit of ours, of a gigabyte and a minute."""


@dataclass(frozen=True, slots=True)
class TraceNode:
    """A kernel, copy or fill; `launched_s` is when the host had launched it.

    `exposed_s` is the part of it in which nothing that began before was running, a collective's the part without any
    compute. `gap_s` is how long the device stood still before it, `host_gap_s` that much of it as the host took to
    launch it. Exposed times and gaps of a step's nodes add up to the step.
    """

    name: str
    kernel_class: KernelClass
    start_s: float
    duration_s: float
    stream: int = 0
    launched_s: float = math.nan
    segment: str = ""
    iteration: int = 0
    exposed_s: float = 0.0
    gap_s: float = 0.0
    host_gap_s: float = 0.0
    flops_per_byte: float = math.nan
    """Of a predicted GEMM: its work by what it reads and writes."""

    @property
    def end_s(self) -> float:
        """Start plus duration."""
        return self.start_s + self.duration_s

    @property
    def is_collective(self) -> bool:
        """Whether other devices take part."""
        return self.kernel_class is KernelClass.COLLECTIVE


def nodes_of_prediction(prediction: Prediction) -> list[TraceNode]:
    """What rank 0 runs in a predicted step, folded layers written out, times from the launch of the step.

    Raises:
        InfeasibleError: more than `MOST_NODES`.
    """
    if (count := prediction.timeline.num_spans) > MOST_NODES:
        message = f"{count:,} kernels and waits of a step are too many to line up; ask again with fewer layers"
        raise InfeasibleError(message, f"{MOST_NODES:,} kernels and waits")
    return accounted(
        TraceNode(
            name=span.name,
            kernel_class=KernelClass.OTHER if span.op is None else class_of_op(span.op),
            start_s=span.start_s,
            duration_s=span.duration_s,
            stream=span.stream,
            launched_s=to_s(span.queued_ps),
            segment=span.segment,
            iteration=span.iteration,
            flops_per_byte=_flops_per_byte(span.op),
        )
        for span in prediction.timeline.in_order()
        if span.kind is not SpanKind.WAIT and span.rank == 0
    )


def _flops_per_byte(op: Op | None) -> float:
    """Of a GEMM, which reads both of its operands and writes its result."""
    if not isinstance(op, Gemm):
        return math.nan
    read = op.bytes_per_input * op.m * op.k + op.bytes_per_weight * op.k * op.n
    return op.flops / (read + op.dtype.bytes_per_element * op.m * op.n)


def nodes_of_trace(trace: DeviceTrace, kernels: DeviceKernels, first: int, end: int) -> list[TraceNode]:
    """The kernels of a device from the `first` up to the `end`, in order of their start."""
    columns = [column[first:end].tolist() for column in kernels]
    found = []
    for name, start_s, duration_s, stream, launched_s, place in zip(*columns, strict=True):
        segment, iteration, said = trace.places[place]
        known = said in KernelClass.__members__.values()
        found.append(
            TraceNode(
                name=trace.names[name],
                kernel_class=KernelClass(said) if known else class_of_name(trace.names[name]),
                start_s=start_s,
                duration_s=duration_s,
                stream=stream,
                launched_s=launched_s,
                segment=segment,
                iteration=iteration,
            )
        )
    return accounted(found)


def accounted(nodes: Iterable[TraceNode]) -> list[TraceNode]:
    """The same nodes in order of their start, with what each is of the step."""
    ordered = sorted(nodes, key=lambda node: node.start_s)
    compute = _Busy([node for node in ordered if not node.is_collective])
    found = []
    any_end_s = compute_end_s = collective_end_s = ordered[0].start_s if ordered else 0.0
    for node in ordered:
        gap_s = max(0.0, node.start_s - any_end_s)
        # Where it is not known when it was launched (nan), the gap is not the host's.
        host_gap_s = min(gap_s, node.launched_s - any_end_s) if node.launched_s > any_end_s else 0.0
        if node.is_collective:
            begin_s = min(node.end_s, max(node.start_s, collective_end_s))
            exposed_s = (node.end_s - begin_s) - compute.between_s(begin_s, node.end_s)
            collective_end_s = max(collective_end_s, node.end_s)
        else:
            exposed_s = max(0.0, node.end_s - max(node.start_s, compute_end_s))
            compute_end_s = max(compute_end_s, node.end_s)
        any_end_s = max(any_end_s, node.end_s)
        found.append(replace(node, exposed_s=max(0.0, exposed_s), gap_s=gap_s, host_gap_s=host_gap_s))
    return found


class _Busy:
    """When compute ran: intervals that do not touch, and how long they are together up to each."""

    def __init__(self, ordered: Sequence[TraceNode]) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []
        for node in ordered:
            if self.ends and node.start_s <= self.ends[-1]:
                self.ends[-1] = max(self.ends[-1], node.end_s)
            else:
                self.starts.append(node.start_s)
                self.ends.append(node.end_s)
        lengths = (end - start for start, end in zip(self.starts, self.ends, strict=True))
        self.before = [0.0, *accumulate(lengths)]

    def between_s(self, begin_s: float, end_s: float) -> float:
        """How much of an interval is in them."""
        return self._until_s(end_s) - self._until_s(begin_s)

    def _until_s(self, time_s: float) -> float:
        index = bisect_right(self.starts, time_s)
        if index == 0:
            return 0.0
        return self.before[index] - max(0.0, self.ends[index - 1] - time_s)


def span_s(nodes: Sequence[TraceNode]) -> float:
    """From the start of the first to the end of the last."""
    return max(node.end_s for node in nodes) - nodes[0].start_s if nodes else 0.0


def classes_of(nodes: Iterable[TraceNode]) -> dict[KernelClass, int]:
    """How many nodes there are of each class."""
    found: dict[KernelClass, int] = {}
    for node in nodes:
        found[node.kernel_class] = found.get(node.kernel_class, 0) + 1
    return found
