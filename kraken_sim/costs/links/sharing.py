"""Collectives as flows over the links of a machine, and how much they slow each other down.

A collective moves at one pace: all its pairs of GPUs make progress together. Its flow's rate is that of its
busiest pair, in line rate (protocol overhead included), and it takes each link by the bytes that cross it. So two
AllReduces on one link share it equally, and one that has few channels leaves the rest to the others.

Besides its links a machine has a fabric where PCIe transfers meet, the bridges and memory of each host
(`shared_fabric_links` of the profile); groups that need it load it on every host that they have a GPU on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.algorithms import algorithm_named
from kraken_sim.costs.collectives.nccl import fabric_bytes_per_s, line_rate_bytes_per_s
from kraken_sim.costs.collectives.routes import Group
from kraken_sim.costs.collectives.tuning import SEND_RECV
from kraken_sim.costs.fair import Flow, max_min_rates
from kraken_sim.costs.links.traffic import traffic_of
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.hardware.topology.islands import nodes_of
from kraken_sim.hardware.topology.reduction import nearest_host, reduce_group
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from kraken_sim.costs.collectives.algorithms import Algorithm
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.collectives.routes import DirectedLink
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.hardware.topology.topology import Topology

GROUPS_CACHED = 256
"""Groups whose traffic is kept in memory; a limit of ours, more than a machine's groups of one question."""


@dataclass(frozen=True, slots=True, eq=False)
class GroupTraffic:
    """What the links see of one group's collective, per unit of rate of its busiest pair.

    `sends` is how many times that rate its busiest rank sends. Kept by identity: its links are thousands.
    """

    topology: Topology
    gpus: tuple[str, ...]
    p2p: bool
    usage: Mapping[DirectedLink, float]
    sends: float
    hosts: tuple[str, ...]

    @property
    def interconnect(self) -> Interconnect:
        """What the group communicates over; looked for when asked, since between nodes its rings take long to find."""
        return _reduced(self.topology, self.gpus, self.p2p)


def group_traffic(
    topology: Topology, gpus: tuple[str, ...], kind: CollectiveKind, algorithm: str, p2p: bool
) -> GroupTraffic:
    """The traffic of a collective of these GPUs, whatever its size.

    Raises:
        InputError: The GPUs cannot reach each other, or the algorithm cannot run between them.
    """
    return _group_traffic(topology, gpus, kind, algorithm_named(algorithm), p2p)


@lru_cache(maxsize=GROUPS_CACHED)
def _group_traffic(
    topology: Topology, gpus: tuple[str, ...], kind: CollectiveKind, algorithm: Algorithm, p2p: bool
) -> GroupTraffic:
    reduced = _in_a_node(topology, gpus, p2p)
    staged = reduced is not None and reduced.kind is InterconnectKind.HOST
    moved = traffic_of(algorithm, Group(topology, gpus, kind, staged=staged), 1.0)
    unit = moved.busiest_pair_bytes
    usage = {link: num_bytes / unit for link, num_bytes in moved.links.items()}
    sends = moved.busiest_rank_bytes / unit
    return GroupTraffic(topology, gpus, p2p, usage, sends, _hosts(topology, gpus, reduced))


@lru_cache(maxsize=GROUPS_CACHED)
def transfer_traffic(topology: Topology, source: str, target: str, p2p: bool) -> GroupTraffic:
    """The traffic of a copy from one GPU to another.

    Raises:
        InputError: The GPUs cannot reach each other.
    """
    gpus = (source, target)
    reduced = _in_a_node(topology, gpus, p2p)
    staged = reduced is not None and reduced.kind is InterconnectKind.HOST
    way = Group(topology, gpus, CollectiveKind.SEND_RECV, staged=staged).way(source, target)
    return GroupTraffic(topology, gpus, p2p, dict.fromkeys(way, 1.0), 1.0, _hosts(topology, gpus, reduced))


@lru_cache(maxsize=GROUPS_CACHED)
def _reduced(topology: Topology, gpus: tuple[str, ...], p2p: bool) -> Interconnect:
    return reduce_group(topology.finder, gpus, p2p)


def _in_a_node(topology: Topology, gpus: tuple[str, ...], p2p: bool) -> Interconnect | None:
    """What a group of one node communicates over; None for one of several nodes, which goes over their network."""
    return _reduced(topology, gpus, p2p) if len(nodes_of(topology, gpus)) == 1 else None


@lru_cache(maxsize=GROUPS_CACHED)
def interconnect_of(topology: Topology, gpus: tuple[str, ...], kind: CollectiveKind, p2p: bool = True) -> Interconnect:
    """What a collective of these GPUs communicates over: their best rings, or, point-to-point, the ways to the next.

    Point-to-point goes in the order of the ranks and not in that of a good ring; its bandwidth is what the fullest
    link on these ways leaves to one of them.

    Raises:
        InputError: The GPUs cannot reach each other.
    """
    if kind is not CollectiveKind.SEND_RECV or len(gpus) < 2:
        return _reduced(topology, gpus, p2p)
    traffic = group_traffic(topology, gpus, kind, SEND_RECV, p2p)
    line = min(link.bytes_per_s / share for link, share in traffic.usage.items())
    return replace(traffic.interconnect, bandwidth_bytes_per_s=line)


def _hosts(topology: Topology, gpus: tuple[str, ...], reduced: Interconnect | None) -> tuple[str, ...]:
    """The hosts whose bridges and memory the group's traffic may pass."""
    if reduced is None or reduced.kind not in (InterconnectKind.PCIE, InterconnectKind.HOST):
        return ()
    return tuple(sorted({nearest_host(topology.finder, gpu) for gpu in gpus}))


class LinkSharing:
    """The links of one machine and what collectives take of them."""

    def __init__(self, topology: Topology, constants: CollectiveConstants) -> None:
        self.topology = topology
        self.constants = constants
        self.capacity: dict[Hashable, float] = {}

    def flow(self, gpus: tuple[str, ...], kind: CollectiveKind, cost: CollectiveCost, *, p2p: bool = True) -> Flow:
        """The flow of a collective whose cost alone is known; its limit is its rate alone."""
        return self.flow_of(group_traffic(self.topology, gpus, kind, cost.algorithm, p2p), len(gpus), cost)

    def transfer_flow(self, source: str, target: str, cost: CollectiveCost, *, p2p: bool = True) -> Flow:
        """The flow of a copy from one GPU to another: all of its bytes one way."""
        return self.flow_of(transfer_traffic(self.topology, source, target, p2p), 1, cost)

    def flow_of(self, traffic: GroupTraffic, num_senders: int, cost: CollectiveCost) -> Flow:
        """The flow of some traffic in which `num_senders` GPUs send as much as the busiest."""
        usage: dict[Hashable, float] = {}
        fabric = fabric_bytes_per_s(traffic.interconnect, self.constants) if traffic.hosts else None
        if fabric is not None:
            crossing = traffic.interconnect.crosses_sockets
            loss = self.constants.socket_crossing_efficiency if crossing else 1.0
            for host in traffic.hosts:
                usage["fabric", host] = num_senders * traffic.sends / loss
                self.capacity["fabric", host] = fabric
        for link, share in traffic.usage.items():
            usage[link] = share
            self.capacity[link] = link.bytes_per_s
        wanted = cost.line_bytes_per_s or line_rate_bytes_per_s(traffic.interconnect, self.constants)
        rooms = (self.capacity[resource] / share for resource, share in usage.items() if share > 0.0)
        return Flow(usage, min(wanted / traffic.sends, min(rooms, default=inf)))

    def speeds(self, flows: Sequence[Flow]) -> list[float]:
        """The pace of each flow while all of them are under way, relative to its pace alone."""
        rates = max_min_rates(flows, self.capacity)
        return [rate / flow.limit for rate, flow in zip(rates, flows, strict=True)]


def groups_of(topology: Topology, num_devices: int, stride: int, total: int) -> list[tuple[str, ...]]:
    """All groups of a program on `total` devices whose collectives have `num_devices` ranks, `stride` apart."""
    block = num_devices * stride
    return [
        tuple(topology.gpus[base + offset + stride * rank] for rank in range(num_devices))
        for base in range(0, total - block + 1, block)
        for offset in range(stride)
    ]


def slowed(cost: CollectiveCost, speed: float, num_groups: int) -> CollectiveCost:
    """The same collective with its transfer at `speed` of its pace alone."""
    if speed >= 1.0 - 1e-9:
        return cost
    transfer_s = cost.transfer_s / speed
    return replace(
        cost,
        busy_s=cost.latency_s + transfer_s,
        transfer_s=transfer_s,
        line_bytes_per_s=cost.line_bytes_per_s * speed,
        detail=f"{cost.detail}, {num_groups} groups share links",
    )
