"""What every microbenchmark works with: buffers full of random data, the clock, the other ranks."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from kraken_sim.program.ops import DType

if TYPE_CHECKING:
    from torch import Tensor

    from validation.control import Control
    from validation.timing import Clock

ALIGN_GATE_S = 300e-6
"""Longer than the ranks' hosts drift apart within one repeat."""
REST_SHARE = 10.0
"""Ten times as long as the burst: the card then draws a quarter of its limit on average."""
LONGEST_REST_S = 0.03
"""Rests from which an H200 takes some ten milliseconds to come down again."""
LONGEST_BURST_S = 3e-3
"""A card that has rested stays at its boost clock for some tens of milliseconds."""
_ALIGNMENT_BYTES = 2048
_REMAPPED_SHARE = 0.3
_REMAPPED_BYTES = 64 << 20
_DRAWN_AT_ONCE = 1 << 26


class SkipCase(Exception):  # noqa: N818 - not an error: the case does not fit this machine
    """This case cannot run on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rank measured in one case.

    `times` are samples by the name of the record's field, one a repeat; `fields` go into the record as they are.
    """

    times: dict[str, list[float]]
    fields: dict[str, Any] = field(default_factory=dict)


class Arena:
    """A block of random numbers that buffers are cut from, one after the other, around and around."""

    def __init__(self, num_bytes: int, dtype: torch.dtype, device: torch.device) -> None:
        self._data = torch.empty(num_bytes // dtype.itemsize, dtype=dtype, device=device)
        if dtype.itemsize > 1:
            self._data.normal_()
        else:  # torch draws no random numbers of fewer bits
            for part in self._data.split(_DRAWN_AT_ONCE):
                part.copy_(torch.randn(part.shape, device=device))
        self._next = 0

    @property
    def num_bytes(self) -> int:
        """Size of the whole block."""
        return self._data.numel() * self._data.element_size()

    def rewind(self) -> None:
        """Cut from the beginning again."""
        self._next = 0

    def take(self, *shape: int) -> Tensor:
        """A contiguous buffer of random numbers; distinct from earlier ones until the block is used up.

        Raises:
            SkipCase: the block is smaller than one such buffer.
        """
        count = math.prod(shape)
        if count > self._data.numel():
            need = count * self._data.element_size() / 2**30
            raise SkipCase(f"needs a buffer of {need:.2f} GiB, this run has {self.num_bytes / 2**30:.2f} GiB for it")
        if self._next + count > self._data.numel():
            self._next = 0
        start = self._next
        self._next = start + -(-count * self._data.element_size() // _ALIGNMENT_BYTES) * (
            _ALIGNMENT_BYTES // self._data.element_size()
        )
        return self._data[start : start + count].view(shape)


@dataclass(slots=True)
class Bench:
    """One rank of a running measurement.

    Weights and caches come cold: cut from `weights`, after `flush`. Activations may be warm, since in a model
    the previous kernel has just written them: cut from `inputs` and `outputs`.
    """

    clock: Clock
    control: Control
    condition: str
    l2_bytes: int
    free_bytes: int
    """Free device memory at the start, of the rank that has least."""
    group: Any = None
    align_group: Any = None
    _arenas: dict[tuple[str, DType], Arena] = field(default_factory=dict)
    _flush: tuple[Tensor, Tensor] | None = None
    _pulse: Tensor | None = None
    memo: dict[Any, list[float]] = field(default_factory=dict)
    """Times of one side of a pair, by what was run: many pairs share a side."""

    @property
    def device(self) -> torch.device:
        """The device of this rank."""
        return self.clock.device

    @property
    def rank(self) -> int:
        """This rank."""
        return self.control.rank

    @property
    def world_size(self) -> int:
        """How many ranks."""
        return self.control.world_size

    def weights(self, dtype: DType) -> Arena:
        """Buffers that a model reads from HBM: weights and KV caches."""
        return self._arena("weights", dtype)

    def inputs(self, dtype: DType) -> Arena:
        """Activations that kernels read."""
        return self._arena("inputs", dtype)

    def outputs(self, dtype: DType) -> Arena:
        """Activations that kernels write."""
        return self._arena("outputs", dtype)

    def rewind(self) -> None:
        """Begin a case: cut buffers from the start again."""
        for arena in self._arenas.values():
            arena.rewind()

    def remap(self) -> None:
        """Give all buffers and a large part of the device's memory back to the driver; buffers are made anew."""
        self._arenas.clear()
        self._flush = None
        if not self.clock.is_cuda:
            return
        self.clock.synchronize()
        torch.cuda.empty_cache()
        blocks = int(_REMAPPED_SHARE * self.free_bytes) // _REMAPPED_BYTES
        held = [torch.zeros(_REMAPPED_BYTES, dtype=torch.uint8, device=self.device) for _ in range(blocks)]
        self.clock.synchronize()
        del held
        torch.cuda.empty_cache()

    def _arena(self, name: str, dtype: DType) -> Arena:
        found = self._arenas.get((name, dtype))
        if found is None:
            found = Arena(self._budget(name, dtype), getattr(torch, dtype.value), self.device)
            self._arenas[name, dtype] = found
        return found

    def _budget(self, name: str, dtype: DType) -> int:
        largest = {"weights": 6 << 30, "inputs": 2 << 30, "outputs": 2 << 30}[name]
        if not self.clock.is_cuda:
            return largest >> 6
        if dtype in (DType.BFLOAT16, DType.FLOAT8_E4M3):
            largest >>= 2
        share = 0.4 if name == "weights" else 0.15
        return min(largest, int(self.free_bytes * share)) & ~0xFFF

    def cold_count(self, num_bytes: int, calls: int) -> int:
        """How many buffers of `num_bytes` make each of `calls` calls read HBM: one each, or more than L2 twice."""
        return max(1, min(calls, -(-(5 * self.l2_bytes // 2) // max(1, num_bytes)) + 1))

    def flush(self) -> None:
        """Push everything out of L2 by reading; reading leaves nothing behind that must be written back."""
        if not self.clock.is_cuda:
            return
        if self._flush is None:
            columns = 1 << 14
            rows = -(-5 * self.l2_bytes // 2 // (4 * columns))
            source = torch.randn(rows, columns, device=self.device)
            self._flush = (source, torch.empty(rows, device=self.device))
        source, result = self._flush
        torch.sum(source, dim=1, out=result)

    def cool_and_flush(self, work_s: float) -> None:
        """Idle for `REST_SHARE` times as long as a burst of about `work_s` seconds lasts, then flush.

        Bursts one after another come to the card's power limit, and then run below the boost clock without saying so.
        """
        if self.clock.is_cuda:
            time.sleep(min(LONGEST_REST_S, REST_SHARE * work_s))
        self.flush()

    def all_reduce(self, data: Tensor) -> None:
        """The collective under test, on the current stream."""
        dist.all_reduce(data, group=self.group)

    def align(self) -> None:
        """Let all ranks' devices go on at the same moment; every rank must call this."""
        if self.world_size == 1:
            return
        if self._pulse is None:
            self._pulse = torch.zeros(8, device=self.device)
        self.clock.gate(ALIGN_GATE_S)
        dist.all_reduce(self._pulse, group=self.align_group)


def chain_length(estimate_s: float, *, least: int = 4, most: int = 40, target_s: float = 250e-6) -> int:
    """Calls in a chain: enough that its ends do not matter, few enough that it is captured soon and stays a burst."""
    fewest = max(1, min(least, int(LONGEST_BURST_S / max(estimate_s, 1e-6))))
    return max(fewest, min(most, math.ceil(target_s / max(estimate_s, 1e-6))))
