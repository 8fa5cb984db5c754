"""The collectives by their names, and what one is worth on the wire; bytes are counted as in `Collective`."""

from __future__ import annotations

from kraken_sim.errors import InputError, closest
from kraken_sim.program.ops import CollectiveKind

SPELLINGS = {
    "allreduce": CollectiveKind.ALL_REDUCE,
    "allgather": CollectiveKind.ALL_GATHER,
    "reducescatter": CollectiveKind.REDUCE_SCATTER,
    "alltoall": CollectiveKind.ALL_TO_ALL,
    "bcast": CollectiveKind.BROADCAST,
    "broadcast": CollectiveKind.BROADCAST,
    "sendrecv": CollectiveKind.SEND_RECV,
}
"""Other ways to write them, without underscores: nccl-tests says alltoall, MPI bcast."""


RING_KINDS = (
    CollectiveKind.ALL_REDUCE,
    CollectiveKind.ALL_GATHER,
    CollectiveKind.REDUCE_SCATTER,
    CollectiveKind.BROADCAST,
)
"""What NCCL runs as rings."""


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
    if kind is CollectiveKind.SEND_RECV:
        return 1
    return (num_devices - 1) * (2 if kind is CollectiveKind.ALL_REDUCE else 1)


def bus_factor(kind: CollectiveKind, num_devices: int) -> float:
    """Busbw / algbw of nccl-tests (doc/PERFORMANCE.md): the share of the bytes that must cross a rank's links."""
    n = num_devices
    if n <= 1:
        return 0.0
    if kind is CollectiveKind.ALL_REDUCE:
        return 2.0 * (n - 1) / n
    return 1.0 if kind in (CollectiveKind.BROADCAST, CollectiveKind.SEND_RECV) else (n - 1.0) / n


def ring_bytes(kind: CollectiveKind, num_devices: int, num_bytes: float) -> float:
    """Bytes that each hop of a ring carries, in ring direction.

    2(n-1)/n of an AllReduce, (n-1)/n of an AllGather or a ReduceScatter, all of a Broadcast (whose last hop,
    back to the root, carries nothing) or of sends to the next rank.
    """
    return bus_factor(kind, num_devices) * num_bytes
