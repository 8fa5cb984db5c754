"""The shape of a dense decoder Transformer, under the names Hugging Face uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """A dense decoder-only Transformer.

    `head_dim` is the width of one attention head (hidden_size / num_attention_heads unless a model says
    otherwise). `gated_ffn` marks SwiGLU-like FFNs, which have a gate matrix beside the up projection.
    `position_embeddings` is True for learned positions (GPT-2), False for rotary ones (GPT-J, Llama, Qwen).
    `attention_bias` is the bias of the Q, K and V projections; `attention_output_bias` that of the output
    projection, None meaning the same (Qwen2 has the first only). `qk_norm` marks an RMSNorm over each query
    and key head (Qwen3). `lm_head_bias` marks a bias on the logits (GPT-J).
    """

    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    gated_ffn: bool = False
    position_embeddings: bool = True
    attention_bias: bool = True
    mlp_bias: bool = True
    norm_bias: bool = True
    tie_word_embeddings: bool = True
    name: str | None = None
    attention_output_bias: bool | None = None
    qk_norm: bool = False
    lm_head_bias: bool = False

    @property
    def norm_function(self) -> Literal["layer_norm", "rms_norm"]:
        """What its norms are: an RMSNorm has no bias, and the LayerNorms of the families known here have one."""
        return "layer_norm" if self.norm_bias else "rms_norm"
