"""The collectives: what each one means, by NCCL's names, and what one is worth on the wire.

Bytes are counted as nccl-tests counts its `size`: AllReduce and Broadcast by the buffer of a rank, AllGather
by what a rank ends with, ReduceScatter by what it starts with, AllToAll by what a rank sends, its own share
included. So `num_bytes` is always the larger of a rank's two buffers.
"""

from __future__ import annotations

from enum import StrEnum

from kraken_sim.errors import InputError, closest


class CollectiveKind(StrEnum):
    """What a group of ranks does together."""

    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"
    BROADCAST = "broadcast"


SPELLINGS = {
    "allreduce": CollectiveKind.ALL_REDUCE,
    "allgather": CollectiveKind.ALL_GATHER,
    "reducescatter": CollectiveKind.REDUCE_SCATTER,
    "alltoall": CollectiveKind.ALL_TO_ALL,
    "bcast": CollectiveKind.BROADCAST,
    "broadcast": CollectiveKind.BROADCAST,
}
"""Other ways to write them, without underscores: nccl-tests says alltoall, MPI bcast."""


def collective_kind(name: str) -> CollectiveKind:
    """The collective of that name, in any of its spellings.

    Raises:
        InputError: There is none.
    """
    word = name.lower().replace("_", "").replace("-", "").removesuffix("perf")
    if word in SPELLINGS:
        return SPELLINGS[word]
    known = [kind.value for kind in CollectiveKind]
    message = f"must be one of {', '.join(known)}"
    raise InputError.single("collective", message, name, known[0], closest(name, known))


def num_steps(kind: CollectiveKind, num_devices: int) -> int:
    """Steps of a ring: every rank passes something on that many times."""
    return (num_devices - 1) * (2 if kind is CollectiveKind.ALL_REDUCE else 1)


def bus_factor(kind: CollectiveKind, num_devices: int) -> float:
    """Busbw / algbw of nccl-tests (doc/PERFORMANCE.md): the share of the bytes that must cross a rank's links."""
    n = num_devices
    if n <= 1:
        return 0.0
    if kind is CollectiveKind.ALL_REDUCE:
        return 2.0 * (n - 1) / n
    return 1.0 if kind is CollectiveKind.BROADCAST else (n - 1.0) / n


def ring_bytes(kind: CollectiveKind, num_devices: int, num_bytes: float) -> float:
    """Bytes that each hop of a ring carries, in ring direction.

    2(n-1)/n of an AllReduce, (n-1)/n of an AllGather or a ReduceScatter, all of a Broadcast (whose last hop,
    back to the root, carries nothing).
    """
    return bus_factor(kind, num_devices) * num_bytes
