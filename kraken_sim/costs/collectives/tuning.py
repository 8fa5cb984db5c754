"""NCCL's own tuning model: which algorithm, protocol and how many channels it picks for a message.

This says what NCCL chooses, not how long it takes: `nccl` holds the performance model. Source: NVIDIA/nccl
src/graph/tuning.cc (ncclTopoTuneModel, ncclTopoGetAlgoTime), src/enqueue.cc (topoGetAlgoInfo,
scheduleCollTasksToPlan), one node; several nodes are in `network`. Latencies in us and bandwidths in GB/s,
as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kraken_sim.costs.collectives.graph import nvls_channel_gbps, nvls_switch_gbps, search_rings
from kraken_sim.costs.collectives.kinds import num_steps
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.program.many import bit_length, is_many, maths_for
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.collectives.graph import NcclGraph
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.program.many import Sizes

RING, TREE, NVLS, NVLS_TREE = "ring", "tree", "nvls", "nvls_tree"
LL, LL128, SIMPLE = "ll", "ll128", "simple"
SEND_RECV, HIERARCHICAL = "send_recv", "hierarchical"
PROTOCOLS = (LL, LL128, SIMPLE)

BASE_LATENCY_US: Mapping[str, Mapping[str, float]] = {
    TREE: {LL: 6.8, LL128: 14.0, SIMPLE: 8.4},
    RING: {LL: 6.6, LL128: 14.0, SIMPLE: 8.4},
}
"""Start-up of an algorithm and protocol, us: baseLat of NCCL's src/graph/tuning.cc."""

STEP_LATENCY_US: Mapping[bool, Mapping[str, Mapping[str, float]]] = {
    True: {TREE: {LL: 0.6, LL128: 1.25, SIMPLE: 4.0}, RING: {LL: 0.6, LL128: 1.9, SIMPLE: 3.4}},
    False: {TREE: {LL: 1.0, LL128: 1.9, SIMPLE: 4.0}, RING: {LL: 1.0, LL128: 2.5, SIMPLE: 5.7}},
}
"""Latency of a step over NVLink (True) and PCIe, us: hwLat of NCCL's src/graph/tuning.cc."""

TREE_SIMPLE_STEP_US_2_22 = 28.0
"""Step of Tree Simple up to NCCL 2.22, which had no start-up for it (baseLat 0; src/graph/tuning.cc)."""

NVLS_LATENCY_US = 25.0
"""Latency of an NVLS AllReduce, whatever the number of GPUs: hwLat of NCCL's src/graph/tuning.cc from 2.21 on."""

NVLS_LATENCY_US_2_19 = 23.0
"""The same in NCCL 2.19 and 2.20 (src/graph/tuning.cc)."""

LL_MAX_GBPS = (39.0, 87.7, 141.0, 282.0)
"""Most that LL is believed to reach in one node, GB/s, by generation {Volta, Ampere, Hopper, Blackwell}: llMaxBws of
NCCL's src/graph/tuning.cc. Up to 2.20 Hopper had Ampere's."""

RING_LL128_CHANNEL_GBPS = (20.0, 20.0, 36.7, 40.0)
"""Most of a ring's channel with LL128, by generation: perChMaxRingLL128Bws of NCCL's src/graph/tuning.cc, 2.29.7 and
later."""

RING_LL128_BLACKWELL_GBPS_2_28 = 73.4
"""The same of Blackwell up to NCCL 2.28: twice Hopper's (src/graph/tuning.cc)."""

TREE_LL128_CHANNEL_GBPS = (20.0, 20.0, 36.7, 55.6)
"""Most of a tree's channel with LL128 in one node: perChMaxTreeLL128Bws of NCCL's src/graph/tuning.cc."""

TREE_CHANNEL_GBPS = (26.5, 24.0, 38.7, 70.0)
"""Most of a tree's channel in one node: perChMaxTreeBws of NCCL's src/graph/tuning.cc."""

NVLS_EFFICIENCY = (0.0, 0.0, 0.85, 0.74)
"""What NVLS keeps of its channels' bandwidth, by generation: nvlsEfficiency of NCCL's src/graph/tuning.cc from 2.28
on."""

NVLS_SHARE_2_27 = 5.0 / 6.0
"""The same up to 2.27, of whatever generation: 5 / 6 in ncclTopoTuneModel of NCCL's src/graph/tuning.cc."""

LL128_RATE = 0.92
"""What LL128 leaves of a bandwidth, and a tree of its ring's: 0.92 in ncclTopoTuneModel of NCCL's src/graph/tuning.cc,
about 120 of 128 bytes."""

RING_LL_SHARE = 0.5
"""What LL leaves of a ring's bandwidth, a flag for every datum: ncclTopoTuneModel of NCCL's src/graph/tuning.cc from
2.21 on."""

RING_LL_SHARE_2_20, RING_LL_SHARE_2_20_OTHERS = 0.25, 1.0 / 3.0
"""The same up to 2.20 for an AllReduce, and for AllGather, ReduceScatter and Broadcast (NCCL's src/graph/tuning.cc)."""

TREE_LL_DIVISOR = 3.8
"""A tree's bandwidth over the same with LL: ncclTopoTuneModel of NCCL's src/graph/tuning.cc."""

TREE_LL128_SHARE = 7.0 / 9.0
"""What LL128 leaves of a tree's bandwidth in one node: ncclTopoTuneModel of NCCL's src/graph/tuning.cc."""

TREE_CORRECTION: Mapping[str, tuple[float, ...]] = {
    LL: (
        *(1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5),
        *(0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0, 1.0),
    ),
    LL128: (
        *(1.0, 1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6),
        *(0.6, 0.6, 0.6, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9, 1.0, 1.0),
    ),
    SIMPLE: (
        *(0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5),
        *(0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8, 0.9, 0.9),
    ),
}
"""Factors on a tree's bandwidth by log2(bytes / 64): treeCorrectionFactor of NCCL's src/graph/tuning.cc."""

MIN_TRAFFIC_PER_CHANNEL = ((29, 32 * 1024), (23, 16 * 1024), (22, 512))
"""From which minor version of NCCL on a channel has at least how much traffic, bytes: MinTrafficPerChannel of
scheduleCollTasksToPlan in its src/enqueue.cc. Earlier versions have no such rule."""

MAX_THREADS: Mapping[str, int] = {LL: 512, LL128: 640, SIMPLE: 512}
"""Threads of a CTA by protocol: NCCL_LL_MAX_NTHREADS, NCCL_LL128_MAX_NTHREADS and NCCL_SIMPLE_MAX_NTHREADS of NCCL's
src/include/device.h."""

THREAD_THRESHOLD: Mapping[str, int] = {LL: 8, LL128: 8, SIMPLE: 64}
"""Least bytes of a thread by protocol, times the ranks for Ring LL: NCCL_LL_THREAD_THRESHOLD and the like of NCCL's
src/include/comm.h."""

PCI_WIDTH_GBPS = 12.0
"""Bandwidth up to which Simple has fewer threads: PCI_BW of NCCL's src/graph/topo.h, 16 lanes of PCIe 3."""

PCI_SIMPLE_THREADS = 256
"""Threads of a CTA with Simple up to there: ncclTopoTuneModel of NCCL's src/graph/tuning.cc."""


@dataclass(frozen=True, slots=True)
class TuningEntry:
    """One row of NCCL's tuning log: a candidate with its modelled latency and algorithm bandwidth.

    `corrected` marks another than a tree whose bandwidth NCCL corrects by size as a tree's.
    """

    algorithm: str
    protocol: str
    latency_us: float
    bandwidth_gbps: float
    corrected: bool = False

    def time_us(self, num_bytes: Sizes) -> Sizes:
        """NCCL's estimate for a message (ncclTopoGetAlgoTime)."""
        bandwidth = self.bandwidth_gbps
        if self.algorithm == TREE or self.corrected:
            bandwidth *= _tree_correction(self.protocol, bit_length(num_bytes >> 6) - 1)
        return self.latency_us + num_bytes / (1000.0 * bandwidth)


def _tree_correction(protocol: str, index: Sizes) -> Sizes:
    """The factor of that number; 1 where there is none."""
    factors = TREE_CORRECTION[protocol]
    if is_many(index):
        return np.array((*factors, 1.0))[np.where((index >= 0) & (index < len(factors)), index, -1)]
    return factors[index] if 0 <= index < len(factors) else 1.0


@dataclass(frozen=True, slots=True)
class NcclChoice:
    """What NCCL runs: `channels` CTAs; `parallelism` is the message over the part of the busiest of them."""

    algorithm: str
    protocol: str
    channels: Sizes
    parallelism: Sizes


def generation_index(compute_capability: int) -> int:
    """Row of NCCL's tables: Volta, Ampere, Hopper, Blackwell."""
    return (compute_capability >= 80) + (compute_capability >= 90) + (compute_capability >= 100)


def _ll_max_gbps(index: int, minor: int) -> float:
    return LL_MAX_GBPS[1] if index == 2 and minor < 21 else LL_MAX_GBPS[index]


def _ring_ll_share(kind: CollectiveKind, minor: int) -> float:
    """What LL's flags leave of a ring's bandwidth, as NCCL's model sees it."""
    if minor >= 21:
        return RING_LL_SHARE
    return RING_LL_SHARE_2_20 if kind is CollectiveKind.ALL_REDUCE else RING_LL_SHARE_2_20_OTHERS


def ring_entries(
    graph: NcclGraph, num_devices: int, minor: int, kind: CollectiveKind = CollectiveKind.ALL_REDUCE
) -> list[TuningEntry]:
    """Ring x {LL, LL128, Simple}: algBw = busBw n / nsteps, latency = base + nsteps hw.

    NCCL counts 2(n-1) steps for an AllReduce, n-1 for an AllGather or a ReduceScatter, n for a Broadcast,
    and of a Broadcast's latency only one.
    """
    index, bus = generation_index(graph.compute_capability), graph.bus_gbps
    broadcast = kind is CollectiveKind.BROADCAST
    steps = num_devices if broadcast else num_steps(kind, num_devices)
    bandwidth = {
        LL: min(_ll_max_gbps(index, minor), bus * _ring_ll_share(kind, minor)),
        LL128: min(LL128_RATE * bus, graph.channels * _ring_ll128_gbps(index, minor)),
        SIMPLE: bus,
    }
    hardware = STEP_LATENCY_US[graph.nvlink][RING]
    return [
        TuningEntry(
            RING,
            protocol,
            BASE_LATENCY_US[RING][protocol] + (1 if broadcast else steps) * hardware[protocol],
            bandwidth[protocol] * num_devices / steps,
        )
        for protocol in PROTOCOLS
    ]


def _ring_ll128_gbps(index: int, minor: int) -> float:
    return RING_LL128_BLACKWELL_GBPS_2_28 if index == 3 and minor <= 28 else RING_LL128_CHANNEL_GBPS[index]


def tree_entries(graph: NcclGraph, num_devices: int, minor: int) -> list[TuningEntry]:
    """Tree x {LL, LL128, Simple}; within a node the tree is a chain of 2(n-1) steps."""
    index, steps = generation_index(graph.compute_capability), 2 * (num_devices - 1)
    bus = min(LL128_RATE * graph.bus_gbps, graph.channels * TREE_CHANNEL_GBPS[index])
    bandwidth = {
        LL: min(bus / TREE_LL_DIVISOR, _ll_max_gbps(index, minor)),
        LL128: min(bus * TREE_LL128_SHARE, graph.channels * TREE_LL128_CHANNEL_GBPS[index]),
        SIMPLE: bus,
    }
    hardware = dict(STEP_LATENCY_US[graph.nvlink][TREE])
    base = dict(BASE_LATENCY_US[TREE])
    if minor < 23:  # 2.23 lowered the step of Tree Simple from 28 and gave it a base
        hardware[SIMPLE], base[SIMPLE] = TREE_SIMPLE_STEP_US_2_22, 0.0
    return [
        TuningEntry(TREE, protocol, base[protocol] + steps * hardware[protocol], 0.5 * bandwidth[protocol])
        for protocol in PROTOCOLS
    ]


def nvls_entry(interconnect: Interconnect, device: Device, graph: NcclGraph, minor: int) -> TuningEntry | None:
    """NVLS, or None where NCCL does not consider it (no multicast switch, 2 ranks before 2.28).

    NCCL_P2P_DISABLE leaves it on: ncclNvlsInit (src/transport/nvls.cc) does not ask for peer-to-peer access.
    """
    interconnect = interconnect.switched
    n = interconnect.num_devices
    efficiency = NVLS_EFFICIENCY[generation_index(graph.compute_capability)]
    if interconnect.kind is not InterconnectKind.NVSWITCH or efficiency == 0.0 or (n < 3 and minor < 28):
        return None
    channel = nvls_channel_gbps(interconnect, device, minor)
    if minor >= 28:
        usable = min(channel * efficiency * (n - 1) / n * 2.0, nvls_switch_gbps(device))
        bandwidth = n * usable * n / (2.0 * (n - 1))
    else:
        bandwidth = n * channel * NVLS_SHARE_2_27
    return TuningEntry(NVLS, SIMPLE, NVLS_LATENCY_US if minor >= 21 else NVLS_LATENCY_US_2_19, bandwidth)


def ll128_by_default(graph: NcclGraph) -> bool:
    """LL128 needs 128-byte stores that arrive whole: NVLink only."""
    return graph.nvlink


def tuning_table(
    interconnect: Interconnect,
    device: Device,
    minor: int,
    *,
    nvls: bool,
    graph: NcclGraph | None = None,
    kind: CollectiveKind = CollectiveKind.ALL_REDUCE,
) -> list[TuningEntry]:
    """All candidates that NCCL would weigh on this group.

    Other collectives than AllReduce have rings only: NCCL offers NVLS to AllGather and ReduceScatter too, but
    within a node it takes it only for buffers registered beforehand, and it gains nothing (NVIDIA/nccl#1506).
    """
    graph = graph or search_rings(interconnect, device, minor)
    n = interconnect.num_devices
    reduces = kind is CollectiveKind.ALL_REDUCE
    entries = ring_entries(graph, n, minor, kind) + (tree_entries(graph, n, minor) if reduces else [])
    if not ll128_by_default(graph):
        entries = [entry for entry in entries if entry.protocol != LL128]
    multicast = nvls_entry(interconnect, device, graph, minor) if nvls and reduces else None
    return [*entries, multicast] if multicast else entries


def min_traffic_bytes(minor: int) -> int:
    """Traffic below which NCCL opens no further channel; 0 in versions without that rule."""
    return next((num_bytes for since, num_bytes in MIN_TRAFFIC_PER_CHANNEL if minor >= since), 0)


def channel_count(
    num_bytes: Sizes,
    algorithm: str,
    protocol: str,
    num_devices: int,
    graph: NcclGraph,
    max_channels: int,
    minor: int,
    kind: CollectiveKind = CollectiveKind.ALL_REDUCE,
) -> tuple[Sizes, Sizes]:
    """Channels that NCCL gives a message, and how many times that of the busiest of them makes the message.

    `max_channels` is the communicator's count after NCCL_MAX_NCHANNELS (for NVLS its own), `minor` NCCL's version.
    """
    threads = MAX_THREADS[protocol]
    if protocol == SIMPLE and graph.bus_gbps <= PCI_WIDTH_GBPS:
        threads = PCI_SIMPLE_THREADS
    count, maths = max_channels, maths_for(num_bytes)
    if algorithm != NVLS:
        threshold = THREAD_THRESHOLD[protocol]
        if algorithm == RING and protocol == LL:
            threshold *= num_devices
        count = maths.maximum(1, maths.minimum(count, num_bytes // (threads * threshold)))
    # NCCL counts a byte of an AllReduce twice, and a byte in LL four times.
    traffic_per_byte = (2 if kind is CollectiveKind.ALL_REDUCE else 1) * (4 if protocol == LL else 1)
    cell = min_traffic_bytes(minor) // traffic_per_byte
    if not cell:
        return count, 1.0 * count
    cells = -(-num_bytes // cell)
    cells_per_channel = -(-cells // count)
    return -(-cells // cells_per_channel), maths.maximum(1.0, num_bytes / (cells_per_channel * cell))
