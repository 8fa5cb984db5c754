"""The architecture `file`: one whose layers a file describes (`description`), as a record like any other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, StrictStr

from kraken_sim.architectures import wiring as wired
from kraken_sim.architectures.architecture import Architecture, ArchitectureFields
from kraken_sim.architectures.description import depth_problem, described_wiring, read_description
from kraken_sim.architectures.lowering import lowered_by
from kraken_sim.architectures.sub_layers import (
    COLUMNS,
    WaysFields,
    count_problem,
    sub_layer_of,
    sub_layer_problems,
    sub_layer_shape,
)
from kraken_sim.architectures.wiring_check import has_sub_layers, num_norms
from kraken_sim.errors import InputError, Problem
from kraken_sim.models.kraken_width import SubLayers
from kraken_sim.models.layout import Layout, whole_layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kraken_sim.architectures.architecture import Question
    from kraken_sim.architectures.description import Description
    from kraken_sim.architectures.wiring import Steps, Wiring, WiringStep
    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Block


class FileFields(ArchitectureFields):
    """What a scenario says of an architecture that a file describes."""

    path: StrictStr | None = Field(
        default=None,
        description="file, sub_layer_file: the architecture's YAML file, relative to the scenario's folder.",
        examples=["my-layers.yaml"],
    )


class SubLayerFileFields(FileFields, WaysFields):
    """The same of one whose layers have sub-layers, with how many they are and the shape of one."""


@dataclass(frozen=True, slots=True)
class DescribedLayout(Layout):
    """A layout whose wiring a file says."""

    wiring: Wiring | None = None


def described_layout(
    description: Description, config: TransformerConfig, num_devices: int, block: Block | None = None, blocks: int = 1
) -> DescribedLayout:
    """The model's layers over all devices, or `blocks` of one shape; norms and activations under way are the steps'."""
    wiring = described_wiring(description, (block or whole_layer(config)).hidden_size)
    layers = [list(_flat(steps)) for part in wiring.layers for steps in part.period]
    begun = {step.by.name for layer in layers for step in layer if isinstance(step, wired.Begin)}
    # What is sent of the streams has a buffer of its own, and so has what is received.
    streams = {step.by.name for layer in layers for step in layer if isinstance(step, wired.BeginStream)}
    shares = any(
        isinstance(step, wired.Residual | wired.Send) and step.by is not None and step.by.channels is not None
        for layer in layers
        for step in layer
    )
    return DescribedLayout(
        block or whole_layer(config),
        num_devices,
        blocks,
        norms_per_block=num_norms(wiring),
        concat=any(isinstance(step, wired.Concat) for step in wiring.end),
        # Halves under way are half as large; channels that are sent have a buffer of their own.
        extra_streams=len(begun) // (2 if wiring.two_parts else 1) + 2 * len(streams) + shares,
        private_norms=description.private_norms * config.num_hidden_layers,
        wiring=wiring,
    )


def _flat(steps: Steps) -> Iterator[WiringStep]:
    """The steps; of two parts the first one's, of sub-layers those of one."""
    for step in steps:
        if isinstance(step, wired.EachBlock):
            yield from step.steps
        elif isinstance(step, wired.OfPart):
            yield from step.steps if step.part == 0 else ()
        else:
            yield step


def _read(question: Question[Any]) -> Description:
    """What the file of a question describes, for as many layers as the model has."""
    path = question.fields.path
    if path is None:
        message = f"is required for kind {question.fields.kind}"
        raise InputError.single("architecture.path", message, example="my-layers.yaml")
    try:
        description = read_description(path)
    except InputError as error:
        file = Path(path).name
        found = [
            replace(p, path="architecture.path", message=": ".join(filter(None, (file, p.path, p.message))))
            for p in error.problems
        ]
        raise InputError(found) from None
    if (other := depth_problem(description, question.config.num_hidden_layers)) is not None:
        raise InputError.single("architecture.path", f"{Path(path).name}: {other}", example="no number for the last")
    return description


def kind_of_file(path: str) -> str:
    """The kind of a scenario that goes with a file; `file` where it cannot be read, which is told later."""
    try:
        description = read_description(path)
    except InputError:
        return FROM_FILE.kind
    return (SUB_LAYER_FILE if has_sub_layers(described_wiring(description, 1)) else FROM_FILE).kind


def _layout(question: Question[FileFields]) -> DescribedLayout:
    description = _read(question)
    if has_sub_layers(described_wiring(description, 1)):
        message = "the file describes sub-layers with a width of their own, which are of another kind"
        raise InputError.single("architecture.kind", message, "file", "sub_layer_file")
    return described_layout(description, question.config, question.num_devices)


def _sub_layers(question: Question[SubLayerFileFields]) -> DescribedLayout:
    config, fields, description = question.config, question.fields, _read(question)
    ways = fields.ways or question.num_devices
    wiring = described_wiring(description, config.hidden_size)
    if not has_sub_layers(wiring):
        message = "the file describes whole layers; sub-layers have their steps in each_block"
        raise InputError.single("architecture.kind", message, fields.kind, "file")
    concat = any(isinstance(step, wired.Concat) for step in wiring.end)
    factor = description.ffn_factor or config.intermediate_size / config.hidden_size
    block = sub_layer_of(question, ways, SubLayers(factor, concat=concat))
    return described_layout(description, config, question.num_devices, block, ways)


def _fits(fields: SubLayerFileFields, num_devices: int) -> Iterator[Problem]:
    return count_problem("ways", fields.ways or num_devices, num_devices)


def _degenerate(fields: SubLayerFileFields, num_devices: int) -> str | None:
    if num_devices == 1 and fields.ways is None:
        return "one sub-layer is a whole layer; give ways or more devices"
    return None


def _written(fields: SubLayerFileFields, layout: Layout) -> SubLayerFileFields:
    return fields.model_copy(update={"ways": layout.blocks_per_layer, **sub_layer_shape(layout)})


def _report(layout: DescribedLayout) -> Mapping[str, int]:
    return {"ways": layout.blocks_per_layer, **sub_layer_shape(layout), "head_dim": layout.block.head_dim}


def _wiring_of(layout: DescribedLayout, _: int) -> Wiring:
    assert layout.wiring is not None
    return layout.wiring


def _asks(layout: DescribedLayout, work: Workload) -> Iterator[Problem]:
    if layout.wiring is not None and layout.wiring.two_parts and work.batch_size == 1 and work.q_len == 1:
        yield Problem("batch_size", "one token cannot be cut in two", work.batch_size, "2")


def _name(layout: DescribedLayout) -> str:
    return "file" if layout.wiring is None else layout.wiring.name


FROM_FILE: Final[Architecture[FileFields, DescribedLayout]] = Architecture(
    kind="file",
    description="layers that a file describes",
    layout=_layout,
    program=partial(lowered_by, _wiring_of),
    wiring=_wiring_of,
    fields=FileFields,
    asks=_asks,
    is_complete=False,
    searched=False,
    overlaps=True,
    name=_name,
)

SUB_LAYER_FILE: Final[Architecture[SubLayerFileFields, DescribedLayout]] = Architecture(
    kind="sub_layer_file",
    description="sub-layers with a width of their own that a file describes",
    layout=_sub_layers,
    program=partial(lowered_by, _wiring_of),
    wiring=_wiring_of,
    fields=SubLayerFileFields,
    fits=_fits,
    check=sub_layer_problems,
    degenerate=_degenerate,
    is_complete=False,
    searched=False,
    overlaps=True,
    written=_written,
    name=_name,
    report=_report,
    columns=("ways", *COLUMNS),
)
