"""The standard decoder Transformer under Megatron tensor parallelism: two blocking AllReduces a layer.

    y = AR( W_out_i · Attn_i(LN1(x)) );  x = x + y
    z = AR( W2_i · gelu(W1_i · LN2(x)) );  x = x + z

QKV and W1 are split by columns, W_out and W2 by rows, attention by heads.
Source: Shoeybi et al., "Megatron-LM" (arXiv 1909.08053), section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from validation.models.block import Block
from validation.models.communication import Group, sum_partials
from validation.models.decoder import StackedDecoder
from validation.models.layers import Step, to_all_shards

if TYPE_CHECKING:
    from torch import Tensor

    from kraken_sim.models.config import TransformerConfig


class StandardLayer(Block):
    """11 kernels (a rotary one 12) and 2 AllReduces, with the kernels of torch."""

    quantizable = True

    def __init__(self, config: TransformerConfig, tensor: Group, slot: int, residual_std: float) -> None:
        super().__init__(config, tensor, slot, "", residual_std)
        self.tensor = tensor

    def forward(self, x: Tensor, delta: Tensor | None, step: Step) -> tuple[Tensor, Tensor]:
        """The residual and what is still to be added to it, both [B*T, d], before and after the layer."""
        x, normed = self.attention_norm.before(self.attention.qkv, x, delta, step.kernels)
        delta = sum_partials(self.attention(to_all_shards(normed, self.tensor), step), self.tensor)
        x, normed = self.ffn_norm.before(self.ffn.up, x, delta, step.kernels)
        return x, sum_partials(self.ffn(to_all_shards(normed, self.tensor), step.kernels), self.tensor)


class StandardDecoder(StackedDecoder):
    """A GPT-2 like or Llama-like decoder over `world` ranks."""

    def __init__(self, config: TransformerConfig, world: Group) -> None:
        super().__init__(config, world, StandardLayer)
