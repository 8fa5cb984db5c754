"""The shape of a dense decoder Transformer, under the names Hugging Face uses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """A dense decoder-only Transformer.

    `head_dim` is the width of one attention head (hidden_size / num_attention_heads unless a model says
    otherwise). `gated_ffn` marks SwiGLU-like FFNs, which have a gate matrix beside the up projection.
    `position_embeddings` is True for learned positions (GPT-2), False for rotary ones (GPT-J, Llama, Qwen).
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
