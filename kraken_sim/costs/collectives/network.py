"""How long collectives over several nodes take: rings and trees through the NICs, and a hierarchy of three phases.

NCCL closes one ring or tree for each channel through a NIC of its own ("rail"), so a group's rings together have
what the NICs of a node send, or what the node's own links carry, whichever is less. The times use the profile's
constants, those of the network being NCCL's own estimates where nothing was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, log2
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.constants import LINK_CLASS, interpolate_knots, link_value
from kraken_sim.costs.collectives.graph import search_rings
from kraken_sim.costs.collectives.kinds import num_steps, ring_bytes
from kraken_sim.costs.collectives.nccl import (
    ALL_REDUCE_HBM_ACCESSES,
    REDUCE_SCATTER_HBM_ACCESSES,
    line_rate_bytes_per_s,
    soft_min,
)
from kraken_sim.costs.collectives.network_tuning import (
    NETWORK_STEP_US,
    across_of,
    network_choice,
    network_graph,
    simple_only,
    smooth_tree_correction,
    tree_channel_bytes_per_s,
)
from kraken_sim.costs.collectives.tuning import (
    HIERARCHICAL,
    RING,
    SEND_RECV,
    SIMPLE,
    TREE,
    channel_count,
)
from kraken_sim.costs.types import CollectiveCost
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from kraken_sim.costs.collectives.call import CollectiveCall
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.collectives.graph import NcclGraph
    from kraken_sim.hardware.interconnect import Across

NETWORK = "network"


def network_ring_cost(call: CollectiveCall) -> CollectiveCost:
    """Rings through all GPUs, one a rail and direction.

    Raises:
        InputError: The policy forces a protocol that does not run here.
    """
    phases, ran = _prepare(call, RING, network_choice(call, RING)[1])
    return _cost(call, ran, phases, *network_ring(call.kind, call.num_bytes, phases))


def network_tree_cost(call: CollectiveCall) -> CollectiveCost:
    """NCCL's double binary trees; raises as `network_ring_cost`.

    Messages of medium size keep a tree's chunks waiting for each other; how much NCCL itself has measured.
    """
    phases, ran = _prepare(call, TREE, network_choice(call, TREE)[1])
    latency_s, transfer_s = network_tree_all_reduce(call.num_bytes, phases)
    return _cost(call, ran, phases, latency_s, transfer_s / smooth_tree_correction(ran.protocol, call.num_bytes))


def hierarchical_cost(call: CollectiveCall) -> CollectiveCost:
    """Reduce-scatter, AllReduce between nodes, all-gather; raises as `network_ring_cost`."""
    protocol, across = simple_only(call), across_of(call.interconnect)
    graph = None
    if across.node.num_devices > 1:
        # The phases inside are those of a group in its node, with as many channels; the NICs do not count them.
        graph = search_rings(across.node, call.device, call.constants.nccl_minor_version)
    phases, ran = _prepare(call, HIERARCHICAL, protocol, graph)
    return _cost(call, ran, phases, *hierarchical_all_reduce(call.num_bytes, phases))


def network_send_recv_cost(call: CollectiveCall) -> CollectiveCost:
    """Sends and receives between all pairs of an AllToAll, or to the next rank; raises as `network_ring_cost`."""
    phases, ran = _prepare(call, SEND_RECV, simple_only(call))
    if call.kind is CollectiveKind.SEND_RECV:
        times = network_point_to_point(call.num_bytes, phases, call.interconnect.bandwidth_bytes_per_s)
    else:
        times = network_all_to_all(call.num_bytes, phases)
    return _cost(call, ran, phases, *times)


@dataclass(frozen=True, slots=True)
class _Ran:
    """The kernel that runs."""

    algorithm: str
    protocol: str
    channels: int


def _prepare(
    call: CollectiveCall, algorithm: str, protocol: str, graph: NcclGraph | None = None
) -> tuple[Phases, _Ran]:
    """The phases of a call and its kernel; channels are counted on `graph`, else on that of the whole group."""
    constants, policy = call.constants, call.policy
    minor = constants.nccl_minor_version
    graph = graph or network_graph(call.interconnect, call.device, minor)
    most = graph.ctas if policy.channels is None else min(graph.ctas, policy.channels)
    counted = TREE if algorithm == TREE else RING
    channels, parallelism = channel_count(
        call.num_bytes, counted, protocol, call.interconnect.num_devices, graph, most, minor, call.kind
    )
    across = across_of(call.interconnect)
    least = 0.0
    if algorithm == TREE:
        least = tree_channel_bytes_per_s(across, call.device, protocol)
    elif algorithm == RING and protocol == SIMPLE:
        # Two channels fill a rail, as NCCL's search has it; fits within a node, of more channels, tell no rate of one.
        least = graph.bandwidth_gbps * 1e9
    phases = phases_of(across, constants, protocol, parallelism, call.num_bytes, least)
    return phases, _Ran(algorithm, protocol, channels)


def _cost(call: CollectiveCall, ran: _Ran, phases: Phases, latency_s: float, transfer_s: float) -> CollectiveCost:
    n = call.interconnect.num_devices
    sent = ring_bytes(call.kind, n, call.num_bytes)
    accesses = ALL_REDUCE_HBM_ACCESSES if call.kind is CollectiveKind.ALL_REDUCE else REDUCE_SCATTER_HBM_ACCESSES
    return CollectiveCost(
        busy_s=latency_s + transfer_s,
        latency_s=latency_s,
        transfer_s=transfer_s,
        algorithm=ran.algorithm,
        protocol=ran.protocol,
        channels=ran.channels,
        hbm_bytes=accesses * (n - 1) / n * call.num_bytes,
        link_bytes=sent,
        detail=f"{ran.algorithm} {ran.protocol} over {phases.num_nodes} nodes, {ran.channels} channels",
        line_bytes_per_s=sent / transfer_s / phases.network_efficiency,
    )


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


def phases_of(
    across: Across,
    constants: CollectiveConstants,
    protocol: str,
    parallelism: float,
    num_bytes: int,
    least_channel_bytes_per_s: float = 0.0,
) -> Phases:
    """The constants of a protocol on a group's links; a node of one GPU has only the network.

    A channel is no slower than `least_channel_bytes_per_s`.
    """
    alone = across.node.num_devices == 1
    link_class = NETWORK if alone else LINK_CLASS[across.node.kind]
    flight_s = max(0.0, across.latency_s - constants.link_latency_s.get(NETWORK, 0.0))
    efficiency = link_value(constants, "link_efficiency", NETWORK, protocol)
    step_s = link_value(constants, "step_s", NETWORK, protocol)
    node_rate, node_step_s = inf, 0.0
    if not alone:
        link = line_rate_bytes_per_s(across.node, constants)
        link *= link_value(constants, "link_efficiency", link_class, protocol)
        link /= interpolate_knots(constants.link_correction.get(protocol, {}), log2(num_bytes))
        channel = link_value(constants, "channel_bytes_per_s", link_class, protocol)
        channels = parallelism * max(channel, least_channel_bytes_per_s)
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
