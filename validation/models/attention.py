"""Self-attention of one rank, as all architectures have it: its projections, rotary positions, cache and kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from kraken_sim.models.counts import has_output_bias
from kraken_sim.program.kernel_sets import RULES, Positions
from validation.models import fused
from validation.models.communication import Group, fan_out, needs_gradient
from validation.models.layers import Linear, Norm, Step
from validation.models.quantized import Quantized, quantizer_of
from validation.models.sharding import split_heads

if TYPE_CHECKING:
    from kraken_sim.models.config import TransformerConfig
    from validation.models.layers import KeyValueCache


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
