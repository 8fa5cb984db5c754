"""A Kraken whose sub-layers run together on one device: one batched GEMM where the twin runs one GEMM a sub-layer.

Shapes: N ways, R = B*T rows, d width of a sub-layer, h heads of it, e head dim, f FFN width. Activations are [N, R, d].
It starts as the twin of the same seed (`validation.models`) and computes what that computes. `received` changes what
becomes of the other sub-layers' outputs, for experiments; the twin knows the paper's way alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from kraken_sim.errors import InputError
from kraken_sim.program.kernel_sets import KernelSet
from validation.models.fused import NORM_EPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from validation.models.kraken import KrakenDecoder, SubLayer
    from validation.models.layers import Linear, Norm
    from validation.quality.recipe import Received


class BatchedLinear(nn.Module):
    """y[i] = x[i] · W[i]ᵀ + b[i] for every way i: [N, R, k] to [N, R, n]."""

    def __init__(self, parts: Sequence[Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([part.weight.detach() for part in parts]))
        self.bias = nn.Parameter(torch.stack([part.bias.detach() for part in parts]))

    def forward(self, x: Tensor) -> Tensor:
        """[N, R, k] to [N, R, n]."""
        return x @ self.weight.mT + self.bias[:, None]


class BatchedNorm(nn.Module):
    """A LayerNorm a way."""

    def __init__(self, parts: Sequence[Norm]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([part.weight.detach() for part in parts]))
        biases = [part.bias.detach() for part in parts if part.bias is not None]
        self.bias = nn.Parameter(torch.stack(biases))

    def forward(self, x: Tensor) -> Tensor:
        """[N, R, d] to [N, R, d]."""
        normed = nnf.layer_norm(x, x.shape[-1:], eps=NORM_EPS)
        return normed * self.weight[:, None] + self.bias[:, None]


class BatchedLayer(nn.Module):
    """All sub-layers of one layer."""

    def __init__(self, ways: Sequence[SubLayer], received: Received) -> None:
        super().__init__()
        self.received = received
        self.attention_norm = BatchedNorm([way.attention_norm for way in ways])
        self.qkv = BatchedLinear([way.attention.qkv for way in ways])
        self.out = BatchedLinear([way.attention.out for way in ways])
        self.ffn_norm = BatchedNorm([way.ffn_norm for way in ways])
        self.up = BatchedLinear([way.ffn.up for way in ways])
        self.down = BatchedLinear([way.ffn.down for way in ways])
        self.num_heads, self.head_dim = ways[0].attention.num_heads, ways[0].attention.head_dim

    def forward(self, x: Tensor, batch: int, *, first: bool) -> Tensor:
        """[N, R, d] to [N, R, d]; the first layer receives nothing."""
        y = self.attend(self.attention_norm(x), batch)
        a = x + y
        if first or self.received == "nothing":
            return a + self.feed_forward(self.ffn_norm(a))
        s = x.sum(dim=0)
        u = y + s
        if self.received == "residual":
            a = u
        elif self.received == "residual_mean":
            a = y + s / x.shape[0]
        return a + self.feed_forward(self.ffn_norm(u))

    def attend(self, normed: Tensor, batch: int) -> Tensor:
        """Causal attention, every way over its own heads: [N, R, d] to [N, R, d]."""
        ways, rows, _ = normed.shape
        qkv = self.qkv(normed).view(ways * batch, rows // batch, 3, self.num_heads, self.head_dim)
        q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
        context = nnf.scaled_dot_product_attention(q, k, v, is_causal=True)
        y: Tensor = self.out(context.transpose(1, 2).reshape(ways, rows, -1))
        return y

    def feed_forward(self, normed: Tensor) -> Tensor:
        """[N, R, d] to [N, R, d]."""
        y: Tensor = self.down(nnf.gelu(self.up(normed)))
        return y


class BatchedKraken(nn.Module):
    """The whole of a Kraken on one device, made of its twin.

    Raises:
        InputError: the twin is spread over ranks, or no GPT-2-like model.
    """

    def __init__(self, twin: KrakenDecoder, received: Received = "norm") -> None:
        super().__init__()
        config = twin.config
        plain = config.position_embeddings and config.norm_bias and config.attention_bias and config.mlp_bias
        if not plain or config.gated_ffn or config.num_key_value_heads != config.num_attention_heads:
            message = (
                "batched sub-layers are GPT-2-like: learned positions, LayerNorms, biases, a key head a query head"
            )
            raise InputError.single("model", message)
        if twin.world.size > 1:
            raise InputError.single("architecture.ways", "sub-layers are batched on one device only", twin.world.size)
        self.config, self.num_ways = config, twin.num_ways
        self.embeddings, self.head = twin.embeddings, twin.head
        stacks = [layer.ways() for layer in twin.layers]  # type: ignore[operator]  # what a ModuleList holds has no type
        self.layers = nn.ModuleList(BatchedLayer(ways, received) for ways in stacks)
        self.concat_weight = nn.Parameter(torch.cat([part.weight.detach() for part in twin.concat], dim=1))  # type: ignore[operator]
        self.concat_bias = nn.Parameter(twin.concat[0].bias.detach())  # type: ignore[operator]

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of all positions: [B, T] to [B, T, V]."""
        batch, length = input_ids.shape
        x = self.embeddings(input_ids).expand(self.num_ways, -1, -1)
        for index, layer in enumerate(self.layers):
            x = layer(x, batch, first=index == 0)
        joined = nnf.linear(x.transpose(0, 1).reshape(batch * length, -1), self.concat_weight, self.concat_bias)
        logits: Tensor = self.head(joined, self.embeddings, KernelSet.PYTORCH)
        return logits.view(batch, length, -1)
