"""The graph of a machine with what is asked of it: groups of GPUs, their best ring, what they communicate over."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.hardware.topology.graph import Graph
from kraken_sim.hardware.topology.problems import find_problems
from kraken_sim.hardware.topology.reduction import reduce_group
from kraken_sim.hardware.topology.rings import RingFinder

if TYPE_CHECKING:
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.hardware.topology.rings import Ring


@dataclass(frozen=True)
class Topology(Graph):
    """The graph of one machine; rank r of a scenario sits on the r-th GPU.

    Raises:
        InputError: The graph is no machine; see `problems.find_problems`.
    """

    _cache: dict[tuple[int, int, bool], Interconnect] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _placed: dict[tuple[int, ...], Topology] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        problems = find_problems(self.nodes, self.links)
        if problems:
            raise InputError(problems)

    def __hash__(self) -> int:
        # What is kept by machine is looked up often; its first parts tell most machines apart, and == all of them.
        return hash((len(self.nodes), len(self.links), self.nodes[:4], self.links[:4], self.p2p_level))

    @cached_property
    def finder(self) -> RingFinder:
        """Routes and rings on this machine."""
        return RingFinder(self)

    def group(self, num_devices: int, stride: int = 1) -> tuple[str, ...]:
        """The GPUs of ranks 0, stride, 2 stride, ...

        Raises:
            InputError: A count below one.
            InfeasibleError: The machine has too few GPUs.
        """
        for name, value in (("num_devices", num_devices), ("stride", stride)):
            if value < 1:
                raise InputError.single(name, "must be at least 1", value, example="2")
        if (num_devices - 1) * stride >= len(self.gpus):
            apart = f", {stride} ranks apart" if stride > 1 else ""
            raise InfeasibleError(f"{num_devices} devices{apart} do not fit on this machine", f"{len(self.gpus)} GPUs")
        return self.gpus[: (num_devices - 1) * stride + 1 : stride]

    def with_ranks_on(self, gpus: tuple[int, ...]) -> Topology:
        """The same machine with these GPUs counted first, in this order, and the others behind them.

        Args:
            gpus: different numbers of GPUs, counted from 0.
        """
        if gpus not in self._placed:
            first = [self.gpus[number] for number in gpus]
            rank = {name: index for index, name in enumerate(first)}
            nodes = sorted(self.nodes, key=lambda node: rank.get(node.name, len(rank)))
            self._placed[gpus] = Topology(tuple(nodes), self.links, self.p2p_level)
        return self._placed[gpus]

    def best_ring(self, num_devices: int, stride: int = 1) -> Ring:
        """The best ring through the group: most bandwidth first, then least latency.

        Raises:
            InputError, InfeasibleError: See `group`.
        """
        return self.finder.best(self.group(num_devices, stride))

    def interconnect(self, num_devices: int, stride: int = 1, p2p: bool = True) -> Interconnect:
        """What `num_devices` GPUs, `stride` ranks apart, communicate over.

        Without `p2p`, or where a hop of the best ring is longer than `p2p_level`, bytes are staged through
        host memory. One device alone communicates with nobody: its bandwidth is infinite.

        Raises:
            InputError: See `group`; or host memory is needed and a GPU has no PCIe link to a host.
            InfeasibleError: See `group`.
        """
        key = (num_devices, stride, p2p)
        if key not in self._cache:
            self._cache[key] = reduce_group(self.finder, self.group(num_devices, stride), p2p)
        return self._cache[key]
