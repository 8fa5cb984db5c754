"""From a wiring to a program: the kernels of each of its steps, and the streams and events that order them.

Layers are laid out one period after the other until what they leave behind repeats (sums that a norm is still to make,
collectives that are under way); from there on they are stored once with their number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import lcm
from typing import TYPE_CHECKING, assert_never

from kraken_sim.architectures import wiring as wired
from kraken_sim.architectures.builder import ProgramBuilder
from kraken_sim.architectures.wiring import Steps
from kraken_sim.architectures.workload import halves_of
from kraken_sim.program.many import same
from kraken_sim.program.ops import CollectiveKind, Elementwise
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Category, Program, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kraken_sim.architectures.architecture import LayoutT
    from kraken_sim.architectures.wiring import BlockStep, Exchange, Over, Wiring, WiringStep
    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Layout
    from kraken_sim.program.program import Step

_Layer = tuple[Steps, int | None]
"""A layer's steps, and the window of its attention."""


def lowered(wiring: Wiring, layout: Layout, config: TransformerConfig, work: Workload) -> Program:
    """One forward pass of a model that is wired so, on the layout's devices."""
    wiring = wiring.of_step(work.num_tokens)
    build = ProgramBuilder(config, layout, work, split_tokens=wiring.split_tokens)
    lowering = _Lowering(build, halves_of(work) if wiring.two_parts else (work,))
    build.embedding()
    start = build.take()
    layers = lowering.layers(wiring, config.num_hidden_layers)
    lowering.steps(wiring.end)
    build.lm_head()
    segments = (Segment("embedding", start), *layers, Segment("head", build.take()))
    return Program(wiring.name, layout.num_devices, segments)


def lowered_by(
    wiring: Callable[[LayoutT, int], Wiring], layout: LayoutT, config: TransformerConfig, work: Workload
) -> Program:
    """The same where the wiring is that of the layout and of the number of layers."""
    return lowered(wiring(layout, config.num_hidden_layers), layout, config, work)


@dataclass(slots=True)
class _Lowering:
    """Where the layout of a program stands.

    Of the collectives that were begun, `sent` are those whose output is still to be added, `under_way` those that run
    beside compute and that nobody has waited for.
    """

    build: ProgramBuilder
    parts: tuple[Workload, ...]
    sent: set[str] = field(default_factory=set)
    under_way: set[str] = field(default_factory=set)
    normed: set[str] = field(default_factory=set)
    """Suffixes of the blocks whose next norm has been made ahead of its place."""

    def layers(self, wiring: Wiring, depth: int) -> list[Segment]:
        """All layers, equal ones that follow each other once."""
        found: list[tuple[tuple[Step, ...], int]] = []
        first = 0
        for period, number in wiring.runs(depth):
            found += self._repeated(self._windowed(period, first), number)
            first = first + number
        return [Segment(name, *run) for name, run in zip(_segment_names(len(found)), found, strict=True)]

    def _windowed(self, period: tuple[Steps, ...], first: int) -> tuple[_Layer, ...]:
        """The layers of a period from layer `first` on, each with the window of its attention."""
        windows = self.build.config.attention_windows or (None,)
        number = lcm(len(period), len(windows))
        place = same(first % len(windows))
        return tuple((period[index % len(period)], windows[(place + index) % len(windows)]) for index in range(number))

    def _repeated(self, period: tuple[_Layer, ...], number: int) -> Iterator[tuple[tuple[Step, ...], int]]:
        """So many layers, as the steps of a period and how often they repeat."""
        left, rest = divmod(number, len(period))
        while same(left > 0):
            before = self._state()
            layer = self._layer(*period)
            count = left if self._state() == before else 1
            yield layer, count
            left = left - count
        if rest := same(rest):
            yield self._layer(*period[:rest]), 1

    def _layer(self, *layers: _Layer) -> tuple[Step, ...]:
        for steps, self.build.window in layers:
            self.steps(steps)
        return self.build.take()

    def _state(self) -> tuple[frozenset[object], ...]:
        """What a layer leaves to the next."""
        return frozenset(self.build.pending.items()), frozenset(self.sent), frozenset(self.under_way)

    def steps(self, steps: Iterable[WiringStep]) -> None:
        """A layer, or the end."""
        waiting = list(steps)
        while waiting:
            match step := waiting.pop(0):
                case wired.EachBlock(parts):
                    for suffix in suffixes(self.build.layout):
                        for part in parts:
                            self._step(part, suffix)
                case wired.OfPart(part, steps_of_part):
                    self._part(part, steps_of_part)
                case wired.SendStream(by=by):
                    self._send_stream(by)
                case wired.BeginStream(by):
                    self._norms_ahead(waiting)
                    self._begin_stream(by)
                case wired.Receive(of):
                    self._receive(of)
                case wired.Concat(by):
                    self._concat(by)
                case _:
                    self._step(step, "")

    def _step(self, step: BlockStep, suffix: str) -> None:
        build = self.build
        match step:
            case wired.Normalise(name):
                if suffix in self.normed:
                    self.normed.remove(suffix)
                else:
                    build.norm(name, suffix)
            case wired.Attend():
                build.attention(self._gemms, suffix)
            case wired.FeedForward(onto):
                build.ffn(suffix, accumulate=onto, gemms=self._gemms)
            case wired.Residual(name=name, by=by):
                self._residual(name, by, suffix)
            case wired.Send(by):
                self._collective(by, suffix)
            case wired.Add(name):
                build.before_residual(name, suffix)
                build.add(name + suffix)
            case wired.Begin(by):
                self._begin(by, suffix)
                self.sent.add(by.name + suffix)
            case wired.Take(name, of):
                self._take(name, of, suffix)
            case _:
                assert_never(step)

    def _part(self, part: int, steps: Iterable[BlockStep]) -> None:
        """Steps of one half of the tokens; where there are no halves, the first one's are those of all."""
        if part >= len(self.parts):
            return
        whole, self.build.work = self.build.work, self.parts[part]
        for step in steps:
            self._step(step, f".{part}" if len(self.parts) > 1 else "")
        self.build.work = whole

    @property
    def _gemms(self) -> Category:
        """Where the time of matrix products is counted."""
        return Category.OVERLAPPED_GEMM if self.under_way else Category.GEMM

    @property
    def _copies(self) -> Category:
        """Where that of copies around a collective is."""
        return Category.OVERLAPPED_GEMM if self.under_way else Category.OTHER

    def _devices(self, over: Over) -> tuple[int, int]:
        """How many devices take part, and how far apart they are."""
        layout = self.build.layout
        if over is wired.Over.BLOCKS:
            return layout.exchange, layout.group
        return (layout.group if over is wired.Over.GROUP else layout.num_devices), 1

    def _collective(self, by: Exchange, suffix: str, stream: int = MAIN_STREAM) -> None:
        """Of some channels: a copy of these, the collective of the copy, the others scaled, both side by side again.

        These are the kernels of CAAT-Net's reduction (github itlamp/Megatron-LM-comms, tensor_parallel/mappings.py).
        """
        build, (devices, stride) = self.build, self._devices(by.over)
        if by.channels is None or devices == 1:
            build.collective(by.name + suffix, by.kind, build.activation_bytes, devices, stream, stride)
            return
        tokens, kept = build.work.num_tokens, build.width - by.channels
        build.copy("slice" + suffix, tokens * by.channels, strided=True)
        num_bytes = tokens * by.channels * build.work.dtype.num_bytes
        build.collective(by.name + suffix, by.kind, num_bytes, devices, stream, stride)
        if kept:
            scale = Elementwise("mul", tokens * kept, 1, build.work.dtype, strided=True)
            build.kernel("scale" + suffix, scale, Category.OTHER)
        cat = Elementwise("cat", tokens * build.width, 1, build.work.dtype, strided=True)
        build.kernel("concat" + suffix, cat, Category.OTHER)

    def _residual(self, name: str, by: Exchange | None, suffix: str) -> None:
        """A norm's kernel takes in a sum over devices, and no other collective."""
        if by is not None and by.kind is CollectiveKind.ALL_REDUCE and by.channels is None:
            self.build.residual(name, suffix, all_reduce=by.name, num_devices=self._devices(by.over)[0])
            return
        if by is not None:
            self._collective(by, suffix)
        self.build.residual(name, suffix)

    def _send_stream(self, by: Exchange) -> None:
        build = self.build
        build.settle()
        if by.over is wired.Over.BLOCKS:
            for index in range(1, build.layout.local):
                build.add(f"send.{index}")
        self._collective(by, "")

    def _beside(self, by: Exchange) -> bool:
        return self.build.work.overlap and self._devices(by.over)[0] > 1

    def _begin(self, by: Exchange, suffix: str) -> None:
        """On the stream of communication, behind what the stream of compute has done so far."""
        if not self._beside(by):
            self._collective(by, suffix)
            return
        build, (sent, received) = self.build, _events(by.name + suffix)
        build.record(sent, MAIN_STREAM)
        build.wait(sent, COMM_STREAM)
        self._collective(by, suffix, COMM_STREAM)
        build.record(received, COMM_STREAM)
        self.under_way.add(by.name + suffix)

    def _norms_ahead(self, following: Iterable[WiringStep]) -> None:
        """Where a norm makes the sum that it reads, the stream exists only behind the norm, and is sent from there."""
        if not self.build.pending:
            return
        part = next(step for step in following if isinstance(step, wired.EachBlock))
        norm = next(step for step in part.steps if isinstance(step, wired.Normalise))
        for suffix in suffixes(self.build.layout):
            self.build.norm(norm.name, suffix)
            self.normed.add(suffix)

    def _begin_stream(self, by: Exchange) -> None:
        """The local streams go to a buffer of their own, as they are still needed, and are summed over devices.

        A collective that does not sum in place reads a single one itself and needs no copy before it.
        """
        build, local = self.build, self.build.layout.local
        if self._beside(by):
            self.under_way.add(by.name)
        if local == 1 and build.work.overlap_copies > 0:
            build.copy("send", build.work.num_tokens * build.width, self._copies)
        for index in range(1, local):
            build.add(f"send.{index}", self._copies)
        self._begin(by, "")

    def _take(self, name: str, of: str, suffix: str) -> None:
        """What is not there yet, as in the first layer, is not added."""
        if of + suffix in self.sent:
            self.sent.remove(of + suffix)
            self._wait(of + suffix)
            self.build.residual(name, suffix)

    def _wait(self, of: str) -> None:
        if of in self.under_way:
            self.build.wait(_events(of)[1], MAIN_STREAM, Category.OVERLAPPED_GEMM)
            self.under_way.remove(of)

    def _receive(self, of: str) -> None:
        """A second copy takes it out of the collective's buffer."""
        build, copies = self.build, self._copies
        self._wait(of)
        if build.work.overlap_copies > 1:
            build.copy("receive_copy", build.work.num_tokens * build.width, copies)

    def _concat(self, by: Exchange) -> None:
        """Row parallel: each device has the columns for its own blocks."""
        build = self.build
        build.settle()
        layout = build.layout
        for index, suffix in enumerate(suffixes(layout)):
            bias = build.config.mlp_bias
            build.quantize("concat", layout.concat_slice, suffix)
            build.gemm("gemm_concat" + suffix, build.width, layout.concat_slice, accumulate=index > 0, bias=bias)
        self._collective(by, "")


def suffixes(layout: Layout) -> list[str]:
    """What the names of each local block's kernels end in."""
    return [f".{index}" if layout.local > 1 else "" for index in range(layout.local)]


def _events(name: str) -> tuple[str, str]:
    """When a collective may begin, and when it has ended."""
    what = name.removeprefix("all_reduce")
    return "send" + what, "received" + what


def _segment_names(number: int) -> list[str]:
    """Of runs of equal layers."""
    if number < 2:
        return ["layer"] * number
    return ["layer_first", *[f"layer_{index}" for index in range(2, number)], "layer"]
