"""The schema of a profile file, and its translation into a `HardwareProfile`.

pydantic checks the outline (which blocks there are, what they say about themselves, the topology); the
numbers inside a block are read by `kraken_sim.profiles.blocks` from the fields of the dataclass they become,
so a new constant of a cost model needs no change here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import Field, ValidationError

from kraken_sim.costs.attention import AttentionConstants
from kraken_sim.costs.collectives.constants import CollectiveConstants
from kraken_sim.costs.contention import ContentionConstants
from kraken_sim.costs.gemm import GemmConstants
from kraken_sim.costs.memory_bound import MemoryBoundConstants
from kraken_sim.costs.power import PowerConstants
from kraken_sim.files.model import FileModel
from kraken_sim.files.problems import problems_of
from kraken_sim.hardware.device import Device, LaunchCosts
from kraken_sim.profiles.blocks import Reading, read_fields
from kraken_sim.profiles.json_schema import values_schema
from kraken_sim.profiles.profile import QUANTISED_BLOCKS, HardwareProfile, Provenance, ProvenanceKind
from kraken_sim.profiles.topology_file import Text, TopologyFile, build_topology, check_quantities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.files.strict_yaml import YamlDocument
    from kraken_sim.hardware.topology.topology import Topology

Outline = TypeVar("Outline", bound=FileModel)

BLOCKS: Final[Mapping[str, type]] = {
    "launch": LaunchCosts,
    "gemm": GemmConstants,
    "gemm_fp8": GemmConstants,
    "gemm_fp8_rows": GemmConstants,
    "gemm_fp8_block": GemmConstants,
    "gemm_nvfp4": GemmConstants,
    "attention": AttentionConstants,
    "serving_attention": AttentionConstants,
    "attention_float8": AttentionConstants,
    "memory_bound": MemoryBoundConstants,
    "collectives": CollectiveConstants,
    "contention": ContentionConstants,
    "power": PowerConstants,
}
"""The blocks of constants of a profile, and what each becomes."""

OPTIONAL_BLOCKS: Final = frozenset({*QUANTISED_BLOCKS, "serving_attention", "attention_float8", "power"})
"""Blocks that a file may leave out."""


class ConstantsBlock(FileModel):
    """Constants of one cost model; `kind` and `source` hold for every value that has none of its own.

    `residual` is the mean relative error of a fit on records that it never saw.
    """

    kind: ProvenanceKind
    source: Text
    residual: float | None = Field(default=None, ge=0, lt=10, examples=[0.059])
    values: dict[str, Any]


class ProfileFile(FileModel):
    """The outline of a profile file."""

    name: Text = Field(examples=["h200-sxm-x2"])
    description: Text = Field(examples=['"Two NVIDIA H200 SXM on one NVSwitch baseboard"'])
    device: dict[str, Any]
    launch: ConstantsBlock
    topology: TopologyFile
    gemm: ConstantsBlock
    gemm_fp8: ConstantsBlock | None = None
    gemm_fp8_rows: ConstantsBlock | None = None
    gemm_fp8_block: ConstantsBlock | None = None
    gemm_nvfp4: ConstantsBlock | None = None
    attention: ConstantsBlock
    serving_attention: ConstantsBlock | None = None
    attention_float8: ConstantsBlock | None = None
    memory_bound: ConstantsBlock
    collectives: ConstantsBlock
    contention: ConstantsBlock
    power: ConstantsBlock | None = None


def parse_profile(document: YamlDocument) -> HardwareProfile:
    """The profile that a file holds.

    Raises:
        InputError: Everything that is wrong with the file, each problem with its path and line.
    """
    reading = Reading()
    file, data = read_outline(ProfileFile, document, reading)
    device = read_device(data.get("device"), reading)
    present = [name for name in BLOCKS if data.get(name) is not None or name not in OPTIONAL_BLOCKS]
    blocks = {name: read_block(data.get(name), name, reading) for name in present}
    topology = read_topology(data.get("topology"), reading)
    if reading.problems or file is None or topology is None:
        raise document.error(reading.problems)
    constants = {name: BLOCKS[name](**fields) for name, fields in blocks.items()}
    return HardwareProfile(
        name=file.name,
        description=file.description,
        device=Device(**device),
        topology=topology,
        provenance=reading.provenance,
        **constants,
    )


def read_outline(
    model: type[Outline], document: YamlDocument, reading: Reading
) -> tuple[Outline | None, dict[str, Any]]:
    """The outline of a file, None where `reading` got problems of it; and the file's content by its top-level keys."""
    data = document.data if isinstance(document.data, dict) else {}
    try:
        return model.model_validate(document.data), data
    except ValidationError as error:
        reading.problems += problems_of(error, model)
        return None, data


def read_device(raw: object, reading: Reading, *, complete: bool = True) -> dict[str, Any]:
    """The fields of a device; every problem goes to `reading`.

    A `kind` and `source` of the device hold for every value that has none of its own. Unless it must be
    `complete`, fields may be missing.
    """
    if not isinstance(raw, dict):
        return {}
    said = {key: value for key, value in raw.items() if key in ("kind", "source")}
    inherited = reading.read_provenance(said, "device") if said else None
    values = {key: value for key, value in raw.items() if key not in said}
    if said and inherited is None:
        inherited = Provenance(ProvenanceKind.DATASHEET, "")  # reported already, its numbers are read regardless
    return read_fields(Device, values, "device", reading, inherited, complete=complete)


def read_block(raw: object, name: str, reading: Reading) -> dict[str, Any]:
    """The fields of a block of constants; every problem goes to `reading`."""
    if not isinstance(raw, dict) or not isinstance(raw.get("values"), dict):
        return {}  # reported with the outline
    # What a block says wrongly about itself is reported with the outline; its numbers are read regardless.
    inherited = Reading().read_provenance(raw, name) or Provenance(ProvenanceKind.FITTED, "")
    return read_fields(BLOCKS[name], raw["values"], f"{name}.values", reading, inherited)


def read_topology(raw: object, reading: Reading) -> Topology | None:
    """The graph of a machine; None where its outline is wrong, which whoever checks the outline reports."""
    try:
        file = TopologyFile.model_validate(raw)
    except ValidationError:
        check_quantities(raw, reading)
        return None  # the outline is reported by whoever checks it
    return build_topology(file, reading)


def profile_json_schema() -> dict[str, Any]:
    """JSON schema of a profile file, for editors."""
    schema = ProfileFile.model_json_schema()
    with_blocks(schema)
    schema["properties"]["device"] = device_schema()
    return schema


def with_blocks(schema: dict[str, Any]) -> None:
    """Puts what the blocks of constants hold into the JSON schema of a file."""
    block = schema["$defs"].pop("ConstantsBlock")
    for name, cls in BLOCKS.items():
        properties = {**block["properties"], "values": values_schema(cls)}
        schema["properties"][name] = {**block, "title": cls.__name__, "properties": properties}


def device_schema(*, complete: bool = True) -> dict[str, Any]:
    """JSON schema of a device; its numbers say where they are from, or the device does for all of them."""
    sourced, named = values_schema(Device, sourced_only=True), values_schema(Device)
    where = {"kind": {"enum": [str(kind) for kind in ProvenanceKind]}, "source": {"type": "string", "minLength": 1}}
    named |= {"properties": where | named["properties"], "required": ["kind", "source", *named["required"]]}
    if not complete:
        sourced["required"], named["required"] = [], ["kind", "source"]
    return {"anyOf": [sourced, named]}
