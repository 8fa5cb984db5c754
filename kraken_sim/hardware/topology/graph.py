"""A machine as plain data: GPUs, switches, hosts and NICs, and the links between them.

A link has one bandwidth, the same in both directions, given for one direction; `count` parallel links add
up. What a graph must satisfy to be a machine is in `problems`, which ring through a group of GPUs is the best and
what it can carry in `rings`; `topology` puts them together.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final

from kraken_sim.files.meaning import means
from kraken_sim.hardware.topology.union_find import UnionFind

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


class HostCpu(StrEnum):
    """What kind of CPU a socket has, as far as NCCL tells them apart."""

    AMD = "amd"
    BROADWELL = "broadwell"
    SKYLAKE = "skylake"
    """Up to Ice Lake."""
    SAPPHIRE_RAPIDS = "sapphire_rapids"
    EMERALD_RAPIDS = "emerald_rapids"
    """And later."""
    ARM = "arm"


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

_BOARD: Final = frozenset({LinkKind.PCIE, LinkKind.C2C, LinkKind.SOCKET})


@dataclass(frozen=True, slots=True)
class Node:
    """A vertex of the machine's graph."""

    name: str
    kind: NodeKind
    cpu: HostCpu | None = None
    """Of a host, where the file says it."""


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
    """The nodes and links of one machine, and how far its GPUs reach each other's memory.

    Without a `p2p_level` they do everywhere, and NCCL uses it as far as its own rule goes.
    """

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    p2p_level: P2PLevel | None = None

    @cached_property
    def gpus(self) -> tuple[str, ...]:
        """Names of the GPUs, in the order of their ranks."""
        return tuple(node.name for node in self.nodes if node.kind is NodeKind.GPU)

    @cached_property
    def kinds(self) -> Mapping[str, NodeKind]:
        """The kind of every node, by name."""
        return {node.name: node.kind for node in self.nodes}

    @cached_property
    def cpu(self) -> HostCpu:
        """The CPUs of the hosts.

        AMD's where the file says none: most boxes of PCIe GPUs have them, for their lanes; assumed.
        """
        return next((node.cpu for node in self.nodes if node.cpu is not None), HostCpu.AMD)

    @cached_property
    def components(self) -> Mapping[str, str]:
        """The node of a cluster that each vertex belongs to, by the name of one of its vertices.

        A node is what hangs together without the network.
        """
        joined = UnionFind()
        for link in self.links:
            if link.kind is not LinkKind.NETWORK:
                joined.join(link.a, link.b)
        return {node.name: joined.find(node.name) for node in self.nodes}

    @cached_property
    def nics(self) -> Mapping[str, tuple[str, ...]]:
        """The NICs of each node of a cluster, in the order of the graph, by its name in `components`."""
        found: dict[str, list[str]] = defaultdict(list)
        for node in self.nodes:
            if node.kind is NodeKind.NIC:
                found[self.components[node.name]].append(node.name)
        return {name: tuple(nics) for name, nics in found.items()}

    @cached_property
    def links_of(self) -> Mapping[str, tuple[Link, ...]]:
        """The links at each vertex, in the order of the graph."""
        found: dict[str, list[Link]] = {node.name: [] for node in self.nodes}
        for link in self.links:
            found[link.a].append(link)
            found[link.b].append(link)
        return {name: tuple(links) for name, links in found.items()}

    @cached_property
    def board_places(self) -> Mapping[str, int]:
        """Where each GPU stands when the PCIe trees are walked through depth first, socket after socket."""
        neighbours: dict[str, list[str]] = defaultdict(list)
        for link in self.links:
            if link.kind in _BOARD:
                neighbours[link.a].append(link.b)
                neighbours[link.b].append(link.a)
        hosts = [node.name for node in self.nodes if node.kind is NodeKind.HOST]
        places: dict[str, int] = {}
        for start in (*hosts, *self.gpus):
            stack = [start]
            while stack:
                name = stack.pop()
                if name not in places:
                    places[name] = len(places)
                    sockets = [other for other in neighbours[name] if self.kinds[other] is NodeKind.HOST]
                    below = [other for other in neighbours[name] if self.kinds[other] is not NodeKind.HOST]
                    # What is pushed last is walked first: everything below a host before the next host.
                    stack.extend((*reversed(sockets), *reversed(below)))
        return places
