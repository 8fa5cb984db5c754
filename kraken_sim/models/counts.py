"""Exact parameter counts of a model: in all, by part, and on each device that runs it.

A standard or parallel layer is one block (attention + FFN) split over the devices; a Kraken layer is `ways`
smaller blocks spread over them. Weight shapes are those of Hugging Face transformers' modeling files and, for
Kraken, of Prabhakar et al. (arXiv 2408.07802), section 3; Kraken's concat projection has no bias.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from kraken_sim.models.config import ArchitectureKind

if TYPE_CHECKING:
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.kraken_width import KrakenShape


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """Parameters by part; `concat` is Kraken's projection of the concatenated outputs, [N · d_k -> d_k].

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


@dataclass(frozen=True, slots=True)
class Block:
    """One attention + FFN: a whole standard layer, or one Kraken sub-layer, or a device's share of either.

    `hidden_size` is the width of the residual stream it reads and writes; a share has fewer heads and a
    narrower FFN, never a narrower stream.
    """

    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int

    def share(self, num_devices: int) -> Block:
        """What each of `num_devices` devices holds; key/value heads are replicated once they run out."""
        return Block(
            self.hidden_size,
            _ceil_div(self.num_attention_heads, num_devices),
            _ceil_div(self.num_key_value_heads, num_devices),
            self.head_dim,
            _ceil_div(self.intermediate_size, num_devices),
        )


def parameter_count(
    config: TransformerConfig,
    kind: ArchitectureKind = ArchitectureKind.STANDARD,
    kraken: KrakenShape | None = None,
) -> int:
    """All parameters of the model; one that two places share (tied embeddings) counts once."""
    return parameter_counts(config, kind, kraken).total


def parameter_counts(
    config: TransformerConfig,
    kind: ArchitectureKind = ArchitectureKind.STANDARD,
    kraken: KrakenShape | None = None,
) -> ParameterCounts:
    """Parameters by part.

    Args:
        config: the base model.
        kind: a parallel layer has one norm, the other kinds two.
        kraken: shape of the sub-layers; needed for, and only for, `kind` kraken.

    Raises:
        ValueError: `kraken` does not go with `kind`.
    """
    block = block_of(config, kind, kraken)
    num_blocks = config.num_hidden_layers * (kraken.ways if kraken else 1)
    width, vocab = block.hidden_size, config.vocab_size
    return ParameterCounts(
        token_embedding=vocab * width,
        position_embedding=config.max_position_embeddings * width if config.position_embeddings else 0,
        attention=num_blocks * attention_parameters(config, block),
        ffn=num_blocks * ffn_parameters(config, block),
        norms=(num_blocks * norms_per_block(kind) + 1) * norm_parameters(config, width),
        concat=kraken.ways * width * width if kraken else 0,
        lm_head=_lm_head_parameters(config, width, vocab),
    )


def device_parameter_counts(
    config: TransformerConfig,
    kind: ArchitectureKind,
    num_devices: int,
    kraken: KrakenShape | None = None,
) -> ParameterCounts:
    """Parameters that one of `num_devices` devices stores (the fullest one where a split is uneven).

    Column- and row-parallel matrices are split, norms and the biases of row-parallel matrices replicated
    (Shoeybi et al., Megatron-LM, arXiv 1909.08053). Every device looks up all tokens, so the token and
    position tables are replicated; a tied LM head reads its vocabulary shard from that table, an untied one
    is sharded.
    """
    block = block_of(config, kind, kraken)
    ways = kraken.ways if kraken else 1
    blocks_per_device = max(1, ways // num_devices)
    share = block.share(max(1, num_devices // ways))
    num_blocks = config.num_hidden_layers * blocks_per_device
    width = block.hidden_size
    return ParameterCounts(
        token_embedding=config.vocab_size * width,
        position_embedding=config.max_position_embeddings * width if config.position_embeddings else 0,
        attention=num_blocks * attention_parameters(config, share),
        ffn=num_blocks * ffn_parameters(config, share),
        norms=(num_blocks * norms_per_block(kind) + 1) * norm_parameters(config, width),
        concat=_ceil_div(kraken.ways * width, num_devices) * width if kraken else 0,
        lm_head=_lm_head_parameters(config, width, _ceil_div(config.vocab_size, num_devices)),
    )


def block_of(config: TransformerConfig, kind: ArchitectureKind, kraken: KrakenShape | None) -> Block:
    """The repeated block: the layer of the base model, or Kraken's sub-layer."""
    if (kind is ArchitectureKind.KRAKEN) != (kraken is not None):
        message = "a Kraken shape goes with architecture kind kraken, and with no other"
        raise ValueError(message)
    shape = kraken if kraken is not None else config
    return Block(
        shape.hidden_size,
        shape.num_attention_heads,
        shape.num_key_value_heads,
        shape.head_dim,
        shape.intermediate_size,
    )


def norms_per_block(kind: ArchitectureKind) -> int:
    """Attention and FFN of a parallel layer share one norm; other layers have one for each."""
    return 1 if kind is ArchitectureKind.PARALLEL else 2


def norm_parameters(config: TransformerConfig, hidden_size: int) -> int:
    """Scale, and bias where the model has one (LayerNorm has, RMSNorm has not)."""
    return (2 if config.norm_bias else 1) * hidden_size


def attention_parameters(config: TransformerConfig, block: Block) -> int:
    """Q, K, V and output projections with their biases, and the norms over query and key heads."""
    query_width = block.num_attention_heads * block.head_dim
    key_value_width = 2 * block.num_key_value_heads * block.head_dim
    weights = block.hidden_size * (2 * query_width + key_value_width)
    biases = (query_width + key_value_width) if config.attention_bias else 0
    biases += block.hidden_size if has_output_bias(config) else 0
    return weights + biases + (2 * block.head_dim if config.qk_norm else 0)


def ffn_parameters(config: TransformerConfig, block: Block) -> int:
    """Up (and gate) projection and down projection, with their biases."""
    num_up = 2 if config.gated_ffn else 1
    weights = (num_up + 1) * block.hidden_size * block.intermediate_size
    biases = num_up * block.intermediate_size + block.hidden_size
    return weights + (biases if config.mlp_bias else 0)


def has_output_bias(config: TransformerConfig) -> bool:
    """Whether attention's output projection has a bias."""
    return config.attention_bias if config.attention_output_bias is None else config.attention_output_bias


def _lm_head_parameters(config: TransformerConfig, hidden_size: int, vocab_size: int) -> int:
    weights = 0 if config.tie_word_embeddings else vocab_size * hidden_size
    return weights + (vocab_size if config.lm_head_bias else 0)


def _ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)
