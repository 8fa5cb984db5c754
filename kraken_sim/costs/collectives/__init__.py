"""Collectives: one function an algorithm, and the selection that libraries make between them."""

from __future__ import annotations

from kraken_sim.costs.collectives.constants import CollectiveConstants, with_eager_nccl_latency
from kraken_sim.costs.collectives.selection import all_reduce_cost, collective_cost

__all__ = [
    "CollectiveConstants",
    "all_reduce_cost",
    "collective_cost",
    "with_eager_nccl_latency",
]
