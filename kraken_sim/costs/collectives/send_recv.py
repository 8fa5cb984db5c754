"""NCCL's sends and receives: an AllToAll, all peers at once, and point-to-point, from each rank to the next.

There is no ring: each of the n peers of an AllToAll (itself included, as a copy) gets its n-th of the bytes over
channels of its own. Source: NVIDIA/nccl src/enqueue.cc (addP2pToPlan, scheduleP2pTasksToPlan), src/graph/paths.cc
(ncclTopoComputeP2pChannels).
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.graph import search_rings
from kraken_sim.costs.collectives.nccl import wire
from kraken_sim.costs.collectives.tuning import LL, SEND_RECV, SIMPLE, NcclChoice
from kraken_sim.costs.types import CollectiveCost
from kraken_sim.errors import InputError
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from kraken_sim.costs.collectives.call import CollectiveCall
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.collectives.nccl import Wire
    from kraken_sim.hardware.interconnect import Interconnect

PROTOCOLS = (LL, SIMPLE)
MIN_PART_BYTES = 64 * 1024
"""A peer gets another channel for each part of this size: an eighth of a step of the 4 MiB buffer (addP2pToPlan of
NCCL's src/enqueue.cc, one node)."""

MAX_PART_BYTES = 16 * 1024 * 1024
"""A part is no larger as long as there are channels, whatever the other ranks might want: 32 steps (addP2pToPlan of
NCCL's src/enqueue.cc, one node)."""


def send_recv_channels(num_bytes: int, protocol: str, num_devices: int, max_channels: int) -> tuple[int, float]:
    """Channels of all peers together, and the same before rounding to whole parts.

    The communicator's channels are rounded up to a power of two and dealt out to the n ranks; LL has one a peer.
    """
    n = num_devices
    per_peer = max(1, 2 ** round(log2(max_channels)) // n)
    parts = 1.0 if protocol == LL else max(1.0, num_bytes / n / MIN_PART_BYTES)
    channels = n * min(per_peer, -int(-parts // 1))
    return min(channels, max(max_channels, n)), float((n - 1) * min(float(per_peer), parts))


def send_recv_cost(call: CollectiveCall) -> CollectiveCost:
    """LL while the shares are small, else Simple, whichever ends first; or the policy's protocol.

    NCCL switches at 16 KiB a peer and channel, about where the two meet. Point-to-point, `call.interconnect` is that
    of the ways from each rank to the next. Two GPUs that exchange m bytes do what an AllToAll of 2m between them does,
    of which each keeps half: so start-up, step, rates and correction are those that were fitted to AllToAlls.

    Raises:
        InputError: The policy forces a protocol that sends and receives do not have.
    """
    policy = call.policy
    if policy.protocol not in (None, *PROTOCOLS):
        message = f"sends and receives have {' and '.join(PROTOCOLS)}"
        raise InputError.single("runtime.collective.protocol", message, policy.protocol, f"protocol: {SIMPLE}")
    most = 2 ** -int(-log2(search_rings(call.interconnect, call.device, call.constants.nccl_minor_version).ctas) // 1)
    if policy.channels is not None:
        most = min(most, policy.channels)
    wanted = PROTOCOLS if policy.protocol is None else (policy.protocol,)
    one = _point_to_point if call.kind is CollectiveKind.SEND_RECV else _all_to_all
    costs = [one(call.num_bytes, protocol, most, call.interconnect, call.constants) for protocol in wanted]
    return min(costs, key=lambda cost: cost.busy_s)


def point_to_point_channels(num_bytes: int, protocol: str, num_devices: int, max_channels: int) -> tuple[int, float]:
    """Channels from a rank to the next, and the same before rounding to whole parts.

    At first those that a peer has in an AllToAll; twice as many while their parts are too large.
    """
    most = 2 ** round(log2(max_channels))
    least = max(1, most // num_devices)
    parts = 1.0 if protocol == LL else max(1.0, num_bytes / MIN_PART_BYTES)
    channels, parallelism = min(least, -int(-parts // 1)), min(float(least), parts)
    while protocol != LL and num_bytes > MAX_PART_BYTES * channels and 2 * channels <= most:
        channels, parallelism = 2 * channels, 2.0 * parallelism
    return channels, parallelism


def _all_to_all(
    num_bytes: int, protocol: str, max_channels: int, interconnect: Interconnect, constants: CollectiveConstants
) -> CollectiveCost:
    n = interconnect.num_devices
    channels, parallelism = send_recv_channels(num_bytes, protocol, n, max_channels)
    choice = NcclChoice(SEND_RECV, protocol, channels, parallelism)
    taken = wire(num_bytes, choice, protocol, interconnect, constants, kind=CollectiveKind.ALL_TO_ALL)
    return _cost(choice, (n - 1.0) / n * num_bytes, n - 1, 2.0 * num_bytes, taken)


def _point_to_point(
    num_bytes: int, protocol: str, max_channels: int, interconnect: Interconnect, constants: CollectiveConstants
) -> CollectiveCost:
    channels, parallelism = point_to_point_channels(num_bytes, protocol, interconnect.num_devices, max_channels)
    choice = NcclChoice(SEND_RECV, protocol, channels, parallelism)
    taken = wire(2 * num_bytes, choice, protocol, interconnect, constants, kind=CollectiveKind.SEND_RECV)
    return _cost(choice, float(num_bytes), 1, 2.0 * num_bytes, taken)


def _cost(choice: NcclChoice, sent: float, num_peers: int, hbm_bytes: float, taken: Wire) -> CollectiveCost:
    protocol, channels = choice.protocol, choice.channels
    latency_s = taken.base_s + num_peers * taken.step_s
    transfer_s = sent / taken.rate_bytes_per_s
    return CollectiveCost(
        busy_s=latency_s + transfer_s,
        latency_s=latency_s,
        transfer_s=transfer_s,
        algorithm=SEND_RECV,
        protocol=protocol,
        channels=channels,
        hbm_bytes=hbm_bytes,
        link_bytes=sent,
        detail=f"NCCL send and receive, {protocol}, {channels} channels",
        line_bytes_per_s=taken.line_bytes_per_s,
    )
