"""Cut a stretch of a program where the device is idle: kernels that run alone, and windows of overlap.

At a cut the device is quiescent: the side stream has been joined and the main stream is between two kernels,
so what follows depends on what came before only through a few times (when each stream may start its next
kernel, when the host will have enqueued what). A program is cut as finely as that holds:

- a kernel of the main stream outside of any window runs *alone*, and its duration is a closed form;
- a *window* begins with the recording on the main stream that the side stream waits for, and ends with the
  main stream's wait for the side stream's last step. Inside, kernels compete: that is simulated by events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Kernel, RecordEvent, WaitEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.program.program import Step


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Steps of both streams, from a fork to its join; compared by identity."""

    steps: tuple[Step, ...]


Piece = Kernel | Window


def pieces_of(steps: Sequence[Step]) -> tuple[Piece, ...] | None:
    """The pieces of a segment, or None where it can't be cut: then all of it has to be simulated."""
    pieces: list[Piece] = []
    position = 0
    while position < len(steps):
        step = steps[position]
        if isinstance(step, Kernel) and step.stream == MAIN_STREAM:
            pieces.append(step)
            position += 1
            continue
        length = _window_length(steps[position:])
        if length is None:
            return None
        pieces.append(Window(tuple(steps[position : position + length])))
        position += length
    return tuple(pieces)


def _window_length(steps: Sequence[Step]) -> int | None:
    """How many steps from a fork to the first join after which nothing of the side stream is left."""
    forks: set[str] = set()
    joins: set[str] = set()
    forked = False
    for count, step in enumerate(steps, 1):
        if step.stream == COMM_STREAM:
            if not forked and not (isinstance(step, WaitEvent) and step.event in forks):
                return None
            forked = True
            joins = {step.event} if isinstance(step, RecordEvent) else set()
        elif isinstance(step, RecordEvent):
            forks.add(step.event)
        elif isinstance(step, WaitEvent):
            if step.event in joins:
                return count
        elif not forks:
            return None
    return None
