"""The table of collective algorithms: what each is called, what it can do, where it runs, what it costs and moves.

Everything that knows algorithms reads this table: what libraries choose from, the checks of scenarios and of single
ops, the help of the command line, the JSON schema, and the bytes on links. Another algorithm is a function for its
cost, one for its traffic, and a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.choice import nccl_choice
from kraken_sim.costs.collectives.copy_engines import (
    COPY_ENGINE,
    COPY_ENGINE_MINOR,
    copy_engine_cost,
    copy_engine_problem,
)
from kraken_sim.costs.collectives.custom import (
    MULTIMEM,
    ONE_SHOT,
    TWO_SHOT,
    multimem_cost,
    multimem_problem,
    one_shot_cost,
    one_shot_problem,
    two_shot_cost,
    two_shot_problem,
)
from kraken_sim.costs.collectives.kinds import RING_KINDS
from kraken_sim.costs.collectives.nccl import nccl_cost, nvls_problem
from kraken_sim.costs.collectives.network import (
    hierarchical_cost,
    network_ring_cost,
    network_send_recv_cost,
    network_tree_cost,
)
from kraken_sim.costs.collectives.network_nvls import network_nvls_tree_cost, network_nvls_tree_problem
from kraken_sim.costs.collectives.network_traffic import (
    hierarchical_traffic,
    network_nvls_tree_traffic,
    network_ring_traffic,
    network_send_recv_traffic,
    network_tree_traffic,
)
from kraken_sim.costs.collectives.node_traffic import (
    chain_pairs,
    copy_engine_traffic,
    copy_traffic,
    one_shot_traffic,
    ring_pairs,
    send_recv_pairs,
    switch_traffic,
    symmetric_traffic,
    two_shot_traffic,
)
from kraken_sim.costs.collectives.policy import Library
from kraken_sim.costs.collectives.send_recv import send_recv_cost
from kraken_sim.costs.collectives.symmetric import SYMMETRIC, SYMMETRIC_MINOR, symmetric_cost, symmetric_problem
from kraken_sim.costs.collectives.transfer import COPY, copy_cost
from kraken_sim.costs.collectives.tuning import HIERARCHICAL, NVLS, NVLS_TREE, RING, SEND_RECV, TREE
from kraken_sim.errors import InputError, closest
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.costs.collectives.call import CollectiveCall
    from kraken_sim.costs.collectives.routes import Group, Traffic
    from kraken_sim.costs.types import CollectiveCost

    CostOf = Callable[[CollectiveCall], CollectiveCost]
    TrafficOf = Callable[[Group, float], Traffic]
    ProblemOf = Callable[[CollectiveCall], str | None]


class Scope(StrEnum):
    """Where the ranks of a group may be."""

    ONE_NODE = "one node"
    SEVERAL_NODES = "several nodes"
    BOTH = "one or several nodes"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One row.

    Attributes:
        name: What users call it.
        kinds: The collectives that it does.
        library: Whose kernels run.
        scope: Where its ranks may be.
        cost: What a call costs alone on an idle machine.
        traffic: Which bytes a group moves over which link, given those of the collective.
        problem: Why it cannot run a call although kind and scope fit; None if it can. No function: it always can.
        since: The x of the first NCCL 2.x that has it; 0: all that are known here.
    """

    name: str
    kinds: frozenset[CollectiveKind]
    library: Library
    scope: Scope
    cost: CostOf
    traffic: TrafficOf
    problem: ProblemOf | None = None
    since: int = 0

    def is_for(self, *, spans_nodes: bool) -> bool:
        """Whether it runs between nodes, or within one."""
        return self.scope is not (Scope.ONE_NODE if spans_nodes else Scope.SEVERAL_NODES)


def _within_node(call: CollectiveCall, algorithm: str) -> CollectiveCost:
    choice = call.tuned
    if choice is None or choice.algorithm != algorithm:
        policy = replace(call.policy, algorithm=algorithm)
        choice = nccl_choice(call.num_bytes, call.interconnect, call.device, call.constants, policy, call.kind)
    return nccl_cost(call.kind, call.num_bytes, choice, call.interconnect, call.constants)


def ring_cost(call: CollectiveCall) -> CollectiveCost:
    """NCCL's rings, within a node or through its NICs."""
    return _within_node(call, RING) if call.interconnect.across is None else network_ring_cost(call)


def ring_traffic(group: Group, num_bytes: float) -> Traffic:
    """What every hop carries."""
    if len(group.nodes) > 1:
        return network_ring_traffic(group, num_bytes)
    return group.traffic(ring_pairs(group.kind, group.num_devices, num_bytes), along_rings=True)


def tree_cost(call: CollectiveCall) -> CollectiveCost:
    """NCCL's tree: a chain within a node, double binary trees between nodes."""
    return _within_node(call, TREE) if call.interconnect.across is None else network_tree_cost(call)


def tree_traffic(group: Group, num_bytes: float) -> Traffic:
    """Up and down every edge."""
    if len(group.nodes) > 1:
        return network_tree_traffic(group, num_bytes)
    return group.traffic(chain_pairs(group.num_devices, num_bytes), along_rings=True)


def nvls_cost(call: CollectiveCall) -> CollectiveCost:
    """NVLink SHARP."""
    return _within_node(call, NVLS)


def sends_cost(call: CollectiveCall) -> CollectiveCost:
    """NCCL's sends and receives."""
    return send_recv_cost(call) if call.interconnect.across is None else network_send_recv_cost(call)


def sends_traffic(group: Group, num_bytes: float) -> Traffic:
    """Each on its own way."""
    if len(group.nodes) > 1:
        return network_send_recv_traffic(group, num_bytes)
    return group.traffic(send_recv_pairs(group.kind, group.num_devices, num_bytes))


def uneven_problem(call: CollectiveCall) -> str | None:
    """Places of a node have their peers on all others."""
    return None if call.interconnect.across is not None else "needs as many GPUs on every node"


_ALL_REDUCE = frozenset({CollectiveKind.ALL_REDUCE})
_RINGS = frozenset(RING_KINDS)
_SENDS = frozenset({CollectiveKind.ALL_TO_ALL, CollectiveKind.SEND_RECV})
_SYMMETRIC = frozenset({CollectiveKind.ALL_REDUCE, CollectiveKind.ALL_GATHER, CollectiveKind.REDUCE_SCATTER})
_COPIED = frozenset({CollectiveKind.ALL_REDUCE, CollectiveKind.ALL_GATHER, CollectiveKind.ALL_TO_ALL})
_POINT_TO_POINT = frozenset({CollectiveKind.SEND_RECV})

ALGORITHMS: tuple[Algorithm, ...] = (
    Algorithm(RING, _RINGS, Library.NCCL, Scope.BOTH, ring_cost, ring_traffic),
    Algorithm(TREE, _ALL_REDUCE, Library.NCCL, Scope.BOTH, tree_cost, tree_traffic),
    Algorithm(NVLS, _ALL_REDUCE, Library.NCCL, Scope.ONE_NODE, nvls_cost, switch_traffic, nvls_problem),
    Algorithm(
        NVLS_TREE,
        _ALL_REDUCE,
        Library.NCCL,
        Scope.SEVERAL_NODES,
        network_nvls_tree_cost,
        network_nvls_tree_traffic,
        network_nvls_tree_problem,
    ),
    Algorithm(
        HIERARCHICAL,
        _ALL_REDUCE,
        Library.NCCL,
        Scope.SEVERAL_NODES,
        hierarchical_cost,
        hierarchical_traffic,
        uneven_problem,
    ),
    Algorithm(SEND_RECV, _SENDS, Library.NCCL, Scope.BOTH, sends_cost, sends_traffic),
    Algorithm(
        SYMMETRIC,
        _SYMMETRIC,
        Library.NCCL,
        Scope.ONE_NODE,
        symmetric_cost,
        symmetric_traffic,
        symmetric_problem,
        SYMMETRIC_MINOR,
    ),
    Algorithm(
        COPY_ENGINE,
        _COPIED,
        Library.NCCL,
        Scope.ONE_NODE,
        copy_engine_cost,
        copy_engine_traffic,
        copy_engine_problem,
        COPY_ENGINE_MINOR,
    ),
    Algorithm(ONE_SHOT, _ALL_REDUCE, Library.CUSTOM, Scope.ONE_NODE, one_shot_cost, one_shot_traffic, one_shot_problem),
    Algorithm(TWO_SHOT, _ALL_REDUCE, Library.CUSTOM, Scope.ONE_NODE, two_shot_cost, two_shot_traffic, two_shot_problem),
    Algorithm(MULTIMEM, _ALL_REDUCE, Library.CUSTOM, Scope.ONE_NODE, multimem_cost, switch_traffic, multimem_problem),
    Algorithm(COPY, _POINT_TO_POINT, Library.CUSTOM, Scope.ONE_NODE, copy_cost, copy_traffic),
)
"""In the order in which they are named to users."""


def algorithm_names(kind: CollectiveKind | None = None) -> tuple[str, ...]:
    """What users may call an algorithm (of a collective)."""
    return tuple(row.name for row in ALGORITHMS if kind is None or kind in row.kinds)


def algorithm_named(name: str) -> Algorithm:
    """The row of that name.

    Raises:
        InputError: There is none.
    """
    for row in ALGORITHMS:
        if row.name == name:
            return row
    names = algorithm_names()
    message = f"must be one of {', '.join(names)}"
    raise InputError.single("runtime.collective.algorithm", message, name, None, closest(name, names))


def algorithms_for(kind: CollectiveKind, library: Library, *, spans_nodes: bool) -> tuple[Algorithm, ...]:
    """A library's algorithms of a collective, within a node or between nodes."""
    return tuple(
        row
        for row in ALGORITHMS
        if row.library is library and kind in row.kinds and row.is_for(spans_nodes=spans_nodes)
    )


def problem_of(row: Algorithm, call: CollectiveCall) -> str | None:
    """Why an algorithm cannot run a call; None if it can."""
    spans_nodes = call.spans_nodes
    if call.kind in row.kinds and row.is_for(spans_nodes=spans_nodes):
        if _too_old(row, call):
            return f"NCCL 2.{call.constants.nccl_minor_version} has no {row.name} (2.{row.since} and later do)"
        return None if row.problem is None else row.problem(call)
    where = "between nodes" if spans_nodes else "within a node"
    offered = " or ".join(other.name for other in algorithms_for(call.kind, Library.NCCL, spans_nodes=spans_nodes))
    instead = f"{call.kind} {where} runs as {offered} here"
    if call.kind not in row.kinds:
        return f"{row.name} is for {', '.join(sorted(row.kinds))}; {instead}"
    return f"{row.name} is for groups on {row.scope}, and this one is {where}; {instead}"


def _too_old(row: Algorithm, call: CollectiveCall) -> bool:
    return call.constants.nccl_minor_version < row.since


def require(row: Algorithm, call: CollectiveCall) -> None:
    """An algorithm that a user forces must be able to run.

    Raises:
        InputError: It cannot; says why and what to do.
    """
    problem = problem_of(row, call)
    if problem is None:
        return
    offered = algorithms_for(call.kind, Library.NCCL, spans_nodes=call.spans_nodes)
    example = "library: nccl" if row.library is Library.CUSTOM else f"algorithm: {offered[0].name}"
    if _too_old(row, call):
        example = f'version: "2.{row.since}", or {example}'
    raise InputError.single("runtime.collective.algorithm", problem, row.name, example)
