"""GPUs write to each other by copy engines: the latency of the way, then bytes at what its slowest link carries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.constants import LINK_CLASS, link_value
from kraken_sim.costs.collectives.nccl import line_rate_bytes_per_s
from kraken_sim.costs.collectives.tuning import SIMPLE
from kraken_sim.costs.types import CollectiveCost

if TYPE_CHECKING:
    from kraken_sim.costs.collectives.call import CollectiveCall
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.hardware.interconnect import Interconnect


COPY = "copy"


def copy_cost(call: CollectiveCall) -> CollectiveCost:
    """Every rank writes to the next, all at once; the interconnect is that of these ways."""
    return _cost(call.num_bytes, call.interconnect, call.constants)


def transfer_cost(num_bytes: int, interconnect: Interconnect, constants: CollectiveConstants) -> CollectiveCost:
    """One of the two GPUs that `interconnect` joins writes to the other, over an idle machine."""
    return _cost(num_bytes, replace(interconnect, num_devices=1), constants)


def _cost(num_bytes: int, interconnect: Interconnect, constants: CollectiveConstants) -> CollectiveCost:
    """Copy engines hold no SM; the payload is the share of the line rate that NCCL's Simple reaches."""
    line = line_rate_bytes_per_s(interconnect, constants)
    payload = line * link_value(constants, "link_efficiency", LINK_CLASS[interconnect.kind], SIMPLE)
    transfer_s = num_bytes / payload
    return CollectiveCost(
        busy_s=interconnect.latency_s + transfer_s,
        latency_s=interconnect.latency_s,
        transfer_s=transfer_s,
        algorithm=COPY,
        protocol=SIMPLE,
        channels=0,
        hbm_bytes=float(num_bytes),
        link_bytes=float(num_bytes),
        detail="copy engine",
        line_bytes_per_s=line,
    )
