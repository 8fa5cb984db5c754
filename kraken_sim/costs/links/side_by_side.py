"""The collectives of one program: groups that communicate at the same time, on the links they have in common.

All ranks run the same program, so all groups of a collective start together and are as fast as the slowest of
them: how much they slow each other down is known before the simulation and needs no event. Different
collectives that overlap in time (on two streams) share links while both are under way; the engine asks then.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.algorithms import algorithm_named
from kraken_sim.costs.fair import max_min_rates, used_alike
from kraken_sim.costs.links.sharing import GROUPS_CACHED, GroupTraffic, LinkSharing, group_traffic, groups_of, slowed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.collectives.algorithms import Algorithm
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.collectives.routes import DirectedLink
    from kraken_sim.costs.fair import Flow
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.hardware.topology.topology import Topology
    from kraken_sim.program.ops import Collective, CollectiveKind


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """The groups of one collective, kept by identity.

    `meet` says whether two use one direction of a link, or one host's fabric.
    """

    groups: tuple[GroupTraffic, ...]
    meet: bool


@lru_cache(maxsize=GROUPS_CACHED)
def pattern_of(
    topology: Topology,
    kind: CollectiveKind,
    num_devices: int,
    stride: int,
    total: int,
    algorithm: Algorithm,
    p2p: bool,
) -> Pattern:
    """The traffic of all groups of a collective in a program on `total` devices, whatever its size."""
    groups = groups_of(topology, num_devices, stride, total)
    traffics = tuple(group_traffic(topology, gpus, kind, algorithm.name, p2p) for gpus in groups)
    used = Counter(resource for traffic in traffics for resource in (*traffic.usage, *traffic.hosts))
    return Pattern(traffics, max(used.values(), default=0) > 1)


@lru_cache(maxsize=GROUPS_CACHED)
def _together(patterns: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
    """Patterns at the same time, with one of the links that all their groups use alike: these are full together."""
    traffics = [traffic for pattern in patterns for traffic in pattern.groups]
    capacity = {link: link.bytes_per_s for traffic in traffics for link in traffic.usage}
    usages: list[dict[DirectedLink, float]] = [{} for _ in traffics]
    for alike in used_alike([traffic.usage for traffic in traffics], capacity):
        for index, share in alike.users:
            usages[index][alike.first] = share
    fewer = iter([replace(traffic, usage=usage) for traffic, usage in zip(traffics, usages, strict=True)])
    return tuple(replace(pattern, groups=tuple(islice(fewer, len(pattern.groups)))) for pattern in patterns)


class SideBySide:
    """What the groups of a program on the first `num_devices` GPUs do to each other."""

    def __init__(self, topology: Topology, constants: CollectiveConstants, num_devices: int, *, p2p: bool) -> None:
        self._links = LinkSharing(topology, constants)
        self._num_devices = min(num_devices, len(topology.gpus))
        self._p2p = p2p

    def shared(self, op: Collective, cost: CollectiveCost) -> CollectiveCost:
        """The cost of a collective whose groups all run it at once; as it was where they have no link in common."""
        if cost.transfer_s <= 0.0:
            return cost
        pattern = self._pattern(op, cost)
        if not pattern.meet:
            return cost
        speed = min(self._links.speeds(self._flows({op: cost})[op]))
        return slowed(cost, speed, len(pattern.groups))

    def speeds(self, running: Mapping[Collective, CollectiveCost]) -> dict[Collective, float]:
        """The pace of each collective while all of these are under way, relative to its pace without the others.

        `running` has the costs alone on the machine, as they were before `shared`.
        """
        flows = self._flows({op: cost for op, cost in running.items() if cost.transfer_s > 0.0})
        everything = [flow for mine in flows.values() for flow in mine]
        together = iter(max_min_rates(everything, self._links.capacity))
        found = dict.fromkeys(running, 1.0)
        for op, mine in flows.items():
            own = max_min_rates(mine, self._links.capacity)
            found[op] = min(1.0, min(rate / before for before, rate in zip(own, together, strict=False)))
        return found

    def _pattern(self, op: Collective, cost: CollectiveCost) -> Pattern:
        topology, total, algorithm = self._links.topology, self._num_devices, algorithm_named(cost.algorithm)
        return pattern_of(topology, op.kind, op.num_devices, op.stride, total, algorithm, self._p2p)

    def _flows(self, running: Mapping[Collective, CollectiveCost]) -> dict[Collective, list[Flow]]:
        patterns = _together(tuple(self._pattern(op, cost) for op, cost in running.items()))
        return {
            op: [self._links.flow_of(traffic, op.num_devices, cost) for traffic in pattern.groups]
            for (op, cost), pattern in zip(running.items(), patterns, strict=True)
        }
