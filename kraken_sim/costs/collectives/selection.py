"""From a runtime's policy to the kernel that runs: NCCL's choice, an engine's rule, or a forced one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.algorithms import (
    algorithm_named,
    algorithm_names,
    algorithms_for,
    problem_of,
    require,
)
from kraken_sim.costs.collectives.call import CollectiveCall
from kraken_sim.costs.collectives.choice import nccl_choice
from kraken_sim.costs.collectives.kinds import RING_KINDS
from kraken_sim.costs.collectives.network_tuning import network_choice
from kraken_sim.costs.collectives.policy import Library, Selection, Transport
from kraken_sim.costs.collectives.serving_rules import ruled
from kraken_sim.costs.collectives.tuning import LL128, PROTOCOLS, SEND_RECV
from kraken_sim.costs.types import CollectiveCost
from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.program.many import least, same
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.collectives.policy import CollectivePolicy
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Interconnect

PATH = "runtime.collective"
FORCED_FAMILY = "vllm"
"""Whose implementation runs where a policy forces a custom kernel: vLLM's where the profile has it."""

NOTHING = CollectiveCost(0.0, 0.0, 0.0, "none", "none", 0, 0.0, 0.0, "one device, nothing to exchange")
"""What a group of one, or a message of no bytes, costs; a definition."""


def all_reduce_cost(
    num_bytes: int,
    interconnect: Interconnect,
    device: Device,
    constants: CollectiveConstants,
    policy: CollectivePolicy,
) -> CollectiveCost:
    """An AllReduce of `num_bytes` a rank; see `collective_cost`."""
    return collective_cost(CollectiveKind.ALL_REDUCE, num_bytes, interconnect, device, constants, policy)


def collective_cost(
    kind: CollectiveKind,
    num_bytes: int,
    interconnect: Interconnect,
    device: Device,
    constants: CollectiveConstants,
    policy: CollectivePolicy,
) -> CollectiveCost:
    """A collective of `num_bytes`, counted as in `Collective`, alone on an idle machine.

    One device (or no bytes) costs nothing and holds nothing.

    Raises:
        InputError: The policy names an algorithm or protocol that does not exist or cannot run here.
    """
    check_bytes(num_bytes)
    check_policy(policy)
    if policy.library is Library.CUSTOM and not algorithms_for(kind, Library.CUSTOM, spans_nodes=False):
        message = f"custom kernels exist for {' and '.join(_custom_kinds())} only, not for {kind}"
        raise InputError.single(f"{PATH}.library", message, policy.library.value, "library: nccl")
    if interconnect.num_devices <= 1 or same(num_bytes == 0):
        return NOTHING
    constants = of_version(constants, policy.nccl_minor_version)
    call = CollectiveCall(kind, num_bytes, staged(interconnect, policy), device, constants, policy)
    if policy.algorithm is not None:
        return _run(policy.algorithm, replace(call, family=FORCED_FAMILY))
    if policy.library is Library.NCCL:
        return _nccl(call)
    if policy.selection is not Selection.FASTEST and kind is CollectiveKind.ALL_REDUCE:
        rule = ruled(call)
        return _nccl(call) if rule is None else _run(rule.algorithm, replace(call, family=rule.family))
    return _fastest(call)


def takes_arrays(kind: CollectiveKind, interconnect: Interconnect, policy: CollectivePolicy) -> bool:
    """Whether `collective_cost` takes an array of sizes (in parts, `apart`): what NCCL picks within a node."""
    within = interconnect.kind is not InterconnectKind.NETWORK and interconnect.across is None
    return within and kind in RING_KINDS and policy.library is Library.NCCL and policy.algorithm is None


def of_version(constants: CollectiveConstants, nccl_minor_version: int | None) -> CollectiveConstants:
    """The constants with another NCCL's choices; its speeds stay those that were fitted."""
    if nccl_minor_version in (None, constants.nccl_minor_version):
        return constants
    return replace(constants, nccl_minor_version=nccl_minor_version)


def _run(algorithm: str, call: CollectiveCall) -> CollectiveCost:
    row = algorithm_named(algorithm)
    require(row, call)
    return row.cost(as_nccl(call) if row.library is Library.NCCL else call)


def _nccl(call: CollectiveCall) -> CollectiveCost:
    """What NCCL picks by its tuning model; sends and receives have no choice."""
    if call.kind not in RING_KINDS:
        return _run(SEND_RECV, call)
    if call.interconnect.across is not None:
        return _run(network_choice(call)[0], call)
    call = as_nccl(call)
    choice = nccl_choice(call.num_bytes, call.interconnect, call.device, call.constants, call.policy, call.kind)
    return _run(choice.algorithm, replace(call, tuned=choice))


def _fastest(call: CollectiveCall) -> CollectiveCost:
    """The custom kernels that can run here, of AllReduce those whose peer buffers hold the message, and NCCL."""
    custom = algorithms_for(call.kind, Library.CUSTOM, spans_nodes=call.spans_nodes)
    fits = call.kind is not CollectiveKind.ALL_REDUCE or call.num_bytes <= call.constants.custom_max_bytes
    usable = [row for row in custom if fits and problem_of(row, call) is None]
    return min((*(row.cost(call) for row in usable), _nccl(call)), key=lambda cost: cost.busy_s)


def _custom_kinds() -> list[str]:
    return [kind for kind in CollectiveKind if algorithms_for(kind, Library.CUSTOM, spans_nodes=False)]


def policy_for(policy: CollectivePolicy, kind: CollectiveKind) -> CollectivePolicy:
    """A program's policy as one of its collectives takes it.

    A scenario's algorithm is an AllReduce's, as most custom kernels are, and sends and receives have no LL128: what
    does not exist for another collective is left to NCCL.
    """
    if kind is CollectiveKind.ALL_REDUCE:
        return policy
    algorithm = policy.algorithm
    if algorithm is not None and kind not in algorithm_named(algorithm).kinds:
        algorithm = None
    library = policy.library if algorithm is not None else Library.NCCL
    protocol = None if kind not in RING_KINDS and policy.protocol == LL128 else policy.protocol
    return replace(policy, library=library, algorithm=algorithm, protocol=protocol)


def check_bytes(num_bytes: int) -> None:
    """A message has a size.

    Raises:
        InputError: It is negative.
    """
    if least(num_bytes) < 0:
        raise InputError.single("num_bytes", "a message cannot have fewer than 0 bytes", num_bytes, "1048576")


def check_policy(policy: CollectivePolicy) -> None:
    """The names and numbers of a policy.

    Raises:
        InputError: An algorithm or protocol that does not exist, no channels: every problem.
    """
    problems: list[Problem] = []
    known, custom = algorithm_names(), False
    if policy.algorithm is not None and policy.algorithm not in known:
        problems.append(_unknown("algorithm", policy.algorithm, known))
    elif policy.algorithm is not None:
        custom = algorithm_named(policy.algorithm).library is Library.CUSTOM
    if policy.protocol is not None and policy.protocol not in PROTOCOLS:
        problems.append(_unknown("protocol", policy.protocol, PROTOCOLS))
    if policy.channels is not None and policy.channels < 1:
        problems.append(Problem(f"{PATH}.channels", "must be at least 1, or null", policy.channels, "channels: 4"))
    if policy.library is Library.NCCL and custom:
        problems.append(
            Problem(
                f"{PATH}.algorithm",
                "is not one of NCCL's",
                policy.algorithm,
                "library: custom, or algorithm: ring",
            )
        )
    if problems:
        raise InputError(problems)


def _unknown(field: str, value: str, known: Sequence[str]) -> Problem:
    return Problem(f"{PATH}.{field}", f"must be one of {', '.join(known)}", value, None, closest(value, known))


def as_nccl(call: CollectiveCall) -> CollectiveCall:
    """The call as NCCL takes it: through host memory where it does not trust peer-to-peer access."""
    if call.policy.transport is Transport.P2P:
        return call
    interconnect = _as_nccl(call.interconnect)
    return call if interconnect is call.interconnect else replace(call, interconnect=interconnect)


def _as_nccl(interconnect: Interconnect) -> Interconnect:
    if interconnect.across is not None:
        node = _as_nccl(interconnect.across.node)
        if node is interconnect.across.node:
            return interconnect
        return replace(interconnect, across=replace(interconnect.across, node=node))
    if not interconnect.through_host:
        return interconnect
    return replace(interconnect, kind=InterconnectKind.HOST, through_host=False)


def staged(interconnect: Interconnect, policy: CollectivePolicy) -> Interconnect:
    """The interconnect with peer-to-peer refused where the policy says so."""
    if policy.transport is Transport.SHM and interconnect.kind is InterconnectKind.PCIE:
        return replace(interconnect, kind=InterconnectKind.HOST)
    if policy.transport is Transport.SHM and interconnect.kind is not InterconnectKind.HOST:
        raise InputError.single(
            f"{PATH}.transport",
            f"shm runs through host memory, but the route given is {interconnect.kind.value}",
            policy.transport.value,
            "reduce the topology with transport: shm, which gives the PCIe route to the host",
        )
    if policy.transport is Transport.P2P and interconnect.kind is InterconnectKind.HOST:
        raise InputError.single(
            f"{PATH}.transport",
            "these GPUs reach each other only through host memory",
            "p2p",
            "transport: auto",
        )
    return interconnect
