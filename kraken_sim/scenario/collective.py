"""How collectives run, as files and plain descriptions say it: one set of fields for scenarios, ops and jobs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError, core_schema

from kraken_sim.costs.collectives.algorithms import algorithm_named, algorithm_names, algorithms_for
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library, Selection, Transport
from kraken_sim.files.model import FileModel
from kraken_sim.files.problems import fields_error
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

CHANNELS_LIMIT = 64
"""NCCL's MAXCHANNELS (src/include/device.h)."""


OLDEST_NCCL_MINOR = 18
"""The x of the first NCCL 2.x whose tuning model is followed; earlier ones differ in ways that were not read."""

_VERSION = re.compile(r"2\.(\d{1,3})(\.\d+)*")


class Protocol(StrEnum):
    """NCCL's protocols."""

    LL = "ll"
    LL128 = "ll128"
    SIMPLE = "simple"


@dataclass(frozen=True, slots=True)
class AlgorithmName:
    """A field's type: a name of the table of algorithms (for a collective), read when a value or the schema is asked.

    Raises:
        PydanticCustomError: The table has no such row.
    """

    kind: CollectiveKind | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, core_schema.str_schema(strict=True))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "enum": list(algorithm_names(self.kind))}

    def _known(self, name: str) -> str:
        names = algorithm_names(self.kind)
        if name not in names:
            choices = ", ".join(names)
            raise PydanticCustomError("choice", "must be one of {choices}", {"choices": choices})
        return name


def _nccl_version(text: str) -> str:
    match = _VERSION.fullmatch(text)
    if match is None or int(match[1]) < OLDEST_NCCL_MINOR:
        oldest = f"2.{OLDEST_NCCL_MINOR}"
        raise PydanticCustomError("version", "must be a version of NCCL from {oldest} on", {"oldest": oldest})
    return text


class CollectiveFields(FileModel):
    """Whose collectives run, and how."""

    library: Library = Field(default=Library.NCCL, description="NCCL, or custom one-shot and two-shot kernels.")
    channels: Annotated[int, Field(strict=True, ge=1, le=CHANNELS_LIMIT)] | None = Field(
        default=None,
        description="NCCL: most channels (NCCL_MAX_NCHANNELS); null leaves its own choice.",
        examples=[8],
    )
    transport: Transport = Field(
        default=Transport.AUTO,
        description="Peer-to-peer, or through host memory (NCCL_P2P_DISABLE, which leaves NVLS on).",
    )
    algorithm: Annotated[str, AlgorithmName()] | None = Field(
        default=None, description="Force an algorithm (NCCL_ALGO); null selects as the library does."
    )
    protocol: Protocol | None = Field(
        default=None, description="NCCL: force a protocol (NCCL_PROTO); null selects as the library does."
    )
    selection: Selection = Field(
        default=Selection.FASTEST, description="Custom library: the rule that picks among its kernels."
    )
    version: Annotated[str, AfterValidator(_nccl_version)] | None = Field(
        default=None,
        description="NCCL's version, whose choices apply; null takes the machine's. Quoted, since 2.30 is not 2.3.",
        examples=["2.27"],
    )

    @model_validator(mode="after")
    def _algorithm_fits_the_library(self) -> Self:
        # The custom library leaves some messages to NCCL, so NCCL's choices are meaningful in both.
        name = self.algorithm
        if name is None or self.library is Library.CUSTOM or algorithm_named(name).library is Library.NCCL:
            return self
        kind = next(kind for kind in CollectiveKind if kind in algorithm_named(name).kinds)
        offered = " or ".join(row.name for row in algorithms_for(kind, Library.NCCL, spans_nodes=False))
        message = f"{name} is not one of NCCL's algorithms; set library: custom, or use {offered}"
        raise fields_error(message, "algorithm")

    def policy(self) -> CollectivePolicy:
        """The same choices as the cost models take them."""
        protocol = None if self.protocol is None else self.protocol.value
        minor = None if self.version is None else int(self.version.split(".")[1])
        return CollectivePolicy(
            self.library, self.channels, self.transport, self.algorithm, protocol, self.selection, minor
        )


class CollectiveSpec(CollectiveFields):
    """Whose collectives a scenario's model runs, and how.

    The algorithm is an AllReduce's, which is where libraries have a choice; other collectives take it where they
    have it.
    """

    algorithm: Annotated[str, AlgorithmName(CollectiveKind.ALL_REDUCE)] | None = Field(
        default=None, description="Force an AllReduce algorithm (NCCL_ALGO); null selects as the library does."
    )
