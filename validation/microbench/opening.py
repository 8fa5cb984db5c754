"""Getting a rank ready to measure: device, streams, process groups, clocks raised."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch
import torch.distributed as dist

from validation.control import TIMEOUT, Control, below
from validation.microbench.bench import Bench
from validation.timing import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from validation.job import Job

_WARM_UP_S: Final = 0.3


@contextmanager
def open_bench(job: Job, control: Control) -> Iterator[Bench]:
    """The device, its streams, and the process groups of this rank."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if job.device_type == "cuda" else torch.device("cpu")
    clock = Clock.on(device)
    bench = Bench(clock, control, job.condition, _l2_bytes(device), _free_bytes(device, control))
    together = control.world_size > 1 and job.has_collectives
    if together:
        assert control.store is not None
        dist.init_process_group(
            "nccl" if clock.is_cuda else "gloo",
            store=below(control.store, "groups"),
            rank=control.rank,
            world_size=control.world_size,
            timeout=TIMEOUT,
            device_id=device if clock.is_cuda else None,
        )
        bench.group, bench.align_group = dist.group.WORLD, dist.new_group()
    try:
        _warm_up(bench)
        yield bench
    finally:
        # destroy_process_group() can wait for ranks that are gone; the process ends anyway.
        clock.synchronize()


def _l2_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return 1 << 20
    return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)) or 50 << 20


def _free_bytes(device: torch.device, control: Control) -> int:
    """Free device memory of the rank that has least, so that all ranks cut the same buffers."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 1 << 30
    return int(min(control.gather(int(free))))


def _warm_up(bench: Bench) -> None:
    """Raise the clocks, load the libraries, connect the ranks."""
    if bench.clock.is_cuda:
        data = torch.randn(4096, 4096, device=bench.device, dtype=torch.float16)
        begun = time.perf_counter()
        while time.perf_counter() - begun < _WARM_UP_S:
            torch.mm(data, data)
            bench.clock.synchronize()
    if bench.group is not None:
        for num_elements in (8, 1 << 16, 1 << 22):
            bench.all_reduce(torch.zeros(num_elements, device=bench.device, dtype=torch.float32))
        bench.align()
        bench.clock.synchronize()
