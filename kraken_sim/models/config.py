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

    `norm_weight` is False for LayerNorms without parameters (OLMo). `post_norms` marks a norm of each block's output
    before it is added to the residual, beside the one of its input (Gemma 2). `num_extra_positions` are rows of the
    table of learned positions beyond its tokens' (OPT). `scaled_embedding` and `scaled_residual` mark products with a
    number: of the embedding, and of each block's output before it is added (Granite). `num_logit_kernels` is how many
    pointwise kernels run over the logits (Granite's division). `attention_windows` are the tokens that layers attend to
    at most, None meaning all: one for each layer of a period that repeats from the first layer on; empty: none has one.
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
    norm_weight: bool = True
    post_norms: bool = False
    num_extra_positions: int = 0
    scaled_embedding: bool = False
    scaled_residual: bool = False
    num_logit_kernels: int = 0
    attention_windows: tuple[int | None, ...] = ()

    @property
    def norm_function(self) -> Literal["layer_norm", "rms_norm"]:
        """What its norms are: of the families known here RMSNorms have weights alone, LayerNorms both or nothing."""
        return "layer_norm" if self.norm_bias or not self.norm_weight else "rms_norm"

    @property
    def num_positions(self) -> int:
        """Rows of the table of learned positions; 0 where they are not learned."""
        return self.max_position_embeddings + self.num_extra_positions if self.position_embeddings else 0
