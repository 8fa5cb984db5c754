"""Runs steps of a decoder on a static cache: decode batches as CUDA graphs by batch size, steps with prompts eagerly.

A sequence has a row of the cache for its whole life. A decode batch is padded to the next captured size with
sequences of one token in a row of their own. Every step ends when the host has its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.serving.captured import captured
from validation.models import fused
from validation.models.layers import Step
from validation.serving.attention import Rows, attend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from validation.models.attention import SelfAttention
    from validation.models.decoder import StackedDecoder


@dataclass(frozen=True, slots=True)
class Part:
    """New tokens of one sequence in a step: its row, the tokens before them, the tokens."""

    row: int
    start: int
    tokens: Sequence[int]


class Inputs:
    """What a step reads on the device, for at most `most` tokens of at most `sequences` sequences; kept in place."""

    def __init__(self, most: int, sequences: int, device: torch.device) -> None:
        def integers(count: int) -> Tensor:
            return torch.zeros(count, dtype=torch.int32, device=device)

        self.ids, self.positions, self.places = integers(most), integers(most), integers(most)
        self.starts, self.new = integers(sequences + 1), integers(sequences + 1)
        self.used, self.last = integers(sequences), integers(sequences)

    def fill(self, parts: Sequence[Part], row: int) -> tuple[int, int]:
        """The inputs of these parts; how many tokens and sequences they are."""
        ids = [token for part in parts for token in part.tokens]
        positions = [part.start + index for part in parts for index in range(len(part.tokens))]
        places = [part.row * row + part.start + index for part in parts for index in range(len(part.tokens))]
        new = [0]
        for part in parts:
            new.append(new[-1] + len(part.tokens))
        starts = [part.row * row for part in parts]
        lists = (ids, positions, places, [*starts, starts[-1]], new)
        used = [part.start + len(part.tokens) for part in parts]
        last = [end - 1 for end in new[1:]]
        targets = (self.ids, self.positions, self.places, self.starts, self.new, self.used, self.last)
        for target, values in zip(targets, (*lists, used, last), strict=True):
            target[: len(values)].copy_(_pinned(values, target.device), non_blocking=True)
        return len(ids), len(parts)


def _pinned(values: Sequence[int], device: torch.device) -> Tensor:
    tensor = torch.tensor(values, dtype=torch.int32)
    return tensor.pin_memory() if device.type == "cuda" else tensor


class ServingEngine:
    """A decoder with a cache of `num_rows` sequences of `row` tokens, and one row for padding."""

    def __init__(self, model: StackedDecoder, num_rows: int, row: int, *, most_tokens: int, flash: bool = True) -> None:
        self.model, self.num_rows, self.row, self.flash = model, num_rows, row, flash
        self.cache = model.new_cache(num_rows + 1, row)
        self.device = self.cache.data.device
        self.inputs = Inputs(most_tokens + num_rows, 2 * num_rows + 1, self.device)
        self.graphs: dict[int, tuple[Any, Inputs, Tensor]] = {}
        model.kernels = KernelSet.COMPILED

    def capture(self) -> None:
        """Captures a graph for every batch size; on a CPU there are none, and sizes run as they are."""
        if self.device.type != "cuda":
            return
        pool = torch.cuda.graph_pool_handle()
        for size in sorted({captured(number) for number in range(1, self.num_rows + 1)}, reverse=True):
            inputs = Inputs(size, size, self.device)
            inputs.fill(self._padded([], size), self.row)
            for _ in range(2):
                self._run(inputs, [(size, 1)])
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                tokens = self._run(inputs, [(size, 1)])
            self.graphs[size] = (graph, inputs, tokens)

    def step(self, decode: Sequence[Part], chunks: Sequence[Part]) -> list[int]:
        """One step; the next token of every part, those that decode first."""
        if not chunks and self.graphs:
            size = captured(len(decode))
            graph, inputs, tokens = self.graphs[size]
            inputs.fill(self._padded(decode, size), self.row)
            graph.replay()
            found: list[int] = tokens.tolist()
            return found[: len(decode)]
        self.inputs.fill([*decode, *chunks], self.row)
        groups = [(len(decode), 1)] if decode else []
        groups += [(1, len(chunk.tokens)) for chunk in chunks]
        answer: list[int] = self._run(self.inputs, groups).tolist()
        return answer

    def _padded(self, decode: Sequence[Part], size: int) -> list[Part]:
        return [*decode, *[Part(self.num_rows, 0, (0,))] * (size - len(decode))]

    @torch.inference_mode()
    def _run(self, inputs: Inputs, groups: Sequence[tuple[int, int]]) -> Tensor:
        """Launches a step of groups (sequences, new tokens of each); the next token of every sequence [n]."""
        model = self.model
        tokens = sum(number * length for number, length in groups)
        sequences = sum(number for number, _ in groups)
        positions = inputs.positions[:tokens].long()
        assert model.rotary is not None
        rotary = (model.rotary.cos[positions], model.rotary.sin[positions])
        places = inputs.places[:tokens].long().unsqueeze(1)
        rows = [
            (first, last, self._rows(inputs, at, number, length)) for first, last, at, number, length in _spans(groups)
        ]

        def context(module: SelfAttention, qkv: Tensor) -> Tensor:
            kv = self.cache.data[module.slot].flatten(0, 1)
            queries = fused.rope_store_at(qkv, *rotary, kv, places)
            out = [
                attend(queries[first:last], kv[:, 0], kv[:, 1], where, flash=self.flash) for first, last, where in rows
            ]
            whole = out[0] if len(out) == 1 else torch.cat(out)
            return whole.reshape(tokens, -1)

        step = Step(tokens, 1, kernels=model.kernels, attend=context)
        x = model.run_layers(model.embeddings(inputs.ids[:tokens].long().unsqueeze(0)), step)
        logits: Tensor = model.head(x[inputs.last[:sequences].long()], model.embeddings, model.kernels)
        return logits.argmax(dim=-1)

    def _rows(self, inputs: Inputs, at: int, number: int, length: int) -> Rows:
        ends = inputs.new[at : at + number + 1]
        return Rows(
            inputs.starts[at : at + number + 1], ends - ends[0], inputs.used[at : at + number], length, self.row
        )


def _spans(groups: Sequence[tuple[int, int]]) -> list[tuple[int, int, int, int, int]]:
    """Of each group its first and last token, its first sequence, and itself."""
    found, token, sequence = [], 0, 0
    for number, length in groups:
        found.append((token, token + number * length, sequence, number, length))
        token, sequence = token + number * length, sequence + number
    return found
