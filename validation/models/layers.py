"""The pieces that all architectures share; every line that computes is one kernel.

Shapes: B sequences, T tokens each, d hidden size, h query heads and g key/value heads of this rank, e head
dim, f FFN width of this rank, V vocabulary. Activations are two-dimensional, [B*T, d], so that a GEMM with
its bias is one addmm.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from kraken_sim.models.counts import has_output_bias
from kraken_sim.program.kernel_sets import RULES, KernelSet, Positions
from validation.models import fused
from validation.models.communication import Group, fan_out, needs_gradient
from validation.models.quantized import Quantized, quantizer_of
from validation.models.sharding import padded_vocab_size, split_heads

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.models.config import TransformerConfig

STD = 0.02  # GPT-2's initial standard deviation, also of the Kraken paper
ROTARY_BASE = 10_000.0  # Su et al., "RoFormer" (arXiv 2104.09864); its value changes no kernel


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

    def rows(self, slot: int, start: int, length: int) -> Tensor:
        """[B, T, 2, g, e]: the place of `length` tokens of each sequence from position `start`."""
        return self.data[slot, :, start : start + length]


@dataclass(frozen=True, slots=True)
class Step:
    """One forward step: `length` new tokens of each of `batch` sequences, the first at position `start`.

    `rotary` are the cosines and sines [T, e] of the new positions where the model has rotary ones. A step that does not
    begin at position 0 needs the cache of what came before. `attend` takes the projection [B*T, h + 2g, e] to
    [B*T, h*e] where sequences are not alike, and knows their positions and caches itself.
    """

    batch: int
    length: int
    start: int = 0
    cache: KeyValueCache | None = None
    kernels: KernelSet = KernelSet.PYTORCH
    rotary: tuple[Tensor, Tensor] | None = None
    attend: Callable[[SelfAttention, Tensor], Tensor] | None = None


class Norm(nn.Module):
    """LayerNorm with a bias, RMSNorm without (the models whose norms have no bias are those with an RMSNorm).

    Where each of the ranks `rows_over` has rows of its own, the weights' gradients are summed over them.
    """

    def __init__(self, width: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width)) if bias else None
        self.rows_over = Group()

    def _weights(self) -> tuple[Tensor, ...]:
        """The weight and, of a LayerNorm, the bias."""
        own = (self.weight,) if self.bias is None else (self.weight, self.bias)
        return tuple(fan_out(x, self.rows_over) for x in own)

    def forward(self, x: Tensor, kernels: KernelSet) -> Tensor:
        """[R, d] to [R, d]."""
        weight, *bias = self._weights()
        if bias:
            return nnf.layer_norm(x, weight.shape, weight, bias[0], fused.NORM_EPS)
        if RULES[kernels].composed:
            return fused.rms_norm_composed(x, weight)
        if RULES[kernels].generated_norm:
            normed: Tensor = fused.rms_norm(x, weight)
            return normed
        return nnf.rms_norm(x, weight.shape, weight, fused.NORM_EPS)

    def before(
        self, linear: nn.Module, x: Tensor, delta: Tensor | None, kernels: KernelSet
    ) -> tuple[Tensor, Tensor | Quantized]:
        """As `after`, the norm quantised where the linear layer that it feeds takes it so."""
        quantizer = quantizer_of(linear)
        if quantizer is None:
            return self.after(x, delta, kernels)
        if self.bias is not None or not quantizer.fuses(kernels):
            total, normed = self.after(x, delta, kernels)
            return total, quantizer(normed)
        if delta is None:
            return x, quantizer.norm(x, self.weight)
        return quantizer.add_norm(x, delta, self.weight)

    def after(self, x: Tensor, delta: Tensor | None, kernels: KernelSet) -> tuple[Tensor, Tensor]:
        """The residual x + delta (x where there is none) and its norm."""
        if delta is None:
            return x, self(x, kernels)
        if RULES[kernels].add_in_norm:
            add_norm = fused.add_rms_norm if self.bias is None else fused.add_layer_norm
            total, normed = add_norm(x, delta, *self._weights())
            return total, normed
        total = x + delta
        return total, self(total, kernels)


class SelfAttention(nn.Module):
    """Causal attention over this rank's heads, from the normed input to the (partial) output."""

    def __init__(self, config: TransformerConfig, tensor: Group, slot: int, name: str, residual_std: float) -> None:
        super().__init__()
        heads = split_heads(config, tensor.rank, tensor.size)
        d, e = config.hidden_size, config.head_dim
        self.num_heads, self.num_kv_heads, self.head_dim = heads.num_heads, heads.num_kv_heads, e
        self.slot, self.tensor = slot, tensor
        shard = f"{name}.{tensor.rank}"
        query_rows, kv_rows = heads.num_heads * e, 2 * heads.num_kv_heads * e
        self.qkv = Linear(d, query_rows + kv_rows, bias=config.attention_bias)
        self.qkv.row_shards = ((query_rows, shard), (kv_rows, f"{name}.kv{heads.first_kv_head}"))
        self.query_norm = Norm(e, bias=False) if config.qk_norm else None
        self.key_norm = Norm(e, bias=False) if config.qk_norm else None
        self.out = Linear(
            query_rows,
            d,
            bias=has_output_bias(config),
            shard=shard,
            std=residual_std,
            carries_bias=tensor.rank == 0,
        )

    def context(self, x: Tensor | Quantized, step: Step) -> Tensor:
        """[B*T, d] to [B*T, h*e]: QKV projection, norms and positions, cache write, attention."""
        qkv: Tensor = self.qkv(x)
        qkv = qkv.view(-1, self.num_heads + 2 * self.num_kv_heads, self.head_dim)
        if step.attend is not None:
            return step.attend(self, qkv)
        together = RULES[step.kernels].positions is Positions.COMPILED
        if together and step.cache is not None and step.rotary is not None:
            q, from_cache = self._prepare_fused(qkv, step, step.cache, step.rotary), True
        else:
            q, *new = self._prepare(qkv, step)
            from_cache = step.start > 0
        if from_cache and step.cache is not None:
            k, v = step.cache.rows(self.slot, 0, step.start + step.length).unbind(2)
        else:
            k, v = (y.unflatten(0, (step.batch, step.length)) for y in new)
        q = q.unflatten(0, (step.batch, step.length))
        grouped = self.num_heads != self.num_kv_heads
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        causal, later = step.length > 1, step.start > 0
        mask = _last_sees_all(q.shape[2], k.shape[2]) if causal and later else None
        context = nnf.scaled_dot_product_attention(q, k, v, mask, is_causal=causal and not later, enable_gqa=grouped)
        # Fused attention lays its output out as [B, T, h, e] when q comes so, hence no copy here.
        return context.transpose(1, 2).reshape(x.shape[0], self.num_heads * self.head_dim)

    def _prepare(self, qkv: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B*T, heads, e] of a projection; the last two also in the cache."""
        h, g = self.num_heads, self.num_kv_heads
        v = qkv[:, h + g :]
        if RULES[step.kernels].composed:
            q, k = self._turn_composed(qkv, step)
        else:
            qk = qkv[:, : h + g]
            if self.query_norm is not None and self.key_norm is not None:
                qk = self._norm_heads(qk, self.query_norm, self.key_norm)
            if step.rotary is not None:
                qk = fused.rope(qk, *(_for_rows(table, step) for table in step.rotary))
            q, k = qk.split((h, g), dim=1)
        if step.cache is not None:
            self._store(step.cache.rows(self.slot, step.start, step.length), qkv, k.detach(), v.detach(), step)
        return q, k, v

    def _turn_composed(self, qkv: Tensor, step: Step) -> list[Tensor]:
        """Queries and keys, each normed and turned by operators of its own."""
        parts = list(qkv.split((self.num_heads, self.num_kv_heads, self.num_kv_heads), dim=1)[:2])
        if self.query_norm is not None and self.key_norm is not None:
            norms = (self.query_norm, self.key_norm)
            parts = [fused.rms_norm_composed(x, norm.weight) for x, norm in zip(parts, norms, strict=True)]
        if step.rotary is not None:
            cos, sin = (_for_rows(table, step) for table in step.rotary)
            parts = [fused.rotate(x, cos, sin) for x in parts]
        return parts

    def _norm_heads(self, qk: Tensor, query_norm: Norm, key_norm: Norm) -> Tensor:
        """Queries and keys [B*T, h + g, e] with an RMSNorm over each head: two kernels into one buffer."""
        parts = qk.split((self.num_heads, self.num_kv_heads), dim=1)
        norms = (query_norm, key_norm)
        if needs_gradient(qk):
            # Every rank's heads share these weights.
            weights = [fan_out(norm.weight, self.tensor) for norm in norms]
            return torch.cat([fused.head_norm(x, weight) for x, weight in zip(parts, weights, strict=True)], dim=1)
        normed = torch.empty(qk.shape, dtype=qk.dtype, device=qk.device)
        targets = normed.split((self.num_heads, self.num_kv_heads), dim=1)
        for target, x, norm in zip(targets, parts, norms, strict=True):
            fused.head_norm_into(target, x, norm.weight)
        return normed

    def _store(self, rows: Tensor, qkv: Tensor, k: Tensor, v: Tensor, step: Step) -> None:
        if step.rotary is None:
            # Keys and values lie side by side in the projection: one strided copy.
            kv = qkv[:, self.num_heads :].detach()
            rows.copy_(kv.view(step.batch, step.length, 2, self.num_kv_heads, self.head_dim))
        elif RULES[step.kernels].composed:
            for place, x in enumerate((k, v)):
                rows[:, :, place].copy_(x.unflatten(0, (step.batch, step.length)))
        else:
            for part, (keys, values) in _by_rows(rows, step, k, v):
                fused.store(part, keys, values)

    def _prepare_fused(self, qkv: Tensor, step: Step, cache: KeyValueCache, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Rotated queries [B*T, h, e]; keys and values go into the cache alone."""
        rows = cache.rows(self.slot, step.start, step.length)
        cos, sin = rotary
        done = []
        for part, (x,) in _by_rows(rows, step, qkv):
            if self.query_norm is not None and self.key_norm is not None:
                weights = (self.query_norm.weight, self.key_norm.weight)
                done.append(fused.norm_rope_store(x, cos, sin, part, *weights))
            else:
                done.append(fused.rope_store(x, cos, sin, part))
        return done[0] if len(done) == 1 else torch.cat(done)

    def forward(self, x: Tensor | Quantized, step: Step) -> Tensor:
        """[B*T, d] to this rank's part of the output, [B*T, d]."""
        context, quantizer = self.context(x, step), quantizer_of(self.out)
        y: Tensor = self.out(context if quantizer is None else quantizer(context))
        return y


def _last_sees_all(queries: int, keys: int) -> Tensor:
    """The mask of tokens behind others, of which the last one sees all: it is aligned at the lower right."""
    # Brings torch's compiler, which takes as long to import as the rest of torch.
    from torch.nn.attention.bias import causal_lower_right

    return causal_lower_right(queries, keys)


def _for_rows(table: Tensor, step: Step) -> Tensor:
    """[T, e] for rows of T or of one token a sequence, as it is; else repeated: [B*T, e]."""
    if step.batch == 1 or step.length == 1:
        return table
    return table.repeat(step.batch, 1)


def _by_rows(rows: Tensor, step: Step, *tensors: Tensor) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
    """A cache's rows [B, T, ...] as [R, ...] with the same rows of tensors [B*T, ...]: all of them, or by sequence."""
    if step.batch == 1:
        return [(rows[0], tensors)]
    if step.length == 1:
        return [(rows[:, 0], tensors)]
    parts = [x.chunk(step.batch) for x in tensors]
    return [(rows[i], tuple(part[i] for part in parts)) for i in range(step.batch)]


class FeedForward(nn.Module):
    """W2 · gelu(W1 · x + b1) + b2, or W2 · (silu(W_gate · x) * (W1 · x)), over this rank's share of the FFN width.

    `up` holds the rows of the gate, if there is one, and then those of W1.
    """

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
        self.gated = config.gated_ffn
        self.up = Linear(d, 2 * f if self.gated else f, bias=config.mlp_bias, shard=shard)
        self.down = Linear(
            f,
            d,
            bias=config.mlp_bias and output_bias,
            shard=shard,
            std=residual_std,
            carries_bias=tensor.rank == 0,
        )

    def inner(self, x: Tensor | Quantized, kernels: KernelSet) -> Tensor:
        """[B*T, d] to [B*T, f]."""
        if not self.gated:
            return nnf.gelu(self.up(x))
        if RULES[kernels].composed:
            return fused.silu_mul_composed(self.up(x))
        y: Tensor = fused.silu_mul(self.up(x))
        return y

    def forward(self, x: Tensor | Quantized, kernels: KernelSet) -> Tensor:
        """[B*T, d] to this rank's part of the output, [B*T, d]."""
        y: Tensor = self.down(self._inner_for_down(x, kernels))
        return y

    def _inner_for_down(self, x: Tensor | Quantized, kernels: KernelSet) -> Tensor | Quantized:
        """`inner`, quantised where the down projection takes it so."""
        quantizer = quantizer_of(self.down)
        if quantizer is None:
            return self.inner(x, kernels)
        if self.gated and quantizer.fuses(kernels):
            return quantizer.silu_mul(self.up(x))
        return quantizer(self.inner(x, kernels))


def to_all_shards(x: Tensor | Quantized, tensor: Group) -> Tensor | Quantized:
    """To a rank's heads or share of the FFN; what is quantised has no gradient."""
    return x if isinstance(x, Quantized) else fan_out(x, tensor)


class Block(nn.Module):
    """Norm, attention, norm, FFN: the parts of a standard layer and of a Kraken sub-layer."""

    def __init__(self, config: TransformerConfig, tensor: Group, slot: int, name: str, residual_std: float) -> None:
        super().__init__()
        d, bias = config.hidden_size, config.norm_bias
        self.attention_norm = Norm(d, bias=bias)
        self.attention = SelfAttention(config, tensor, slot, name, residual_std)
        self.ffn_norm = Norm(d, bias=bias)
        self.ffn = FeedForward(config, tensor, name, residual_std)


class Embeddings(nn.Module):
    """Token rows plus learned position rows if the model has them, replicated on every rank."""

    def __init__(self, config: TransformerConfig, num_devices: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(padded_vocab_size(config.vocab_size, num_devices), config.hidden_size)
        self.positions: nn.Embedding | None = None
        if config.position_embeddings:
            self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: Tensor, start: int = 0) -> Tensor:
        """Ids [B, T] of tokens from position `start` to [B*T, d]: a gather, and an add for learned positions."""
        x: Tensor = self.tokens(input_ids)
        if self.positions is not None:
            x = x + self.positions.weight[start : start + input_ids.shape[1]]
        return x.flatten(0, 1)

    def of_rows(self, ids: Tensor, positions: slice | Tensor, ranks: Group) -> Tensor:
        """Ids [R] of this rank's own tokens, at these positions, to [R, d]; gradients are summed over the ranks."""
        x = nnf.embedding(ids, fan_out(self.tokens.weight, ranks))
        if self.positions is not None:
            x = x + fan_out(self.positions.weight, ranks)[positions]
        return x


class Rotary(nn.Module):
    """Cosines and sines of all positions, [P, e] each, computed in float64 and kept in the model's dtype."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        shape = (config.max_position_embeddings, config.head_dim)
        self.register_buffer("cos", torch.empty(shape), persistent=False)
        self.register_buffer("sin", torch.empty(shape), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def fill(self) -> None:
        """Computes the tables where they lie."""
        positions, width = self.cos.shape
        exponents = torch.arange(0, width, 2, dtype=torch.float64, device=self.cos.device) / width
        places = torch.arange(positions, dtype=torch.float64, device=self.cos.device)
        angles = torch.outer(places, ROTARY_BASE**-exponents).repeat(1, 2)
        self.cos.copy_(angles.cos())
        self.sin.copy_(angles.sin())

    def forward(self, start: int, length: int) -> tuple[Tensor, Tensor]:
        """The rows of `length` positions from `start`, without a kernel."""
        return self.cos[start : start + length], self.sin[start : start + length]


class LanguageModelHead(nn.Module):
    """Final norm and this rank's V/N columns of the logits; columns past the vocabulary are padding."""

    def __init__(self, config: TransformerConfig, world: Group) -> None:
        super().__init__()
        self.world = world
        self.norm = Norm(config.hidden_size, bias=config.norm_bias)
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

    def forward(self, x: Tensor, embeddings: Embeddings, kernels: KernelSet) -> Tensor:
        """[m, d] to [m, V/N]."""
        normed: Tensor = self.norm(x, kernels)
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
            elif isinstance(module, Norm):
                module.weight.fill_(1.0)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, Rotary):
                module.fill()


def _fill_linear(linear: Linear, name: str) -> None:
    sizes = [rows for rows, _ in linear.row_shards]
    for (_, shard), rows in zip(linear.row_shards, linear.weight.split(sizes), strict=True):
        rows.normal_(std=linear.std, generator=_generator(f"{name}/{shard}", linear.weight.device))
    if linear.bias is not None:
        linear.bias.zero_()


def _generator(key: str, device: torch.device) -> torch.Generator:
    seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest())
    return torch.Generator(device).manual_seed(seed)
