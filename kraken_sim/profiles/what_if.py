"""The same machine with something changed: faster or slower links, a cost model that errs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InputError
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.hardware.topology.graph import LinkKind
from kraken_sim.hardware.topology.topology import Topology
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.write import numbers_of

if TYPE_CHECKING:
    from kraken_sim.hardware.host import HostTimes
    from kraken_sim.profiles.profile import HardwareProfile

KERNEL_BLOCKS: Final = ("gemm", "attention", "memory_bound", "collectives")
"""Blocks of constants that price kernels; their times are scaled whole."""

PERTURBED_BLOCKS: Final = (*KERNEL_BLOCKS, "contention", "launch")

_HOSTS_KIND: Final = {True: ProvenanceKind.MEASURED, False: ProvenanceKind.ASSUMED}
"""Of a host's costs: those that it tells, and those taken to go with them."""

_CONTENTION_FIELDS: Final = ("compute_slowdown", "collective_memory_slowdown", "eviction_slowdown")


def on_host(profile: HardwareProfile, host: HostTimes) -> HardwareProfile:
    """The machine with a host of which its launch costs are known; each says where it is from."""
    launch = host.applied(profile.launch)
    before = dict(numbers_of(profile.launch))
    told = {*host.costs, *(f"eager_shares.{kind}" for kind in host.shares)}
    where = {
        f"launch.{path}": Provenance(_HOSTS_KIND[path in told], host.source)
        for path, value in numbers_of(launch)
        if path in told or value != before.get(path)
    }
    return replace(profile, launch=launch, provenance={**profile.provenance, **where})


def with_time_factor(profile: HardwareProfile, block: str, factor: float) -> HardwareProfile:
    """The machine on which what `block` prices takes `factor` times as long.

    Kernels take that much longer alone; of `contention` the slowdowns are scaled, of `launch` every time.

    Raises:
        ValueError: no such block, or a factor that is not positive.
    """
    if block not in PERTURBED_BLOCKS or not factor > 0.0:
        message = f"one of {', '.join(PERTURBED_BLOCKS)} and a positive factor, not {block!r} and {factor}"
        raise ValueError(message)
    name = f"{profile.name} ({block} x {factor:.4g})"
    if block == "contention":
        scaled = {field: getattr(profile.contention, field) * factor for field in _CONTENTION_FIELDS}
        return replace(profile, name=name, contention=replace(profile.contention, **scaled))
    if block == "launch":
        launch = profile.launch
        times: dict[str, Any] = {path: value * factor for path, value in numbers_of(launch) if path.endswith("_s")}
        return replace(profile, name=name, launch=replace(launch, **times))
    factors = {**profile.time_factors, block: profile.time_factors.get(block, 1.0) * factor}
    return replace(profile, name=name, time_factors=factors)


def with_bandwidth_factor(profile: HardwareProfile, factor: float) -> HardwareProfile:
    """The machine whose GPUs are joined by links of `factor` times the bandwidth; latencies stay.

    NVLink where the GPUs communicate over it, else PCIe and the links between sockets; between nodes the network too.

    Raises:
        InputError: the factor is not positive.
    """
    if not factor > 0.0:
        raise InputError.single("bandwidth_factor", "must be positive", factor, "0.5")
    kinds = gpu_link_kinds(profile)
    links = tuple(
        replace(link, bandwidth_bytes_per_s=link.bandwidth_bytes_per_s * factor) if link.kind in kinds else link
        for link in profile.topology.links
    )
    topology = Topology(profile.topology.nodes, links, profile.topology.p2p_level)
    return replace(profile, name=f"{profile.name} (links x {factor:.4g})", topology=topology)


def gpu_link_kinds(profile: HardwareProfile) -> frozenset[LinkKind]:
    """The kinds of links over which the machine's GPUs exchange data."""
    kind = profile.topology.interconnect(len(profile.topology.gpus)).kind
    if kind in (InterconnectKind.NVSWITCH, InterconnectKind.NVLINK):
        return frozenset({LinkKind.NVLINK})
    over_hosts = frozenset({LinkKind.PCIE, LinkKind.SOCKET})
    # A NIC is as fast as the slower of its network and its PCIe link.
    return over_hosts | {LinkKind.NETWORK} if kind is InterconnectKind.NETWORK else over_hosts


def gpu_bandwidth_bytes_per_s(profile: HardwareProfile, num_devices: int) -> float:
    """Line rate per GPU and direction of the best ring through the first `num_devices` GPUs; 0 for one GPU."""
    return profile.topology.interconnect(num_devices).bandwidth_bytes_per_s if num_devices > 1 else 0.0
