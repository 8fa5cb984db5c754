"""What NCCL picks for a message within a node, by its tuning model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.graph import nvls_ctas, search_rings
from kraken_sim.costs.collectives.tuning import LL128, NVLS, SIMPLE, NcclChoice, channel_count, tuning_table
from kraken_sim.errors import InputError
from kraken_sim.program.many import same, where
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.collectives.policy import CollectivePolicy
    from kraken_sim.costs.collectives.tuning import TuningEntry
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Interconnect

PATH = "runtime.collective"


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
        InputError: No candidate is left.
    """
    minor = constants.nccl_minor_version
    graph = search_rings(interconnect, device, minor)
    table = tuning_table(interconnect, device, minor, nvls=bool(constants.nvls_enabled), graph=graph, kind=kind)
    best = _best(num_bytes, table, policy.algorithm, policy.protocol)
    if best is None:
        raise _no_candidate(policy, interconnect)
    most = nvls_ctas(device) if best.algorithm == NVLS else graph.ctas
    if policy.channels is not None:
        most = min(most, policy.channels)
    channels, parallelism = channel_count(
        num_bytes, best.algorithm, best.protocol, interconnect.num_devices, graph, most, minor, kind
    )
    return NcclChoice(best.algorithm, best.protocol, channels, parallelism)


def _best(
    num_bytes: int, table: Sequence[TuningEntry], algorithm: str | None, protocol: str | None
) -> TuningEntry | None:
    best, best_us = -1, float("inf")
    for index, entry in enumerate(table):
        if (algorithm is not None and entry.algorithm != algorithm) or (
            protocol is not None and entry.protocol != protocol
        ):
            continue
        time_us = entry.time_us(num_bytes)
        faster = time_us < best_us
        best, best_us = where(faster, index, best), where(faster, time_us, best_us)
    found = same(best)
    return None if found < 0 else table[found]


def _no_candidate(policy: CollectivePolicy, interconnect: Interconnect) -> InputError:
    if policy.protocol == LL128 and policy.algorithm != NVLS:
        message = f"LL128 needs NVLink, and these GPUs are joined by {interconnect.kind.value}"
        return InputError.single(f"{PATH}.protocol", message, policy.protocol, "protocol: simple")
    message = "NVLS has only the simple protocol" if policy.algorithm == NVLS else "NCCL has no such combination here"
    return InputError.single(f"{PATH}.protocol", message, policy.protocol, f"protocol: {SIMPLE}")
