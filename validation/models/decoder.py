"""What every architecture does around its layers: embed, run them, answer with the last token's logits."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kraken_sim.errors import InputError
from kraken_sim.program.kernel_sets import RULES, KernelSet
from validation.models.layers import STD, Embeddings, KeyValueCache, LanguageModelHead, Rotary, Step
from validation.models.sharding import check_shapes, split_heads

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.models.config import TransformerConfig
    from validation.models.communication import Group

    LayerMaker = Callable[[TransformerConfig, Group, int, float], nn.Module]
    """From the shape, the ranks, the layer's number and the deviation of its residual projections."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a sub-layer of the whole model lies in this rank's model: its module, its layer, its way."""

    module: str
    layer: int
    way: int


class Decoder(nn.Module):
    """A decoder Transformer of which this rank holds a part.

    `kernels` (default pytorch) is the set of small kernels it runs with; it may be changed at any time.
    `world` are all ranks, `tensor` those that share one (sub-)layer by heads and FFN width. Weights start
    uninitialised, on whatever device torch.device() sets; see `validation.models.build_model`.
    """

    def __init__(self, config: TransformerConfig, world: Group, tensor: Group) -> None:
        super().__init__()
        self.config, self.world, self.tensor = config, world, tensor
        self.embeddings = Embeddings(config, world.size)
        self.rotary = None if config.position_embeddings else Rotary(config)
        self.head = LanguageModelHead(config, world)
        self.kernels = KernelSet.PYTORCH

    def embed(self, input_ids: Tensor, start: int) -> Tensor:
        """Ids [B, T] to what the layers begin with, [B*T, d]."""
        x: Tensor = self.embeddings(input_ids, start)
        return x

    @abstractmethod
    def run_layers(self, x: Tensor, step: Step) -> Tensor:
        """[B*T, d] from the embeddings to [B*T, d] for the final norm."""

    @abstractmethod
    def placements(self) -> list[Placement]:
        """The (sub-)layers of this rank, in the order of their cache slots."""

    def forward(
        self, input_ids: Tensor, cache: KeyValueCache | None = None, *, start: int = 0, all_positions: bool = False
    ) -> Tensor:
        """This rank's logits: [B, V/N] of each sequence's last token, or [B, T, V/N] of all tokens.

        Args:
            input_ids: [B, T], the same on every rank; T is 1 in a decode step.
            cache: takes the keys and values of these tokens when given, and has those of the `start` tokens before.
            start: position of the first token, 0 in a prefill.
            all_positions: whether to return the logits of every token (for a training loss).

        Raises:
            InputError: more tokens than the model has positions, several tokens after others, or a kernel set that is
                not made here.
        """
        batch, length = input_ids.shape
        self._check(length, start, cache)
        rotary = self.rotary(start, length) if self.rotary is not None else None
        step = Step(batch, length, start, cache, self.kernels, rotary)
        x = self.run_layers(self.embed(input_ids, start), step).view(batch, length, -1)
        # The final norm and the head see only what the answer needs.
        logits: Tensor = self.head(x if all_positions else x[:, -1], self.embeddings, self.kernels)
        return logits

    def _check(self, length: int, start: int, cache: KeyValueCache | None) -> None:
        if start + length > self.config.max_position_embeddings:
            message = f"the model has {self.config.max_position_embeddings} positions"
            raise InputError.single("context_length", message, start + length)
        if start and (cache is None or length > 1):
            message = "a step after other tokens has one token and the cache of those before"
            raise InputError.single("start", message, start, "0")
        if RULES[self.kernels].all_reduce_norm:
            message = "these models have no AllReduce that takes in a norm"
            raise InputError.single("kernels", message, self.kernels.value, "serving")

    def new_cache(self, batch: int, length: int) -> KeyValueCache:
        """An empty cache for `batch` sequences of at most `length` tokens, like the weights in device and dtype."""
        heads = split_heads(self.config, self.tensor.rank, self.tensor.size)
        shape = (len(self.placements()), batch, length, 2, heads.num_kv_heads, self.config.head_dim)
        weight = self.embeddings.tokens.weight
        return KeyValueCache(torch.zeros(shape, dtype=weight.dtype, device=weight.device))


class StackedDecoder(Decoder):
    """A decoder whose layers follow each other, every rank holding a shard of each; `make_layer` makes one.

    Raises:
        InputError: heads or FFN width do not divide over the ranks, or the model has parts not made here.
    """

    def __init__(self, config: TransformerConfig, world: Group, make_layer: LayerMaker) -> None:
        check_shapes(config, world.size)
        super().__init__(config, world, world)
        depth = config.num_hidden_layers
        residual_std = STD / (2 * depth) ** 0.5
        self.layers = nn.ModuleList(make_layer(config, world, slot, residual_std) for slot in range(depth))

    def run_layers(self, x: Tensor, step: Step) -> Tensor:
        """All layers one after the other; a kernel set may add a layer's output only in the next one's norm."""
        delta: Tensor | None = None
        for layer in self.layers:
            x, delta = layer(x, delta, step)
        return x if delta is None else x + delta

    def placements(self) -> list[Placement]:
        """One block a layer."""
        return [Placement(f"layers.{layer}", layer, 0) for layer in range(len(self.layers))]
