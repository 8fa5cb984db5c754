"""One GPU writes to another: the latency of the way, then bytes at what its slowest link carries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.constants import LINK_CLASS, link_value
from kraken_sim.costs.collectives.nccl import line_rate_bytes_per_s
from kraken_sim.costs.collectives.tuning import SIMPLE
from kraken_sim.costs.types import CollectiveCost

if TYPE_CHECKING:
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.hardware.interconnect import Interconnect


def transfer_cost(num_bytes: int, interconnect: Interconnect, constants: CollectiveConstants) -> CollectiveCost:
    """A copy by a copy engine over an idle machine; the payload is the share of the line rate that Simple reaches.

    Copy engines hold no SM. `interconnect` is that of the two GPUs.
    """
    line = line_rate_bytes_per_s(replace(interconnect, num_devices=1), constants)  # one of the two sends
    payload = line * link_value(constants, "link_efficiency", LINK_CLASS[interconnect.kind], SIMPLE)
    transfer_s = num_bytes / payload
    return CollectiveCost(
        busy_s=interconnect.latency_s + transfer_s,
        latency_s=interconnect.latency_s,
        transfer_s=transfer_s,
        algorithm="copy",
        protocol=SIMPLE,
        channels=0,
        hbm_bytes=float(num_bytes),
        link_bytes=float(num_bytes),
        detail="copy engine",
        line_bytes_per_s=line,
    )
