"""What a group of GPUs communicates over, reduced from the topology to the numbers cost models need."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
    `crosses_sockets` marks a hop over the inter-socket link. `pcie_gen` is 0 where no hop is PCIe,
    and between nodes.
    A group that spans `num_nodes` machines has in `node` what the ranks of its largest machine communicate over; its
    bandwidth is that of the rings over all rails together, and `num_links` counts the rails.
    """

    kind: InterconnectKind
    num_devices: int
    bandwidth_bytes_per_s: float
    num_links: int
    latency_s: float
    crosses_sockets: bool = False
    pcie_gen: int = 0
    num_nodes: int = 1
    node: Interconnect | None = None
