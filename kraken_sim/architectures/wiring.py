"""The vocabulary of layers: what each computes, which collective of which bytes stands where, and who waits for it.

A wiring is data. `kraken_sim.architectures.lowering` makes programs of it, and counts, bytes, sync points and exposed
time follow from these. Its steps stand in the order in which a device launches them on its stream of compute; a
collective that runs beside compute is begun by one step and waited for by another, in its own layer or the next.

Shape letters: T tokens of one step, d width of the residual stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from kraken_sim.program.many import maths_for, same
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.program.many import Sizes


class Over(StrEnum):
    """The devices of a collective."""

    GROUP = "group"
    """Those that share one block."""
    BLOCKS = "blocks"
    """One of each block, so that blocks exchange what they made."""
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A collective of an activation [T, d], by default its sum.

    With `channels` only so many of the d take part, the first ones; the others stay as each device has them, scaled.
    """

    name: str
    over: Over = Over.GROUP
    kind: CollectiveKind = CollectiveKind.ALL_REDUCE
    channels: int | None = None


@dataclass(frozen=True, slots=True)
class Normalise:
    """The norm of the residual, for the blocks behind it."""

    name: str


@dataclass(frozen=True, slots=True)
class Attend:
    """QKV projection, attention, output projection; a device's part of their output is what it leaves."""


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Up projection, activation, down projection; with `onto` its output is accumulated onto the attention's."""

    onto: bool = False


@dataclass(frozen=True, slots=True)
class Residual:
    """A block's output is added to the residual, summed `by` a collective first or as the device has it.

    Kernel sets make the sum in the norm that follows, some the collective too. With `norm_only` the sum is what that
    norm reads, and the residual stays as it was.
    """

    name: str
    by: Exchange | None = None
    norm_only: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """A blocking collective of what was made last: a block's output, or a norm."""

    by: Exchange


@dataclass(frozen=True, slots=True)
class Add:
    """A block's output is added to the residual by a kernel of its own."""

    name: str


@dataclass(frozen=True, slots=True)
class SendStream:
    """A blocking collective of the residual itself, to which all outputs have been added.

    Of several blocks' residuals it is the collective of their sum. With `mean` the residual before the last output
    counts for its mean over the devices (that output for its sum); scaling it costs nothing in the sum before.
    """

    by: Exchange
    mean: bool = False


@dataclass(frozen=True, slots=True)
class Begin:
    """A collective of a block's output begins beside what follows, in place."""

    by: Exchange


@dataclass(frozen=True, slots=True)
class BeginStream:
    """A collective of the sum of the local blocks' residuals begins beside what follows, in a buffer of its own."""

    by: Exchange


@dataclass(frozen=True, slots=True)
class Take:
    """Waits for what `Begin` sent under the name `of`, and adds it to the residual as `Residual` does.

    With `layers_back` 1 it is the layer before that sent it, and the first layer takes nothing.
    """

    name: str
    of: str
    layers_back: int = 0


@dataclass(frozen=True, slots=True)
class Receive:
    """Waits for what `BeginStream` sent in this layer under the name `of`, which is then to be added."""

    of: str


@dataclass(frozen=True, slots=True)
class Concat:
    """All blocks' streams, side by side, are projected back to one width and summed `by` a collective."""

    by: Exchange


BlockStep = Normalise | Attend | FeedForward | Residual | Send | Add | Begin | Take
"""What is done for one block."""


@dataclass(frozen=True, slots=True)
class EachBlock:
    """Steps of every block that a device has, one block after the other."""

    steps: tuple[BlockStep, ...]


@dataclass(frozen=True, slots=True)
class OfPart:
    """Steps of one part of the tokens, where a wiring cuts them in two."""

    part: int
    steps: tuple[BlockStep, ...]


WiringStep = BlockStep | EachBlock | OfPart | SendStream | BeginStream | Receive | Concat
Steps = tuple[WiringStep, ...]


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers that follow each other: `period` again and again, `number` layers in all or else all that are left.

    A layer is a tuple of steps. Where the period has several and the number ends within it, only its first ones follow.
    """

    period: tuple[Steps, ...]
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Wiring:
    """A model: its layers from first to last, then `end` before the final norm.

    With `split_tokens` the residual of a device is that of its share of the tokens: its norms and sums have T / N rows.
    With `two_parts` the tokens of a step are cut in two, whole sequences if there are several; a step of fewer than
    `least_tokens` is that of `uncut` where there is one.
    """

    name: str
    layers: tuple[Layers, ...]
    end: Steps = ()
    split_tokens: bool = False
    two_parts: bool = False
    uncut: Wiring | None = None
    least_tokens: int = 0

    def of_step(self, num_tokens: Sizes) -> Wiring:
        """The wiring of a step of so many tokens."""
        if self.uncut is None or not same(num_tokens < self.least_tokens):
            return self
        return self.uncut

    def runs(self, depth: int) -> Iterator[tuple[tuple[Steps, ...], int]]:
        """The periods of a model of `depth` layers, each with how many layers follow it."""
        left = depth
        for layers in self.layers:
            number = left if layers.number is None else maths_for(left).minimum(left, layers.number)
            yield layers.period, number
            left = left - number


def equal_layers(name: str, *steps: WiringStep) -> Wiring:
    """A model of equal layers with these steps."""
    return Wiring(name, (Layers((steps,)),))


def always(wiring: Wiring, *_: object) -> Wiring:
    """The wiring, whatever the layout and the number of layers."""
    return wiring
