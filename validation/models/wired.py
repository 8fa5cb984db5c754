"""A decoder that runs the wiring of an architecture: the same data that the simulator makes its program of.

What it computes is held against formulas written by hand (`validation.models.rivals_reference`), and the kernels that
it launches against the program: so a wiring is shown to be the architecture that it is called. Kraken's exchange beside
its attention and its concat projection are not made here; it has a model of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kraken_sim.architectures import wiring as wired
from kraken_sim.architectures.wiring import Over
from kraken_sim.errors import InputError
from kraken_sim.program.kernel_sets import RULES
from kraken_sim.program.ops import CollectiveKind
from validation.models.block import Block
from validation.models.communication import (
    Group,
    SideStreamSum,
    collect_rows,
    exchange,
    fan_out,
    gather_rows,
    kraken_layout,
    needs_gradient,
    scatter_rows,
    sum_partials,
)
from validation.models.decoder import Decoder, Placement
from validation.models.layers import STD, Step
from validation.models.parts import Part, filled, parts_of
from validation.models.sharding import check_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kraken_sim.architectures.wiring import BlockStep, Exchange, Steps, Wiring
    from kraken_sim.models.config import TransformerConfig


class WiredDecoder(Decoder):
    """A decoder over `world` ranks whose layers are wired so.

    `overlap` (default True) says whether collectives that are begun run beside compute; it changes no result. With
    gradients they block; where all devices share a layer and their residuals differ there are none. `num_blocks` are
    the sub-layers of a layer (the tracks of a Parallel Track), `config` then the shape of one. Where the residual is
    split by tokens that do not divide, the last share is filled up by a copy before each ReduceScatter that the program
    leaves out.

    Raises:
        InputError: heads or FFN width do not divide, or the wiring has parts not made here.
    """

    def __init__(self, config: TransformerConfig, wiring: Wiring, world: Group, num_blocks: int = 1) -> None:
        steps = tuple(_all_steps(wiring))
        if any(isinstance(step, wired.BeginStream | wired.Receive | wired.Concat) for step in steps):
            message = "an exchange of blocks beside compute and a concat projection are not made here"
            raise InputError.single("architecture.kind", message, wiring.name, "ladder")
        if config.mlp_bias and any(isinstance(step, wired.Residual) and step.norm_only for step in steps):
            message = "a sum that only a norm reads is made here without biases"
            raise InputError.single("model.mlp_bias", message, config.mlp_bias, "false")
        layout = kraken_layout(num_blocks, world)
        check_shapes(config, layout.tensor.size)
        super().__init__(config, world, layout.tensor)
        self.wiring, self.layout, self.overlap = wiring, layout, True
        self._private = world.size > 1 and any(_is_private(step) for step in steps)
        self._side = SideStreamSum(world)
        self._under_way: set[str] = set()
        self._shared = True
        """Whether all blocks have the same residual."""
        self.layers = self._made_layers(num_blocks)

    def _made_layers(self, num_blocks: int) -> nn.ModuleList:
        """The blocks of this rank, layer after layer."""
        depth, ways = self.config.num_hidden_layers, self.layout.ways
        std = STD / (2 * depth * num_blocks) ** 0.5
        names = [f"way{way}" if num_blocks > 1 else "" for way in ways] * depth
        blocks = [Block(self.config, self.tensor, slot, name, std) for slot, name in enumerate(names)]
        for norm in (norm for block in blocks for norm in (block.attention_norm, block.ffn_norm)):
            norm.rows_over = self.world if self.wiring.split_tokens else Group()
        return nn.ModuleList(blocks)

    def placements(self) -> list[Placement]:
        """The blocks of every layer."""
        ways = self.layout.ways
        slots = range(len(self.layers))
        return [Placement(f"layers.{slot}", slot // len(ways), ways[slot % len(ways)]) for slot in slots]

    def embed(self, input_ids: Tensor, start: int) -> Tensor:
        """All tokens, or this rank's share of them, the last one filled up with zeros."""
        if not self.wiring.split_tokens:
            return super().embed(input_ids, start)
        batch, length = input_ids.shape
        share = -(-batch * length // self.world.size)
        first = min(self.world.rank * share, batch * length)
        ids = input_ids.flatten()[first : first + share]
        positions: slice | Tensor = slice(start, start + 1)
        if batch == 1 and length > 1:
            positions = slice(start + first, start + first + len(ids))
        elif length > 1:
            positions = start + torch.arange(first, first + len(ids), device=ids.device) % length
        return filled(self.embeddings.of_rows(ids, positions, self.world), share)

    def run_layers(self, x: Tensor, step: Step) -> Tensor:
        """All layers one after the other, each by its steps."""
        if self._private and needs_gradient(x):
            message = "gradients of residuals that differ by device are not made here"
            raise InputError.single("architecture.kind", message, self.wiring.name, "ladder")
        whole = self.wiring.of_step(step.batch * step.length)
        parts = parts_of(whole, x, step, len(self.layout.ways), self.new_cache)
        self._shared, local = True, len(self.layout.ways)
        blocks = [block for block in self.layers if isinstance(block, Block)]
        for index, steps in enumerate(_steps_of_layers(whole, self.config.num_hidden_layers)):
            self._run(parts, steps, blocks[index * local : (index + 1) * local])
        self._run(parts, whole.end, [])
        return self._joined(parts, x)

    def _joined(self, parts: list[Part], like: Tensor) -> Tensor:
        """The residual of all tokens; the last sums of halves are made where they belong."""
        if len(self.layout.ways) > 1:
            return parts[0].residual
        if len(parts) > 1 and not needs_gradient(parts[0].residual):
            whole = torch.empty_like(like)
            for part, rows in zip(parts, whole.split([len(part.residual) for part in parts]), strict=True):
                assert part.delta is not None
                torch.add(part.residual, part.delta, out=rows)
            return whole
        for part in parts:
            part.settle()
        return parts[0].residual if len(parts) == 1 else torch.cat([part.residual for part in parts])

    def _run(self, parts: list[Part], steps: Steps, blocks: list[Block]) -> None:
        if self._shared and blocks:
            # Blocks that differ by rank go on from what they have alike.
            x = fan_out(parts[0].residual, self.layout.cross)
            for part in parts if self.layout.cross.size > 1 else ():
                part.residual = x
            self._shared = False
        for step in steps:
            if isinstance(step, wired.OfPart):
                if step.part < len(parts):
                    self._run_part(parts[step.part], step.steps, blocks, f".{step.part}")
            elif isinstance(step, wired.EachBlock):
                for index, part in enumerate(parts):
                    self._run_part(part, step.steps, blocks[index : index + 1], f".{index}")
                    if not RULES[part.step.kernels].add_in_norm:
                        part.settle()
            elif isinstance(step, wired.SendStream):
                self._send_stream(parts, step)
            else:
                self._run_part(parts[0], [step], blocks, "")  # type: ignore[list-item]  # others are refused above

    def _send_stream(self, parts: list[Part], step: wired.SendStream) -> None:
        part = parts[0]
        if step.mean and self.world.size > 1:
            assert part.delta is not None
            # One kernel: f + x / N.
            mixed, part.delta = torch.add(part.delta, part.residual, alpha=1.0 / self.world.size), None
            part.residual = exchange(mixed, self.world)
            return
        for each in parts:
            each.settle()
        if step.by.kind is CollectiveKind.ALL_GATHER:
            part.residual = collect_rows(part.residual, self.world)[: part.step.batch * part.step.length]
            return
        total = part.residual
        for each in parts[1:]:
            total = total + each.residual
        total = sum_partials(total, self._group(step.by))
        for each in parts:
            each.residual = total
        self._shared = True

    def _run_part(self, part: Part, steps: Iterable[BlockStep], blocks: list[Block], suffix: str) -> None:
        for step in steps:
            match step:
                case wired.Normalise() | wired.Attend() | wired.FeedForward():
                    self._block(part, step, blocks[0])
                case wired.Residual(by=by, norm_only=norm_only):
                    part.kept = part.residual if norm_only else None
                    part.add(self._made(part) if by is None else self._reduced(self._made(part), by))
                case wired.Add():
                    part.settle()
                    part.residual = part.residual + self._made(part)
                case wired.Send(by) if part.made is None:
                    part.normed = self._gathered(part, by)
                case wired.Send(by):
                    part.made = self._reduced(self._made(part), by)
                case wired.Begin(by):
                    self._begin(part, by.name + suffix)
                case wired.Take(of=of):
                    self._take(part, of + suffix)

    def _block(self, part: Part, step: wired.Normalise | wired.Attend | wired.FeedForward, block: Block) -> None:
        kernels = part.step.kernels
        if isinstance(step, wired.Normalise):
            norm = block.attention_norm if part.normed is None else block.ffn_norm
            total, part.normed = norm.after(part.residual, part.delta, kernels)
            part.residual, part.delta, part.kept = (total if part.kept is None else part.kept), None, None
            return
        assert part.normed is not None
        # What was gathered has its gradients summed by that.
        n = part.normed if self.wiring.split_tokens else fan_out(part.normed, self.tensor)
        if isinstance(step, wired.Attend):
            part.attended = part.made = block.attention(n, part.step)
            return
        part.normed = None
        if step.onto:
            assert part.attended is not None
            part.made = part.attended.addmm_(block.ffn.inner(n, kernels), block.ffn.down.weight.t())
        else:
            part.made = block.ffn(n, kernels)

    @staticmethod
    def _made(part: Part) -> Tensor:
        made, part.made = part.made, None
        assert made is not None
        return made

    def _group(self, by: Exchange) -> Group:
        """The ranks of a collective."""
        return {Over.GROUP: self.tensor, Over.BLOCKS: self.layout.cross, Over.ALL: self.world}[by.over]

    def _gathered(self, part: Part, by: Exchange) -> Tensor:
        """The norm of all tokens from that of each rank's own."""
        assert part.normed is not None
        return gather_rows(part.normed, self._group(by))[: part.step.batch * part.step.length]

    def _reduced(self, y: Tensor, by: Exchange) -> Tensor:
        """The sum, of all channels or of the first ones; the others are scaled by the root of the devices."""
        group = self._group(by)
        if by.kind is CollectiveKind.REDUCE_SCATTER:
            return scatter_rows(filled(y, -(-len(y) // group.size) * group.size), group)
        if by.kind is not CollectiveKind.ALL_REDUCE:
            raise InputError.single("architecture.kind", "not made here", by.kind.value, "all_reduce")
        if by.channels is None or group.size == 1:
            return sum_partials(y, group)
        shared = exchange(y[:, : by.channels].contiguous(), group)
        own = y[:, by.channels :] * float(group.size) ** 0.5
        return torch.cat([shared, own], dim=1)

    def _begin(self, part: Part, name: str) -> None:
        y = self._made(part)
        if self.world.size == 1 or not self.overlap or needs_gradient(y):
            part.sent[name] = sum_partials(y, self.world)
            return
        self._side.start(y, name)
        self._under_way.add(name)
        part.sent[name] = y

    def _take(self, part: Part, name: str) -> None:
        if name not in part.sent:
            return
        if name in self._under_way:
            self._under_way.remove(name)
            self._side.finish(name)
        part.add(part.sent.pop(name))


def _steps_of_layers(wiring: Wiring, depth: int) -> list[Steps]:
    return [period[index % len(period)] for period, number in wiring.runs(depth) for index in range(number)]


def _is_private(step: object) -> bool:
    """Whether devices differ in their residual behind it, or in what a norm reads."""
    return isinstance(step, wired.Residual) and (step.by is None or step.by.channels is not None)


def _all_steps(wiring: Wiring) -> Iterable[object]:
    yield from wiring.end
    for layers in wiring.layers:
        for steps in layers.period:
            yield from steps
