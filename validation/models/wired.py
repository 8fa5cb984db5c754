"""A decoder that runs the wiring of an architecture: the same data that the simulator makes its program of.

What it computes is held against formulas written by hand (`validation.models.rivals_reference`), and the kernels that
it launches against the program: so a wiring is shown to be the architecture that it is called. All devices share each
layer; sub-layers (Kraken's) and a residual that is split by tokens are not made here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from kraken_sim.architectures import wiring as wired
from kraken_sim.errors import InputError
from kraken_sim.program.ops import CollectiveKind
from validation.models.communication import SideStreamSum, exchange, fan_out, needs_gradient, sum_partials
from validation.models.decoder import StackedDecoder
from validation.models.layers import Block, KeyValueCache, Step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from kraken_sim.architectures.wiring import BlockStep, Exchange, Steps, Wiring
    from kraken_sim.models.config import TransformerConfig
    from validation.models.communication import Group


class WiredLayer(Block):
    """Norm, attention, norm, FFN of one layer; what is done with their outputs is the decoder's."""

    def __init__(self, config: TransformerConfig, tensor: Group, slot: int, residual_std: float) -> None:
        super().__init__(config, tensor, slot, "", residual_std)


@dataclass
class _Part:
    """The residual of some tokens, what is still to be added to it, and what was made last."""

    step: Step
    residual: Tensor
    delta: Tensor | None = None
    kept: Tensor | None = None
    """The residual behind a sum that only a norm reads."""
    normed: Tensor | None = None
    made: Tensor | None = None
    sent: dict[str, Tensor] = field(default_factory=dict)

    def add(self, y: Tensor) -> None:
        """Adds y to the residual: in the next norm, or now what was still to be added."""
        self.settle()
        self.delta = y

    def settle(self) -> None:
        """Makes the sum that no norm has made."""
        if self.delta is not None:
            self.residual, self.delta = self.residual + self.delta, None


class WiredDecoder(StackedDecoder):
    """A decoder over `world` ranks whose layers are wired so.

    `overlap` (default True) says whether collectives that are begun run beside compute; it changes no result. With
    gradients they block; where residuals differ by device there are none.

    Raises:
        InputError: heads or FFN width do not divide, or the wiring has parts not made here.
    """

    def __init__(self, config: TransformerConfig, wiring: Wiring, world: Group) -> None:
        super().__init__(config, world, WiredLayer)
        if wiring.split_tokens or any(isinstance(step, wired.EachBlock) for step in _all_steps(wiring)):
            message = "sub-layers and a residual split by tokens are not made here"
            raise InputError.single("architecture.kind", message, wiring.name, "ladder")
        if config.mlp_bias and any(isinstance(step, wired.Residual) and step.norm_only for step in _all_steps(wiring)):
            message = "a sum that only a norm reads is made here without biases"
            raise InputError.single("model.mlp_bias", message, config.mlp_bias, "false")
        self.wiring, self.overlap = wiring, True
        self._private = world.size > 1 and any(_is_private(step) for step in _all_steps(wiring))
        self._side = SideStreamSum(world)
        self._under_way: set[str] = set()

    def run_layers(self, x: Tensor, step: Step) -> Tensor:
        """All layers one after the other, each by its steps."""
        if self._private and needs_gradient(x):
            message = "gradients of residuals that differ by device are not made here"
            raise InputError.single("architecture.kind", message, self.wiring.name, "ladder")
        parts = self._parts(x, step)
        layers = [layer for layer in self.layers if isinstance(layer, WiredLayer)]
        for layer, steps in zip(layers, self._steps_of_layers(len(layers)), strict=True):
            self._run(parts, steps, layer)
        self._run(parts, self.wiring.end, None)
        return self._joined(parts, x)

    @staticmethod
    def _joined(parts: list[_Part], like: Tensor) -> Tensor:
        """The residual of all tokens; the last sums of halves are made where they belong."""
        if len(parts) > 1 and not needs_gradient(parts[0].residual):
            whole = torch.empty_like(like)
            for part, rows in zip(parts, whole.split([len(part.residual) for part in parts]), strict=True):
                assert part.delta is not None
                torch.add(part.residual, part.delta, out=rows)
            return whole
        for part in parts:
            part.settle()
        return parts[0].residual if len(parts) == 1 else torch.cat([part.residual for part in parts])

    def _steps_of_layers(self, depth: int) -> list[Steps]:
        return [period[index % len(period)] for period, number in self.wiring.runs(depth) for index in range(number)]

    def _parts(self, x: Tensor, step: Step) -> list[_Part]:
        """All tokens, or two halves of the sequences."""
        if not self.wiring.two_parts or step.batch == 1:
            return [_Part(step, x)]
        first = -(-step.batch // 2)
        parts = []
        for begin, end in ((0, first), (first, step.batch)):
            cache = None if step.cache is None else KeyValueCache(step.cache.data[:, begin:end])
            rows = x[begin * step.length : end * step.length]
            parts.append(_Part(replace(step, batch=end - begin, cache=cache), rows))
        return parts

    def _run(self, parts: list[_Part], steps: Steps, layer: WiredLayer | None) -> None:
        for step in steps:
            if isinstance(step, wired.OfPart):
                if step.part < len(parts):
                    self._run_part(parts[step.part], step.steps, layer, f".{step.part}")
            elif isinstance(step, wired.SendStream):
                self._send_stream(parts[0], step)
            else:
                self._run_part(parts[0], [step], layer, "")  # type: ignore[list-item]  # sub-layers are refused above

    def _send_stream(self, part: _Part, step: wired.SendStream) -> None:
        if step.mean and self.world.size > 1:
            assert part.delta is not None
            # One kernel: f + x / N.
            mixed, part.delta = torch.add(part.delta, part.residual, alpha=1.0 / self.world.size), None
            part.residual = exchange(mixed, self.world)
            return
        part.settle()
        part.residual = exchange(part.residual, self.world)

    def _run_part(self, part: _Part, steps: Iterable[BlockStep], layer: WiredLayer | None, suffix: str) -> None:
        for step in steps:
            match step:
                case wired.Normalise() | wired.Attend() | wired.FeedForward():
                    assert layer is not None
                    self._block(part, step, layer)
                case wired.Residual(by=by, norm_only=norm_only):
                    part.kept = part.residual if norm_only else None
                    part.add(self._made(part) if by is None else self._reduced(self._made(part), by))
                case wired.Add():
                    part.settle()
                    part.residual = part.residual + self._made(part)
                case wired.Send(by):
                    part.made = self._reduced(self._made(part), by)
                case wired.Begin(by):
                    self._begin(part, by.name + suffix)
                case wired.Take(of=of):
                    self._take(part, of + suffix)

    def _block(self, part: _Part, step: wired.Normalise | wired.Attend | wired.FeedForward, layer: WiredLayer) -> None:
        kernels = part.step.kernels
        if isinstance(step, wired.Normalise):
            norm = layer.attention_norm if part.normed is None else layer.ffn_norm
            total, part.normed = norm.after(part.residual, part.delta, kernels)
            part.residual, part.delta, part.kept = (total if part.kept is None else part.kept), None, None
            return
        assert part.normed is not None
        n = fan_out(part.normed, self.world)
        if isinstance(step, wired.Attend):
            self._last = part.made = layer.attention(n, part.step)
            return
        part.normed = None
        if step.onto:
            part.made = self._last.addmm_(layer.ffn.inner(n, kernels), layer.ffn.down.weight.t())
        else:
            part.made = layer.ffn(n, kernels)

    @staticmethod
    def _made(part: _Part) -> Tensor:
        made, part.made = part.made, None
        assert made is not None
        return made

    def _reduced(self, y: Tensor, by: Exchange) -> Tensor:
        """The sum, of all channels or of the first ones; the others are scaled by the root of the devices."""
        if by.kind is not CollectiveKind.ALL_REDUCE:
            raise InputError.single("architecture.kind", "only AllReduces are made here", by.kind.value, "all_reduce")
        if by.channels is None or self.world.size == 1:
            return sum_partials(y, self.world)
        shared = exchange(y[:, : by.channels].contiguous(), self.world)
        own = y[:, by.channels :] * float(self.world.size) ** 0.5
        return torch.cat([shared, own], dim=1)

    def _begin(self, part: _Part, name: str) -> None:
        y = self._made(part)
        if self.world.size == 1 or not self.overlap or needs_gradient(y):
            part.sent[name] = sum_partials(y, self.world)
            return
        self._side.start(y, name)
        self._under_way.add(name)
        part.sent[name] = y

    def _take(self, part: _Part, name: str) -> None:
        if name not in part.sent:
            return
        if name in self._under_way:
            self._under_way.remove(name)
            self._side.finish(name)
        part.add(part.sent.pop(name))


def _is_private(step: object) -> bool:
    """Whether devices differ in their residual behind it, or in what a norm reads."""
    return isinstance(step, wired.Residual) and (step.by is None or step.by.channels is not None)


def _all_steps(wiring: Wiring) -> Iterable[object]:
    yield from wiring.end
    for layers in wiring.layers:
        for steps in layers.period:
            yield from steps
