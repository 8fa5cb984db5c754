"""From the graph to the few numbers that cost models of collectives need."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InputError
from kraken_sim.hardware.interconnect import Across, Interconnect, InterconnectKind
from kraken_sim.hardware.topology.graph import HostCpu, Link, LinkKind, NodeKind, P2PLevel
from kraken_sim.hardware.topology.islands import nodes_of
from kraken_sim.hardware.topology.nodes import network_bytes_per_s, rails_of
from kraken_sim.hardware.topology.ring_search import pairs_around

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kraken_sim.hardware.topology.graph import Arc, Graph
    from kraken_sim.hardware.topology.rings import Hop, Ring, RingFinder

_LEVELS: Final = tuple(P2PLevel)

NCCL_P2P_LEVEL: Final = P2PLevel.PXB
"""How far NCCL uses peer-to-peer access unless it is told: through PCIe switches and no host bridge (p2pLevel of
ncclTopoCheckP2p in its src/graph/paths.cc)."""

AMD_P2P_LEVEL, AMD_P2P_GPUS = P2PLevel.SYS, 2
"""The same on hosts with AMD's CPUs, of up to so many GPUs (ncclTopoCheckP2p in NCCL's src/graph/paths.cc)."""


def reduce_group(finder: RingFinder, gpus: Sequence[str], p2p: bool) -> Interconnect:
    """The interconnect of a group of GPUs; see `Topology.interconnect`."""
    if len(gpus) == 1:
        return Interconnect(InterconnectKind.NVLINK, 1, math.inf, 0, 0.0)
    topology, ring = finder.topology, finder.best(gpus)
    crosses_network = any(link.kind is LinkKind.NETWORK for hop in ring.hops for link in hop.links)
    if crosses_network:
        return replace(_of_ring(topology, ring), across=_across(finder, gpus, p2p))
    longest = max((hop.p2p_level for hop in ring.hops), key=_LEVELS.index)
    if not p2p or (topology.p2p_level is not None and _beyond(longest, topology.p2p_level)):
        beside = _of_ring(topology, ring)
        switch = beside if beside.kind is InterconnectKind.NVSWITCH else None
        return replace(_through_host(finder, ring.order), switch=switch)
    found = _of_ring(topology, ring)
    if found.kind is not InterconnectKind.PCIE:
        return found
    level = nccl_p2p_level(topology, len(gpus))
    staged = [hop for hop in ring.hops if _beyond(hop.p2p_level, level)]
    return replace(found, through_host=bool(staged), **_host_use(finder, staged))


def _beyond(level: P2PLevel, limit: P2PLevel) -> bool:
    return _LEVELS.index(level) > _LEVELS.index(limit)


def nccl_p2p_level(topology: Graph, num_devices: int) -> P2PLevel:
    """How far NCCL uses peer-to-peer access in a group: what the machine says, or NCCL's own rule."""
    if topology.p2p_level is not None:
        return topology.p2p_level
    return AMD_P2P_LEVEL if topology.cpu is HostCpu.AMD and num_devices <= AMD_P2P_GPUS else NCCL_P2P_LEVEL


def _host_use(finder: RingFinder, staged: Sequence[Hop]) -> dict[str, Any]:
    """What hops through host memory do to hosts and GPUs.

    NCCL has the buffer at the receiver's (SHM_RECV_SIDE of its src/transport/shm.cc).
    """
    ends = Counter(finder.hosts.get(hop.target, "") for hop in staged)
    two_way = bool({hop.source for hop in staged} & {hop.target for hop in staged})
    return {"host_hops": max(ends.values(), default=0), "two_way": two_way}


def _of_ring(topology: Graph, ring: Ring) -> Interconnect:
    links = [link for hop in ring.hops for link in hop.links]
    kind = _kind(topology, ring, links)
    return Interconnect(
        kind=kind,
        num_devices=len(ring.hops),
        bandwidth_bytes_per_s=ring.total_bytes_per_s,
        num_links=max(1, round(ring.total_bytes_per_s / ring.slowest.bandwidth_bytes_per_s)),
        latency_s=max(hop.latency_s for hop in ring.hops),
        crosses_sockets=_crosses_sockets(links),
        # PCIe between a GPU and its NIC does not decide what a ring over the network carries.
        pcie_gen=0 if kind is InterconnectKind.NETWORK else _pcie_gen(links),
        cpu=topology.cpu if kind is InterconnectKind.PCIE else None,
    )


def _across(finder: RingFinder, gpus: Sequence[str], p2p: bool) -> Across | None:
    """How a group is spread over nodes; None where unevenly."""
    topology = finder.topology
    nodes = nodes_of(topology, gpus)
    if len({len(members) for members in nodes}) > 1:
        return None
    first = nodes[0]
    rails = rails_of(finder, first)
    there = rails_of(finder, nodes[1])[nodes[1][0]]
    ways = (finder.route(first[0], rails[first[0]]), finder.route(rails[first[0]], there))
    used = list(dict.fromkeys(rails.values()))
    flight_s = 2 * finder.latency_s(ways[0]) + finder.latency_s(ways[1])
    node = reduce_group(finder, first, p2p)
    return Across(len(nodes), node, network_bytes_per_s(topology, used), len(used), flight_s)


def _kind(topology: Graph, ring: Ring, links: Iterable[Link]) -> InterconnectKind:
    kinds = {link.kind for link in links}
    if LinkKind.NETWORK in kinds:
        return InterconnectKind.NETWORK
    if kinds != {LinkKind.NVLINK}:
        return InterconnectKind.PCIE
    switched = all(
        any(topology.kinds[name] is NodeKind.NVSWITCH for link in hop.links for name in (link.a, link.b))
        for hop in ring.hops
    )
    return InterconnectKind.NVSWITCH if switched else InterconnectKind.NVLINK


def _through_host(finder: RingFinder, order: Sequence[str]) -> Interconnect:
    """Every GPU writes to its host's memory and reads from the host of the GPU before it."""
    hosts = {gpu: nearest_host(finder, gpu) for gpu in order}
    ways = [finder.route(gpu, hosts[gpu]) for gpu in order]
    # The order of hosts along the ring decides how often the link between sockets is crossed.
    turn = {host: index for index, host in enumerate(dict.fromkeys(hosts.values()))}
    ordered = sorted(order, key=lambda gpu: turn[hosts[gpu]])
    pairs = pairs_around(ordered)
    between = [_between_hosts(finder, hosts[a], hosts[b]) for a, b in pairs]
    loads = Counter(arc for way in (*ways, *between) for arc in way)
    rates = [finder.links_of((arc,))[0].total_bytes_per_s / load for arc, load in loads.items()]
    latency = dict(zip(order, map(finder.latency_s, ways), strict=True))
    links = finder.links_of(loads)
    return Interconnect(
        kind=InterconnectKind.HOST,
        num_devices=len(order),
        bandwidth_bytes_per_s=min(rates),
        num_links=1,
        latency_s=max(
            latency[a] + finder.latency_s(way) + latency[b] for (a, b), way in zip(pairs, between, strict=True)
        ),
        crosses_sockets=_crosses_sockets(links),
        pcie_gen=_pcie_gen(links),
        host_hops=max(Counter(hosts.values()).values()),
        cpu=finder.topology.cpu,
    )


def _between_hosts(finder: RingFinder, a: str, b: str) -> tuple[Arc, ...]:
    if a == b:
        return ()
    try:
        return finder.route(a, b)
    except InputError:
        message = f"{a} and {b} are joined by GPUs only, so nothing can be staged through host memory"
        example = f"{{from: {a}, to: {b}, kind: socket, bandwidth: 32 GB/s}}, or transport: auto"
        raise InputError.single("topology.links", message, example=example) from None


def nearest_host(finder: RingFinder, gpu: str) -> str:
    """The root of the PCIe tree that the GPU hangs in."""
    host = finder.hosts.get(gpu)
    if host is not None:
        return host
    raise InputError.single(
        "topology.links",
        f"{gpu} has no PCIe or C2C link to a host, so nothing can be staged through host memory",
        example='{from: "gpu*", to: host, kind: pcie, gen: 5}',
    )


def _crosses_sockets(links: Iterable[Link]) -> bool:
    return any(link.kind is LinkKind.SOCKET for link in links)


def _pcie_gen(links: Iterable[Link]) -> int:
    return min((link.pcie_gen for link in links if link.kind is LinkKind.PCIE), default=0)
