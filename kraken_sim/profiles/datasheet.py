"""A machine as its datasheets describe it: the part of a profile that needs no measurement, in about thirty lines.

name: b200-sxm-x8
description: Eight NVIDIA B200 on NVLink 5 and NVSwitch
base: h200-sxm-x8          # optional: the profile whose constants, and parts left out here, are carried over
device: {...}              # as in a profile; over a base, only what differs
topology: {...}            # as in a profile
collectives: {...}         # over a base, any block of constants that was measured on this machine itself
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from kraken_sim.files.model import FileModel
from kraken_sim.profiles.blocks import REQUIRED, Reading
from kraken_sim.profiles.schema import (
    BLOCKS,
    ConstantsBlock,
    ProfileFile,
    device_schema,
    read_block,
    read_device,
    read_outline,
    read_topology,
    with_blocks,
)
from kraken_sim.profiles.topology_file import Text, TopologyFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.errors import Problem
    from kraken_sim.files.strict_yaml import YamlDocument
    from kraken_sim.hardware.topology.topology import Topology
    from kraken_sim.profiles.profile import Provenance


class DatasheetFile(FileModel):
    """The outline of a datasheet file."""

    name: Text | None = Field(default=None, examples=["b200-sxm-x8"])
    description: Text = Field(examples=['"Eight NVIDIA B200 on NVLink 5 and NVSwitch"'])
    base: Text | None = Field(default=None, examples=["h200-sxm-x8"])
    device: dict[str, Any] | None = None
    topology: TopologyFile | None = None
    launch: ConstantsBlock | None = None
    gemm: ConstantsBlock | None = None
    gemm_fp8: ConstantsBlock | None = None
    gemm_fp8_block: ConstantsBlock | None = None
    gemm_fp8_rows: ConstantsBlock | None = None
    gemm_nvfp4: ConstantsBlock | None = None
    attention: ConstantsBlock | None = None
    serving_attention: ConstantsBlock | None = None
    attention_float8: ConstantsBlock | None = None
    memory_bound: ConstantsBlock | None = None
    collectives: ConstantsBlock | None = None
    contention: ConstantsBlock | None = None
    power: ConstantsBlock | None = None


@dataclass(frozen=True, slots=True)
class Datasheet:
    """What a datasheet file says.

    `base` names the profile to carry over from, if the file does. `device` holds fields of a `Device`, all of
    them unless there is a base; without a `topology` the base's counts. `blocks` are constants of its own, over a base.
    `provenance` is that of its own numbers.
    """

    name: str | None
    description: str
    base: str | None
    device: Mapping[str, Any]
    topology: Topology | None
    blocks: Mapping[str, Any]
    provenance: Mapping[str, Provenance]


def is_datasheet(data: object) -> bool:
    """Whether a file describes a machine without any constants of cost models, or over a base that has the others."""
    if not isinstance(data, dict):
        return False
    blocks, known = BLOCKS.keys() & data.keys(), ProfileFile.model_fields.keys() & data.keys()
    return "base" in data or (bool(known) and (not blocks or "device" not in data))


def parse_datasheet(document: YamlDocument) -> Datasheet:
    """The datasheet that a file holds.

    Raises:
        InputError: everything that is wrong with the file, each problem with its path and line.
    """
    reading = Reading()
    file, data = read_outline(DatasheetFile, document, reading)
    base = data.get("base")
    for part in ("device", "topology"):
        if base is None and data.get(part) is None:
            reading.add(part, "is required where no base is named", example="base: h100-sxm-x8")
    device = read_device(data.get("device"), reading, complete=base is None)
    reading.problems = [_with_way_out(problem) for problem in reading.problems]
    topology = read_topology(data.get("topology"), reading)
    fields = {name: read_block(data[name], name, reading) for name in BLOCKS if data.get(name) is not None}
    if reading.problems or file is None:
        raise document.error(reading.problems)
    blocks = {name: BLOCKS[name](**values) for name, values in fields.items()}
    return Datasheet(file.name, file.description, file.base, device, topology, blocks, reading.provenance)


def _with_way_out(problem: Problem) -> Problem:
    """A field of the device that is missing may also be a relative's."""
    if problem.message != REQUIRED or not problem.path.startswith("device."):
        return problem
    return dataclasses.replace(problem, message=f"{REQUIRED}, here or by a base that has it (base: h100-sxm-x8)")


def datasheet_json_schema() -> dict[str, Any]:
    """JSON schema of a datasheet file, for editors."""
    schema = DatasheetFile.model_json_schema()
    schema["properties"]["device"] = device_schema(complete=False)
    with_blocks(schema)
    return schema
