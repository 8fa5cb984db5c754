"""Where a process stands: which part of a model it has, and which part of every step's sequences it takes."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from kraken_sim.errors import InputError
from validation.models.communication import Group, world_group

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for another: longer than compiling takes. A choice of ours."""


@dataclass(frozen=True, slots=True)
class Place:
    """`model` are the ranks that share one model, `data` those that have the same part of it, `world` all."""

    world: Group
    model: Group
    data: Group
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process speaks for all."""
        return self.world.rank == 0


@contextmanager
def join(devices_per_model: int | None = None, device: str | None = None) -> Iterator[Place]:
    """Joins the processes that torchrun started; a process of its own stands alone.

    Args:
        devices_per_model: ranks that share a model; default: all. The others are data parallel.
        device: cuda or cpu; default: what there is.

    Raises:
        InputError: the ranks do not divide into models.
    """
    world_size, local_rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    size = devices_per_model or world_size
    if world_size % size:
        raise InputError.single("--devices-per-model", f"must divide the {world_size} processes", size, "1")
    where = torch.device("cpu")
    if kind == "cuda":
        where = torch.device("cuda", local_rank)
        torch.cuda.set_device(where)
    if world_size == 1:
        yield Place(Group(), Group(), Group(), where)
        return
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield place_of(world_group(), size, where)
    finally:
        dist.destroy_process_group()


def place_of(world: Group, size: int, device: torch.device) -> Place:
    """Neighbouring ranks share a model; every rank calls it, because it makes groups."""
    copies = world.size // size
    copy, part = divmod(world.rank, size)
    model = _group([[c * size + p for p in range(size)] for c in range(copies)], part, world)
    data = _group([[c * size + p for c in range(copies)] for p in range(size)], copy, world)
    return Place(world, model, data, device)


def _group(members: list[list[int]], rank: int, world: Group) -> Group:
    size = len(members[0])
    if size == world.size:
        return world
    if size == 1:
        return Group()
    handle, _ = dist.new_subgroups_by_enumeration(members)
    return Group(rank, size, handle)
