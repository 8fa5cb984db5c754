"""The pieces that all architectures share; every line that computes is one kernel.

Shapes: B sequences, T tokens each, d hidden size, h query heads and g key/value heads of this rank, e head
dim, f FFN width of this rank, V vocabulary. Activations are two-dimensional, [B*T, d], so that a GEMM with
its bias is one addmm.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from kraken_sim.models.counts import has_output_bias
from validation.models.communication import Group, fan_out
from validation.models.sharding import padded_vocab_size, split_heads

if TYPE_CHECKING:
    from kraken_sim.models.config import TransformerConfig

STD = 0.02  # GPT-2's initial standard deviation, also of the Kraken paper


class Linear(nn.Linear):
    """y[m, n] = x[m, k] · W[n, k]ᵀ + b[n].

    `shard` names the slice that this rank holds: ranks with the same shard start with the same values.
    Of a row-parallel layer only one rank carries the bias; the others add zeros that are not trained, so
    that all ranks run the same kernel.
    """

    def __init__(
        self, k: int, n: int, *, bias: bool, shard: str = "", std: float = STD, carries_bias: bool = True
    ) -> None:
        super().__init__(k, n, bias)
        self.row_shards: tuple[tuple[int, str], ...] = ((n, shard),)
        self.std = std
        if bias and not carries_bias:
            zeros = torch.zeros_like(self.bias)
            del self.bias
            self.register_buffer("bias", zeros)


class KeyValueCache:
    """Keys and values of every sub-layer of this rank: [slot, B, T, 2, g, e]."""

    def __init__(self, data: Tensor) -> None:
        self.data = data

    def store(self, slot: int, keys_values: Tensor) -> None:
        """Writes the prompt's keys and values, [B, T, 2, g, e], in one strided copy."""
        self.data[slot, :, : keys_values.shape[1]].copy_(keys_values.detach())


class SelfAttention(nn.Module):
    """Causal attention over this rank's heads, from the normed input to the (partial) output."""

    def __init__(self, config: TransformerConfig, tensor: Group, slot: int, name: str, residual_std: float) -> None:
        super().__init__()
        heads = split_heads(config, tensor.rank, tensor.size)
        d, e = config.hidden_size, config.head_dim
        self.num_heads, self.num_kv_heads, self.head_dim = heads.num_heads, heads.num_kv_heads, e
        self.slot = slot
        shard = f"{name}.{tensor.rank}"
        query_rows, kv_rows = heads.num_heads * e, 2 * heads.num_kv_heads * e
        self.qkv = Linear(d, query_rows + kv_rows, bias=config.attention_bias)
        self.qkv.row_shards = ((query_rows, shard), (kv_rows, f"{name}.kv{heads.first_kv_head}"))
        self.out = Linear(
            query_rows,
            d,
            bias=has_output_bias(config),
            shard=shard,
            std=residual_std,
            carries_bias=tensor.rank == 0,
        )

    def context(self, x: Tensor, batch: int, cache: KeyValueCache | None) -> Tensor:
        """[B*T, d] to [B*T, h*e]: QKV projection, cache write, attention. All reshapes are views."""
        h, g = self.num_heads, self.num_kv_heads
        qkv: Tensor = self.qkv(x)
        qkv = qkv.view(batch, -1, h + 2 * g, self.head_dim)
        if cache is not None:
            cache.store(self.slot, qkv[:, :, h:].unflatten(2, (2, g)))
        q, k, v = (part.transpose(1, 2) for part in qkv.split((h, g, g), dim=2))
        context = nnf.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=h != g)
        # Fused attention lays its output out as [B, T, h, e] when q comes so, hence no copy here.
        return context.transpose(1, 2).reshape(x.shape[0], h * self.head_dim)

    def forward(self, x: Tensor, batch: int, cache: KeyValueCache | None) -> Tensor:
        """[B*T, d] to this rank's part of the output, [B*T, d]."""
        y: Tensor = self.out(self.context(x, batch, cache))
        return y


class FeedForward(nn.Module):
    """W2 · gelu(W1 · x + b1) + b2 over this rank's share of the FFN width."""

    def __init__(
        self,
        config: TransformerConfig,
        tensor: Group,
        name: str,
        residual_std: float,
        *,
        output_bias: bool = True,
    ) -> None:
        super().__init__()
        d, f = config.hidden_size, config.intermediate_size // tensor.size
        shard = f"{name}.{tensor.rank}"
        self.up = Linear(d, f, bias=config.mlp_bias, shard=shard)
        self.down = Linear(
            f,
            d,
            bias=config.mlp_bias and output_bias,
            shard=shard,
            std=residual_std,
            carries_bias=tensor.rank == 0,
        )

    def inner(self, x: Tensor) -> Tensor:
        """[B*T, d] to [B*T, f]."""
        return nnf.gelu(self.up(x))

    def forward(self, x: Tensor) -> Tensor:
        """[B*T, d] to this rank's part of the output, [B*T, d]."""
        y: Tensor = self.down(self.inner(x))
        return y


class Block(nn.Module):
    """Norm, attention, norm, FFN: the parts of a standard layer and of a Kraken sub-layer."""

    def __init__(self, config: TransformerConfig, tensor: Group, slot: int, name: str, residual_std: float) -> None:
        super().__init__()
        d, bias = config.hidden_size, config.norm_bias
        self.attention_norm = nn.LayerNorm(d, bias=bias)
        self.attention = SelfAttention(config, tensor, slot, name, residual_std)
        self.ffn_norm = nn.LayerNorm(d, bias=bias)
        self.ffn = FeedForward(config, tensor, name, residual_std)


class Embeddings(nn.Module):
    """Token rows plus learned position rows, replicated on every rank."""

    def __init__(self, config: TransformerConfig, num_devices: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(padded_vocab_size(config.vocab_size, num_devices), config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Ids [B, T] to [B*T, d]: a gather and an add."""
        tokens: Tensor = self.tokens(input_ids)
        return (tokens + self.positions.weight[: input_ids.shape[1]]).flatten(0, 1)


class LanguageModelHead(nn.Module):
    """Final norm and this rank's V/N columns of the logits; columns past the vocabulary are padding."""

    def __init__(self, config: TransformerConfig, world: Group) -> None:
        super().__init__()
        self.world = world
        self.norm = nn.LayerNorm(config.hidden_size, bias=config.norm_bias)
        self.rows = padded_vocab_size(config.vocab_size, world.size) // world.size
        self.unembedding: Linear | None = None
        if not config.tie_word_embeddings:
            self.unembedding = Linear(config.hidden_size, self.rows, bias=False, shard=str(world.rank))

    def weight(self, embeddings: Embeddings) -> Tensor:
        """[V/N, d]: this rank's rows of the tied token table, or its own matrix."""
        if self.unembedding is not None:
            return self.unembedding.weight
        table = fan_out(embeddings.tokens.weight, self.world)
        return table[self.world.rank * self.rows : (self.world.rank + 1) * self.rows]

    def forward(self, x: Tensor, embeddings: Embeddings) -> Tensor:
        """[m, d] to [m, V/N]."""
        normed: Tensor = self.norm(x)
        return nnf.linear(fan_out(normed, self.world), self.weight(embeddings))


def initialise(model: nn.Module, seed: int = 0) -> None:
    """Fills every weight where it lies: normal matrices, zero biases, unit norms.

    A value depends on the seed, the parameter's name and its shard alone, so replicas agree without
    talking to each other.
    """
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, Linear):
                _fill_linear(module, f"{seed}/{name}")
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(std=STD, generator=_generator(f"{seed}/{name}", module.weight.device))
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()


def _fill_linear(linear: Linear, name: str) -> None:
    sizes = [rows for rows, _ in linear.row_shards]
    for (_, shard), rows in zip(linear.row_shards, linear.weight.split(sizes), strict=True):
        rows.normal_(std=linear.std, generator=_generator(f"{name}/{shard}", linear.weight.device))
    if linear.bias is not None:
        linear.bias.zero_()


def _generator(key: str, device: torch.device) -> torch.Generator:
    seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest())
    return torch.Generator(device).manual_seed(seed)
