"""A profile from a datasheet alone: its blocks carried over from the nearest calibrated GPU, or from its base."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError, Problem
from kraken_sim.files.bounded import YAML_FILE, read_text
from kraken_sim.files.strict_yaml import read_yaml
from kraken_sim.hardware.device import Device
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.profiles.calibrated import (
    calibrated_profiles,
    file_version,
    fitted_datasheets,
    has_own_kernels,
    is_path,
    list_profiles,
    profile_path,
    read_calibrated,
)
from kraken_sim.profiles.carry_over import DatasheetMachine, blocks_of
from kraken_sim.profiles.datasheet import is_datasheet, parse_datasheet
from kraken_sim.profiles.nearest import link_kind, nearest_profile, with_same_links
from kraken_sim.profiles.profile import HardwareProfile, provenance_of
from kraken_sim.profiles.write import block_yaml, device_yaml, in_sections, section, with_sections
from kraken_sim.program.formats import DType

if TYPE_CHECKING:
    from kraken_sim.files.strict_yaml import YamlDocument
    from kraken_sim.hardware.topology.topology import Topology
    from kraken_sim.profiles.datasheet import Datasheet


CARRIED_RATES: Final = (DType.FLOAT16, DType.BFLOAT16)
"""Number formats of the products whose constants are fitted, and so carried over; a definition."""


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
    blocks = blocks_of(machine)
    # A field that the sheet gives is its own whole: of rates by number format none of the base's is left.
    given = {f"device.{name}" for name in machine.sheet.device}
    known = provenance_of("device", machine.base)
    provenance = {path: where for path, where in known.items() if ".".join(path.split(".")[:2]) not in given}
    if machine.sheet.topology is None:
        provenance |= provenance_of("topology", machine.base)
    provenance |= machine.sheet.provenance
    constants = {
        name: getattr(machine.base, name) if block is None else block.constants for name, block in blocks.items()
    }
    for name, block in blocks.items():
        if name in machine.sheet.blocks:
            continue
        if block is None:
            provenance |= provenance_of(name, machine.base)
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


def profile_from_datasheet(path: Path, name: str) -> CarriedOver:
    """The text of a complete profile called `name` for the machine of a datasheet file.

    Raises:
        InputError: everything that is wrong with the file, or its base is unknown.
    """
    document = read_yaml(path)
    machine, below = _machine(document), [_sections_of(file) for file in base_files(document)]
    text = _sections_of(path)
    base_text = complete_text(machine.sheet.base or machine.base.name)
    known = {**machine.base.provenance, **machine.sheet.provenance}
    sections: dict[str, str | None] = {"name": f"name: {name}\n", "base": None}
    if below:
        sections["device"] = device_yaml(machine.device, known)
    sections["topology"] = next(filter(None, (section(part, "topology") for part in (text, *below))), None)
    for block, carried in blocks_of(machine).items():
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


def _machine(document: YamlDocument) -> DatasheetMachine:
    sheet = _whole_sheet(document)
    if sheet.base is None:
        device = Device(**sheet.device)
        if sheet.topology is None:  # parse_datasheet has seen to it
            raise document.error(())
        base = nearest_profile(device, len(sheet.topology.gpus), (_base_profile(name) for name in fitted_datasheets()))
    else:
        base = _base_profile(sheet.base)
        device = dataclasses.replace(base.device, **sheet.device)
    if not any(dtype in device.peak_flops for dtype in CARRIED_RATES):
        message = "has no rate of 16 bits, by which constants of products are carried over; tensor cores have one"
        known = ", ".join(f"{dtype}: {rate / 1e12:g} TFLOP/s" for dtype, rate in device.peak_flops.items())
        example = f"bfloat16: {base.device.unquantised_flops / 1e12:g} TFLOP/s, as {base.device.name}"
        raise document.error([Problem("device.peak_flops", message, known, example)])
    topology = sheet.topology or base.topology
    linked = with_same_links(topology, base, device)
    if "collectives" not in sheet.blocks and linked.device.generation != device.generation:
        linked = _of_generation(topology, device) or linked
    return DatasheetMachine(sheet, base, linked, device, topology)


def _of_generation(topology: Topology, device: Device) -> HardwareProfile | None:
    """A shipped datasheet with collectives of its own, of the same generation and kind of links; None without one."""
    wanted = _kind_within(topology)
    for name in list_profiles():
        text = read_text(profile_path(name), YAML_FILE)
        if section(text, "base") and section(text, "collectives"):
            profile = _base_profile(name)
            if profile.device.generation == device.generation and _kind_within(profile.topology) is wanted:
                return profile
    return None


def _base_profile(name_or_path: str) -> HardwareProfile:
    """The machine that constants are carried over from: a calibrated one, or a datasheet with kernels of its own."""
    known = read_calibrated(name_or_path)
    if known is not None:
        return known
    path = profile_path(name_or_path)
    return _from_sheet(tuple(file_version(file) for file in (path, *base_files(read_yaml(path)))))


@lru_cache(maxsize=16)
def _from_sheet(versions: tuple[tuple[Path, int, int], ...]) -> HardwareProfile:
    return profile_of(read_yaml(versions[0][0]))


def _kind_within(topology: Topology) -> InterconnectKind | None:
    """What joins the GPUs of one node."""
    kind = link_kind(topology)
    if kind is not InterconnectKind.NETWORK:
        return kind
    across = topology.interconnect(len(topology.gpus)).across
    return None if across is None else across.node.kind


def _whole_sheet(document: YamlDocument) -> Datasheet:
    """A datasheet with what it leaves out from those below it, down to the first with kernels of its own, its base.

    What a datasheet below says of its own wires and kernels holds where the card and the wires are still the same.
    """
    sheet, files = parse_datasheet(document), base_files(document)
    try:
        if sheet.base is not None and not files:
            read_calibrated(profile_path(_beside(document, sheet.base)))  # says what is wrong with it
        for file in files:
            if read_calibrated(file) is not None or has_own_kernels(file):
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
