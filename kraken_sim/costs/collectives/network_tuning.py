"""What NCCL picks for a group on several nodes: rings and double binary trees through the NICs.

Source: NVIDIA/nccl src/graph/tuning.cc (ncclTopoTuneModel with nNodes > 1). Latencies in us and bandwidths in GB/s,
as there. Not here: CollNet, which needs the SHARP plugin, and PAT, which is for nodes of one GPU.
"""

from __future__ import annotations

from dataclasses import replace
from math import log2
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.constants import LINK_CLASS
from kraken_sim.costs.collectives.graph import (
    COMPUTE_CAPABILITY,
    OTHER_CAPABILITY,
    NcclGraph,
    max_channels,
    search_rings,
)
from kraken_sim.costs.collectives.kinds import num_steps
from kraken_sim.costs.collectives.network_nvls_tuning import (
    SIMPLE_LATENCY_FACTOR,
    nvls_tree_entry,
    nvls_tree_problem,
)
from kraken_sim.costs.collectives.tuning import (
    BASE_LATENCY_US,
    LL,
    LL128,
    LL128_RATE,
    NVLS,
    NVLS_TREE,
    PROTOCOLS,
    RING,
    RING_LL128_CHANNEL_GBPS,
    RING_LL_SHARE,
    SIMPLE,
    STEP_LATENCY_US,
    TREE,
    TREE_CORRECTION,
    TREE_LL_DIVISOR,
    TuningEntry,
    generation_index,
)
from kraken_sim.errors import InputError
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.collectives.call import CollectiveCall
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Across, Interconnect
    from kraken_sim.program.many import Sizes


NETWORK_STEP_US: Mapping[str, Mapping[str, float]] = {
    TREE: {LL: 5.0, LL128: 8.5, SIMPLE: 14.0},
    RING: {LL: 2.7, LL128: 4.0, SIMPLE: 14.0},
}
"""Latency of a step through the network, us: hwLat of NCCL's src/graph/tuning.cc, NET."""

TREE_INSIDE_FACTOR = 2.0
"""How much faster a tree's channel may be within the nodes than through the NIC, which carries the message once and
not twice on two nodes (ncclTopoCompute of NCCL's src/graph/search.cc, pass 2)."""

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
    across = across_of(interconnect)
    channels = min(CHANNELS_PER_RAIL * across.num_rails, max_channels(minor))
    bus, nvlink = across.network_bytes_per_s * 1e-9, False
    if across.node.num_devices > 1:
        inner = search_rings(across.node, device, minor)
        bus, nvlink = min(bus, inner.bus_gbps), inner.nvlink
    capability = COMPUTE_CAPABILITY.get(device.generation, OTHER_CAPABILITY)
    return NcclGraph(channels, bus / channels, channels, nvlink, capability)


def tree_graph(interconnect: Interconnect, device: Device, minor: int, graph: NcclGraph) -> NcclGraph:
    """The channels of a tree: on two nodes they may be twice as fast within the nodes as through the NICs."""
    across = across_of(interconnect)
    if across.num_nodes > 2 or across.node.num_devices == 1:
        return graph
    inner = search_rings(across.node, device, minor)
    bus = min(inner.bus_gbps, TREE_INSIDE_FACTOR * across.network_bytes_per_s * 1e-9)
    return replace(graph, bandwidth_gbps=bus / graph.channels)


def network_tuning_table(
    kind: CollectiveKind,
    interconnect: Interconnect,
    device: Device,
    minor: int,
    *,
    nvls: bool = True,
    flight_us: float = 0.0,
) -> list[TuningEntry]:
    """The candidates that NCCL weighs between nodes: rings, and for an AllReduce double binary trees and NVLSTree.

    `flight_us` is the latency that the network's plugin reports, beyond that of NCCL's table.
    """
    graph = network_graph(interconnect, device, minor)
    entries = _ring_entries(kind, interconnect, graph, flight_us)
    if kind is CollectiveKind.ALL_REDUCE:
        entries += _tree_entries(interconnect, tree_graph(interconnect, device, minor, graph), flight_us)
    if not graph.nvlink:
        return [entry for entry in entries if entry.protocol != LL128]
    if kind is not CollectiveKind.ALL_REDUCE or not nvls or nvls_tree_problem(interconnect, device, minor):
        return entries
    return [*entries, nvls_tree_entry(interconnect, across_of(interconnect), device, minor, flight_us)]


def tree_channel_bytes_per_s(across: Across, device: Device, protocol: str) -> float:
    """What a tree's channel sends within a node at least, by NCCL's own account: up and down at once.

    The rates of the profiles are those of rings; LL has none of its own here.
    """
    index = generation_index(COMPUTE_CAPABILITY.get(device.generation, OTHER_CAPABILITY))
    few = across.num_nodes == 2
    if protocol == SIMPLE:
        return (TREE_CHANNEL_TWO_NODES_GBPS if few else TREE_CHANNEL_MORE_NODES_GBPS)[index] * 1e9
    if protocol == LL128:
        return (TREE_LL128_TWO_NODES_GBPS if few else TREE_LL128_MORE_NODES_GBPS)[index] * 1e9
    return 0.0


TREE_CORRECTION_FROM_BYTES = 64
"""Size of the first factor of `TREE_CORRECTION`, bytes (ncclTopoGetAlgoTime of NCCL's src/graph/tuning.cc)."""


def smooth_tree_correction(protocol: str, num_bytes: float) -> float:
    """What medium sizes leave of a tree's bandwidth: NCCL's factors, on a line between the sizes that they are for.

    So time grows with size; 1 beyond the last.
    """
    factors = (*TREE_CORRECTION[protocol], 1.0)
    place = max(0.0, log2(max(num_bytes, 1.0) / TREE_CORRECTION_FROM_BYTES))
    index = min(int(place), len(factors) - 1)
    after = factors[min(index + 1, len(factors) - 1)]
    return factors[index] + (after - factors[index]) * min(1.0, place - index)


def _ll_max_gbps(num_nodes: int) -> float:
    return LL_MAX_TWO_NODES_GBPS if num_nodes == 2 else LL_MAX_MORE_NODES_GBPS


def _network_step_us(algorithm: str, protocol: str, flight_us: float) -> float:
    times = SIMPLE_LATENCY_FACTOR if protocol == SIMPLE else 1.0
    return NETWORK_STEP_US[algorithm][protocol] + times * flight_us


def _ring_entries(
    kind: CollectiveKind, interconnect: Interconnect, graph: NcclGraph, flight_us: float
) -> list[TuningEntry]:
    n, num_nodes, bus = interconnect.num_devices, across_of(interconnect).num_nodes, graph.bus_gbps
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
            + inter * _network_step_us(RING, protocol, flight_us),
            bandwidth[protocol] * n / per_byte,
        )
        for protocol in PROTOCOLS
    ]


def _tree_entries(interconnect: Interconnect, graph: NcclGraph, flight_us: float) -> list[TuningEntry]:
    across, index = across_of(interconnect), generation_index(graph.compute_capability)
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
            BASE_LATENCY_US[TREE][protocol]
            + 2 * (chain * inside[protocol] + depth * _network_step_us(TREE, protocol, flight_us)),
            0.5 * bandwidth[protocol],
        )
        for protocol in PROTOCOLS
    ]


def network_choice(call: CollectiveCall, algorithm: str | None = None) -> tuple[str, str]:
    """Algorithm and protocol: NCCL's, with the algorithm and the policy's protocol if these are given.

    Raises:
        InputError: The protocol does not run here.
    """
    constants, minor = call.constants, call.constants.nccl_minor_version
    graph = network_graph(call.interconnect, call.device, minor)
    table = network_tuning_table(
        call.kind,
        call.interconnect,
        call.device,
        minor,
        nvls=bool(constants.nvls_enabled) and NVLS in constants.base_s.get("nvlink", {}),
        flight_us=network_flight_s(call) * 1e6,
    )
    wanted = [
        entry
        for entry in table
        if algorithm in (None, entry.algorithm) and call.policy.protocol in (None, entry.protocol)
    ]
    if not wanted:
        message = "LL128 needs NVLink within the nodes"
        if algorithm == NVLS_TREE:
            message = "NVLSTree has only the simple protocol"
        raise InputError.single("runtime.collective.protocol", message, call.policy.protocol, f"protocol: {SIMPLE}")
    plateau = PLATEAU_BYTES * graph.channels * call.interconnect.num_devices
    late = call.kind is CollectiveKind.ALL_REDUCE and call.num_bytes >= plateau
    best = min(wanted, key=lambda entry: _time_us(entry, call.num_bytes, late=late))
    return best.algorithm, best.protocol


def network_flight_s(call: CollectiveCall) -> float:
    """Time of flight between nodes beyond what a step of the constants contains."""
    contained = call.constants.link_latency_s.get(LINK_CLASS[InterconnectKind.NETWORK], 0.0)
    return max(0.0, across_of(call.interconnect).latency_s - contained)


def simple_only(call: CollectiveCall) -> str:
    """The protocol of what NCCL's model does not have between nodes.

    Raises:
        InputError: The policy forces another.
    """
    if call.policy.protocol not in (None, SIMPLE):
        message = "has only the simple protocol between nodes here"
        raise InputError.single("runtime.collective.protocol", message, call.policy.protocol, f"protocol: {SIMPLE}")
    return SIMPLE


def across_of(interconnect: Interconnect) -> Across:
    """How a group that is spread evenly over several nodes is spread."""
    assert interconnect.across is not None, "only groups that are spread evenly over nodes come here"
    return interconnect.across


def _time_us(entry: TuningEntry, num_bytes: Sizes, *, late: bool) -> Sizes:
    """NCCL's estimate; `late` adds the plateau of an AllReduce by Ring Simple."""
    late = late and entry.algorithm == RING and entry.protocol == SIMPLE
    return entry.time_us(num_bytes) + (entry.latency_us * (PLATEAU_FACTOR - 1.0) if late else 0.0)
