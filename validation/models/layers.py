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

from kraken_sim.program.kernel_sets import RULES, KernelSet
from validation.models import fused
from validation.models.communication import Group, fan_out
from validation.models.quantized import Quantized, quantizer_of
from validation.models.sharding import padded_vocab_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.models.config import TransformerConfig
    from validation.models.attention import SelfAttention

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
