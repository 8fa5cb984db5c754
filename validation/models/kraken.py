"""Kraken: a layer is `ways` independent sub-layers; one AllReduce a layer runs beside the next attention.

    layer 1:      a_i = x + Attn_i(LN1_i(x));         x_i = a_i + FFN_i(LN2_i(a_i))
    layer l > 1:  s   = Σ_j x_j                       (AllReduce, launched before the norm)
                  y_i = Attn_i(LN1_i(x_i));  a_i = x_i + y_i
                  x_i = a_i + FFN_i(LN2_i(y_i + s))   because a_i + Σ_{j≠i} x_j = y_i + s
    end:          Σ_i W_concat_i · x_i                (AllReduce, blocking)

What is received feeds LN2 only; the residual that leaves the FFN is a_i.
Source: Prabhakar, Zhang and Wentzlaff, "Kraken" (arXiv 2408.07802), section 3.

Ways and ranks may differ. With k ways a rank, a rank runs its sub-layers one after the other and adds
their outputs before the AllReduce. With g ranks a way, a sub-layer is tensor parallel inside a group of
g neighbours, and the AllReduce runs among the ranks with the same place in their groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from kraken_sim.errors import InputError
from kraken_sim.program.kernel_sets import RULES
from validation.models.block import Block
from validation.models.communication import (
    SideStreamSum,
    exchange,
    fan_out,
    kraken_layout,
    needs_gradient,
    sum_partials,
)
from validation.models.decoder import Decoder, Placement
from validation.models.layers import STD, Linear, Step, to_all_shards
from validation.models.quantized import quantized_or_plain
from validation.models.sharding import check_shapes

if TYPE_CHECKING:
    from kraken_sim.models.config import TransformerConfig
    from validation.models.communication import Group, KrakenLayout
    from validation.models.quantized import Quantized


Output = tuple[Tensor, Tensor | None]
"""A sub-layer's output: the residual, and what is still to be added to it."""


class SubLayer(Block):
    """One way of one layer."""

    quantizable = True

    def __init__(self, config: TransformerConfig, tensor: Group, slot: int, way: int, residual_std: float) -> None:
        super().__init__(config, tensor, slot, f"way{way}", residual_std)
        self.tensor = tensor

    def attend(self, normed: Tensor | Quantized, step: Step) -> Tensor:
        """The attention's output y of a normed input, both [B*T, d]."""
        return sum_partials(self.attention(to_all_shards(normed, self.tensor), step), self.tensor)

    def feed_forward(self, normed: Tensor | Quantized, step: Step) -> Tensor:
        """The FFN of a normed input, both [B*T, d]."""
        return sum_partials(self.ffn(to_all_shards(normed, self.tensor), step.kernels), self.tensor)

    def before_attention(self, x: Tensor, delta: Tensor | None, step: Step) -> tuple[Tensor, Tensor | Quantized]:
        """The sum x + delta and what the attention takes of it."""
        return self.attention_norm.before(self.attention.qkv, x, delta, step.kernels)

    def before_ffn(self, x: Tensor, delta: Tensor | None, step: Step) -> Tensor | Quantized:
        """What the FFN takes of the sum x + delta."""
        return self.ffn_norm.before(self.ffn.up, x, delta, step.kernels)[1]


class KrakenLayer(nn.Module):
    """This rank's sub-layers of one layer.

    With one of them 11 kernels in the first layer, later 13; rotary positions add one.
    """

    def __init__(self, config: TransformerConfig, layout: KrakenLayout, index: int, residual_std: float) -> None:
        super().__init__()
        first_slot = index * len(layout.ways)
        self.sublayers = nn.ModuleList(
            SubLayer(config, layout.tensor, first_slot + i, way, residual_std) for i, way in enumerate(layout.ways)
        )

    def ways(self) -> list[SubLayer]:
        """The sub-layers with their type."""
        return [layer for layer in self.sublayers if isinstance(layer, SubLayer)]

    def first(self, x: Tensor, step: Step) -> list[Output]:
        """Layer 1: all sub-layers read the same x, nothing is received."""
        return [self._alone(way, x, way.before_attention(x, None, step)[1], step) for way in self.ways()]

    def forward(self, outputs: list[Output], step: Step, sums: SumOfWays) -> list[Output]:
        """Layer l > 1: the sum of all outputs is on its way while the sub-layers attend."""
        normed: list[Tensor | Quantized | None] = [None] * len(outputs)
        if RULES[step.kernels].add_in_norm:
            pairs = zip(self.ways(), outputs, strict=True)
            after = [way.before_attention(a, f, step) for way, (a, f) in pairs]
            xs, normed = [x for x, _ in after], [n for _, n in after]
        else:
            xs = [_sum(output) for output in outputs]
        sums.send(xs)
        attended = []
        for way, x, early in zip(self.ways(), xs, normed, strict=True):
            n = way.before_attention(x, None, step)[1] if early is None else early
            if sums.num_ways == 1:
                return [self._alone(way, x, n, step)]
            y = way.attend(n, step)
            attended.append((way, y, x + y))
        s = sums.receive()
        results = []
        for way, y, a in attended:
            results.append(_output(a, way.feed_forward(way.before_ffn(y, s, step), step), step))
        return results

    @staticmethod
    def _alone(way: SubLayer, x: Tensor, normed: Tensor | Quantized, step: Step) -> Output:
        """A sub-layer that receives nothing: x and its norm."""
        a, n = way.ffn_norm.before(way.ffn.up, x, way.attend(normed, step), step.kernels)
        return _output(a, way.feed_forward(n, step), step)


def _output(a: Tensor, f: Tensor, step: Step) -> Output:
    """A sub-layer's output a + f, summed unless the next norm is to do it."""
    return (a, f) if RULES[step.kernels].add_in_norm else (a + f, None)


def _sum(output: Output) -> Tensor:
    a, f = output
    return a if f is None else a + f


class SumOfWays:
    """s = Σ_j x_j over all ways, beside the main stream (`overlap`) or blocking it at the same place.

    Every sum has a buffer of its own from the main stream's memory pool. The main stream waits for the
    sum before it can hand the buffer back, so no later layer can overwrite what is still being reduced.
    With gradients the AllReduce always runs on the main stream.
    """

    def __init__(self, num_ways: int, cross: Group) -> None:
        self.num_ways, self.cross = num_ways, cross
        self.overlap = True
        self._side = SideStreamSum(cross)
        self._buffer: Tensor | None = None
        self._in_flight = False

    def send(self, xs: list[Tensor]) -> None:
        """Copies (or adds) the local outputs into a buffer and launches its AllReduce."""
        if self.num_ways == 1:
            return
        buffer = self._local_sum(xs)
        self._in_flight = self.overlap and self.cross.size > 1 and not needs_gradient(buffer)
        if self._in_flight:
            self._side.start(buffer)
        else:
            buffer = exchange(buffer, self.cross)
        self._buffer = buffer

    def receive(self) -> Tensor | None:
        """The sum, or None where a layer has one way only."""
        if self._in_flight:
            self._side.finish()
            self._in_flight = False
        buffer, self._buffer = self._buffer, None
        return buffer

    @staticmethod
    def _local_sum(xs: list[Tensor]) -> Tensor:
        if len(xs) == 1:
            return xs[0].clone()
        total = xs[0] + xs[1]
        for x in xs[2:]:
            total += x
        return total


class KrakenDecoder(Decoder):
    """A Kraken over `world` ranks; `config` is the shape of one sub-layer.

    `overlap` (default True) says whether the AllReduce runs beside the attention; it may be changed at any
    time and changes no result.

    Raises:
        InputError: ways and ranks do not fit, or a sub-layer does not divide over its ranks.
    """

    def __init__(self, config: TransformerConfig, num_ways: int, world: Group) -> None:
        if num_ways < 1:
            raise InputError.single("architecture.ways", "must be at least 1", num_ways, "2")
        layout = kraken_layout(num_ways, world)
        check_shapes(config, layout.tensor.size, "architecture")
        if config.hidden_size % layout.tensor.size:
            message = f"must be a multiple of the {layout.tensor.size} devices that share a sub-layer"
            raise InputError.single("architecture.hidden_size", message, config.hidden_size)
        super().__init__(config, world, layout.tensor)
        depth = config.num_hidden_layers
        std = STD / (2 * depth * num_ways) ** 0.5
        self.num_ways, self.layout = num_ways, layout
        self.layers = nn.ModuleList(KrakenLayer(config, layout, index, std) for index in range(depth))
        self.concat = nn.ModuleList(self._concat_parts())
        self.sums = SumOfWays(num_ways, layout.cross)

    def _concat_parts(self) -> list[Linear]:
        """W_concat's columns for the outputs (of a shared sub-layer: their slice) that this rank has."""
        d, tensor = self.config.hidden_size, self.layout.tensor
        return [
            Linear(
                d // tensor.size,
                d,
                bias=self.config.mlp_bias and i == 0,
                shard=f"way{way}.{tensor.rank}",
                carries_bias=self.world.rank == 0,
            )
            for i, way in enumerate(self.layout.ways)
        ]

    @property
    def overlap(self) -> bool:
        """Whether the AllReduce runs beside the attention."""
        return self.sums.overlap

    @overlap.setter
    def overlap(self, value: bool) -> None:
        self.sums.overlap = value

    def run_layers(self, x: Tensor, step: Step) -> Tensor:
        """All layers, then the concat projection over all tokens."""
        layers = [layer for layer in self.layers if isinstance(layer, KrakenLayer)]
        outputs = layers[0].first(fan_out(x, self.layout.cross), step)
        for layer in layers[1:]:
            outputs = layer(outputs, step, self.sums)
        return sum_partials(self._concatenate([_sum(output) for output in outputs]), self.world)

    def _concatenate(self, xs: list[Tensor]) -> Tensor:
        """This rank's part of W_concat · [x_1, ..., x_ways]."""
        width = self.config.hidden_size // self.tensor.size
        start = self.tensor.rank * width
        slices = [fan_out(x, self.tensor)[:, start : start + width] for x in xs]
        y: Tensor = quantized_or_plain(self.concat[0], slices[0])
        for part, x in zip(list(self.concat)[1:], slices[1:], strict=True):
            if isinstance(part, Linear):
                y.addmm_(x, part.weight.t())
            else:
                y = y + quantized_or_plain(part, x)
        return y

    def placements(self) -> list[Placement]:
        """The sub-layers of every layer."""
        return [
            Placement(f"layers.{layer}.sublayers.{i}", layer, way)
            for layer in range(len(self.layers))
            for i, way in enumerate(self.layout.ways)
        ]
