"""NCCL's collectives by copy engines (2.28 and later): no SM is held while bytes move.

NCCL has an AllGather and an AllToAll of this kind, over symmetric memory in one node (src/ce_coll.cc). An AllReduce is
such an AllGather of everybody's message, and one kernel at its end that adds them, as a fused norm can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.constants import LINK_CLASS
from kraken_sim.costs.collectives.nccl import extra_flight_s, line_rate_bytes_per_s
from kraken_sim.costs.types import CollectiveCost
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.collectives.call import CollectiveCall

COPY_ENGINE = "copy_engine"
COPY_ENGINE_MINOR = 28
"""The x of the first NCCL 2.x with these collectives (a definition: NCCL's release notes)."""

COPY_SHARE: Mapping[str, float] = {"nvlink": 0.83, "pcie": 0.87}
"""Share of the line rate that copies from GPU to GPU reach, measured by others: 376 of 450 GB/s on H200 and 747 of 900
on GB200 (stas00/ml-engineering, network chapter), 55 of 63 over PCIe 5 (voipmonitor/rtx6kpro)."""

SYNCHRONISATIONS, SYNCHRONISATION_S = 2, 4e-6
"""All ranks wait for each other before and after the copies (ncclMemOpSync of NCCL's src/ce_coll.cc), by stream memory
operations; their time is assumed, somewhat above that of a kernel's barrier."""

COPY_START_S = 1e-6
"""What every further copy of a batch adds; assumed, as a node of a CUDA graph."""

ADDED_SHARE = 0.8
"""Share of the HBM bandwidth at which the kernel adds; assumed, as pointwise kernels of large tensors."""


def copy_engine_cost(call: CollectiveCall) -> CollectiveCost:
    """Every rank's copies to all others, one engine's batch; an AllReduce adds what came in afterwards.

    A rank's message is read from HBM once, and from L2 for its further copies: assumed.
    """
    n, kind, interconnect = call.interconnect.num_devices, call.kind, call.interconnect
    share = float(call.num_bytes) if kind is CollectiveKind.ALL_REDUCE else call.num_bytes / n
    sent = (n - 1) * share
    line = line_rate_bytes_per_s(interconnect, call.constants)
    transfer_s = sent / (line * COPY_SHARE[LINK_CLASS[interconnect.kind]])
    latency_s = SYNCHRONISATIONS * (SYNCHRONISATION_S + extra_flight_s(interconnect, call.constants))
    latency_s += (n - 1) * COPY_START_S
    moved = (n + 1.0) * share
    if kind is CollectiveKind.ALL_REDUCE:
        added = (n + 1.0) * share
        transfer_s += added / (ADDED_SHARE * call.device.hbm_bandwidth_bytes_per_s)
        moved += added
    return CollectiveCost(
        busy_s=latency_s + transfer_s,
        latency_s=latency_s,
        transfer_s=transfer_s,
        algorithm=COPY_ENGINE,
        protocol="direct",
        channels=0,
        hbm_bytes=moved,
        link_bytes=sent,
        detail=f"copy engines, {n - 1} copies a GPU",
        line_bytes_per_s=min(sent / transfer_s, line),
    )


def copy_engine_problem(call: CollectiveCall) -> str | None:
    """Copies need peer-to-peer access."""
    if call.interconnect.kind is InterconnectKind.HOST:
        return "copy engines need peer-to-peer access, and these GPUs meet in host memory"
    return None
