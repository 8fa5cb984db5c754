"""A machine as plain data: GPUs, switches, hosts and NICs, and the links between them.

A link has one bandwidth, the same in both directions, given for one direction; `count` parallel links add
up. What a graph must satisfy to be a machine is in `problems`, which ring through a group of GPUs is the best and
what it can carry in `rings`; `topology` puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final

from kraken_sim.files.meaning import means

if TYPE_CHECKING:
    from collections.abc import Mapping

Arc = tuple[int, bool]
"""A link of a graph by index, used from its `a` to its `b` (True) or back."""


class NodeKind(StrEnum):
    """What stands at a vertex of the machine's graph."""

    GPU = "gpu"
    NVSWITCH = "nvswitch"
    PCIE_SWITCH = "pcie_switch"
    HOST = "host"
    """One CPU socket with its memory and its PCIe root ports."""
    NIC = "nic"
    NETWORK_SWITCH = "network_switch"


class LinkKind(StrEnum):
    """What a link is made of."""

    NVLINK = "nvlink"
    PCIE = "pcie"
    SOCKET = "socket"
    """Between the sockets of one machine: UPI, Infinity Fabric."""
    C2C = "c2c"
    """NVLink-C2C between a GPU and the Grace CPU beside it."""
    NETWORK = "network"


class P2PLevel(StrEnum):
    """The longest path over which two GPUs reach each other's memory, named as NCCL_P2P_LEVEL names it."""

    NVL = "NVL"
    """Over NVLink only."""
    PIX = "PIX"
    """Through one PCIe switch."""
    PXB = "PXB"
    """Through several PCIe switches, without a host bridge."""
    PHB = "PHB"
    """Through the host bridge of one socket."""
    SYS = "SYS"
    """Between sockets."""


ENDPOINTS: Final[Mapping[LinkKind, frozenset[NodeKind]]] = {
    LinkKind.NVLINK: frozenset({NodeKind.GPU, NodeKind.NVSWITCH}),
    LinkKind.PCIE: frozenset({NodeKind.GPU, NodeKind.PCIE_SWITCH, NodeKind.HOST, NodeKind.NIC}),
    LinkKind.SOCKET: frozenset({NodeKind.HOST}),
    LinkKind.C2C: frozenset({NodeKind.GPU, NodeKind.HOST}),
    LinkKind.NETWORK: frozenset({NodeKind.NIC, NodeKind.NETWORK_SWITCH}),
}
"""The nodes that each kind of link may join."""


@dataclass(frozen=True, slots=True)
class Node:
    """A vertex of the machine's graph."""

    name: str
    kind: NodeKind


@dataclass(frozen=True, slots=True)
class Link:
    """`count` parallel links between two nodes, each with the same bandwidth in both directions.

    `pcie_gen` is 0 unless the link is PCIe. `entry` is the dotted path of the file's entry that declares it.
    """

    a: str
    b: str
    kind: LinkKind
    bandwidth_bytes_per_s: float = field(metadata=means("What one link carries in one direction.", 1e6, 25e9, 1e15))
    latency_s: float = field(metadata=means("Time of flight over the link.", 0.0, 0.3e-6, 1.0))
    count: int = 1
    pcie_gen: int = 0
    entry: str = field(default="", compare=False)

    @property
    def total_bytes_per_s(self) -> float:
        """Bandwidth of all parallel links together, in one direction."""
        return self.bandwidth_bytes_per_s * self.count

    def __str__(self) -> str:
        return f"{self.a} - {self.b} ({self.kind})"


@dataclass(frozen=True)
class Graph:
    """The nodes and links of one machine, and how far its GPUs reach each other's memory."""

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    p2p_level: P2PLevel = P2PLevel.SYS

    @cached_property
    def gpus(self) -> tuple[str, ...]:
        """Names of the GPUs, in the order of their ranks."""
        return tuple(node.name for node in self.nodes if node.kind is NodeKind.GPU)

    @cached_property
    def kinds(self) -> Mapping[str, NodeKind]:
        """The kind of every node, by name."""
        return {node.name: node.kind for node in self.nodes}
