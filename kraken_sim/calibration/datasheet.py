"""A profile from a datasheet alone: constants carried over from the nearest calibrated GPU, errors widened."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.calibration.gemm_transfer import carry_over_gemm
from kraken_sim.calibration.transfer import (
    carry_over_attention,
    carry_over_collectives,
    carry_over_memory_bound,
    carry_over_power,
)
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.hardware.datasheet import parse_datasheet
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.hardware.load import list_profiles, load_profile
from kraken_sim.hardware.profile import Provenance, ProvenanceKind
from kraken_sim.hardware.schema import BLOCKS, GENERATIONS
from kraken_sim.hardware.write import BlockText, block_yaml, section, with_sections
from kraken_sim.yaml_files import read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kraken_sim.hardware.datasheet import Datasheet
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.profile import HardwareProfile
    from kraken_sim.hardware.topology import Topology

LEFT_OUT_ERRORS: Final[Mapping[str, float]] = {
    "gemm": 0.148,
    "attention": 0.15,
    "serving_attention": 0.15,
    "memory_bound": 0.25,
    "collectives": 0.3,
}
"""Mean relative error of a block on a GPU of another generation than the one it was fitted to: GEMM against
measured kernels of each GPU left out in turn; attention and collectives against the fits of A100, H100 and L40S,
carried over to each other; memory-bound kernels assumed. Inside a generation the errors are a third of that or less.
"""

WIDENING: Final = 3.0
"""By how much the error of a block grows that is carried over and not in `LEFT_OUT_ERRORS`."""


@dataclass(frozen=True, slots=True)
class CarriedOver:
    """The text of a new profile, and the profiles its constants come from."""

    text: str
    sources: tuple[str, ...]


def profile_from_datasheet(path: Path, name: str) -> CarriedOver:
    """A complete profile called `name` for the machine of a datasheet file.

    Raises:
        InputError: everything that is wrong with the file, or its base is unknown.
    """
    document = read_yaml(path)
    sheet = parse_datasheet(document)
    base = load_profile(sheet.base) if sheet.base else nearest_profile(sheet.device, len(sheet.topology.gpus))
    linked = _with_same_links(sheet.topology, base)
    text = path.read_text(encoding="utf-8")
    sections: dict[str, str | None] = {"name": f"name: {name}\n", "base": None, "topology": section(text, "topology")}
    for block, constants in _constants(sheet, base, linked).items():
        source = linked if block == "collectives" else base
        sections[block] = block_yaml(block, BlockText(constants, _provenance(block, source)))
    return CarriedOver(with_sections(text, sections), tuple(dict.fromkeys((base.name, linked.name))))


def nearest_profile(device: Device, num_devices: int) -> HardwareProfile:
    """The shipped profile of the nearest generation; then by similar rates, then by the number of GPUs."""

    def distance(profile: HardwareProfile) -> tuple[tuple[int, float], int, str]:
        return _distance(device, profile.device), abs(len(profile.topology.gpus) - num_devices), profile.name

    return min((load_profile(name) for name in list_profiles()), key=distance)


def _distance(a: Device, b: Device) -> tuple[int, float]:
    generations = abs(GENERATIONS.index(a.generation) - GENERATIONS.index(b.generation))
    memory = abs(log2(a.hbm_bandwidth_bytes_per_s / b.hbm_bandwidth_bytes_per_s))
    arithmetic = abs(log2(max(a.peak_flops.values()) / max(b.peak_flops.values())))
    return generations, memory + arithmetic


def _with_same_links(topology: Topology, base: HardwareProfile) -> HardwareProfile:
    """`base`, or where its GPUs are joined by other links, the nearest profile whose are joined like these."""
    wanted = _link_kind(topology)
    if wanted in (None, _link_kind(base.topology)):
        return base
    alike = [profile for profile in map(load_profile, list_profiles()) if _link_kind(profile.topology) == wanted]
    return min(alike, key=lambda profile: (_distance(base.device, profile.device), profile.name), default=base)


def _link_kind(topology: Topology) -> InterconnectKind | None:
    """What joins all GPUs; None where nothing does."""
    if len(topology.gpus) < 2:
        return None
    try:
        return topology.interconnect(len(topology.gpus)).kind
    except (InputError, InfeasibleError):
        return None


def _constants(sheet: Datasheet, base: HardwareProfile, linked: HardwareProfile) -> dict[str, Any]:
    """The constants of every block for the new device."""
    source, target = base.device, sheet.device
    multicast = _link_kind(sheet.topology) is InterconnectKind.NVSWITCH
    carried: dict[str, Any] = {block: getattr(base, block) for block in BLOCKS}
    carried |= {
        "gemm": carry_over_gemm(base.gemm, source, target),
        "attention": carry_over_attention(base.attention, source, target),
        "memory_bound": carry_over_memory_bound(base.memory_bound, source, target),
        "collectives": carry_over_collectives(linked.collectives, multicast=multicast),
    }
    if base.serving_attention is not None:
        carried["serving_attention"] = carry_over_attention(base.serving_attention, source, target)
    if base.power is not None:
        carried["power"] = carry_over_power(base.power, source, target)
    return {block: constants for block, constants in carried.items() if constants is not None}


def _provenance(block: str, source: HardwareProfile) -> Provenance:
    """The block's numbers are another machine's; its error is that of a GPU left out, or its own widened."""
    own = next((where for path, where in source.provenance.items() if path.startswith(f"{block}.")), None)
    known = own.residual if own is not None else None
    widened = None if known is None else min(WIDENING * known, 1.0)
    residual = max(LEFT_OUT_ERRORS.get(block, 0.0), widened or 0.0) or None
    text = f"carried over from {source.name} ({source.device.name})"
    return Provenance(ProvenanceKind.FITTED, text, residual)
