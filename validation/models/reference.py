"""The three architectures in one process, as the formulas read: no shards, no collectives, no fused steps.

Written without the modules that it checks. `validation.models.weights` names the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from validation.models.weights import weight_shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kraken_sim.models.config import TransformerConfig


def random_weights(
    architecture: str, config: TransformerConfig, num_ways: int = 1, seed: int = 0, std: float = 0.2
) -> dict[str, Tensor]:
    """Float64 weights of a whole model, all of them random (biases and norms too), so that none can hide."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in weight_shapes(architecture, config, num_ways).items():
        x = torch.randn(shape, generator=generator, dtype=torch.float64) * std
        weights[name] = x + 1 if name.endswith("norm.weight") else x
    return weights


class Reference:
    """A whole model; `keys_values[(layer, way)]` holds [2, B, T, heads, head_dim] after a forward pass."""

    def __init__(
        self, architecture: str, config: TransformerConfig, weights: Mapping[str, Tensor], num_ways: int = 1
    ) -> None:
        self.config, self.weights, self.num_ways = config, weights, num_ways
        self.keys_values: dict[tuple[int, int], Tensor] = {}
        layers: dict[str, Callable[[Tensor], Tensor]] = {
            "standard": self._standard,
            "parallel": self._parallel,
            "kraken": self._kraken,
        }
        self._layers = layers[architecture]

    def logits(self, input_ids: Tensor) -> Tensor:
        """Ids [B, T] to logits [B, V] of the last tokens."""
        w = self.weights
        x = w["embeddings.tokens"][input_ids]
        if self.config.position_embeddings:
            x = x + w["embeddings.positions"][: input_ids.shape[1]]
        x = self._norm(self._layers(x)[:, -1], "final_norm")
        return x @ w.get("unembedding.weight", w["embeddings.tokens"]).T

    def _standard(self, x: Tensor) -> Tensor:
        for layer in range(self.config.num_hidden_layers):
            p = f"layers.{layer}.0."
            x = x + self._attention(self._norm(x, p + "attention_norm"), layer, 0)
            x = x + self._ffn(self._norm(x, p + "ffn_norm"), p)
        return x

    def _parallel(self, x: Tensor) -> Tensor:
        for layer in range(self.config.num_hidden_layers):
            p = f"layers.{layer}.0."
            normed = self._norm(x, p + "attention_norm")
            x = x + self._attention(normed, layer, 0) + self._ffn(normed, p)
        return x

    def _kraken(self, x: Tensor) -> Tensor:
        xs = [x] * self.num_ways
        for layer in range(self.config.num_hidden_layers):
            outputs = []
            for way, x_i in enumerate(xs):
                p = f"layers.{layer}.{way}."
                a = x_i + self._attention(self._norm(x_i, p + "attention_norm"), layer, way)
                u = a
                if layer > 0:
                    u = a + sum((x_j for j, x_j in enumerate(xs) if j != way), torch.zeros_like(a))
                outputs.append(a + self._ffn(self._norm(u, p + "ffn_norm"), p))
            xs = outputs
        return self._linear(torch.cat(xs, dim=-1), "concat")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        y = x @ self.weights[name + ".weight"].T
        return y + self.weights[name + ".bias"] if name + ".bias" in self.weights else y

    def _norm(self, x: Tensor, name: str) -> Tensor:
        """LayerNorm where the norm has a bias, RMSNorm where it has none."""
        if name + ".bias" not in self.weights:
            return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.weights[name + ".weight"]
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def _ffn(self, x: Tensor, prefix: str) -> Tensor:
        return self._linear(self._inner(x, prefix), prefix + "down")

    def _inner(self, x: Tensor, prefix: str) -> Tensor:
        inner = self._linear(x, prefix + "up")
        if self.config.gated_ffn:
            gate = self._linear(x, prefix + "gate")
            inner = gate / (1 + torch.exp(-gate)) * inner
        else:
            inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        return inner

    def _rotated(self, x: Tensor) -> Tensor:
        """Each pair (x_i, x_{i + e/2}) of a head [B, T, heads, e] as a complex number, turned by t * base^(-2i/e)."""
        half = self.config.head_dim // 2
        frequencies = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequencies
        turned = torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * angles)[:, None]
        return torch.cat([turned.real, turned.imag], dim=-1)

    def _attention(self, x: Tensor, layer: int, way: int) -> Tensor:
        return self._linear(self._context(x, layer, way), f"layers.{layer}.{way}.out")

    def _context(self, x: Tensor, layer: int, way: int = 0) -> Tensor:
        p, (batch, length, _), e = f"layers.{layer}.{way}.", x.shape, self.config.head_dim
        q, k, v = (self._linear(x, p + name).view(batch, length, -1, e) for name in ("query", "key", "value"))
        if self.config.qk_norm:
            q, k = self._norm(q, p + "query_norm"), self._norm(k, p + "key_norm")
        if not self.config.position_embeddings:
            q, k = self._rotated(q), self._rotated(k)
        self.keys_values[layer, way] = torch.stack([k, v]).detach()
        shared = self.config.num_attention_heads // self.config.num_key_value_heads
        k, v = (y.repeat_interleave(shared, dim=2) for y in (k, v))
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / e**0.5
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        return torch.einsum("bhqk,bkhe->bqhe", weights, v).flatten(2)
