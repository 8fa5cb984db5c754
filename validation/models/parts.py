"""What a wiring's steps work on: the residual of all tokens, of each block, or of two halves of the tokens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch.nn.functional as nnf
from torch import Tensor

from kraken_sim.architectures.workload import Workload, halves_of
from kraken_sim.errors import InputError
from validation.models.communication import needs_gradient
from validation.models.layers import KeyValueCache, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.architectures.wiring import Wiring


@dataclass
class Part:
    """The residual of some tokens or of one block, what is still to be added to it, and what was made last."""

    step: Step
    residual: Tensor
    delta: Tensor | None = None
    kept: Tensor | None = None
    """The residual behind a sum that only a norm reads."""
    normed: Tensor | None = None
    made: Tensor | None = None
    attended: Tensor | None = None
    """The attention's output, which the FFN may add to."""
    sent: dict[str, Tensor] = field(default_factory=dict)

    def add(self, y: Tensor) -> None:
        """Adds y to the residual: in the next norm, or now what was still to be added."""
        self.settle()
        self.delta = y

    def settle(self) -> None:
        """Makes the sum that no norm has made."""
        if self.delta is not None:
            self.residual, self.delta = self.residual + self.delta, None


def parts_of(
    wiring: Wiring, x: Tensor, step: Step, num_blocks: int, new_cache: Callable[[int, int], KeyValueCache]
) -> list[Part]:
    """All tokens once for each of a rank's blocks, or two halves of the sequences or of the tokens of a single one.

    `new_cache` makes one for so many sequences and tokens, where the second half of a sequence needs the first's.
    """
    if not wiring.two_parts:
        return [Part(step, x) for _ in range(num_blocks)]
    halves = halves_of(Workload(step.batch, step.start + step.length, prefix_length=step.start))
    if len(halves) == 1:
        return [Part(step, x)]
    by_tokens = step.batch == 1
    if by_tokens and needs_gradient(x):
        message = "gradients of a sequence that is cut in two are not made here"
        raise InputError.single("batch_size", message, step.batch, "2")
    cache = step.cache or (new_cache(1, step.length) if by_tokens else None)
    parts: list[Part] = []
    row, sequence = 0, 0
    for half in halves:
        own = cache
        if cache is not None and not by_tokens:
            own = KeyValueCache(cache.data[:, sequence : sequence + half.batch_size])
        before, length = half.prefix_length, half.q_len
        rotary = None
        if step.rotary is not None:
            cos, sin = (table[before - step.start :][:length] for table in step.rotary)
            rotary = cos, sin
        cut = replace(step, batch=half.batch_size, length=length, start=before, cache=own, rotary=rotary)
        parts.append(Part(cut, x[row : row + half.num_tokens]))
        row, sequence = row + half.num_tokens, sequence + half.batch_size
    return parts


def filled(x: Tensor, rows: int) -> Tensor:
    """[R, d] with rows of zeros behind it, so that it has so many."""
    return x if len(x) == rows else nnf.pad(x, (0, 0, 0, rows - len(x)))
