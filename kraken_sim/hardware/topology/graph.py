"""A machine as a graph: GPUs, switches, hosts and NICs, and the links between them.

A link has one bandwidth, the same in both directions, given for one direction; `count` parallel links add
up. What a graph must satisfy to be a machine is said by `topology_problems`. Which ring through a group of GPUs
is the best, and what it can carry, is `kraken_sim.hardware.topology.rings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InfeasibleError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.hardware.topology.rings import Ring


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

    `bandwidth_bytes_per_s` is one link's, in one direction. `pcie_gen` is 0 unless the link is PCIe. `entry` is the
    dotted path of the file's entry that declares it.
    """

    a: str
    b: str
    kind: LinkKind
    bandwidth_bytes_per_s: float
    latency_s: float
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
class Topology:
    """The graph of one machine; rank r of a scenario sits on the r-th GPU.

    Raises:
        InputError: The graph is no machine; see `topology_problems.find_problems`.
    """

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    p2p_level: P2PLevel = P2PLevel.SYS
    _cache: dict[tuple[int, int, bool], Interconnect] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _placed: dict[tuple[int, ...], Topology] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from kraken_sim.hardware.topology.problems import find_problems

        problems = find_problems(self.nodes, self.links)
        if problems:
            raise InputError(problems)

    @cached_property
    def gpus(self) -> tuple[str, ...]:
        """Names of the GPUs, in the order of their ranks."""
        return tuple(node.name for node in self.nodes if node.kind is NodeKind.GPU)

    @cached_property
    def kinds(self) -> Mapping[str, NodeKind]:
        """The kind of every node, by name."""
        return {node.name: node.kind for node in self.nodes}

    def graph(self) -> Any:
        """The machine as a `networkx.MultiGraph`: node attribute `kind`, edge attribute `link` (a `Link`)."""
        import networkx as nx  # 150 ms to import, and only drawings and analyses need it

        graph: Any = nx.MultiGraph()
        for node in self.nodes:
            graph.add_node(node.name, kind=node.kind)
        for link in self.links:
            graph.add_edge(link.a, link.b, link=link, capacity=link.total_bytes_per_s, weight=link.latency_s)
        return graph

    def group(self, num_devices: int, stride: int = 1) -> tuple[str, ...]:
        """The GPUs of ranks 0, stride, 2 stride, ...

        Raises:
            InputError: A count below one.
            InfeasibleError: The machine has too few GPUs.
        """
        for name, value in (("num_devices", num_devices), ("stride", stride)):
            if value < 1:
                raise InputError.single(name, "must be at least 1", value, example="2")
        if (num_devices - 1) * stride >= len(self.gpus):
            apart = f", {stride} ranks apart" if stride > 1 else ""
            raise InfeasibleError(f"{num_devices} devices{apart} do not fit on this machine", f"{len(self.gpus)} GPUs")
        return self.gpus[: (num_devices - 1) * stride + 1 : stride]

    def with_ranks_on(self, gpus: tuple[int, ...]) -> Topology:
        """The same machine with these GPUs counted first, in this order, and the others behind them.

        Args:
            gpus: different numbers of GPUs, counted from 0.
        """
        if gpus not in self._placed:
            first = [self.gpus[number] for number in gpus]
            rank = {name: index for index, name in enumerate(first)}
            nodes = sorted(self.nodes, key=lambda node: rank.get(node.name, len(rank)))
            self._placed[gpus] = Topology(tuple(nodes), self.links, self.p2p_level)
        return self._placed[gpus]

    def best_ring(self, num_devices: int, stride: int = 1) -> Ring:
        """The best ring through the group: most bandwidth first, then least latency.

        Raises:
            InputError, InfeasibleError: See `group`.
        """
        from kraken_sim.hardware.topology.rings import RingFinder

        return RingFinder(self).best(self.group(num_devices, stride))

    def interconnect(self, num_devices: int, stride: int = 1, p2p: bool = True) -> Interconnect:
        """What `num_devices` GPUs, `stride` ranks apart, communicate over.

        Without `p2p`, or where a hop of the best ring is longer than `p2p_level`, bytes are staged through
        host memory. One device alone communicates with nobody: its bandwidth is infinite.

        Raises:
            InputError: See `group`; or host memory is needed and a GPU has no PCIe link to a host.
            InfeasibleError: See `group`.
        """
        key = (num_devices, stride, p2p)
        if key not in self._cache:
            from kraken_sim.hardware.topology.reduction import reduce_group

            self._cache[key] = reduce_group(self, self.group(num_devices, stride), p2p)
        return self._cache[key]
