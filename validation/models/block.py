"""What a layer or a sub-layer holds: attention and an FFN, each behind its norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from validation.models.attention import SelfAttention
from validation.models.layers import FeedForward, Norm

if TYPE_CHECKING:
    from kraken_sim.models.config import TransformerConfig
    from validation.models.communication import Group


class Block(nn.Module):
    """Norm, attention, norm, FFN: the parts of a standard layer and of a Kraken sub-layer."""

    def __init__(self, config: TransformerConfig, tensor: Group, slot: int, name: str, residual_std: float) -> None:
        super().__init__()
        d, bias = config.hidden_size, config.norm_bias
        self.attention_norm = Norm(d, bias=bias)
        self.attention = SelfAttention(config, tensor, slot, name, residual_std)
        self.ffn_norm = Norm(d, bias=bias)
        self.ffn = FeedForward(config, tensor, name, residual_std)
