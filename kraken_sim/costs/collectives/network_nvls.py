"""How long NVLSTree takes: the NVSwitches add and multicast in every node, the GPUs' NICs run double binary trees."""

from __future__ import annotations

from math import ceil, log2
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.constants import link_value
from kraken_sim.costs.collectives.graph import nvls_ctas, search_rings
from kraken_sim.costs.collectives.nccl import soft_min, wire
from kraken_sim.costs.collectives.network import NETWORK, tree_network_bytes
from kraken_sim.costs.collectives.network_nvls_tuning import NVLS_TREE_STEP_US, nvls_tree_problem
from kraken_sim.costs.collectives.network_tuning import (
    NETWORK_STEP_US,
    across_of,
    network_flight_s,
    simple_only,
)
from kraken_sim.costs.collectives.tuning import NVLS, NVLS_TREE, RING, SIMPLE, NcclChoice, channel_count
from kraken_sim.costs.types import CollectiveCost

if TYPE_CHECKING:
    from kraken_sim.costs.collectives.call import CollectiveCall

CHUNK_BYTES, CHUNK_BYTES_FROM_FOUR_NODES = 131072, 65536
"""What a channel sends at once for a GPU of the node: NCCL_NVLS_CHUNKSIZE of NCCL's src/transport/nvls.cc, and the
NCCL_NVLSTREE_MAX_CHUNKSIZE of calcCollChunking in its src/enqueue.cc from four nodes on."""

SMALLER_CHUNKS = ((4, 65536), (1, 32768))
"""Below how many rounds of all channels a chunk is at most how large, bytes (calcCollChunking of NCCL's
src/enqueue.cc)."""


def network_nvls_tree_cost(call: CollectiveCall) -> CollectiveCost:
    """NVLSTree over several nodes.

    Switches and NICs work at once on different chunks, so the slower of them sets the pace; a chunk's way up and down
    the tree, one NIC after the other, comes on top, for the first of them.

    Raises:
        InputError: The policy forces another protocol than Simple.
    """
    simple_only(call)
    across, constants = across_of(call.interconnect), call.constants
    node, num_bytes, minor = across.node, call.num_bytes, constants.nccl_minor_version
    most = nvls_ctas(call.device, several_nodes=True)
    most = most if call.policy.channels is None else min(most, call.policy.channels)
    graph = search_rings(node, call.device, minor)
    channels, parallelism = channel_count(num_bytes, NVLS, SIMPLE, node.num_devices, graph, most, minor, call.kind)
    choice = NcclChoice(NVLS, SIMPLE, channels, parallelism)
    switch = wire(num_bytes, choice, NVLS, node, constants)
    efficiency = link_value(constants, "link_efficiency", NETWORK, SIMPLE)
    inside_s = (node.num_devices + 1.0) / node.num_devices * num_bytes / switch.rate_bytes_per_s
    outside_s = tree_network_bytes(across.num_nodes, num_bytes) / (across.network_bytes_per_s * efficiency)
    hops = 2 * ceil(log2(across.num_nodes))
    fill_s = hops * outside_s / num_rounds(num_bytes, channels, node.num_devices, across.num_nodes)
    latency_s = switch.base_s + node.num_devices * switch.step_s + hops * _step_s(call)
    transfer_s = 1.0 / soft_min(1.0 / inside_s, 1.0 / outside_s) + fill_s
    sent = (node.num_devices + 1.0) / node.num_devices * num_bytes
    return CollectiveCost(
        busy_s=latency_s + transfer_s,
        latency_s=latency_s,
        transfer_s=transfer_s,
        algorithm=NVLS_TREE,
        protocol=SIMPLE,
        channels=channels,
        hbm_bytes=2.0 * num_bytes,
        link_bytes=sent,
        detail=f"NVLSTree over {across.num_nodes} nodes, {channels} channels",
        line_bytes_per_s=sent / transfer_s,
    )


def _step_s(call: CollectiveCall) -> float:
    """A hop from node to node: that of a ring, as much longer as NCCL believes, and the longer flight."""
    ring = link_value(call.constants, "step_s", NETWORK, SIMPLE)
    return ring * NVLS_TREE_STEP_US / NETWORK_STEP_US[RING][SIMPLE] + network_flight_s(call)


def num_rounds(num_bytes: int, channels: int, num_local: int, num_nodes: int) -> int:
    """How many chunks one after the other make the message: each channel has one for every GPU of the node."""
    chunk, at_once = CHUNK_BYTES if num_nodes < 4 else CHUNK_BYTES_FROM_FOUR_NODES, channels * num_local
    for rounds, smaller in SMALLER_CHUNKS:
        if num_bytes < rounds * at_once * chunk:
            chunk = min(chunk, smaller)
    return max(1, -(-num_bytes // (at_once * chunk)))


def network_nvls_tree_problem(call: CollectiveCall) -> str | None:
    """NVLSTree needs switches that add in every node, switched on, and constants for them."""
    problem = nvls_tree_problem(call.interconnect, call.device, call.constants.nccl_minor_version)
    if problem is not None:
        return problem
    if not call.constants.nvls_enabled:
        return "NVLS is switched off on this machine (collectives.nvls_enabled is 0)"
    if NVLS not in call.constants.base_s.get("nvlink", {}):
        return "the profile has no constants for NVLS (collectives.base_s.nvlink.nvls)"
    return None
