"""From a runtime's policy to the kernel that runs: NCCL's choice, an engine's rule, or a forced one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.custom import CUSTOM_ALGORITHMS, custom_all_reduce
from kraken_sim.costs.collectives.graph import nvls_ctas, search_rings
from kraken_sim.costs.collectives.nccl import nccl_cost, require_nvls
from kraken_sim.costs.collectives.network import network_cost
from kraken_sim.costs.collectives.policy import Library, Transport
from kraken_sim.costs.collectives.send_recv import all_to_all_cost, point_to_point_cost
from kraken_sim.costs.collectives.serving_rules import custom_kernel, usable_kernels
from kraken_sim.costs.collectives.tuning import (
    ALGORITHMS,
    HIERARCHICAL,
    LL128,
    NVLS,
    PROTOCOLS,
    RING,
    SEND_RECV,
    SIMPLE,
    NcclChoice,
    channel_count,
    tuning_table,
)
from kraken_sim.costs.types import CollectiveCost
from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.collectives.policy import CollectivePolicy
    from kraken_sim.costs.collectives.tuning import TuningEntry
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Interconnect

PATH = "runtime.collective"

NOTHING = CollectiveCost(0.0, 0.0, 0.0, "none", "none", 0, 0.0, 0.0, "one device, nothing to exchange")
"""What a group of one, or a message of no bytes, costs; a definition."""


def all_reduce_cost(
    num_bytes: int,
    interconnect: Interconnect,
    device: Device,
    constants: CollectiveConstants,
    policy: CollectivePolicy,
) -> CollectiveCost:
    """An AllReduce of `num_bytes` a rank, alone on an idle machine.

    One device (or no bytes) costs nothing and holds nothing.

    Raises:
        InputError: The policy names an algorithm or protocol that does not exist or cannot run here.
    """
    check_bytes(num_bytes)
    check_policy(policy)
    if interconnect.num_devices <= 1 or num_bytes == 0:
        return NOTHING
    interconnect = staged(interconnect, policy)
    kernel = custom_kernel(num_bytes, interconnect, device, constants, policy)
    if kernel == "":
        return _nccl(num_bytes, interconnect, device, constants, policy)
    if kernel is not None:
        return custom_all_reduce(num_bytes, kernel, interconnect, constants)
    usable = usable_kernels(interconnect, constants)
    costs = [custom_all_reduce(num_bytes, name, interconnect, constants) for name in usable]
    costs.append(_nccl(num_bytes, interconnect, device, constants, policy))
    return min(costs, key=lambda cost: cost.busy_s)


def collective_cost(
    kind: CollectiveKind,
    num_bytes: int,
    interconnect: Interconnect,
    device: Device,
    constants: CollectiveConstants,
    policy: CollectivePolicy,
) -> CollectiveCost:
    """Any collective alone on an idle machine; `num_bytes` as `kinds` counts them.

    Raises:
        InputError: As `all_reduce_cost`; or custom kernels are asked for something else than an AllReduce.
    """
    if kind is CollectiveKind.ALL_REDUCE:
        return all_reduce_cost(num_bytes, interconnect, device, constants, policy)
    check_bytes(num_bytes)
    check_policy(policy)
    if policy.library is Library.CUSTOM:
        message = f"custom kernels exist for all_reduce only, not for {kind}"
        raise InputError.single(f"{PATH}.library", message, policy.library.value, "library: nccl")
    if interconnect.num_devices <= 1 or num_bytes == 0:
        return NOTHING
    interconnect = staged(interconnect, policy)
    if interconnect.across is not None:
        return network_cost(kind, num_bytes, interconnect, device, constants, policy)
    if kind is CollectiveKind.ALL_TO_ALL:
        return all_to_all_cost(num_bytes, interconnect, device, constants, policy)
    if kind is CollectiveKind.SEND_RECV:
        return point_to_point_cost(num_bytes, interconnect, device, constants, policy)
    choice = nccl_choice(num_bytes, interconnect, device, constants, policy, kind)
    return nccl_cost(kind, num_bytes, choice, interconnect, constants)


def check_bytes(num_bytes: int) -> None:
    """A message has a size.

    Raises:
        InputError: It is negative.
    """
    if num_bytes < 0:
        raise InputError.single("num_bytes", "a message cannot have fewer than 0 bytes", num_bytes, "1048576")


def check_policy(policy: CollectivePolicy) -> None:
    """The names and numbers of a policy.

    Raises:
        InputError: An algorithm or protocol that does not exist, no channels: every problem.
    """
    problems: list[Problem] = []
    known = (*ALGORITHMS, HIERARCHICAL, SEND_RECV, *CUSTOM_ALGORITHMS)
    if policy.algorithm is not None and policy.algorithm not in known:
        problems.append(_unknown("algorithm", policy.algorithm, known))
    if policy.protocol is not None and policy.protocol not in PROTOCOLS:
        problems.append(_unknown("protocol", policy.protocol, PROTOCOLS))
    if policy.channels is not None and policy.channels < 1:
        problems.append(Problem(f"{PATH}.channels", "must be at least 1, or null", policy.channels, "channels: 4"))
    if policy.library is Library.NCCL and policy.algorithm in CUSTOM_ALGORITHMS:
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


def nccl_choice(
    num_bytes: int,
    interconnect: Interconnect,
    device: Device,
    constants: CollectiveConstants,
    policy: CollectivePolicy,
    kind: CollectiveKind = CollectiveKind.ALL_REDUCE,
) -> NcclChoice:
    """What NCCL runs for a message, with the policy's forced choices and channel limit honoured.

    NCCL_MAX_NCHANNELS does not enter NCCL's tuning: a limited communicator keeps its algorithm and protocol.

    Raises:
        InputError: No candidate is left, or NVLS is forced where it cannot run.
    """
    minor = constants.nccl_minor_version
    graph = search_rings(interconnect, device, minor)
    if policy.algorithm == HIERARCHICAL:
        message = "is for groups spread evenly over several nodes, and this one is within a node or uneven"
        raise InputError.single(f"{PATH}.algorithm", message, policy.algorithm, f"algorithm: {RING}")
    if policy.algorithm == SEND_RECV:
        message = f"sends and receives make all_to_all and send_recv, not {kind}"
        raise InputError.single(f"{PATH}.algorithm", message, policy.algorithm, f"algorithm: {RING}")
    algorithm = policy.algorithm if policy.algorithm in ALGORITHMS else None
    if algorithm == NVLS:
        require_nvls(interconnect, constants)
    table = tuning_table(interconnect, device, minor, nvls=bool(constants.nvls_enabled), graph=graph, kind=kind)
    best = _best(num_bytes, table, algorithm, policy.protocol)
    if best is None:
        raise _no_candidate(kind, algorithm, policy.protocol, interconnect)
    most = nvls_ctas(device) if best.algorithm == NVLS else graph.ctas
    if policy.channels is not None:
        most = min(most, policy.channels)
    channels, parallelism = channel_count(
        num_bytes, best.algorithm, best.protocol, interconnect.num_devices, graph, most, kind
    )
    return NcclChoice(best.algorithm, best.protocol, channels, parallelism)


def _best(
    num_bytes: int, table: Sequence[TuningEntry], algorithm: str | None, protocol: str | None
) -> TuningEntry | None:
    best, best_us = None, float("inf")
    for entry in table:
        if (algorithm is not None and entry.algorithm != algorithm) or (
            protocol is not None and entry.protocol != protocol
        ):
            continue
        time_us = entry.time_us(num_bytes)
        if time_us < best_us:
            best, best_us = entry, time_us
    return best


def _no_candidate(
    kind: CollectiveKind, algorithm: str | None, protocol: str | None, interconnect: Interconnect
) -> InputError:
    if kind is not CollectiveKind.ALL_REDUCE and algorithm not in (None, RING):
        message = f"NCCL runs {kind} as a ring within a node"
        return InputError.single(f"{PATH}.algorithm", message, algorithm, f"algorithm: {RING}")
    if protocol == LL128 and algorithm != NVLS:
        message = f"LL128 needs NVLink, and these GPUs are joined by {interconnect.kind.value}"
        return InputError.single(f"{PATH}.protocol", message, protocol, "protocol: simple")
    message = "NVLS has only the simple protocol" if algorithm == NVLS else "NCCL has no such combination here"
    return InputError.single(f"{PATH}.protocol", message, protocol, f"protocol: {SIMPLE}")


def _nccl(
    num_bytes: int,
    interconnect: Interconnect,
    device: Device,
    constants: CollectiveConstants,
    policy: CollectivePolicy,
) -> CollectiveCost:
    if interconnect.across is not None:
        return network_cost(CollectiveKind.ALL_REDUCE, num_bytes, interconnect, device, constants, policy)
    choice = nccl_choice(num_bytes, interconnect, device, constants, policy)
    return nccl_cost(CollectiveKind.ALL_REDUCE, num_bytes, choice, interconnect, constants)
