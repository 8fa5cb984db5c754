"""From a runtime's policy to the kernel that runs: NCCL's choice, an engine's rule, or a forced one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.custom import (
    CUSTOM_ALGORITHMS,
    MULTIMEM,
    ONE_SHOT,
    TWO_SHOT,
    custom_all_reduce,
)
from kraken_sim.costs.collectives.graph import nvls_ctas, search_rings
from kraken_sim.costs.collectives.nccl import nccl_all_reduce, require_nvls
from kraken_sim.costs.collectives.policy import Library, Selection, Transport
from kraken_sim.costs.collectives.tuning import (
    ALGORITHMS,
    LL128,
    NVLS,
    PROTOCOLS,
    SIMPLE,
    NcclChoice,
    channel_count,
    tuning_table,
)
from kraken_sim.costs.types import CollectiveCost
from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.hardware.interconnect import InterconnectKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.collectives.policy import CollectivePolicy
    from kraken_sim.costs.collectives.tuning import TuningEntry
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Interconnect

MIB = 1024 * 1024
PATH = "runtime.collective"
# TensorRT-LLM cpp/tensorrt_llm/plugins/ncclPlugin/allreducePlugin.cpp, 2024: workspace and thresholds.
LEGACY_MAX_BYTES_2, LEGACY_MAX_BYTES_MORE = 16_000_000, 8_000_000
LEGACY_ONE_SHOT_BELOW_4, LEGACY_ONE_SHOT_BELOW_8 = 1_000_000, 500_000
# vLLM csrc/custom_all_reduce.cuh and its communicators: sizes below which custom kernels run, with the larger
# limits of SM90 where symmetric memory takes over beyond them.
VLLM_CUSTOM_BELOW = 8 * MIB
VLLM_ONE_SHOT_BELOW_4, VLLM_ONE_SHOT_BELOW_8 = MIB // 2, MIB // 4
VLLM_HOPPER_CUSTOM_BELOW = {2: 64 * MIB, 4: 32 * MIB, 6: MIB // 2, 8: MIB // 4}
VLLM_HOPPER_MULTIMEM_MAX = {4: 32 * MIB, 6: 64 * MIB, 8: 64 * MIB}


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
    if num_bytes < 0:
        raise InputError.single("num_bytes", "a message cannot have fewer than 0 bytes", num_bytes, "1048576")
    _check_policy(policy)
    if interconnect.num_devices <= 1 or num_bytes == 0:
        return CollectiveCost(0.0, 0.0, 0.0, "none", "none", 0, 0.0, 0.0, "one device, nothing to exchange")
    staged = _staged(interconnect, policy)
    kernel = _custom_kernel(num_bytes, staged, device, constants, policy)
    if kernel == "":
        return _nccl(num_bytes, staged, device, constants, policy)
    if kernel is not None:
        return custom_all_reduce(num_bytes, kernel, staged, constants)
    costs = [custom_all_reduce(num_bytes, name, staged, constants) for name in _usable(staged, constants)]
    costs.append(_nccl(num_bytes, staged, device, constants, policy))
    return min(costs, key=lambda cost: cost.busy_s)


def _check_policy(policy: CollectivePolicy) -> None:
    problems: list[Problem] = []
    known = (*ALGORITHMS, *CUSTOM_ALGORITHMS)
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


def _staged(interconnect: Interconnect, policy: CollectivePolicy) -> Interconnect:
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
) -> NcclChoice:
    """What NCCL runs for a message, with the policy's forced choices and channel limit honoured.

    NCCL_MAX_NCHANNELS does not enter NCCL's tuning: a limited communicator keeps its algorithm and protocol.

    Raises:
        InputError: No candidate is left, or NVLS is forced where it cannot run.
    """
    minor = constants.nccl_minor_version
    graph = search_rings(interconnect, device, minor)
    algorithm = policy.algorithm if policy.algorithm in ALGORITHMS else None
    if algorithm == NVLS:
        require_nvls(interconnect, constants)
    table = tuning_table(interconnect, device, minor, nvls=bool(constants.nvls_enabled), graph=graph)
    best = _best(num_bytes, table, algorithm, policy.protocol)
    if best is None:
        raise _no_candidate(algorithm, policy.protocol, interconnect)
    most = nvls_ctas(device) if best.algorithm == NVLS else graph.ctas
    if policy.channels is not None:
        most = min(most, policy.channels)
    channels, parallelism = channel_count(
        num_bytes, best.algorithm, best.protocol, interconnect.num_devices, graph, most
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


def _no_candidate(algorithm: str | None, protocol: str | None, interconnect: Interconnect) -> InputError:
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
    choice = nccl_choice(num_bytes, interconnect, device, constants, policy)
    return nccl_all_reduce(num_bytes, choice, interconnect, constants)


def _custom_kernel(
    num_bytes: int,
    interconnect: Interconnect,
    device: Device,
    constants: CollectiveConstants,
    policy: CollectivePolicy,
) -> str | None:
    """The custom kernel's name, "" for NCCL, None to let the fastest win."""
    if policy.library is Library.NCCL:
        return ""
    if policy.algorithm is not None:
        return "" if policy.algorithm in ALGORITHMS else _forced(policy.algorithm, interconnect, constants)
    if policy.selection is Selection.TENSORRT_LLM_LEGACY:
        return _tensorrt_llm_legacy(num_bytes, interconnect, constants)
    if policy.selection is Selection.VLLM:
        return _vllm(num_bytes, interconnect, device, constants)
    return None if num_bytes <= constants.custom_max_bytes else ""


def _usable(interconnect: Interconnect, constants: CollectiveConstants) -> list[str]:
    """Custom kernels that can run on this interconnect."""
    kind, n = interconnect.kind, interconnect.num_devices
    nvlink = kind in (InterconnectKind.NVSWITCH, InterconnectKind.NVLINK)
    if not nvlink and not (kind is InterconnectKind.PCIE and n == 2):
        return []
    multicast = kind is InterconnectKind.NVSWITCH and bool(constants.nvls_enabled) and n > 2
    return [name for name in constants.custom_base_s if multicast or not name.startswith(MULTIMEM)]


def _kernel(algorithm: str, family: str, usable: Sequence[str]) -> str:
    """The kernel of that family, else of another, else "" (NCCL)."""
    preferred = f"{algorithm}_{family}"
    if preferred in usable:
        return preferred
    return next((name for name in usable if name.startswith(algorithm)), "")


def _forced(algorithm: str, interconnect: Interconnect, constants: CollectiveConstants) -> str:
    name = _kernel(algorithm, "vllm", _usable(interconnect, constants))
    if name:
        return name
    if algorithm == MULTIMEM:
        message = "multimem needs NVSwitch with multicast (nvls_enabled) and at least 3 GPUs"
    else:
        message = "custom kernels need peer access: NVLink, or two GPUs on PCIe"
    raise InputError.single(f"{PATH}.algorithm", message, algorithm, "library: nccl")


def _tensorrt_llm_legacy(num_bytes: int, interconnect: Interconnect, constants: CollectiveConstants) -> str:
    """TensorRT-LLM's AUTO strategy of 2024: NCCL without NVLink or beyond the workspace."""
    n = interconnect.num_devices
    if interconnect.kind not in (InterconnectKind.NVSWITCH, InterconnectKind.NVLINK):
        return ""
    if num_bytes > (LEGACY_MAX_BYTES_2 if n <= 2 else LEGACY_MAX_BYTES_MORE):
        return ""
    below = LEGACY_ONE_SHOT_BELOW_4 if n <= 4 else LEGACY_ONE_SHOT_BELOW_8
    algorithm = ONE_SHOT if n <= 2 or num_bytes < below else TWO_SHOT
    return _kernel(algorithm, "tensorrt_llm", _usable(interconnect, constants))


def _vllm(num_bytes: int, interconnect: Interconnect, device: Device, constants: CollectiveConstants) -> str:
    """What vLLM runs: custom kernels while small, multimem where the switch adds, else NCCL."""
    n = interconnect.num_devices
    usable = _usable(interconnect, constants)
    multicast = [name for name in usable if name.startswith(MULTIMEM)]
    hopper = device.generation == "hopper" and bool(constants.nvls_enabled)
    limit = VLLM_HOPPER_CUSTOM_BELOW.get(n, 0) if hopper else VLLM_CUSTOM_BELOW
    if n in (2, 4, 6, 8) and num_bytes < limit and num_bytes % 16 == 0:
        one_shot_below = VLLM_ONE_SHOT_BELOW_4 if n <= 4 else VLLM_ONE_SHOT_BELOW_8
        algorithm = ONE_SHOT if n == 2 or num_bytes < one_shot_below else TWO_SHOT
        return _kernel(algorithm, "vllm", usable)
    if hopper and multicast and num_bytes <= VLLM_HOPPER_MULTIMEM_MAX.get(n, 0):
        return multicast[0]
    return ""
