"""The collectives of one program: groups that communicate at the same time, on the links they have in common.

All ranks run the same program, so all groups of an AllReduce start together and are as fast as the slowest of
them: how much they slow each other down is known before the simulation and needs no event. Different
AllReduces that overlap in time (on two streams) share links while both are under way; the engine asks then.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.kinds import CollectiveKind
from kraken_sim.links.fair import max_min_rates
from kraken_sim.links.sharing import GROUPS_CACHED, LinkSharing, group_traffic, groups_of, slowed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.hardware.topology import Topology
    from kraken_sim.links.fair import Flow
    from kraken_sim.program.ops import AllReduce

KIND = CollectiveKind.ALL_REDUCE


@lru_cache(maxsize=GROUPS_CACHED)
def _groups_meet(topology: Topology, groups: tuple[tuple[str, ...], ...], algorithm: str, p2p: bool) -> bool:
    """Whether two groups use one direction of a link, or the fabric of one host."""
    seen: set[object] = set()
    for gpus in groups:
        traffic = group_traffic(topology, gpus, KIND, algorithm, p2p)
        used: set[object] = {*traffic.usage, *traffic.hosts}
        if used & seen:
            return True
        seen |= used
    return False


class SideBySide:
    """What the groups of a program on the first `num_devices` GPUs do to each other."""

    def __init__(self, topology: Topology, constants: CollectiveConstants, num_devices: int, *, p2p: bool) -> None:
        self._links = LinkSharing(topology, constants)
        self._num_devices = min(num_devices, len(topology.gpus))
        self._p2p = p2p

    def shared(self, op: AllReduce, cost: CollectiveCost) -> CollectiveCost:
        """The cost of an AllReduce whose groups all run it at once; as it was where they have no link in common."""
        groups = self._groups(op)
        if len(groups) < 2 or cost.transfer_s <= 0.0:
            return cost
        if not _groups_meet(self._links.topology, groups, cost.algorithm, self._p2p):
            return cost
        speed = min(self._links.speeds(self._flows(op, cost)))
        return slowed(cost, speed, len(groups))

    def speeds(self, running: Mapping[AllReduce, CollectiveCost]) -> dict[AllReduce, float]:
        """The pace of each AllReduce while all of these are under way, relative to its pace without the others.

        `running` has the costs alone on the machine, as they were before `shared`.
        """
        flows = {op: self._flows(op, cost) for op, cost in running.items() if cost.transfer_s > 0.0}
        everything = [flow for mine in flows.values() for flow in mine]
        together = iter(max_min_rates(everything, self._links.capacity))
        found = dict.fromkeys(running, 1.0)
        for op, mine in flows.items():
            own = max_min_rates(mine, self._links.capacity)
            found[op] = min(1.0, min(rate / before for before, rate in zip(own, together, strict=False)))
        return found

    def _groups(self, op: AllReduce) -> tuple[tuple[str, ...], ...]:
        return tuple(groups_of(self._links.topology, op.num_devices, op.stride, self._num_devices))

    def _flows(self, op: AllReduce, cost: CollectiveCost) -> list[Flow]:
        return [self._links.flow(gpus, KIND, cost, p2p=self._p2p) for gpus in self._groups(op)]
