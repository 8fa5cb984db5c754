"""Collectives over several nodes: NCCL's rings and trees through the NICs, and a hierarchy of three phases.

NCCL closes one ring or tree for each channel through a NIC of its own ("rail"), so a group's rings together have
what the NICs of a node send, or what the node's own links carry, whichever is less. Source of the choice:
NVIDIA/nccl src/graph/tuning.cc (ncclTopoTuneModel with nNodes > 1). The times use the profile's constants, those
of the network being NCCL's own estimates where nothing was measured. Not here: NVLSTree, CollNet, PAT.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, log2
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.constants import LINK_CLASS, link_value
from kraken_sim.costs.collectives.graph import COMPUTE_CAPABILITY, OTHER_CAPABILITY, NcclGraph, search_rings
from kraken_sim.costs.collectives.kinds import num_steps, ring_bytes
from kraken_sim.costs.collectives.nccl import (
    ALL_REDUCE_HBM_ACCESSES,
    REDUCE_SCATTER_HBM_ACCESSES,
    line_rate_bytes_per_s,
    soft_min,
)
from kraken_sim.costs.collectives.tuning import (
    BASE_LATENCY_US,
    HIERARCHICAL,
    LL,
    LL128,
    LL128_RATE,
    PROTOCOLS,
    RING,
    RING_LL128_CHANNEL_GBPS,
    RING_LL_SHARE,
    SEND_RECV,
    SIMPLE,
    STEP_LATENCY_US,
    TREE,
    TREE_LL_DIVISOR,
    TuningEntry,
    channel_count,
    generation_index,
)
from kraken_sim.costs.types import CollectiveCost
from kraken_sim.errors import InputError
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.collectives.policy import CollectivePolicy
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Across, Interconnect

NETWORK = "network"

NETWORK_STEP_US: Mapping[str, Mapping[str, float]] = {
    TREE: {LL: 5.0, LL128: 8.5, SIMPLE: 14.0},
    RING: {LL: 2.7, LL128: 4.0, SIMPLE: 14.0},
}
"""Latency of a step through the network, us: hwLat of NCCL's src/graph/tuning.cc, NET."""

NETWORK_OVERHEAD_US: Mapping[str, float] = {LL: 1.0, LL128: 1.0, SIMPLE: 3.0}
"""Least latency of any step of a ring over several nodes, us: getNetOverhead of NCCL's src/graph/tuning.cc on an Intel
host (2 on AMD), three times for Simple."""

LL_MAX_TWO_NODES_GBPS, LL_MAX_MORE_NODES_GBPS = 39.0, 20.4
"""Most that LL is believed to reach over two and over more nodes, GB/s: llMaxBws of NCCL's src/graph/tuning.cc for an
Intel host; AMD's are 22.5 and 19.0."""

TREE_CHANNEL_TWO_NODES_GBPS = (18.5, 23.6, 41.4, 42.8)
"""Most of a tree's channel over two nodes, GB/s, by generation as in `tuning`: perChMaxTreeBws of NCCL's
src/graph/tuning.cc, 2.28 and later."""

TREE_CHANNEL_MORE_NODES_GBPS = (10.0, 17.8, 36.0, 24.0)
"""The same over more than two nodes."""

TREE_LL128_TWO_NODES_GBPS = (20.0, 20.0, 36.7, 31.67)
"""The same with LL128 over two nodes: perChMaxTreeLL128Bws of NCCL's src/graph/tuning.cc."""

TREE_LL128_MORE_NODES_GBPS = (20.0, 20.0, 29.0, 20.0)
"""The same with LL128 over more than two nodes."""

TREE_LL128_NETWORK_SHARE = 120.0 / 128.0
"""What a tree between nodes keeps of its bandwidth with LL128: 120 of 128 bytes are payload (NCCL's
src/graph/tuning.cc)."""

CHANNELS_PER_RAIL = 2
"""Channels that go through one NIC. Assumed: NCCL finds one ring a NIC and doubles it (src/graph/connect.cc);
that it doubles once more where few rings are faster than 45 GB/s is left out."""

PLATEAU_BYTES, PLATEAU_FACTOR = 64, 1.4
"""Ring Simple pays its latency 1.4 times once every rank's channel has 64 bytes (ncclTopoGetAlgoTime of NCCL's
src/graph/tuning.cc, compute capability 8.0 and later)."""


def network_graph(interconnect: Interconnect, device: Device, minor: int) -> NcclGraph:
    """The rings over all rails: two channels a NIC, with what the slower of network and node carries."""
    across = _across(interconnect)
    channels = CHANNELS_PER_RAIL * across.num_rails
    bus, nvlink = across.network_bytes_per_s * 1e-9, False
    if across.node.num_devices > 1:
        inner = search_rings(across.node, device, minor)
        bus, nvlink = min(bus, inner.bus_gbps), inner.nvlink
    capability = COMPUTE_CAPABILITY.get(device.generation, OTHER_CAPABILITY)
    return NcclGraph(channels, bus / channels, channels, nvlink, capability)


def network_tuning_table(kind: CollectiveKind, interconnect: Interconnect, graph: NcclGraph) -> list[TuningEntry]:
    """The candidates that NCCL weighs between nodes: rings, and for an AllReduce double binary trees."""
    entries = _ring_entries(kind, interconnect, graph)
    if kind is CollectiveKind.ALL_REDUCE:
        entries += _tree_entries(interconnect, graph)
    return entries if graph.nvlink else [entry for entry in entries if entry.protocol != LL128]


def _ll_max_gbps(num_nodes: int) -> float:
    return LL_MAX_TWO_NODES_GBPS if num_nodes == 2 else LL_MAX_MORE_NODES_GBPS


def _ring_entries(kind: CollectiveKind, interconnect: Interconnect, graph: NcclGraph) -> list[TuningEntry]:
    n, num_nodes, bus = interconnect.num_devices, _across(interconnect).num_nodes, graph.bus_gbps
    index = generation_index(graph.compute_capability)
    bandwidth = {
        LL: min(_ll_max_gbps(num_nodes), bus * RING_LL_SHARE),
        LL128: min(LL128_RATE * bus, graph.channels * RING_LL128_CHANNEL_GBPS[index]),
        SIMPLE: bus,
    }
    steps, inter = num_steps(kind, n), num_steps(kind, num_nodes)
    per_byte = n if kind is CollectiveKind.BROADCAST else steps
    inside = STEP_LATENCY_US[graph.nvlink][RING]
    return [
        TuningEntry(
            RING,
            protocol,
            BASE_LATENCY_US[RING][protocol]
            + (steps - inter) * max(inside[protocol], NETWORK_OVERHEAD_US[protocol])
            + inter * NETWORK_STEP_US[RING][protocol],
            bandwidth[protocol] * n / per_byte,
        )
        for protocol in PROTOCOLS
    ]


def _tree_entries(interconnect: Interconnect, graph: NcclGraph) -> list[TuningEntry]:
    across, index = _across(interconnect), generation_index(graph.compute_capability)
    few = across.num_nodes == 2
    most = (TREE_CHANNEL_TWO_NODES_GBPS if few else TREE_CHANNEL_MORE_NODES_GBPS)[index]
    most_ll128 = (TREE_LL128_TWO_NODES_GBPS if few else TREE_LL128_MORE_NODES_GBPS)[index]
    bus = min(LL128_RATE * graph.bus_gbps, graph.channels * most)
    bandwidth = {
        LL: min(bus / TREE_LL_DIVISOR, _ll_max_gbps(across.num_nodes)),
        LL128: min(bus * TREE_LL128_NETWORK_SHARE, graph.channels * most_ll128),
        SIMPLE: bus,
    }
    inside = STEP_LATENCY_US[graph.nvlink][TREE]
    chain, depth = across.node.num_devices - 1, int(log2(across.num_nodes))
    return [
        TuningEntry(
            TREE,
            protocol,
            BASE_LATENCY_US[TREE][protocol] + 2 * (chain * inside[protocol] + depth * NETWORK_STEP_US[TREE][protocol]),
            0.5 * bandwidth[protocol],
        )
        for protocol in PROTOCOLS
    ]


def network_cost(
    kind: CollectiveKind,
    num_bytes: int,
    interconnect: Interconnect,
    device: Device,
    constants: CollectiveConstants,
    policy: CollectivePolicy,
) -> CollectiveCost:
    """A collective of a group that is spread evenly over several nodes.

    Raises:
        InputError: The policy forces what does not run between nodes.
    """
    graph = network_graph(interconnect, device, constants.nccl_minor_version)
    algorithm, protocol = _choice(kind, num_bytes, interconnect, graph, policy)
    if algorithm == HIERARCHICAL and _across(interconnect).node.num_devices > 1:
        # The phases inside are those of a group in its node, with as many channels; the NICs do not count them.
        graph = search_rings(_across(interconnect).node, device, constants.nccl_minor_version)
    most = graph.ctas if policy.channels is None else min(graph.ctas, policy.channels)
    counted = RING if algorithm in (HIERARCHICAL, SEND_RECV) else algorithm
    channels, parallelism = channel_count(num_bytes, counted, protocol, interconnect.num_devices, graph, most, kind)
    phases = phases_of(_across(interconnect), constants, protocol, parallelism)
    if algorithm == HIERARCHICAL:
        latency_s, transfer_s = hierarchical_all_reduce(num_bytes, phases)
    elif algorithm == TREE:
        latency_s, transfer_s = network_tree_all_reduce(num_bytes, phases)
    elif kind is CollectiveKind.SEND_RECV:
        latency_s, transfer_s = network_point_to_point(num_bytes, phases, interconnect.bandwidth_bytes_per_s)
    elif algorithm == SEND_RECV:
        latency_s, transfer_s = network_all_to_all(num_bytes, phases)
    else:
        latency_s, transfer_s = network_ring(kind, num_bytes, phases)
    n = interconnect.num_devices
    sent = ring_bytes(kind, n, num_bytes)
    accesses = ALL_REDUCE_HBM_ACCESSES if kind is CollectiveKind.ALL_REDUCE else REDUCE_SCATTER_HBM_ACCESSES
    return CollectiveCost(
        busy_s=latency_s + transfer_s,
        latency_s=latency_s,
        transfer_s=transfer_s,
        algorithm=algorithm,
        protocol=protocol,
        channels=channels,
        hbm_bytes=accesses * (n - 1) / n * num_bytes,
        link_bytes=sent,
        detail=f"{algorithm} {protocol} over {_across(interconnect).num_nodes} nodes, {channels} channels",
        line_bytes_per_s=sent / transfer_s / phases.network_efficiency,
    )


def _choice(
    kind: CollectiveKind, num_bytes: int, interconnect: Interconnect, graph: NcclGraph, policy: CollectivePolicy
) -> tuple[str, str]:
    """Algorithm and protocol: NCCL's, or the policy's."""
    table = network_tuning_table(kind, interconnect, graph)
    offered = sorted({entry.algorithm for entry in table})
    sends = kind in (CollectiveKind.ALL_TO_ALL, CollectiveKind.SEND_RECV)
    if sends:
        offered = [SEND_RECV]
    elif kind is CollectiveKind.ALL_REDUCE:
        offered.append(HIERARCHICAL)
    if policy.algorithm not in (None, *offered):
        message = f"{kind} between nodes runs as {' or '.join(offered)} here"
        raise InputError.single("runtime.collective.algorithm", message, policy.algorithm, f"algorithm: {offered[0]}")
    if policy.algorithm == HIERARCHICAL or sends:
        if policy.protocol not in (None, SIMPLE):
            message = "has only the simple protocol between nodes here"
            raise InputError.single("runtime.collective.protocol", message, policy.protocol, f"protocol: {SIMPLE}")
        return offered[-1], SIMPLE
    wanted = [
        entry
        for entry in table
        if policy.algorithm in (None, entry.algorithm) and policy.protocol in (None, entry.protocol)
    ]
    if not wanted:
        message = "LL128 needs NVLink within the nodes"
        raise InputError.single("runtime.collective.protocol", message, policy.protocol, f"protocol: {SIMPLE}")
    plateau = PLATEAU_BYTES * graph.channels * interconnect.num_devices
    late = kind is CollectiveKind.ALL_REDUCE and num_bytes >= plateau
    best = min(wanted, key=lambda entry: _time_us(entry, num_bytes, late=late))
    return best.algorithm, best.protocol


def _time_us(entry: TuningEntry, num_bytes: int, *, late: bool) -> float:
    """NCCL's estimate; `late` adds the plateau of an AllReduce by Ring Simple."""
    late = late and entry.algorithm == RING and entry.protocol == SIMPLE
    return entry.time_us(num_bytes) + (entry.latency_us * (PLATEAU_FACTOR - 1.0) if late else 0.0)


@dataclass(frozen=True, slots=True)
class Phases:
    """What a message meets inside a node of `num_local` GPUs and between `num_nodes` of them, for one protocol.

    `node_rate` is the payload that each GPU sends within its node, `network_rate` what leaves a node over all
    its rails, both in bytes/s; `network_efficiency` is payload over line rate there.
    """

    num_nodes: int
    num_local: int
    base_s: float
    node_step_s: float
    network_step_s: float
    tree_step_s: float
    node_rate: float
    network_rate: float
    network_efficiency: float

    @property
    def num_devices(self) -> int:
        """GPUs of the whole group."""
        return self.num_nodes * self.num_local


def phases_of(across: Across, constants: CollectiveConstants, protocol: str, parallelism: float) -> Phases:
    """The constants of a protocol on a group's links; a node of one GPU has only the network."""
    alone = across.node.num_devices == 1
    link_class = NETWORK if alone else LINK_CLASS[across.node.kind]
    flight_s = max(0.0, across.latency_s - constants.link_latency_s.get(NETWORK, 0.0))
    efficiency = link_value(constants, "link_efficiency", NETWORK, protocol)
    step_s = link_value(constants, "step_s", NETWORK, protocol)
    node_rate, node_step_s = inf, 0.0
    if not alone:
        link = line_rate_bytes_per_s(across.node, constants)
        link *= link_value(constants, "link_efficiency", link_class, protocol)
        channels = parallelism * link_value(constants, "channel_bytes_per_s", link_class, protocol)
        node_rate, node_step_s = soft_min(channels, link), link_value(constants, "step_s", link_class, protocol)
    return Phases(
        num_nodes=across.num_nodes,
        num_local=across.node.num_devices,
        base_s=link_value(constants, "base_s", link_class, protocol) + constants.nccl_call_s,
        node_step_s=node_step_s,
        network_step_s=step_s + flight_s,
        # A hop of a tree between nodes takes longer than one of a ring, by NCCL's own account.
        tree_step_s=step_s * NETWORK_STEP_US[TREE][protocol] / NETWORK_STEP_US[RING][protocol] + flight_s,
        node_rate=node_rate,
        network_rate=across.network_bytes_per_s * efficiency,
        network_efficiency=efficiency,
    )


def network_ring(kind: CollectiveKind, num_bytes: int, phases: Phases) -> tuple[float, float]:
    """Latency and transfer of rings through all GPUs; each node's NICs together carry what a hop carries.

    Of the steps of a ring of n GPUs on m nodes, m in n go through the network.
    """
    n = phases.num_devices
    steps, inter = num_steps(kind, n), num_steps(kind, phases.num_nodes)
    latency_s = phases.base_s + (steps - inter) * phases.node_step_s + inter * phases.network_step_s
    rate = min(phases.node_rate, phases.network_rate)
    return latency_s, ring_bytes(kind, n, num_bytes) / rate


def tree_network_bytes(num_nodes: int, num_bytes: float) -> float:
    """What a node's NICs send in NCCL's double binary tree, each half of the message on a tree of its own.

    An inner node of one tree is a leaf of the other: up S/2 twice, and down S/2 to each of two children; with
    two nodes either has only the other one: S.
    """
    return (2.0 if num_nodes > 2 else 1.0) * num_bytes


def network_tree_all_reduce(num_bytes: int, phases: Phases) -> tuple[float, float]:
    """Chains within the nodes, double binary trees between them: log2 of the nodes is the depth."""
    g, depth = phases.num_local, ceil(log2(phases.num_nodes))
    latency_s = phases.base_s + 2 * ((g - 1) * phases.node_step_s + depth * phases.tree_step_s)
    inside_s = 2.0 * num_bytes / phases.node_rate
    outside_s = tree_network_bytes(phases.num_nodes, num_bytes) / phases.network_rate
    return latency_s, max(inside_s, outside_s)


def hierarchical_all_reduce(num_bytes: int, phases: Phases) -> tuple[float, float]:
    """Reduce-scatter in the node, AllReduce of every GPU's share with its peers over its rail, all-gather.

    Between m nodes of g GPUs each rail moves 2(m-1)/m of S/g, as a ring or a tree, whichever has less latency;
    the three phases follow each other.
    """
    g, m = phases.num_local, phases.num_nodes
    inside = (g - 1) / g * num_bytes / phases.node_rate if g > 1 else 0.0
    outside = 2.0 * (m - 1) / m * num_bytes / phases.network_rate
    inter_steps = 2 * min(m - 1, ceil(log2(m)))
    latency_s = phases.base_s + 2 * (g - 1) * phases.node_step_s + inter_steps * phases.network_step_s
    return latency_s, 2.0 * inside + outside


def network_all_to_all(num_bytes: int, phases: Phases) -> tuple[float, float]:
    """Sends and receives: of a GPU's n shares g-1 stay in the node and n-g leave it, at the same time."""
    n, g = phases.num_devices, phases.num_local
    inside_s = (g - 1) / n * num_bytes / phases.node_rate
    outside_s = g * (n - g) / n * num_bytes / phases.network_rate
    return phases.base_s + phases.node_step_s + phases.network_step_s, max(inside_s, outside_s)


def network_point_to_point(num_bytes: int, phases: Phases, line_bytes_per_s: float) -> tuple[float, float]:
    """Sends to the next rank: all ways at once, so the slowest sets the time, and `line_bytes_per_s` is its."""
    rate = min(phases.node_rate, line_bytes_per_s * phases.network_efficiency)
    return phases.base_s + phases.network_step_s, num_bytes / rate


def _across(interconnect: Interconnect) -> Across:
    assert interconnect.across is not None, "only groups that are spread over nodes come here"
    return interconnect.across
