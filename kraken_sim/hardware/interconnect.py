"""What a group of GPUs communicates over, reduced from the topology to the numbers cost models need."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kraken_sim.hardware.topology.graph import HostCpu


class InterconnectKind(StrEnum):
    """The slowest kind of hop on the best ring through the group."""

    NVSWITCH = "nvswitch"
    NVLINK = "nvlink"
    PCIE = "pcie"
    HOST = "host"
    """Staged through host memory (NCCL's SHM transport), because peer-to-peer is off or impossible."""
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Interconnect:
    """The best ring through a group of `num_devices` GPUs.

    `bandwidth_bytes_per_s` is the line rate per GPU and direction of the ring's slowest hop, all parallel
    links added; `num_links` how many links add up to it; `latency_s` the time of flight over the slowest hop.
    `crosses_sockets` marks a hop over the inter-socket link. `pcie_gen` is 0 where no hop is PCIe.
    `through_host` marks a ring whose GPUs reach each other's memory, but which NCCL takes through host memory all the
    same. `host_hops` is the most hops of the ring that end at one host and would go, or go, through its memory,
    `two_way` whether a GPU both writes to host memory and reads from it. `cpu` is the hosts'.
    `switch` is the NVSwitch that these GPUs hang on too, where bytes go through host memory all the same.
    Over a network, `across` says how the group is spread over nodes.
    """

    kind: InterconnectKind
    num_devices: int
    bandwidth_bytes_per_s: float
    num_links: int
    latency_s: float
    crosses_sockets: bool = False
    pcie_gen: int = 0
    across: Across | None = None
    through_host: bool = False
    host_hops: int = 0
    two_way: bool = True
    cpu: HostCpu | None = None
    switch: Interconnect | None = None

    @property
    def switched(self) -> Interconnect:
        """What switches that add would use: peer-to-peer access is nothing to them."""
        return self.switch or self


@dataclass(frozen=True, slots=True)
class Across:
    """A group spread evenly over `num_nodes` nodes.

    `node` is what the GPUs within one of them communicate over; `network_bytes_per_s` what one node's NICs send
    together, `num_rails` how many of them its GPUs use, `latency_s` the time of flight from GPU to GPU.
    """

    num_nodes: int
    node: Interconnect
    network_bytes_per_s: float
    num_rails: int
    latency_s: float
