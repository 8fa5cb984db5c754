"""A machine as its datasheets describe it: the part of a profile that needs no measurement.

name: b200-sxm-x8
description: Eight NVIDIA B200 on NVLink 5 and NVSwitch
base: h200-sxm-x8          # optional: the profile whose constants are carried over
device: {...}              # as in a profile
topology: {...}            # as in a profile
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from kraken_sim.hardware.blocks import Reading
from kraken_sim.hardware.device import Device
from kraken_sim.hardware.schema import read_device, read_topology
from kraken_sim.hardware.topology_schema import FilePart, Text, TopologyFile
from kraken_sim.scenario_errors import problems_of

if TYPE_CHECKING:
    from kraken_sim.hardware.topology import Topology
    from kraken_sim.yaml_files import YamlDocument


class DatasheetFile(FilePart):
    """The outline of a datasheet file."""

    name: Text | None = Field(default=None, examples=["b200-sxm-x8"])
    description: Text = Field(examples=['"Eight NVIDIA B200 on NVLink 5 and NVSwitch"'])
    base: Text | None = Field(default=None, examples=["h200-sxm-x8"])
    device: dict[str, Any]
    topology: TopologyFile


@dataclass(frozen=True, slots=True)
class Datasheet:
    """What a datasheet file says; `base` names the profile to carry constants over from, if it does."""

    description: str
    device: Device
    topology: Topology
    base: str | None


def parse_datasheet(document: YamlDocument) -> Datasheet:
    """The datasheet that a file holds.

    Raises:
        InputError: everything that is wrong with the file, each problem with its path and line.
    """
    reading = Reading()
    data = document.data if isinstance(document.data, dict) else {}
    try:
        file = DatasheetFile.model_validate(document.data)
    except ValidationError as error:
        file = None
        reading.problems += problems_of(error, DatasheetFile)
    device = read_device(data.get("device"), reading)
    topology = read_topology(data.get("topology"), reading)
    if reading.problems or file is None or topology is None:
        raise document.error(reading.problems)
    return Datasheet(file.description, Device(**device), topology, file.base)
