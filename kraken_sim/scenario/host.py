"""`runtime.host` of a scenario: what launching costs the host that runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field, StrictStr, model_validator

from kraken_sim.files.model import FileModel, quantity, quantity_text
from kraken_sim.files.problems import fields_error
from kraken_sim.units import Dimension

if TYPE_CHECKING:
    from pathlib import Path

_TEXT = quantity(Dimension.TIME)


def _seconds(value: Any) -> Any:
    """A time with its unit; a plain number is the seconds that a scenario holds when it was read."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    read: Any = _TEXT.func
    return value if is_number else read(value)


HostSeconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0.0, le=1e-2), quantity_text(Dimension.TIME)]
"""Seconds of a call; up to 10 ms, as in a profile."""


class HostSpec(FileModel):
    """A host: the file that tells of it, or its launch costs by their names in a profile, or both (these count).

    A file is a measurement of `validation.measure --suite host`, or YAML with these fields.
    """

    file: StrictStr | None = Field(
        default=None,
        min_length=1,
        description="A measurement of --suite host, or YAML with these fields; relative to the scenario's folder.",
        examples=["host.jsonl"],
    )
    eager_kernel_s: HostSeconds | None = Field(
        default=None, description="Host time of a kernel, mean over a decoder layer's.", examples=["24 us"]
    )
    eager_collective_s: HostSeconds | None = Field(
        default=None, description="Host time of a collective's call.", examples=["30 us"]
    )
    eager_side_collective_s: HostSeconds | None = Field(
        default=None, description="Host time of a collective on a stream beside the main one.", examples=["50 us"]
    )
    eager_event_s: HostSeconds | None = Field(
        default=None, description="Host time of an event's record or wait.", examples=["1.2 us"]
    )
    graph_launch_s: HostSeconds | None = Field(
        default=None, description="From the launch call of a graph to its first node.", examples=["6 us"]
    )
    spread: Annotated[float, Field(strict=True, ge=0.0, le=2.0)] | None = Field(
        default=None,
        description="Standard deviation of the logarithm of these times from process to process.",
        examples=[0.25],
    )

    @model_validator(mode="before")
    @classmethod
    def _path_is_a_file(cls, data: Any) -> Any:
        return {"file": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.file is None and not self.costs():
            raise fields_error("name a file of --suite host, or give at least one cost", "file")
        return self

    def costs(self) -> dict[str, float]:
        """The launch costs given, in seconds by name."""
        return self.model_dump(exclude_none=True, exclude={"file", "spread"})


def host_from_folder(data: Any, folder: Path) -> Any:
    """What a scenario says of its host, with a path taken from the scenario's folder."""
    if isinstance(data, str):
        return str(folder / data)
    if isinstance(data, dict) and isinstance(data.get("file"), str):
        return {**data, "file": str(folder / data["file"])}
    return data
