"""Which windows of a corpus a step reads: a function of seed and step alone, so that a run can go on anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kraken_sim.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    Tokens = np.ndarray[Any, np.dtype[Any]]


class Windows:
    """Windows of `length` + 1 tokens, every one of an epoch once, each epoch in an order and from an offset of its own.

    Raises:
        InputError: the text has fewer windows than one step reads.
    """

    def __init__(self, tokens: Tokens, length: int, seed: int, least: int) -> None:
        self.tokens, self.length, self.seed = tokens, length, seed
        # One window less than there is room for: that leaves room for an offset.
        self.per_epoch = max(0, (len(tokens) - 1) // length - 1)
        if self.per_epoch < least:
            message = f"too little text: it has {self.per_epoch} sequences of {length} tokens, a step needs {least}"
            raise InputError.single("--data", message, example="a larger corpus, or fewer sequences_per_step")
        self._epoch = -1
        self._starts: Tokens = np.empty(0, dtype=np.int64)

    def read(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [count, length] of the windows `first`.. of the run."""
        rows = np.stack([self._window(index) for index in range(first, first + count)]).astype(np.int64)
        windows = torch.from_numpy(rows)
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()

    def _window(self, index: int) -> Tokens:
        epoch, place = divmod(index, self.per_epoch)
        if epoch != self._epoch:
            generator = np.random.default_rng((self.seed, epoch))
            offset = int(generator.integers(self.length))
            self._starts = offset + self.length * generator.permutation(self.per_epoch)
            self._epoch = epoch
        start = int(self._starts[place])
        return self.tokens[start : start + self.length + 1]


def in_order(tokens: Tokens, length: int, count: int, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets [count, length] of windows side by side, of at most `limit` tokens; the rest is left out.

    Raises:
        InputError: the text is too short for one batch.
    """
    batch = count * length
    num_batches = min((len(tokens) - 1) // batch, max(1, limit // batch))
    if not num_batches:
        message = f"too little text: the validation side has {len(tokens):,} tokens, one batch needs {batch + 1:,}"
        raise InputError.single("--data", message, example="a larger corpus, or a larger --validation-share")
    for index in range(num_batches):
        part = np.asarray(tokens[index * batch : (index + 1) * batch + 1]).astype(np.int64)
        ids = torch.from_numpy(part)
        yield ids[:-1].view(count, length), ids[1:].view(count, length)
