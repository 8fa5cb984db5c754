"""The standard decoder Transformer under Megatron tensor parallelism: two blocking AllReduces a layer.

    y = AR( W_out_i · Attn_i(LN1(x)) );  x = x + y
    z = AR( W2_i · gelu(W1_i · LN2(x)) );  x = x + z

QKV and W1 are split by columns, W_out and W2 by rows, attention by heads.
Source: Shoeybi et al., "Megatron-LM" (arXiv 1909.08053), section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from validation.models.communication import Group, fan_out, sum_partials
from validation.models.decoder import StackedDecoder
from validation.models.layers import Block, KeyValueCache

if TYPE_CHECKING:
    from torch import Tensor

    from kraken_sim.models.config import TransformerConfig


class StandardLayer(Block):
    """11 kernels and 2 AllReduces."""

    def __init__(self, config: TransformerConfig, tensor: Group, slot: int, residual_std: float) -> None:
        super().__init__(config, tensor, slot, "", residual_std)
        self.tensor = tensor

    def forward(self, x: Tensor, batch: int, cache: KeyValueCache | None) -> Tensor:
        """[B*T, d] to [B*T, d]."""
        normed = fan_out(self.attention_norm(x), self.tensor)
        x = x + sum_partials(self.attention(normed, batch, cache), self.tensor)
        normed = fan_out(self.ffn_norm(x), self.tensor)
        return x + sum_partials(self.ffn(normed), self.tensor)


class StandardDecoder(StackedDecoder):
    """A GPT-2 like decoder over `world` ranks."""

    def __init__(self, config: TransformerConfig, world: Group) -> None:
        super().__init__(config, world, StandardLayer)
