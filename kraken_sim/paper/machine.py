"""A profile as a set-up of a grid changes it: another host, NCCL's eager latencies, other links."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kraken_sim.costs.collectives import with_eager_nccl_latency
from kraken_sim.errors import InputError
from kraken_sim.hardware.topology.graph import Link, LinkKind, Node, NodeKind, P2PLevel
from kraken_sim.hardware.topology.topology import Topology
from kraken_sim.paper.grid import InterconnectSpec, LinkClass, NcclLatency

if TYPE_CHECKING:
    from kraken_sim.paper.grid import Setup
    from kraken_sim.profiles.profile import HardwareProfile


def machine_of(profile: HardwareProfile, setup: Setup) -> HardwareProfile:
    """The profile with the launch costs and NCCL latencies of the set-up."""
    if setup.launch_costs is not None:
        # What one kind of kernel takes more than another was measured in PyTorch.
        costs: dict[str, Any] = {"eager_shares": {}, **setup.launch_costs.values()}
        profile = replace(profile, launch=replace(profile.launch, **costs))
    if setup.nccl_latency is NcclLatency.EAGER:
        profile = replace(profile, collectives=with_eager_nccl_latency(profile.collectives))
    return profile


def with_interconnect(profile: HardwareProfile, spec: InterconnectSpec) -> HardwareProfile:
    """The machine with other links between its GPUs, everything else as it is.

    `nvlink` gives every GPU `count` links to one NVSwitch, with the latency that the machine's NVLinks have;
    `pcie` takes NVLink away and gives the machine's PCIe links another rate.

    Raises:
        InputError: The machine has no such links, so their latency is not known.
    """
    kind = LinkKind(spec.link.value)
    present = [link for link in profile.topology.links if link.kind is kind]
    if not present:
        message = f"{profile.name} has no {kind} links to take latencies from"
        raise InputError.single("interconnects", message, spec.name, "hardware: a100-sxm4-40gb-x8")
    build = _pcie_only if spec.link is LinkClass.PCIE else _switched
    return replace(profile, topology=build(profile.topology, spec))


def _without_nvlink(topology: Topology) -> tuple[list[Node], list[Link]]:
    nodes = [node for node in topology.nodes if node.kind is not NodeKind.NVSWITCH]
    return nodes, [link for link in topology.links if link.kind is not LinkKind.NVLINK]


def _pcie_only(topology: Topology, spec: InterconnectSpec) -> Topology:
    nodes, links = _without_nvlink(topology)
    assert spec.gen is not None  # checked with the file
    rate, count, gen = spec.bandwidth, spec.count, spec.gen
    others = [
        replace(link, bandwidth_bytes_per_s=rate, count=count, pcie_gen=gen) if link.kind is LinkKind.PCIE else link
        for link in links
    ]
    level = P2PLevel.SYS if topology.p2p_level is P2PLevel.NVL else topology.p2p_level
    return Topology(tuple(nodes), tuple(others), level)


def _switched(topology: Topology, spec: InterconnectSpec) -> Topology:
    nodes, links = _without_nvlink(topology)
    latency_s = max(link.latency_s for link in topology.links if link.kind is LinkKind.NVLINK)
    switch = Node("nvswitch", NodeKind.NVSWITCH)
    links += [Link(gpu, switch.name, LinkKind.NVLINK, spec.bandwidth, latency_s, spec.count) for gpu in topology.gpus]
    return Topology((*nodes, switch), tuple(links), topology.p2p_level)
