"""Attention and FFN side by side, sharing one norm: one blocking AllReduce a layer.

    x = x + AR( W_out_i · Attn_i(LN(x)) + W2_i · gelu(W1_i · LN(x)) )

Source: Wang and Komatsuzaki, GPT-J-6B; Chowdhery et al., "PaLM" (arXiv 2204.02311), section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from validation.models.attention import SelfAttention
from validation.models.communication import Group, sum_partials
from validation.models.decoder import StackedDecoder
from validation.models.layers import FeedForward, Norm, Step, to_all_shards
from validation.models.quantized import quantizer_of

if TYPE_CHECKING:
    from kraken_sim.models.config import TransformerConfig


class ParallelLayer(nn.Module):
    """9 kernels (a rotary one 10) and 1 AllReduce, with the kernels of torch; in fp8 a sum more."""

    quantizable = True

    def __init__(self, config: TransformerConfig, tensor: Group, slot: int, residual_std: float) -> None:
        super().__init__()
        self.tensor = tensor
        self.norm = Norm(config.hidden_size, bias=config.norm_bias)
        self.attention = SelfAttention(config, tensor, slot, "", residual_std)
        # W_out carries the one output bias that the two halves of the layer need.
        self.ffn = FeedForward(config, tensor, "", residual_std, output_bias=False)

    def forward(self, x: Tensor, delta: Tensor | None, step: Step) -> tuple[Tensor, Tensor]:
        """The residual and what is still to be added to it, both [B*T, d], before and after the layer."""
        # Its one output feeds both projections, which have the same scale.
        x, normed = self.norm.before(self.attention.qkv, x, delta, step.kernels)
        normed = to_all_shards(normed, self.tensor)
        y: Tensor = self.attention(normed, step)
        if quantizer_of(self.ffn.down) is not None:
            # Scaled products do not accumulate.
            y = y + self.ffn(normed, step.kernels)
        else:
            # In place: out of place, addmm copies y first.
            y.addmm_(self.ffn.inner(normed, step.kernels), self.ffn.down.weight.t())
        return x, sum_partials(y, self.tensor)


class ParallelDecoder(StackedDecoder):
    """A GPT-J like decoder over `world` ranks."""

    def __init__(self, config: TransformerConfig, world: Group) -> None:
        super().__init__(config, world, ParallelLayer)
