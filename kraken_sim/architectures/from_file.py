"""The architecture `file`: one whose layers a file describes (`description`), as a record like any other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import Field, StrictStr

from kraken_sim.architectures import wiring as wired
from kraken_sim.architectures.architecture import Architecture, ArchitectureFields
from kraken_sim.architectures.description import depth_problem, described_wiring, read_description
from kraken_sim.architectures.lowering import lowered_by
from kraken_sim.errors import InputError, Problem
from kraken_sim.models.layout import Layout, whole_layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.architectures.architecture import Question
    from kraken_sim.architectures.description import Description
    from kraken_sim.architectures.wiring import Steps, Wiring, WiringStep
    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig


class FileFields(ArchitectureFields):
    """What a scenario says of an architecture that a file describes."""

    path: StrictStr | None = Field(
        default=None,
        description="file: the architecture's YAML file, relative to the scenario's folder.",
        examples=["my-layers.yaml"],
    )


@dataclass(frozen=True, slots=True)
class DescribedLayout(Layout):
    """A layout whose wiring a file says."""

    wiring: Wiring | None = None


def described_layout(description: Description, config: TransformerConfig, num_devices: int) -> DescribedLayout:
    """The model's layers over all devices; norms and activations under way are those of the steps."""
    wiring = described_wiring(description, config.hidden_size)
    layers = [list(_flat(steps)) for part in wiring.layers for steps in part.period]
    begun = {step.by.name for layer in layers for step in layer if isinstance(step, wired.Begin)}
    shares = any(
        isinstance(step, wired.Residual | wired.Send) and step.by is not None and step.by.channels is not None
        for layer in layers
        for step in layer
    )
    return DescribedLayout(
        whole_layer(config),
        num_devices,
        norms_per_block=sum(isinstance(step, wired.Normalise) for step in layers[0]),
        # Halves under way are half as large; channels that are sent have a buffer of their own.
        extra_streams=len(begun) // (2 if wiring.two_parts else 1) + shares,
        private_norms=description.private_norms * config.num_hidden_layers,
        wiring=wiring,
    )


def _flat(steps: Steps) -> Iterator[WiringStep]:
    """The steps; of two parts the first one's."""
    for step in steps:
        if isinstance(step, wired.OfPart):
            yield from step.steps if step.part == 0 else ()
        else:
            yield step


def _layout(question: Question[FileFields]) -> DescribedLayout:
    path = question.fields.path
    if path is None:
        raise InputError.single("architecture.path", "is required for kind file", example="my-layers.yaml")
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
    return described_layout(description, question.config, question.num_devices)


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
