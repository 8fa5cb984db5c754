"""Which kernels a case consists of: name, CTAs and their size, as torch's profiler sees them.

Kernels are matched to cases through the host: a kernel carries the correlation number of the launch call, and
that call lies within the labelled range of its case.
"""

from __future__ import annotations

import bisect
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kraken_sim.measurements.records.kernels import AllReduceCase, AttentionCase, GemmCase, MemoryBoundCase
from kraken_sim.measurements.records.launched import ProfiledKernel
from validation.microbench import all_reduce, attention, gemm, memory_bound
from validation.microbench.bench import Bench, SkipCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kraken_sim.measurements.records.base import Case

    Call = Callable[[], object]

_LABEL = "case:"
_NAME_LENGTH = 96
_MOST_KERNELS = 6


def profile(bench: Bench, targets: Sequence[Case]) -> dict[str, list[ProfiledKernel]]:
    """The kernels of one call of each target, by its key; targets that cannot run are left out."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for target in targets:
            bench.rewind()
            try:
                warm, labelled = _two_calls(bench, target)
            except SkipCase:
                continue
            warm()
            with torch.profiler.record_function(_LABEL + target.key):
                labelled()
            bench.clock.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    return kernels_by_label(events)


def _two_calls(bench: Bench, target: Case) -> tuple[Call, Call]:
    if isinstance(target, GemmCase):
        first, second = gemm.calls_of(bench, target, 2)
    elif isinstance(target, AttentionCase):
        (first, second), _ = attention.calls(bench, target, 2)
    elif isinstance(target, MemoryBoundCase):
        first, second = memory_bound.calls_of(bench, target, 2)
    elif isinstance(target, AllReduceCase):
        elements = max(1, target.num_bytes // target.dtype.num_bytes)
        data = bench.outputs(target.dtype).take(elements)
        data.copy_(bench.inputs(target.dtype).take(elements)).mul_(1e-4)
        first, second = all_reduce.calls(bench, data, 2)
    else:
        raise SkipCase(f"no kernels to look at in {target.kind}")
    return first, second


def kernels_by_label(events: Iterable[dict[str, Any]]) -> dict[str, list[ProfiledKernel]]:
    """Kernels in launch order by the key in their label, from the events of a Chrome trace."""
    ranges: list[tuple[float, float, str]] = []
    launched_at: dict[int, float] = {}
    kernels: list[dict[str, Any]] = []
    for event in events:
        category = event.get("cat")
        if category == "user_annotation" and str(event.get("name", "")).startswith(_LABEL):
            begun = float(event["ts"])
            ranges.append((begun, begun + float(event["dur"]), event["name"].removeprefix(_LABEL)))
        elif category in ("cuda_runtime", "cuda_driver"):
            launched_at[event.get("args", {}).get("correlation", -1)] = float(event["ts"])
        elif category in ("kernel", "gpu_memcpy", "gpu_memset"):
            kernels.append(event)
    ranges.sort()
    starts = [begun for begun, _, _ in ranges]
    found: dict[str, list[ProfiledKernel]] = {}
    for event in sorted(kernels, key=lambda kernel: float(kernel["ts"])):
        launch = launched_at.get(event.get("args", {}).get("correlation", -2))
        index = bisect.bisect_right(starts, launch) - 1 if launch is not None else -1
        if index < 0 or launch is None or launch > ranges[index][1]:
            continue
        of_case = found.setdefault(ranges[index][2], [])
        if len(of_case) < _MOST_KERNELS:
            of_case.append(_kernel(event))
    return found


def kernels_in_order(events: Iterable[dict[str, Any]], most: int) -> list[ProfiledKernel]:
    """The first `most` kernels, copies and fills of a Chrome trace by their start, which counts from the first's."""
    found = [event for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    found.sort(key=lambda event: float(event["ts"]))
    begun = float(found[0]["ts"]) if found else 0.0
    return [_kernel(event, (float(event["ts"]) - begun) * 1e-6) for event in found[:most]]


def _kernel(event: dict[str, Any], start_s: float | None = None) -> ProfiledKernel:
    details = event.get("args", {})
    grid, block = details.get("grid", (0, 0, 0)), details.get("block", (0, 0, 0))
    return ProfiledKernel(
        name=str(event["name"])[:_NAME_LENGTH],
        grid=(int(grid[0]), int(grid[1]), int(grid[2])),
        block=(int(block[0]), int(block[1]), int(block[2])),
        registers=details.get("registers per thread"),
        shared_memory_bytes=details.get("shared memory"),
        busy_s=float(event["dur"]) * 1e-6,
        start_s=start_s,
    )
