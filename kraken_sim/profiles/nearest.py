"""Which calibrated profile a machine is nearest to, by generation, by rates and by its links."""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.hardware.device import GENERATIONS
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.profiles.calibrated import calibrated_profiles, read_calibrated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.topology.topology import Topology
    from kraken_sim.profiles.profile import HardwareProfile


def nearest_profile(device: Device, num_devices: int, others: Iterable[HardwareProfile] = ()) -> HardwareProfile:
    """The calibrated profile of the nearest generation; then by similar rates, then by the number of GPUs.

    Args:
        device: the GPU.
        num_devices: of its machine.
        others: machines beside the calibrated profiles whose kernels are fitted to their GPU.
    """

    def distance(profile: HardwareProfile) -> tuple[tuple[int, float], int, str]:
        return _distance(device, profile.device), abs(len(profile.topology.gpus) - num_devices), profile.name

    return min((*_all_calibrated(), *others), key=distance)


def _distance(a: Device, b: Device) -> tuple[int, float]:
    generations = abs(GENERATIONS.index(a.kernel_generation) - GENERATIONS.index(b.kernel_generation))
    memory = abs(log2(a.hbm_bandwidth_bytes_per_s / b.hbm_bandwidth_bytes_per_s))
    arithmetic = abs(log2(a.unquantised_flops / b.unquantised_flops))
    return generations, memory + arithmetic


def with_same_links(topology: Topology, base: HardwareProfile, device: Device) -> HardwareProfile:
    """`base`, or where its GPUs are joined by other links, the nearest profile whose are joined like these."""
    wanted = _alike(link_kind(topology))
    if wanted in (None, _alike(link_kind(base.topology))):
        return base
    alike = [profile for profile in _all_calibrated() if _alike(link_kind(profile.topology)) == wanted]
    return min(alike, key=lambda profile: (_distance(device, profile.device), profile.name), default=base)


def _alike(kind: InterconnectKind | None) -> InterconnectKind | None:
    """Whether GPUs reach each other's memory over PCIe or not, the same profiles have rows for it."""
    return InterconnectKind.PCIE if kind is InterconnectKind.HOST else kind


def link_kind(topology: Topology) -> InterconnectKind | None:
    """What joins all GPUs; None where nothing does."""
    if len(topology.gpus) < 2:
        return None
    if len({topology.components[gpu] for gpu in topology.gpus}) > 1:
        return InterconnectKind.NETWORK
    try:
        return topology.interconnect(len(topology.gpus)).kind
    except (InputError, InfeasibleError):
        return None


def _all_calibrated() -> list[HardwareProfile]:
    return [profile for profile in map(read_calibrated, calibrated_profiles()) if profile is not None]
