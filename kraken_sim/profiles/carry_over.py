"""A profile from a datasheet alone: constants carried over from the nearest calibrated GPU, errors widened.

What is the same stays the same: blocks of a GPU that is the base's own keep their values, sources and errors. What
changes follows the rules of `kraken_sim.profiles.transfer`, and says so in its source.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InputError, Problem
from kraken_sim.files.bounded import YAML_FILE, read_text
from kraken_sim.files.strict_yaml import read_yaml
from kraken_sim.hardware.device import OTHER_MAKERS, Device
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.hardware.topology.graph import LinkKind, NodeKind
from kraken_sim.profiles.calibrated import (
    calibrated_profiles,
    file_version,
    is_path,
    list_profiles,
    profile_path,
    read_calibrated,
)
from kraken_sim.profiles.datasheet import is_datasheet, parse_datasheet
from kraken_sim.profiles.gemm_transfer import carry_over_gemm
from kraken_sim.profiles.link_transfer import (
    NETWORK_ROWS,
    NETWORK_SOURCE,
    with_network,
    with_rows_of,
    with_starts_of_nvlink,
)
from kraken_sim.profiles.nearest import link_kind, nearest_profile, with_same_links
from kraken_sim.profiles.profile import HardwareProfile, Provenance, ProvenanceKind
from kraken_sim.profiles.schema import BLOCKS
from kraken_sim.profiles.transfer import (
    carry_over_attention,
    carry_over_collectives,
    carry_over_memory_bound,
    carry_over_power,
)
from kraken_sim.profiles.write import (
    BlockText,
    block_yaml,
    device_yaml,
    in_sections,
    numbers_of,
    section,
    with_sections,
)
from kraken_sim.program.formats import Quantization

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.gemm_constants import GemmConstants
    from kraken_sim.files.strict_yaml import YamlDocument
    from kraken_sim.hardware.topology.topology import Topology
    from kraken_sim.profiles.datasheet import Datasheet

LEFT_OUT_ERRORS: Final[Mapping[str, float]] = {
    "gemm": 0.148,
    "gemm_fp8": 0.148,
    "gemm_fp8_rows": 0.148,
    "gemm_fp8_block": 0.25,
    "gemm_nvfp4": 0.32,
    "attention": 0.17,
    "serving_attention": 0.15,
    "attention_float8": 0.5,
    "memory_bound": 0.25,
    "collectives": 0.3,
}
"""Mean relative error of a block on a GPU of another generation than the one it was fitted to. GEMM: measured, the
worst of A100, H100, H200 and L40S, each left out in turn (docs/accuracy-tables.md, 14.9 % with the fits that ship);
fp8: measured, H200 and L40S left out (9 to 13 %); fp8_block: these (22 to 24 %) and B200 (25 %); nvfp4: the fp8 of H200
on B200 (32 %); attention_float8: that of H200 on B200 and L40S (40 and 51 %); attention and collectives: measured, the
fits of A100, H100 and L40S carried over to each other (attention: 17 % from A100 to H100); memory-bound kernels:
assumed. Inside a generation the errors are a third of that or less."""

MEASURED_ERRORS: Final = frozenset(
    {
        "gemm",
        "gemm_fp8",
        "gemm_fp8_block",
        "gemm_nvfp4",
        "attention",
        "attention_float8",
        "serving_attention",
        "collectives",
    }
)
"""Blocks that stay fitted when they are carried over: their error was measured on GPUs left out. Of others the error
is an assumption, and so is what is carried over."""

_SCALES_IN_HARDWARE: Final = "blackwell"
"""The generation whose tensor cores take scales by block (NVIDIA Blackwell architecture technical brief)."""

NETWORK_ERROR: Final = 0.5
"""Of collectives between nodes, assumed: published two-node H100 runs range from half to all of the line rate."""

HOSTS_ERROR: Final = 0.3
"""Of collectives between GPUs on PCIe: hosts differ. Eight RTX PRO 6000 have 25, 38, 40 and 46 GB/s on four hosts
(ai-dynamo/aiconfigurator; voipmonitor/rtx6kpro), a mean of 22 % from the middle; assumed to be a little more."""

OTHER_MAKER_ERROR: Final = 0.6
"""Of every block of a card of another maker than NVIDIA, none of which was measured; assumed."""

WIDENING: Final = 3.0
"""By how much the error of a block grows that is carried over and not in `LEFT_OUT_ERRORS`; assumed, more than a
GEMM's, which doubles: 4 to 8 % on its own card, 8 to 15 % on one of another generation (docs/accuracy-tables.md)."""


@dataclass(frozen=True, slots=True)
class _Machine:
    """A datasheet with its base beside it, and every part that it leaves out filled in."""

    sheet: Datasheet
    base: HardwareProfile
    linked: HardwareProfile
    device: Device
    topology: Topology

    @property
    def sources(self) -> tuple[str, ...]:
        """The profiles that constants come from."""
        return tuple(dict.fromkeys((self.base.name, self.linked.name)))


@dataclass(frozen=True, slots=True)
class CarriedOver:
    """The text of a new profile, and the profiles its constants come from."""

    text: str
    sources: tuple[str, ...]


def profile_of(document: YamlDocument) -> HardwareProfile:
    """The machine of a datasheet file, with constants carried over.

    Raises:
        InputError: everything that is wrong with the file, or its base is unknown.
    """
    machine = _machine(document)
    blocks = _blocks(machine)
    # A field that the sheet gives is its own whole: of rates by number format none of the base's is left.
    given = {f"device.{name}" for name in machine.sheet.device}
    known = _provenance_of("device", machine.base)
    provenance = {path: where for path, where in known.items() if ".".join(path.split(".")[:2]) not in given}
    if machine.sheet.topology is None:
        provenance |= _provenance_of("topology", machine.base)
    provenance |= machine.sheet.provenance
    constants = {
        name: getattr(machine.base, name) if block is None else block.constants for name, block in blocks.items()
    }
    for name, block in blocks.items():
        if name in machine.sheet.blocks:
            continue
        if block is None:
            provenance |= _provenance_of(name, machine.base)
        else:
            provenance |= {f"{name}.{path}": where for path, where in block.where_all().items()}
    return HardwareProfile(
        name=_name_of(document, machine.sheet),
        description=machine.sheet.description,
        device=machine.device,
        topology=machine.topology,
        provenance=provenance,
        **{**constants, **machine.sheet.blocks},
    )


def _provenance_of(part: str, profile: HardwareProfile) -> dict[str, Provenance]:
    """Where the numbers of a profile's device, topology or block are from, by their dotted paths."""
    return {path: where for path, where in profile.provenance.items() if path.startswith(f"{part}.")}


def profile_from_datasheet(path: Path, name: str) -> CarriedOver:
    """The text of a complete profile called `name` for the machine of a datasheet file.

    Raises:
        InputError: everything that is wrong with the file, or its base is unknown.
    """
    document = read_yaml(path)
    machine, below = _machine(document), [_sections_of(file) for file in base_files(document)]
    text = _sections_of(path)
    base_text = _sections_of(profile_path(machine.sheet.base or machine.base.name))
    known = {**machine.base.provenance, **machine.sheet.provenance}
    sections: dict[str, str | None] = {"name": f"name: {name}\n", "base": None}
    if below:
        sections["device"] = device_yaml(machine.device, known)
    sections["topology"] = next(filter(None, (section(part, "topology") for part in (text, *below))), None)
    for block, carried in _blocks(machine).items():
        if block in machine.sheet.blocks:
            sections[block] = next(filter(None, (section(part, block) for part in (text, *below))), None)
            continue
        sections[block] = section(base_text, block) if carried is None else block_yaml(block, carried)
    return CarriedOver(with_sections(text, sections), machine.sources)


def complete_text(name_or_path: str | Path) -> str:
    """The text of a profile's file; of a datasheet, that of the profile that it becomes.

    Raises:
        InputError: there is no such file, or what is wrong with it.
    """
    path = profile_path(name_or_path)
    document = read_yaml(path)
    if is_datasheet(document.data):
        return profile_from_datasheet(path, _name_of(document, parse_datasheet(document))).text
    return _sections_of(path)


def _sections_of(path: Path) -> str:
    return in_sections(read_text(path, YAML_FILE), read_yaml(path).data)


def _name_of(document: YamlDocument, sheet: Datasheet) -> str:
    return sheet.name or Path(document.source).stem


def _machine(document: YamlDocument) -> _Machine:
    sheet = _whole_sheet(document)
    if sheet.base is None:
        device = Device(**sheet.device)
        if sheet.topology is None:  # parse_datasheet has seen to it
            raise document.error(())
        base = nearest_profile(device, len(sheet.topology.gpus))
    else:
        known = read_calibrated(sheet.base)
        if known is None:  # _whole_sheet has seen to it
            raise document.error(())
        base = known
        device = dataclasses.replace(base.device, **sheet.device)
    topology = sheet.topology or base.topology
    linked = with_same_links(topology, base, device)
    if "collectives" not in sheet.blocks and linked.device.generation != device.generation:
        linked = _of_generation(topology, device) or linked
    return _Machine(sheet, base, linked, device, topology)


def _of_generation(topology: Topology, device: Device) -> HardwareProfile | None:
    """A shipped datasheet with collectives of its own, of the same generation and kind of links; None without one."""
    wanted = _kind_within(topology)
    for name in list_profiles():
        text = read_text(profile_path(name), YAML_FILE)
        if section(text, "base") and section(text, "collectives"):
            profile = _own_links(*file_version(profile_path(name)))
            if profile.device.generation == device.generation and _kind_within(profile.topology) is wanted:
                return profile
    return None


@lru_cache(maxsize=16)
def _own_links(path: Path, mtime_ns: int, size: int) -> HardwareProfile:  # noqa: ARG001  (part of the cache key)
    return profile_of(read_yaml(path))


def _kind_within(topology: Topology) -> InterconnectKind | None:
    """What joins the GPUs of one node."""
    kind = link_kind(topology)
    if kind is not InterconnectKind.NETWORK:
        return kind
    across = topology.interconnect(len(topology.gpus)).across
    return None if across is None else across.node.kind


def _whole_sheet(document: YamlDocument) -> Datasheet:
    """A datasheet with what it leaves out from those below it; its base is a calibrated profile's file, or none.

    What a datasheet below says of its own wires and kernels holds where the card and the wires are still the same.
    """
    sheet, files = parse_datasheet(document), base_files(document)
    try:
        if sheet.base is not None and not files:
            read_calibrated(profile_path(_beside(document, sheet.base)))  # says what is wrong with it
        for file in files:
            if read_calibrated(file) is not None:
                return dataclasses.replace(sheet, base=str(file))
            sheet = _over(sheet, parse_datasheet(read_yaml(file)))
    except InputError as error:
        raise document.error([dataclasses.replace(problem, path="base") for problem in error.problems]) from None
    return sheet


def _over(sheet: Datasheet, below: Datasheet) -> Datasheet:
    own = {name for name in ("device", "topology") if getattr(sheet, name)}
    blocks = {} if own else below.blocks
    dropped = tuple(f"{name}." for name in ({"topology"} & own) | (below.blocks.keys() - blocks.keys()))
    kept = {path: where for path, where in below.provenance.items() if not path.startswith(dropped)}
    return dataclasses.replace(
        sheet,
        base=below.base,
        device={**below.device, **sheet.device},
        topology=sheet.topology or below.topology,
        blocks={**blocks, **sheet.blocks},
        provenance={**kept, **sheet.provenance},
    )


def base_files(document: YamlDocument) -> tuple[Path, ...]:
    """The files below a datasheet: its base, that one's base, and so on, as far as they are named and there.

    Raises:
        InputError: One is its own base.
    """
    found: list[Path] = []
    seen = {os.path.realpath(document.source)}
    while (file := _base_file(document)) is not None:
        if os.path.realpath(file) in seen:
            message = "comes back to itself; one profile below must have constants of its own, or none a base"
            raise document.error([Problem("base", message, str(file), calibrated_profiles()[0])])
        seen.add(os.path.realpath(file))
        found.append(file)
        try:
            if section(read_text(file, YAML_FILE), "base") is None:
                break
            document = read_yaml(file)
        except InputError:
            break
    return tuple(found)


def _base_file(document: YamlDocument) -> Path | None:
    """The file of the profile that a datasheet names as its base; None where it names none, or none that there is."""
    name = document.data.get("base") if isinstance(document.data, dict) else None
    if not isinstance(name, str):
        return None
    try:
        file = profile_path(_beside(document, name))
    except InputError:
        return None
    return file if os.path.isfile(file) else None


def _beside(document: YamlDocument, name: str) -> str:
    """A base given as a path is relative to the file that names it."""
    return str(Path(document.source).parent / name) if is_path(name) else name


def _blocks(machine: _Machine) -> dict[str, BlockText | None]:
    """Every block for the new machine; None for the base's own, number for number."""
    base, source, target = machine.base, machine.base.device, machine.device
    blocks: dict[str, BlockText | None] = {block: None for block in BLOCKS if getattr(base, block) is not None}
    if source != target:
        carried: dict[str, Any] = {
            "launch": base.launch,
            "gemm": carry_over_gemm(base.gemm, source, target),
            **_quantised(base, target),
            "attention": carry_over_attention(base.attention, source, target),
            "memory_bound": carry_over_memory_bound(base.memory_bound, source, target),
            "contention": base.contention,
        }
        for block in ("serving_attention", "attention_float8"):
            if (constants := getattr(base, block)) is not None:
                carried[block] = carry_over_attention(constants, source, target)
        if base.power is not None:
            carried["power"] = carry_over_power(base.power, source, target)
        for block, constants in carried.items():
            kind = ProvenanceKind.FITTED if block in MEASURED_ERRORS else ProvenanceKind.ASSUMED
            where = Provenance(kind, _carried_from(base), _error(block, base, target))
            blocks[block] = _text(block, constants, where, base)
    blocks["collectives"] = _collectives(machine)
    without = {f"gemm_{q}" for q in Quantization if q.dtype not in target.peak_flops}
    if base.device.generation != target.generation or "gemm_fp8" in without:
        without.add("gemm_fp8_rows")
    return {block: blocks[block] for block in BLOCKS if block in blocks and block not in without}


def _quantised(base: HardwareProfile, target: Device) -> dict[str, GemmConstants]:
    """Products of the formats that the new card computes in."""
    found = {}
    for quantization in Quantization:
        if quantization.dtype in target.peak_flops:
            found[f"gemm_{quantization}"] = carry_over_gemm(_source_of(quantization, base, target), base.device, target)
    if base.gemm_fp8_rows is not None and base.device.generation == target.generation:
        found["gemm_fp8_rows"] = carry_over_gemm(base.gemm_fp8_rows, base.device, target)
    return found


def _source_of(quantization: Quantization, base: HardwareProfile, target: Device) -> GemmConstants:
    """What a format's constants are carried over from.

    Before Blackwell scales by block are applied on CUDA cores between the tensor cores' products, from there on in
    these (PTX ISA, block scaling of mma), so such products are then as good as those with a scale a tensor: 25 instead
    of 52 % off on B200.
    """
    _, constants = base.gemm_of(quantization)
    in_hardware = target.generation == _SCALES_IN_HARDWARE != base.device.generation
    if quantization is not Quantization.FP8_BLOCK or not in_hardware:
        return constants
    _, by_tensor = base.gemm_of(Quantization.FP8)
    return dataclasses.replace(
        by_tensor,
        serving_quantize_s=constants.serving_quantize_s,
        serving_quantize_bytes_per_s=constants.serving_quantize_bytes_per_s,
    )


def _text(block: str, constants: Any, where: Provenance, base: HardwareProfile) -> BlockText:
    """A block carried over; what its base assumed stays an assumption."""
    assumed = {
        path: replaced
        for path, _ in numbers_of(constants)
        if (replaced := _assumed_of(base, f"{block}.{path}")) is not None and where.kind is not ProvenanceKind.ASSUMED
    }
    return BlockText(constants, where, assumed)


def _assumed_of(base: HardwareProfile, path: str) -> Provenance | None:
    known = base.provenance.get(path)
    if known is None or known.kind is not ProvenanceKind.ASSUMED:
        return None
    return Provenance(ProvenanceKind.ASSUMED, f"{_carried_from(base)}: {known.source}")


def _collectives(machine: _Machine) -> BlockText | None:
    """Collective constants of the machine with the same links; rows of other kinds of links from where they fit."""
    base, linked, kind = machine.base, machine.linked, link_kind(machine.topology)
    if machine.device == base.device and kind == link_kind(base.topology):
        return None
    constants = carry_over_collectives(linked.collectives, multicast=_has_nvswitch(machine.topology))
    sources, assumed = [_carried_from(linked)], {}
    if linked is not base and link_kind(linked.topology) is InterconnectKind.PCIE:
        constants = with_rows_of(constants, base.collectives, "nvlink")
        sources.append(f"nvlink rows from {base.name}")
        if any(link.kind is LinkKind.NVLINK for link in machine.topology.links):
            constants = with_starts_of_nvlink(constants)
            sources.append("whose start-ups and steps are the least over PCIe too")
    error = (
        HOSTS_ERROR
        if kind in (InterconnectKind.PCIE, InterconnectKind.HOST)
        else _error("collectives", linked, machine.device)
    )
    if kind is InterconnectKind.NETWORK:
        constants, error = with_network(constants), NETWORK_ERROR
        sources.append(NETWORK_SOURCE)
        assumed = dict.fromkeys(NETWORK_ROWS, Provenance(ProvenanceKind.ASSUMED, NETWORK_SOURCE))
    where = Provenance(ProvenanceKind.FITTED, "; ".join(sources), error)
    text = _text("collectives", constants, where, linked)
    return dataclasses.replace(text, overrides={**_outside(text.overrides, assumed), **assumed})


def _outside(overrides: Mapping[str, Provenance], rows: Mapping[str, Provenance]) -> dict[str, Provenance]:
    """Those whose paths are in none of the rows."""
    return {path: where for path, where in overrides.items() if not any(path.startswith(f"{row}.") for row in rows)}


def _has_nvswitch(topology: Topology) -> bool:
    return NodeKind.NVSWITCH in topology.kinds.values()


def _carried_from(source: HardwareProfile) -> str:
    return f"carried over from {source.name} ({source.device.name})"


def _error(block: str, source: HardwareProfile, target: Device) -> float | None:
    """The error of a block that is another machine's: that of a GPU left out, or its own widened."""
    if target.generation in OTHER_MAKERS:
        return OTHER_MAKER_ERROR
    own = next(iter(_provenance_of(block, source).values()), None)
    known = own.residual if own is not None else None
    widened = None if known is None else min(WIDENING * known, 1.0)
    return max(LEFT_OUT_ERRORS.get(block, 0.0), widened or 0.0) or None
