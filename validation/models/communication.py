"""AllReduce as the models need it: in place for inference, differentiable for training, on a side stream.

A loss is the sum over ranks of what each rank computes from its own shard of the logits. The three
operators below make every rank's gradients those of that one loss (Shoeybi et al., "Megatron-LM",
arXiv 1909.08053, section 3, operators f and g):

    operator      forward    backward   where
    sum_partials  AllReduce  identity   a row-parallel GEMM leaves a partial sum on every rank
    fan_out       identity   AllReduce  replicated values enter computations that differ by rank
    exchange      AllReduce  AllReduce  values that differ by rank are summed and used differently by each

Where each rank has the residual of its own tokens (Korthikanti et al., arXiv 2205.05198, section 4.2.2), further:

    scatter_rows  ReduceScatter  AllGather      a row-parallel GEMM leaves a partial sum of all tokens on every rank
    gather_rows   AllGather      ReduceScatter  every rank's tokens enter computations that differ by rank
    collect_rows  AllGather      own rows       every rank's tokens enter the same computation on all ranks
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch.autograd import Function

from kraken_sim.errors import InputError
from validation.models.fused import LABEL

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    RowsFunction = Callable[[Tensor, "Group"], Tensor]


@dataclass(frozen=True, slots=True)
class Group:
    """This process' place among the ranks that act together.

    Without a handle nothing can be sent: a group of one, or one that only describes shapes.
    """

    rank: int = 0
    size: int = 1
    handle: dist.ProcessGroup | None = None


def world_group() -> Group:
    """All ranks of the default process group; a group of one when torch.distributed is not initialised."""
    if not dist.is_available() or not dist.is_initialized():
        return Group()
    return Group(dist.get_rank(), dist.get_world_size(), dist.group.WORLD)


@dataclass(frozen=True, slots=True)
class KrakenLayout:
    """How the sub-layers of a Kraken meet the ranks.

    `ways` are the sub-layers of this rank. `tensor` are the neighbouring ranks that share one sub-layer,
    `cross` the ranks with the same place in their tensor groups, which exchange outputs, `world` all.
    """

    ways: tuple[int, ...]
    tensor: Group
    cross: Group
    world: Group


def kraken_layout(num_ways: int, world: Group) -> KrakenLayout:
    """Places `num_ways` sub-layers on the ranks; every rank must call it, because it makes subgroups.

    Raises:
        InputError: neither of ways and devices is a multiple of the other.
    """
    if num_ways % world.size == 0:
        local = num_ways // world.size
        ways = tuple(range(world.rank * local, (world.rank + 1) * local))
        return KrakenLayout(ways, Group(), world, world)
    if world.size % num_ways:
        message = f"must be a multiple or a divisor of the {world.size} devices"
        raise InputError.single("architecture.ways", message, num_ways, str(world.size))
    size = world.size // num_ways
    way, place = divmod(world.rank, size)
    tensor = _subgroup([[w * size + p for p in range(size)] for w in range(num_ways)], place, world)
    cross = _subgroup([[w * size + p for w in range(num_ways)] for p in range(size)], way, world)
    return KrakenLayout((way,), tensor, cross, world)


def _subgroup(members: list[list[int]], rank: int, world: Group) -> Group:
    """The group of `members` that holds this process, in which its rank is `rank`."""
    size = len(members[0])
    if size == world.size:
        return world
    if size == 1 or world.handle is None:
        return Group(rank, size)
    handle, _ = dist.new_subgroups_by_enumeration(members)
    return Group(rank, size, handle)


def all_reduce_(x: Tensor, group: Group) -> Tensor:
    """Sums x over the group in place, without autograd, on the current stream."""
    if group.size > 1:
        dist.all_reduce(x, group=group.handle)
    return x


class _Sum(Function):
    """An AllReduce in the forward pass, the backward pass, or both."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, forward: bool, backward: bool) -> Tensor:
        ctx.group, ctx.sum_gradient = group, backward
        return all_reduce_(x.clone(), group) if forward else x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0]
        if ctx.sum_gradient:
            gradient = all_reduce_(gradient.clone(memory_format=torch.contiguous_format), ctx.group)
        return gradient, None, None, None


def _sum(x: Tensor, group: Group, forward: bool, backward: bool) -> Tensor:
    return cast("Tensor", _Sum.apply(x, group, forward, backward))  # type: ignore[no-untyped-call]


def needs_gradient(x: Tensor) -> bool:
    """Whether autograd records what happens to x."""
    return torch.is_grad_enabled() and x.requires_grad


def sum_partials(x: Tensor, group: Group) -> Tensor:
    """The sum of every rank's x; in place unless gradients flow."""
    if group.size == 1:
        return x
    return _sum(x, group, True, False) if needs_gradient(x) else all_reduce_(x, group)


def fan_out(x: Tensor, group: Group) -> Tensor:
    """The same x; its gradient is the sum of every rank's."""
    return _sum(x, group, False, True) if group.size > 1 and needs_gradient(x) else x


def exchange(x: Tensor, group: Group) -> Tensor:
    """The sum of every rank's x, whose gradient is a sum again; in place unless gradients flow."""
    if group.size == 1:
        return x
    return _sum(x, group, True, True) if needs_gradient(x) else all_reduce_(x, group)


class _Rows(Function):
    """A ReduceScatter, an AllGather or a choice of rows in the forward pass, another one in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, run: RowsFunction, back: RowsFunction) -> Tensor:
        ctx.group, ctx.back = group, back
        return run(x, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.back(gradients[0].contiguous(), ctx.group), None, None, None


def _rows(x: Tensor, group: Group, run: RowsFunction, back: RowsFunction) -> Tensor:
    if group.size == 1:
        return x
    if not needs_gradient(x):
        return run(x, group)
    return cast("Tensor", _Rows.apply(x, group, run, back))  # type: ignore[no-untyped-call]


def _all_gather(x: Tensor, group: Group) -> Tensor:
    whole = x.new_empty((x.shape[0] * group.size, *x.shape[1:]))
    # Newer releases of torch renamed both, and the old names warn.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(whole, x, group=group.handle)
    return whole


def _reduce_scatter(x: Tensor, group: Group) -> Tensor:
    own = x.new_empty((x.shape[0] // group.size, *x.shape[1:]))
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    # On a CPU the library copies here on our thread.
    with torch.profiler.record_function(f"{LABEL}reduce_scatter"):
        scatter(own, x, group=group.handle)
    return own


def own_rows(x: Tensor, group: Group) -> Tensor:
    """This rank's share of x [R, ...], whose rows divide by the ranks."""
    return x.chunk(group.size)[group.rank]


def scatter_rows(x: Tensor, group: Group) -> Tensor:
    """[R, d] to this rank's [R / N, d] of the sum of every rank's x."""
    return _rows(x, group, _reduce_scatter, _all_gather)


def gather_rows(x: Tensor, group: Group) -> Tensor:
    """[R / N, d] of each rank to [R, d], whose gradient is the sum of every rank's."""
    return _rows(x, group, _all_gather, _reduce_scatter)


def collect_rows(x: Tensor, group: Group) -> Tensor:
    """[R / N, d] of each rank to [R, d], whose gradient is the same on all ranks."""
    return _rows(x, group, _all_gather, own_rows)


class SideStreamSum:
    """In-place AllReduces beside the current stream's work (no autograd).

    On CUDA they run on a stream of their own with CUDA's lowest priority (0), forked from and joined to the
    current stream by events, so that a graph capture of the current stream takes them in. Elsewhere each is
    an asynchronous work item of the backend. Several may be under way, each under its name.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self._stream: torch.cuda.Stream | None = None
        self._events: dict[str, tuple[torch.cuda.Event, torch.cuda.Event]] = {}
        self._works: dict[str, dist.Work] = {}

    def start(self, buffer: Tensor, name: str = "") -> None:
        """Launches the AllReduce of `buffer`, which nobody may touch before `finish`."""
        if buffer.device.type != "cuda":
            self._works[name] = dist.all_reduce(buffer, group=self.group.handle, async_op=True)
            return
        main = torch.cuda.current_stream(buffer.device)
        # torch hands out 32 streams in turn, so ours can later become somebody's main stream.
        if self._stream is None or self._stream == main:
            self._stream = torch.cuda.Stream(buffer.device, priority=0)
            self._events.clear()
        if name not in self._events:
            self._events[name] = (torch.cuda.Event(), torch.cuda.Event())
        ready, done = self._events[name]
        ready.record(main)
        self._stream.wait_event(ready)
        with torch.cuda.stream(self._stream):
            dist.all_reduce(buffer, group=self.group.handle)
            done.record(self._stream)

    def finish(self, name: str = "") -> None:
        """Lets the current stream go on only when the sum is there."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_event(self._events[name][1])
        elif name in self._works:
            self._works.pop(name).wait()
