"""Exact parameter counts of a model: in all, by part, and on each device that runs it.

What repeats, and how it is spread, is the model's `Layout`. Weight shapes are those of Hugging Face transformers'
modeling files and, for the concat projection (which has no bias), of Prabhakar et al. (arXiv 2408.07802), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from kraken_sim.models.layout import tensor_parallel

if TYPE_CHECKING:
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Block, Layout


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """Parameters by part; `concat` is the projection of several blocks' outputs to one width, [N · d -> d].

    `lm_head` is zero where the token embedding is reused (tied), except for a bias.
    """

    token_embedding: int
    position_embedding: int
    attention: int
    ffn: int
    norms: int
    concat: int
    lm_head: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(getattr(self, field.name) for field in fields(self))


def parameter_count(config: TransformerConfig, layout: Layout | None = None) -> int:
    """All parameters of the model; one that two places share (tied embeddings) counts once."""
    return parameter_counts(config, layout).total


def parameter_counts(config: TransformerConfig, layout: Layout | None = None) -> ParameterCounts:
    """Parameters by part, whatever the devices.

    Args:
        config: the base model.
        layout: its blocks; default: those of the model as a standard Transformer.
    """
    layout = layout or tensor_parallel(config)
    block, blocks = layout.block, layout.blocks_per_layer
    num_blocks, width = config.num_hidden_layers * blocks, block.hidden_size
    private = layout.private_norms * (layout.num_devices - 1)
    return ParameterCounts(
        token_embedding=config.vocab_size * width,
        position_embedding=config.num_positions * width,
        attention=num_blocks * attention_parameters(config, block),
        ffn=num_blocks * ffn_parameters(config, block),
        norms=(num_blocks * _norms_per_block(config, layout) + private + 1) * norm_parameters(config, width),
        concat=blocks * width * width if layout.concat else 0,
        lm_head=_lm_head_parameters(config, width, config.vocab_size),
    )


def device_parameter_counts(config: TransformerConfig, layout: Layout) -> ParameterCounts:
    """Parameters that one device of the layout stores (the fullest one where a split is uneven).

    Column- and row-parallel matrices are split, norms and the biases of row-parallel matrices replicated
    (Shoeybi et al., Megatron-LM, arXiv 1909.08053). Every device looks up all tokens, so the token and
    position tables are replicated; a tied LM head reads its vocabulary shard from that table, an untied one
    is sharded.
    """
    share, local = layout.share, layout.local
    num_blocks, width = config.num_hidden_layers * local, share.hidden_size
    return ParameterCounts(
        token_embedding=config.vocab_size * width,
        position_embedding=config.num_positions * width,
        attention=num_blocks * attention_parameters(config, share),
        ffn=num_blocks * ffn_parameters(config, share),
        norms=(num_blocks * _norms_per_block(config, layout) + 1) * norm_parameters(config, width),
        concat=local * layout.concat_slice * width if layout.concat else 0,
        lm_head=_lm_head_parameters(config, width, layout.vocabulary_share(config.vocab_size)),
    )


def device_matrix_parameters(config: TransformerConfig, layout: Layout) -> int:
    """Of these, the matrices of attention and FFN in all layers and the concat projection: what may be quantised."""
    share, local = layout.share, layout.local
    block = attention_matrices(share) + ffn_matrices(config, share)
    concat = local * layout.concat_slice * share.hidden_size if layout.concat else 0
    return config.num_hidden_layers * local * block + concat


def attention_matrices(block: Block) -> int:
    """Q, K, V and output projections without biases."""
    query_width = block.num_attention_heads * block.head_dim
    key_value_width = 2 * block.num_key_value_heads * block.head_dim
    return block.hidden_size * (2 * query_width + key_value_width)


def ffn_matrices(config: TransformerConfig, block: Block) -> int:
    """Up (and gate) projection and down projection without biases."""
    return (3 if config.gated_ffn else 2) * block.hidden_size * block.intermediate_size


def norm_parameters(config: TransformerConfig, hidden_size: int) -> int:
    """Scale and bias where the model has them: most LayerNorms both, an RMSNorm the first, OLMo's LayerNorm neither."""
    return (config.norm_weight + config.norm_bias) * hidden_size


def _norms_per_block(config: TransformerConfig, layout: Layout) -> int:
    """The norms of inputs, and where the model has them as many of outputs."""
    return (2 if config.post_norms else 1) * layout.norms_per_block


def attention_parameters(config: TransformerConfig, block: Block) -> int:
    """Q, K, V and output projections with their biases, and the norms over query and key heads."""
    query_width = block.num_attention_heads * block.head_dim
    key_value_width = 2 * block.num_key_value_heads * block.head_dim
    weights = attention_matrices(block)
    biases = (query_width + key_value_width) if config.attention_bias else 0
    biases += block.hidden_size if has_output_bias(config) else 0
    return weights + biases + (2 * block.head_dim if config.qk_norm else 0)


def ffn_parameters(config: TransformerConfig, block: Block) -> int:
    """Up (and gate) projection and down projection, with their biases."""
    num_up = 2 if config.gated_ffn else 1
    weights = ffn_matrices(config, block)
    biases = num_up * block.intermediate_size + block.hidden_size
    return weights + (biases if config.mlp_bias else 0)


def has_output_bias(config: TransformerConfig) -> bool:
    """Whether attention's output projection has a bias."""
    return config.attention_bias if config.attention_output_bias is None else config.attention_output_bias


def _lm_head_parameters(config: TransformerConfig, hidden_size: int, vocab_size: int) -> int:
    weights = 0 if config.tie_word_embeddings else vocab_size * hidden_size
    return weights + (vocab_size if config.lm_head_bias else 0)
