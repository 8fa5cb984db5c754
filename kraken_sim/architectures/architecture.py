"""What an architecture is to the rest of the package: one record, and the question that it answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from pydantic import Field

from kraken_sim.errors import InputError, Problem
from kraken_sim.files.model import FileModel
from kraken_sim.models.hf import SIZE_LIMIT, closest_divisor
from kraken_sim.models.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from kraken_sim.architectures.wiring import Wiring
    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.program.many import Sizes
    from kraken_sim.program.program import Program

DEVICE_LIMIT = 4096
"""Most ranks of a program, as many as a machine may have GPUs; a larger number is a slip."""

Size = Annotated[int, Field(strict=True, ge=1, le=SIZE_LIMIT)]
DeviceCount = Annotated[int, Field(strict=True, ge=1, le=DEVICE_LIMIT)]


class ArchitectureFields(FileModel):
    """The part `architecture` of a scenario; an architecture with fields of its own derives from it.

    A field of its own may be left out: a file that names another kind must not have it.
    """

    kind: str = Field(description="Wiring of a layer.", examples=["kraken"])


FieldsT = TypeVar("FieldsT", bound=ArchitectureFields)
LayoutT = TypeVar("LayoutT", bound=Layout)


@dataclass(frozen=True, slots=True)
class Question(Generic[FieldsT]):
    """What an architecture is asked to lay out: a model on so many devices, with its own fields."""

    config: TransformerConfig
    num_devices: int
    fields: FieldsT


def heads_split(number: Sizes, group: int) -> Sizes:
    """Whether so many heads, or columns of an FFN, are spread evenly over the devices of a group."""
    return number % group == 0


def kv_heads_split(number: Sizes, group: int) -> Sizes:
    """Whether so many key/value heads are, or are replicated evenly."""
    return (number % group == 0) | (group % number == 0)


def split_problems(layout: Layout, path: str = "num_devices") -> Iterator[Problem]:
    """What keeps the devices of a group from sharing one block; key/value heads may be replicated instead.

    Args:
        layout: the blocks and their devices.
        path: the scenario's field that says how many devices share a block.
    """
    block, group = layout.block, layout.group
    heads, kv_heads, ffn = block.num_attention_heads, block.num_key_value_heads, block.intermediate_size
    devices = f"the {group} devices that share a layer"
    if not heads_split(heads, group):
        message = f"{heads} attention heads do not divide by {devices}"
        yield Problem(path, message, example=_device_example(heads, group))
    elif not kv_heads_split(kv_heads, group):
        message = f"{kv_heads} key/value heads can neither be split over nor replicated on {devices}"
        yield Problem(path, message, example=_device_example(kv_heads, group))
    if not heads_split(ffn, group):
        message = f"an FFN of width {ffn} does not divide by {devices}"
        yield Problem(path, message, example=_device_example(ffn, group))


def _device_example(number: int, num_devices: int) -> str:
    fitting = closest_divisor(number, num_devices)
    return f"{fitting} device{'s' if fitting != 1 else ''}"


def _is_split_evenly(_: Question[Any], layout: Layout) -> Iterable[Problem]:
    return split_problems(layout)


def _asks_any(_: Layout, __: Workload) -> Iterable[Problem]:
    return ()


def _fits_any(_: ArchitectureFields, __: int) -> Iterable[Problem]:
    return ()


def _is_never_degenerate(_: ArchitectureFields, __: int) -> str | None:
    return None


def degenerate_alone(why: str, _: ArchitectureFields, num_devices: int) -> str | None:
    """Why it would not be itself on one device; on more nothing is wrong."""
    return why if num_devices == 1 else None


@dataclass(frozen=True, slots=True)
class Architecture(Generic[FieldsT, LayoutT]):
    """All that the package knows of one architecture; `register` makes it known.

    A field of the record is a function of what it is about, so that nobody needs to ask for the kind.
    """

    kind: str
    """Its name in scenarios and answers."""
    description: str
    """What a layer is, in a line."""
    layout: Callable[[Question[FieldsT]], LayoutT]
    """What repeats, and on which devices; raises InputError where the fields describe no block."""
    program: Callable[[LayoutT, TransformerConfig, Workload], Program]
    """One forward pass on the layout's devices."""
    wiring: Callable[[LayoutT, int], Wiring] | None = None
    """The layers of a layout with so many of them, where the program is made of a wiring."""
    fields: type[FieldsT] = ArchitectureFields  # type: ignore[assignment]
    """Its part of a scenario."""
    fits: Callable[[FieldsT, int], Iterable[Problem]] = _fits_any
    """What is wrong with its own fields on so many devices, whatever the model."""
    check: Callable[[Question[FieldsT], LayoutT], Iterable[Problem]] = _is_split_evenly
    """What is wrong with a layout."""
    asks: Callable[[LayoutT, Workload], Iterable[Problem]] = _asks_any
    """What is wrong with a step, in the words of a scenario."""
    degenerate: Callable[[FieldsT, int], str | None] = _is_never_degenerate
    """Why on so many devices it would not be itself; searches and purchases leave it out there."""
    name: Callable[[LayoutT], str] | None = None
    """What answers call one of its layouts, where that is not its kind."""
    is_complete: bool = True
    """Whether it says what a layer is without fields of its own."""
    searched: bool = True
    """Whether searches try it unless they are asked for others; `compare` shows it either way."""
    quality: str = "unknown"
    """What is published or measured of a model's quality beside a standard one's, with the source."""
    overlaps: bool = False
    """Whether a collective runs beside compute where the runtime lets it."""
    written: Callable[[FieldsT, Layout], FieldsT] | None = None
    """Its fields with a layout's blocks written into them; None where the block is the model's own layer."""
    ffn_expansion: float | None = None
    """Width of the FFN over that of the stream if nobody says it; None is the model's own."""
    report: Callable[[LayoutT], Mapping[str, int]] | None = None
    """What answers say of a layout under the architecture's name."""
    columns: tuple[str, ...] = ()
    """The numbers of the report that have a column in tables of many answers."""

    @property
    def answers_any_step(self) -> bool:
        """Whether no step is refused, nor made of halves, whose number depends on the step's size."""
        return self.asks is _asks_any

    def own(self, **fields: Any) -> FieldsT:
        """Its part of a scenario with these fields of its own; the others have their defaults."""
        return self.fields(kind=self.kind, **fields)

    def checked_layout(self, question: Question[FieldsT]) -> LayoutT:
        """The layout of a question.

        Raises:
            InputError: the own fields describe no block, or the devices can't share it; every problem.
        """
        layout = self.layout(question)
        if problems := list(self.check(question, layout)):
            raise InputError(problems)
        return layout

    def with_block(self, question: Question[FieldsT], layout: Layout) -> Question[FieldsT]:
        """The same question with the layout's blocks in it: in the own fields, or in the model's sizes."""
        if self.written is not None:
            return replace(question, fields=self.written(question.fields, layout))
        # A block's sizes have the names that the model's have.
        return replace(question, config=replace(question.config, **asdict(layout.block)))
