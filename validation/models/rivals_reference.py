"""Ladder, desync, Sync-Point Drop, CAAT-Net and the like in one process, as their formulas read: N devices as a list.

Written without the wirings that it checks. Sequence parallelism, Domino and TokenWeave are the standard model. A
device's part of a block is that of its heads, or of its share of the FFN's width; the first device has the biases of
the matrices behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from validation.models.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kraken_sim.models.config import TransformerConfig

Devices = list[Tensor]
"""The residual of every device, all alike where they are replicated."""


class RivalReference(Reference):
    """A model on `num_devices`; the other numbers are the fields of layouts."""

    def __init__(
        self,
        architecture: str,
        config: TransformerConfig,
        weights: Mapping[str, Tensor],
        num_devices: int,
        *,
        sync_every: int = 1,
        tracks: int = 1,
        dropped_layers: int = 0,
        reduced_channels: int = 0,
    ) -> None:
        super().__init__("standard", config, weights)
        self.num_devices, self.sync_every, self.tracks = num_devices, sync_every, tracks
        self.dropped_layers, self.reduced_channels = dropped_layers, reduced_channels
        wirings: dict[str, Callable[[Devices], Devices]] = {
            "standard": self._rival_standard,
            "ladder": self._ladder,
            "desync": self._desync,
            "sync_point_drop": self._sync_point_drop,
            "caat_net": self._caat_net,
            "parallel_track": self._parallel_track,
            "sequence_parallel": self._rival_standard,
            "domino": self._rival_standard,
            "token_weave": self._rival_standard,
        }
        self._wiring = wirings[architecture]

    def device_logits(self, input_ids: Tensor) -> list[Tensor]:
        """Ids [B, T] to whole logits [B, V] of the last tokens as each device's residual gives them."""
        w = self.weights
        x = w["embeddings.tokens"][input_ids]
        if self.config.position_embeddings:
            x = x + w["embeddings.positions"][: input_ids.shape[1]]
        xs = self._wiring([x] * self.num_devices)
        table = w.get("unembedding.weight", w["embeddings.tokens"])
        return [self._norm(x[:, -1], "final_norm") @ table.T for x in xs]

    def _a(self, xs: Devices, layer: int) -> Devices:
        """Each device's part of the attention's output."""
        p = f"layers.{layer}.0."
        return [self._attention_part(self._norm(x, p + "attention_norm"), layer, i) for i, x in enumerate(xs)]

    def _m(self, xs: Devices, layer: int) -> Devices:
        """Each device's part of the FFN's output."""
        p = f"layers.{layer}.0."
        return [self._ffn_part(self._norm(x, p + "ffn_norm"), p, i) for i, x in enumerate(xs)]

    def _attention_part(self, x: Tensor, layer: int, device: int) -> Tensor:
        p, e = f"layers.{layer}.0.out.", self.config.head_dim
        rows = self.config.num_attention_heads // self.num_devices * e
        own = slice(device * rows, (device + 1) * rows)
        return self._part(self._context(x, layer)[..., own], p, own, device)

    def _ffn_part(self, x: Tensor, prefix: str, device: int) -> Tensor:
        inner, rows = self._inner(x, prefix), self.config.intermediate_size // self.num_devices
        own = slice(device * rows, (device + 1) * rows)
        return self._part(inner[..., own], prefix + "down.", own, device)

    def _part(self, x: Tensor, name: str, own: slice, device: int) -> Tensor:
        y = x @ self.weights[name + "weight"][:, own].T
        return y + self.weights[name + "bias"] if device == 0 and name + "bias" in self.weights else y

    def _summed(self, parts: Devices) -> Devices:
        return [sum(parts[1:], parts[0])] * self.num_devices

    def _rival_standard(self, xs: Devices) -> Devices:
        for layer in range(self.config.num_hidden_layers):
            xs = _plus(xs, self._summed(self._a(xs, layer)))
            xs = _plus(xs, self._summed(self._m(xs, layer)))
        return xs

    def _ladder(self, xs: Devices) -> Devices:
        zero = [torch.zeros_like(x) for x in xs]
        a, m = zero, zero
        for layer in range(self.config.num_hidden_layers):
            xs = _plus(xs, a)
            a = self._summed(self._a(xs, layer))
            xs = _plus(xs, m)
            m = self._summed(self._m(xs, layer))
        return _plus(_plus(xs, a), m)

    def _desync(self, xs: Devices) -> Devices:
        depth = self.config.num_hidden_layers
        for layer in range(depth):
            xs = _plus(xs, self._a(xs, layer))
            m = self._m(xs, layer)
            if (layer + 1) % self.sync_every == 0 or layer == depth - 1:
                xs = self._summed([y + x / self.num_devices for x, y in zip(xs, m, strict=True)])
            else:
                xs = _plus(xs, m)
        return xs

    def _parallel_track(self, xs: Devices) -> Devices:
        depth, hs = self.config.num_hidden_layers, [xs[0]] * self.tracks
        for layer in range(depth):
            for track, h in enumerate(hs):
                p = f"layers.{layer}.{track}."
                y = h + self._attention(self._norm(h, p + "attention_norm"), layer, track)
                hs[track] = y + self._ffn(self._norm(y, p + "ffn_norm"), p)
            if (layer + 1) % self.sync_every == 0 or layer == depth - 1:
                hs = [sum(hs[1:], hs[0])] * self.tracks
        return [hs[0]] * self.num_devices

    def _sync_point_drop(self, xs: Devices) -> Devices:
        for layer in range(self.config.num_hidden_layers):
            a = self._a(xs, layer)
            if layer < self.dropped_layers:
                m = self._m(_plus(xs, a), layer)
                xs = _plus(xs, self._summed(_plus(a, m)))
            else:
                xs = _plus(xs, self._summed(a))
                xs = _plus(xs, self._summed(self._m(xs, layer)))
        return xs

    def _caat_net(self, xs: Devices) -> Devices:
        for layer in range(self.config.num_hidden_layers):
            xs = _plus(xs, self._partly(self._a(xs, layer)))
            xs = _plus(xs, self._partly(self._m(xs, layer)))
        return xs

    def _partly(self, parts: Devices) -> Devices:
        q, root = self.reduced_channels, self.num_devices**0.5
        shared = self._summed([part[..., :q] for part in parts])
        return [torch.cat([s, root * part[..., q:]], dim=-1) for s, part in zip(shared, parts, strict=True)]


def _plus(first: Devices, second: Devices) -> Devices:
    return [x + y for x, y in zip(first, second, strict=True)]
