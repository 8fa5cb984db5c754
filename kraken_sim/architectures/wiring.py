"""The vocabulary of layers: what each computes, which collective of which bytes stands where, and who waits for it.

A wiring is data. `kraken_sim.architectures.lowering` makes programs of it, and counts, bytes, sync points and exposed
time follow from these. Its steps stand in the order in which a device launches them on its stream of compute; a
collective that runs beside compute is begun by one step and waited for by another, in its own layer or the next.

Shape letters: T tokens of one step, d width of the residual stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kraken_sim.program.ops import CollectiveKind


class Over(StrEnum):
    """The devices of a collective."""

    GROUP = "group"
    """Those that share one block."""
    BLOCKS = "blocks"
    """One of each block, so that blocks exchange what they made."""
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A collective of an activation [T, d], by default its sum; `share` of the d channels take part."""

    name: str
    over: Over = Over.GROUP
    kind: CollectiveKind = CollectiveKind.ALL_REDUCE
    share: float = 1.0


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

    Kernel sets make the sum in the norm that follows, some the collective too.
    """

    name: str
    by: Exchange | None = None


@dataclass(frozen=True, slots=True)
class Reduce:
    """A blocking collective of a block's output."""

    by: Exchange


@dataclass(frozen=True, slots=True)
class Add:
    """A block's output is added to the residual by a kernel of its own."""

    name: str


@dataclass(frozen=True, slots=True)
class ReduceStream:
    """A blocking collective of the residual itself, to which all outputs have been added."""

    by: Exchange


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


BlockStep = Normalise | Attend | FeedForward | Residual | Reduce | Add | ReduceStream | Begin | Take
"""What is done for one block."""


@dataclass(frozen=True, slots=True)
class EachBlock:
    """Steps of every block that a device has, one block after the other."""

    steps: tuple[BlockStep, ...]


WiringStep = BlockStep | EachBlock | BeginStream | Receive | Concat
Steps = tuple[WiringStep, ...]


@dataclass(frozen=True, slots=True)
class Wiring:
    """The layers of a model: `first` ones of their own, then `period` again and again, then `end` before the last norm.

    A layer is a tuple of steps. Where `period` has several, a model that ends within it has only its first ones.
    """

    name: str
    period: tuple[Steps, ...]
    first: tuple[Steps, ...] = ()
    end: Steps = ()
