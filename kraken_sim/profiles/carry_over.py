"""The blocks of a machine that nobody measured: its base's where the card is the same, else carried over from it.

What is the same stays the same: blocks of a GPU that is the base's own keep their values, sources and errors. What
changes follows the rules of `kraken_sim.profiles.transfer`, and says so in its source.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.hardware.device import OTHER_MAKERS
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.hardware.topology.graph import LinkKind, NodeKind
from kraken_sim.profiles.carried_errors import CARRIED_FROM, HOSTS_ERROR, MEASURED_ERRORS, NETWORK_ERROR, carried_error
from kraken_sim.profiles.gemm_transfer import carry_over_gemm
from kraken_sim.profiles.link_transfer import (
    NETWORK_ROWS,
    NETWORK_SOURCE,
    with_network,
    with_rows_of,
    with_starts_of_nvlink,
)
from kraken_sim.profiles.nearest import link_kind
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.schema import BLOCKS
from kraken_sim.profiles.transfer import (
    carry_over_attention,
    carry_over_collectives,
    carry_over_memory_bound,
    carry_over_power,
)
from kraken_sim.profiles.write import BlockText, numbers_of
from kraken_sim.program.formats import Quantization

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.gemm_constants import GemmConstants
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.topology.topology import Topology
    from kraken_sim.profiles.datasheet import Datasheet
    from kraken_sim.profiles.profile import HardwareProfile

_SCALES_IN_HARDWARE: Final = "blackwell"
"""The generation whose tensor cores take scales by block (NVIDIA Blackwell architecture technical brief)."""


@dataclass(frozen=True, slots=True)
class DatasheetMachine:
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


def blocks_of(machine: DatasheetMachine) -> dict[str, BlockText | None]:
    """Every block for the new machine; None for the base's own, number for number."""
    base, source, target = machine.base, machine.base.device, machine.device
    blocks: dict[str, BlockText | None] = {block: None for block in BLOCKS if getattr(base, block) is not None}
    if source != target:
        carried: dict[str, Any] = {
            "launch": base.launch,
            "gemm": carry_over_gemm(base.gemm, source, target),
            **_quantised(base, target),
            "attention": carry_over_attention(base.attention, source, target, base.gemm.mma_efficiency),
            "memory_bound": carry_over_memory_bound(base.memory_bound, source, target),
            "contention": base.contention,
        }
        for block in ("serving_attention", "attention_float8"):
            if (constants := getattr(base, block)) is not None:
                carried[block] = carry_over_attention(constants, source, target, base.gemm.mma_efficiency)
        if base.power is not None:
            carried["power"] = carry_over_power(base.power, source, target)
        for block, constants in carried.items():
            where = Provenance(_kind(block, target), _carried_from(base), carried_error(block, base, target))
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
            found[f"gemm_{quantization}"] = _carried_format(quantization, base, target)
    dtype = Quantization.FP8.dtype
    alike = base.device.generation == target.generation and dtype in target.peak_flops
    if base.gemm_fp8_rows is not None and alike:
        found["gemm_fp8_rows"] = carry_over_gemm(base.gemm_fp8_rows, base.device, target, dtype)
    return found


def _carried_format(quantization: Quantization, base: HardwareProfile, target: Device) -> GemmConstants:
    dtype = quantization.dtype if quantization.dtype in base.device.peak_flops else None
    return carry_over_gemm(_source_of(quantization, base, target), base.device, target, dtype)


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


def _kind(block: str, target: Device) -> ProvenanceKind:
    """Fitted where the error of carrying the block over was measured, on cards of the same maker; else assumed."""
    measured = block in MEASURED_ERRORS and target.generation not in OTHER_MAKERS
    return ProvenanceKind.FITTED if measured else ProvenanceKind.ASSUMED


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


def _collectives(machine: DatasheetMachine) -> BlockText | None:
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
        else carried_error("collectives", linked, machine.device)
    )
    if kind is InterconnectKind.NETWORK:
        constants, error = with_network(constants), NETWORK_ERROR
        sources.append(NETWORK_SOURCE)
        assumed = dict.fromkeys(NETWORK_ROWS, Provenance(ProvenanceKind.ASSUMED, NETWORK_SOURCE))
    where = Provenance(_kind("collectives", machine.device), "; ".join(sources), error)
    text = _text("collectives", constants, where, linked)
    return dataclasses.replace(text, overrides={**_outside(text.overrides, assumed), **assumed})


def _outside(overrides: Mapping[str, Provenance], rows: Mapping[str, Provenance]) -> dict[str, Provenance]:
    """Those whose paths are in none of the rows."""
    return {path: where for path, where in overrides.items() if not any(path.startswith(f"{row}.") for row in rows)}


def _has_nvswitch(topology: Topology) -> bool:
    return NodeKind.NVSWITCH in topology.kinds.values()


def _carried_from(source: HardwareProfile) -> str:
    return f"{CARRIED_FROM} {source.name} ({source.device.name})"
