"""A program is what one rank's host enqueues: kernels on streams, and the events that order the streams.

All ranks run the same program (tensor parallelism splits evenly), so one program describes the whole machine.
Layers that repeat are stored once with a repeat count.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.program.ops import Op

MAIN_STREAM = 0
"""Number of the stream of compute; a definition."""

COMM_STREAM = 1
"""Number of the stream of overlapped collectives; a definition."""


class Category(StrEnum):
    """The Kraken paper's breakdown of a forward pass (its figures 6 and 7)."""

    NORM = "norm"
    GEMM = "gemm"
    OVERLAPPED_GEMM = "overlapped_gemm"
    """GEMMs, copies and waiting between the launch of an overlapped AllReduce and its synchronisation."""
    ATTENTION = "attention"
    LM_HEAD = "lm_head"
    ALL_REDUCE = "all_reduce"
    """Communication that the main stream runs or waits for, whichever collective it is."""
    OTHER = "other"

    __hash__ = str.__hash__  # faster than Enum's


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel, compute or collective, enqueued on `stream`."""

    name: str
    op: Op
    category: Category
    stream: int = MAIN_STREAM


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """cudaEventRecord: `event` completes when the work enqueued on `stream` so far has completed."""

    event: str
    stream: int


@dataclass(frozen=True, slots=True)
class WaitEvent:
    """cudaStreamWaitEvent: `stream` goes on when the last recording of `event` has completed.

    `category` is what waiting on the main stream is charged to.
    """

    event: str
    stream: int
    category: Category = Category.OTHER


Step = Kernel | RecordEvent | WaitEvent


@dataclass(frozen=True, slots=True)
class Segment:
    """Steps that are enqueued `repeat` times in a row: the embedding, a layer, the head."""

    name: str
    steps: tuple[Step, ...]
    repeat: int = 1

    @property
    def kernels(self) -> Iterator[Kernel]:
        """The kernels of one repetition."""
        return (step for step in self.steps if isinstance(step, Kernel))


@dataclass(frozen=True, slots=True)
class Program:
    """The forward pass of one architecture on `num_devices` devices."""

    name: str
    num_devices: int
    segments: tuple[Segment, ...]
    num_points: int = 0
    """Points whose sizes its ops have as arrays (`kraken_sim.program.many`); 0 where they are plain numbers."""

    def steps(self) -> Iterator[tuple[str, int, Step]]:
        """Every step in host order with the name of its segment and the number of the repetition."""
        for segment in self.segments:
            for iteration in range(segment.repeat):
                for step in segment.steps:
                    yield segment.name, iteration, step

    def kernels(self) -> Iterator[Kernel]:
        """Every kernel in host order."""
        return (step for _, _, step in self.steps() if isinstance(step, Kernel))
