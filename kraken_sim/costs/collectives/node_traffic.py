"""Which bytes the algorithms move between the ranks of a node, exactly: payload, without flags and headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.kinds import ring_bytes
from kraken_sim.hardware.topology.graph import NodeKind
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from kraken_sim.costs.collectives.routes import Group, Pair, Traffic


def ring_pairs(kind: CollectiveKind, num_devices: int, num_bytes: float) -> dict[Pair, float]:
    """To the next rank 2(n-1)/n of an AllReduce and (n-1)/n of an AllGather or ReduceScatter.

    All of a Broadcast, along the chain from rank 0.
    """
    n = num_devices
    sent = ring_bytes(kind, n, num_bytes)
    return {(rank, (rank + 1) % n): sent for rank in range(n - 1 if kind is CollectiveKind.BROADCAST else n)}


def chain_pairs(num_devices: int, num_bytes: float) -> dict[Pair, float]:
    """NCCL's tree within a node is a chain: the message goes up and down every link of it."""
    chain = [(rank, rank + 1) for rank in range(num_devices - 1)]
    return dict.fromkeys([*chain, *((b, a) for a, b in chain)], float(num_bytes))


def send_recv_pairs(kind: CollectiveKind, num_devices: int, num_bytes: float) -> dict[Pair, float]:
    """An n-th of an AllToAll to everybody; point-to-point, all to the next rank."""
    if kind is CollectiveKind.SEND_RECV:
        return next_rank_pairs(num_devices, num_bytes)
    return everybody_pairs(num_devices, num_bytes / num_devices)


def next_rank_pairs(num_devices: int, num_bytes: float) -> dict[Pair, float]:
    """Every rank to the next one, the last to the first."""
    return {(rank, (rank + 1) % num_devices): float(num_bytes) for rank in range(num_devices)}


def everybody_pairs(num_devices: int, num_bytes: float) -> dict[Pair, float]:
    """Every rank to every other one."""
    ranks = range(num_devices)
    return {(a, b): num_bytes for a in ranks for b in ranks if a != b}


def one_shot_traffic(group: Group, num_bytes: float) -> Traffic:
    """Everybody's message to everybody."""
    return group.traffic(everybody_pairs(group.num_devices, float(num_bytes)))


def two_shot_traffic(group: Group, num_bytes: float) -> Traffic:
    """An n-th to everybody, twice: its part of what they add, then its sum."""
    return group.traffic(everybody_pairs(group.num_devices, 2.0 * num_bytes / group.num_devices))


def symmetric_traffic(group: Group, num_bytes: float) -> Traffic:
    """An n-th to everybody, twice in an AllReduce; of more than two GPUs on switches, what these add and multicast.

    Small messages go whole to everybody, and switches before Hopper's add nothing: neither is counted apart.
    """
    first = group.way(group.gpus[0], group.gpus[1])[0]
    on_switch = group.topology.kinds[first.target] is NodeKind.NVSWITCH
    if group.kind is CollectiveKind.ALL_REDUCE and group.num_devices > 2 and on_switch:
        return switch_traffic(group, num_bytes)
    times = 2.0 if group.kind is CollectiveKind.ALL_REDUCE else 1.0
    return group.traffic(everybody_pairs(group.num_devices, times * num_bytes / group.num_devices))


def copy_engine_traffic(group: Group, num_bytes: float) -> Traffic:
    """What each rank has to everybody: of an AllReduce its whole message."""
    whole = group.kind is CollectiveKind.ALL_REDUCE
    return group.traffic(everybody_pairs(group.num_devices, num_bytes / (1 if whole else group.num_devices)))


def switch_traffic(group: Group, num_bytes: float) -> Traffic:
    """An AllReduce that the NVSwitch adds and multicasts.

    Every GPU gives its message to the reductions and its n-th of the result to the multicast, and gets its n-th of
    the sums and all of the result: (n+1)/n of the bytes each way.
    """
    both = (group.num_devices + 1.0) / group.num_devices * num_bytes
    return group.traffic_through_switch(both, both)


def copy_traffic(group: Group, num_bytes: float) -> Traffic:
    """Point-to-point by copy engines."""
    return group.traffic(next_rank_pairs(group.num_devices, num_bytes))
