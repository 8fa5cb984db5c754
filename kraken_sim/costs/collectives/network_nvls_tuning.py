"""When NCCL picks NVLSTree for an AllReduce over several nodes: its estimate of latency and bandwidth, by version.

Source: NVIDIA/nccl src/graph/tuning.cc (ncclTopoTuneModel with nNodes > 1). Latencies in us and bandwidths in GB/s,
as there.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.graph import COMPUTE_CAPABILITY, OTHER_CAPABILITY, nvls_channel_gbps
from kraken_sim.costs.collectives.tuning import (
    NVLS_EFFICIENCY,
    NVLS_LATENCY_US,
    NVLS_SHARE_2_27,
    NVLS_TREE,
    SIMPLE,
    TuningEntry,
    generation_index,
)
from kraken_sim.hardware.interconnect import InterconnectKind

if TYPE_CHECKING:
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Across, Interconnect

NVLS_TREE_STEP_US = 20.9
"""Latency of a step through the network, us: hwLat of NCCL's src/graph/tuning.cc, NET, from 2.28.7 on."""

NVLS_TREE_STEP_US_2_27 = 14.0
"""The step of NVLSTree up to NCCL 2.28.3 (src/graph/tuning.cc)."""

NVLS_TREE_CHANNEL_TWO_NODES_GBPS, NVLS_TREE_CHANNEL_MORE_NODES_GBPS = (
    (18.5, 23.6, 57.7, 96.0),
    (10.0, 17.8, 45.5, 80.0),
)
"""Most of an NVLSTree's channel over two and over more nodes, GB/s, by generation: perChMaxNVLSTreeBws of NCCL's
src/graph/tuning.cc, 2.28 and later."""

CORRECTED_NVLS_TREE_MINOR, CORRECTED_NVLS_TREE_CAPABILITY = 29, 100
"""From which NCCL and compute capability on NVLSTree has a tree's corrections by size on x86 (ncclTopoGetAlgoTime of
NCCL's src/graph/tuning.cc); on ARM it has none, which is left out."""

SIMPLE_LATENCY_FACTOR = 2.0
"""How often a Simple step counts what a network's own latency is beyond NCCL's table: once more for the flush
(ncclTopoTuneModel of NCCL's src/graph/tuning.cc)."""


def nvls_tree_problem(interconnect: Interconnect, device: Device, minor: int) -> str | None:
    """Why there is no NVLSTree between these nodes; None where there is."""
    if interconnect.across is None:
        return "NVLSTree needs as many GPUs on every node"
    node = interconnect.across.node
    index = generation_index(COMPUTE_CAPABILITY.get(device.generation, OTHER_CAPABILITY))
    if node.kind is not InterconnectKind.NVSWITCH or NVLS_EFFICIENCY[index] == 0.0:
        return "NVLSTree needs nodes with NVSwitch and GPUs from Hopper on"
    if node.num_devices < 3 and minor < 28:
        return f"NCCL 2.{minor} has no NVLS for 2 GPUs of a node (2.28 and later do)"
    return None


def nvls_tree_entry(
    interconnect: Interconnect, across: Across, device: Device, minor: int, flight_us: float
) -> TuningEntry:
    """NVLS in the nodes, a channel for each GPU of a node, and double binary trees between them."""
    capability = COMPUTE_CAPABILITY.get(device.generation, OTHER_CAPABILITY)
    index, heads, few = generation_index(capability), across.node.num_devices, across.num_nodes == 2
    inside = nvls_channel_gbps(across.node, device, minor)
    outside = across.network_bytes_per_s * 1e-9 / heads
    if minor >= 28:
        most = (NVLS_TREE_CHANNEL_TWO_NODES_GBPS if few else NVLS_TREE_CHANNEL_MORE_NODES_GBPS)[index]
        usable = inside * NVLS_EFFICIENCY[index] * (heads - 1) / heads * 2.0
        n = interconnect.num_devices
        bandwidth = heads * min(usable, outside * (2.0 if few else 1.0), most) * n / (2.0 * (n - 1))
    else:
        bandwidth = heads * min(inside, outside if few else outside / 2.0) * NVLS_SHARE_2_27
    step = (NVLS_TREE_STEP_US if minor >= 28 else NVLS_TREE_STEP_US_2_27) + SIMPLE_LATENCY_FACTOR * flight_us
    corrected = minor >= CORRECTED_NVLS_TREE_MINOR and capability >= CORRECTED_NVLS_TREE_CAPABILITY
    latency = NVLS_LATENCY_US + 2 * int(log2(across.num_nodes)) * step
    return TuningEntry(NVLS_TREE, SIMPLE, latency, bandwidth, corrected)
