"""How long NCCL's algorithms take: start-up, steps, and bytes over what channels and links carry.

The form is the usual latency + bytes / bandwidth; the bandwidth is limited by the channels that run
(`channel_bytes_per_s` each, one SM a channel) and by the links, whichever is less, with a soft corner.
`choice` says what NCCL picks; nothing here does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.constants import LINK_CLASS, extended_knots, interpolate_knots, link_value
from kraken_sim.costs.collectives.graph import PCIE_X16_LINE_GBPS
from kraken_sim.costs.collectives.kinds import num_steps, ring_bytes
from kraken_sim.costs.collectives.tuning import LL, NVLS, TREE
from kraken_sim.costs.types import CollectiveCost
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.program.many import each, is_many, maths_for
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.collectives.call import CollectiveCall
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.collectives.tuning import NcclChoice
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.program.many import Sizes

CORNER = 8.0
"""Exponent of the soft minimum between channel-bound and link-bound rates (2 is round, infinity is sharp). Assumed: the
rates in the profiles were fitted with it in place."""

ALL_REDUCE_HBM_ACCESSES, REDUCE_SCATTER_HBM_ACCESSES = 5.0, 3.0
"""HBM accesses a byte that a ring moves, counted; that none is served by L2 is assumed. A reduce step reads the buffer
and its own data and writes on, a gather step reads and writes."""

HOST_MEMORY_BYTES_PER_S: Mapping[int, float] = {3: 128e9, 4: 205e9, 5: 307e9, 6: 614e9}
"""What the memory of one socket carries, by the PCIe generation that came with it: six channels of DDR4-2666, eight of
DDR4-3200 (AMD EPYC 7003 datasheet), eight of DDR5-4800 (Intel Xeon 8480+ datasheet); of the sixth generation assumed,
twice the fifth."""

OTHER_HOST_MEMORY_BYTES_PER_S = 205e9
"""The same of an unknown generation; assumed, as of the fourth."""

COPIES_THROUGH_HOST = 2.0
"""A byte that goes through host memory is written there and read again; a definition."""

NVLS_FITTED_GPUS = 8
"""GPUs of the largest groups whose NVLS was fitted; a definition. In larger ones each GPU's part of the message, which
goes through the switch in chunks of its own, is as small as in a smaller message of eight."""

LEAST_KEPT = 0.05
"""Share of the link rate that a ring of two keeps at least; a limit of ours, far below any fitted loss."""


def soft_min(first: Sizes, second: Sizes) -> Sizes:
    """A smooth minimum: within 9 % of the smaller one, and monotone in both."""
    maths = maths_for(first, second)
    low, high = maths.minimum(first, second), maths.maximum(first, second)
    return low / maths.power(1.0 + maths.power(low / high, CORNER), 1.0 / CORNER)


@dataclass(frozen=True, slots=True)
class Wire:
    """Latency and rates of one protocol on one interconnect; `line_bytes_per_s` is the line rate taken up."""

    base_s: float
    step_s: float
    rate_bytes_per_s: Sizes
    line_bytes_per_s: Sizes


def line_rate_bytes_per_s(interconnect: Interconnect, constants: CollectiveConstants) -> float:
    """Line rate that each GPU of the group has when all send at once.

    GPUs that meet only at host bridges or in host memory share what passes there, where a machine was measured to
    carry less than its links do.
    """
    line = interconnect.bandwidth_bytes_per_s
    fabric = fabric_bytes_per_s(interconnect, constants)
    if fabric is None:
        return line
    crossing = constants.socket_crossing_efficiency if interconnect.crosses_sockets else 1.0
    return min(line, fabric * crossing / interconnect.num_devices)


def fabric_bytes_per_s(interconnect: Interconnect, constants: CollectiveConstants) -> float | None:
    """What host bridges and host memory pass for all GPUs together; None where the group does not need them.

    The GPUs of one PCIe switch, `switch_group_size` of them, do not, unless they sit on different sockets.
    """
    links = constants.shared_fabric_links.get(LINK_CLASS[interconnect.kind])
    small = interconnect.num_devices <= constants.switch_group_size and not interconnect.crosses_sockets
    if links is None or small:
        return None
    line = interconnect.bandwidth_bytes_per_s
    return PCIE_X16_LINE_GBPS.get(interconnect.pcie_gen, line * 1e-9) * 1e9 * links


def host_memory_bytes_per_s(interconnect: Interconnect) -> float:
    """Payload that the memory of one host lets each hop of a ring have; infinite where none goes through it."""
    if interconnect.kind is not InterconnectKind.HOST or not interconnect.host_hops:
        return math.inf
    memory = HOST_MEMORY_BYTES_PER_S.get(interconnect.pcie_gen, OTHER_HOST_MEMORY_BYTES_PER_S)
    return memory / (COPIES_THROUGH_HOST * interconnect.host_hops)


def extra_flight_s(interconnect: Interconnect, constants: CollectiveConstants) -> float:
    """Time of flight beyond what the fitted steps contain."""
    contained = constants.link_latency_s.get(LINK_CLASS[interconnect.kind], 0.0)
    return max(0.0, interconnect.latency_s - contained)


def wire(
    num_bytes: int,
    choice: NcclChoice,
    protocol: str,
    interconnect: Interconnect,
    constants: CollectiveConstants,
    *,
    kind: CollectiveKind = CollectiveKind.ALL_REDUCE,
    efficiency: float = 1.0,
    link_share: float = 1.0,
) -> Wire:
    """What a message meets on its way: the constants of its link and protocol, as its collective uses them."""
    link_class = LINK_CLASS[interconnect.kind]
    line = line_rate_bytes_per_s(interconnect, constants)
    link = line * efficiency * link_share * constants.factor(kind, protocol, "link")
    # A GPU that only writes to host memory, or only reads, has its link for itself, as with peer-to-peer access.
    one_way = interconnect.kind is InterconnectKind.HOST and not interconnect.two_way
    efficiency_class = LINK_CLASS[InterconnectKind.PCIE] if one_way else link_class
    link *= link_value(constants, "link_efficiency", efficiency_class, protocol)
    knots = constants.correction(kind, protocol)
    if knots:
        alike = num_bytes * min(1.0, NVLS_FITTED_GPUS / interconnect.num_devices) if protocol == NVLS else num_bytes
        log_size = each(math.log2, maths_for(alike).maximum(1.0, alike))
        link /= extended_knots(knots, log_size) if protocol == NVLS else interpolate_knots(knots, log_size)
    channels = choice.parallelism * efficiency * constants.factor(kind, protocol, "channel")
    channels *= link_value(constants, "channel_bytes_per_s", link_class, protocol)
    rate = soft_min(channels, link)
    rate = maths_for(rate).minimum(rate, host_memory_bytes_per_s(interconnect))
    base_s = link_value(constants, "base_s", link_class, protocol) * constants.factor(kind, protocol, "base")
    step_s = link_value(constants, "step_s", link_class, protocol) * constants.factor(kind, protocol, "step")
    return Wire(
        base_s + constants.nccl_call_s,
        step_s + extra_flight_s(interconnect, constants),
        rate,
        line * rate / link,
    )


def ring_collective(
    kind: CollectiveKind,
    num_bytes: int,
    choice: NcclChoice,
    interconnect: Interconnect,
    constants: CollectiveConstants,
) -> CollectiveCost:
    """A ring: of 2(n-1) steps an AllReduce, whose halves are a ReduceScatter and an AllGather, or a Broadcast's chain.

    An AllReduce has n-1 reduce-scatter and n-1 all-gather steps, and each rank sends 2(n-1)/n of the bytes. In an
    AllGather every rank's n-th goes round, and its own is copied as well. A Broadcast's bytes go along the ring in
    chunks; the last rank has them n-1 steps after the root sent.
    """
    n, protocol = interconnect.num_devices, choice.protocol
    loss = constants.ring_pair_loss.get(protocol, 0.0) * constants.factor(kind, protocol, "pair_loss")
    kept = max(LEAST_KEPT, 1.0 - loss * 4.0 / (n * n))
    taken = wire(num_bytes, choice, protocol, interconnect, constants, kind=kind, link_share=kept)
    sent = ring_bytes(kind, n, num_bytes)
    latency_s = taken.base_s + num_steps(kind, n) * taken.step_s
    cost = _cost(choice, latency_s, sent, taken, ring_hbm_accesses(kind, n) * num_bytes)
    return _polling(cost, interconnect)


def ring_hbm_accesses(kind: CollectiveKind, num_devices: int) -> float:
    """How often a ring touches a byte of the message in a rank's HBM.

    5(n-1)/n for an AllReduce, 3(n-1)/n for its first half; the others read and write once.
    """
    if kind is CollectiveKind.ALL_REDUCE:
        return ALL_REDUCE_HBM_ACCESSES * (num_devices - 1) / num_devices
    if kind is CollectiveKind.REDUCE_SCATTER:
        return REDUCE_SCATTER_HBM_ACCESSES * (num_devices - 1) / num_devices
    return 2.0


def tree_all_reduce(
    num_bytes: int, choice: NcclChoice, interconnect: Interconnect, constants: CollectiveConstants
) -> CollectiveCost:
    """Tree within one node: NCCL builds a chain, up for the sum and down for the result.

    The n-1 links of the chain carry the message both ways, so the ranks send 2(n-1)/n of the bytes on
    average, but an inner rank sends twice the message: that rank sets the time.
    """
    n = interconnect.num_devices
    taken = wire(num_bytes, choice, choice.protocol, interconnect, constants, efficiency=constants.tree_efficiency)
    busiest = (2.0 if n > 2 else 1.0) * num_bytes
    sent = 2.0 * (n - 1) / n * num_bytes
    latency_s = taken.base_s + 2 * (n - 1) * taken.step_s
    cost = _cost(choice, latency_s, sent, taken, ALL_REDUCE_HBM_ACCESSES * (n - 1) / n * num_bytes, busiest)
    return _polling(cost, interconnect)


def nvls_all_reduce(
    num_bytes: int, choice: NcclChoice, interconnect: Interconnect, constants: CollectiveConstants
) -> CollectiveCost:
    """NVLink SHARP: the switch adds and multicasts.

    Each GPU sends its bytes once to the switch's reduction and 1/n of the result to the multicast.
    """
    interconnect = interconnect.switched
    n = interconnect.num_devices
    taken = wire(num_bytes, choice, NVLS, interconnect, constants)
    sent = (n + 1.0) / n * num_bytes
    return _cost(choice, taken.base_s + n * taken.step_s, sent, taken, 2.0 * num_bytes)


def _polling(cost: CollectiveCost, interconnect: Interconnect) -> CollectiveCost:
    """The cost with a word on what it polls.

    LL has a flag beside every four bytes, and over NVLink peers write into each other's L2. Through host memory what
    streams on the device makes no difference (measured on two H200); LL128 is taken to be as Simple, unmeasured.
    """
    nvlink = LINK_CLASS[interconnect.kind] == LINK_CLASS[InterconnectKind.NVLINK]
    return replace(cost, polls_l2=nvlink and cost.protocol == LL)


def _cost(
    choice: NcclChoice,
    latency_s: float,
    sent_bytes: float,
    taken: Wire,
    hbm_bytes: float,
    busiest_bytes: float | None = None,
) -> CollectiveCost:
    transfer_s = (sent_bytes if busiest_bytes is None else busiest_bytes) / taken.rate_bytes_per_s
    return CollectiveCost(
        busy_s=latency_s + transfer_s,
        latency_s=latency_s,
        transfer_s=transfer_s,
        algorithm=choice.algorithm,
        protocol=choice.protocol,
        channels=choice.channels,
        hbm_bytes=hbm_bytes,
        link_bytes=sent_bytes,
        detail="" if is_many(transfer_s) else f"NCCL {choice.algorithm} {choice.protocol}, {choice.channels} channels",
        line_bytes_per_s=taken.line_bytes_per_s,
    )


def nccl_cost(
    kind: CollectiveKind,
    num_bytes: int,
    choice: NcclChoice,
    interconnect: Interconnect,
    constants: CollectiveConstants,
) -> CollectiveCost:
    """The cost of what NCCL chose within a node."""
    if choice.algorithm == TREE:
        return tree_all_reduce(num_bytes, choice, interconnect, constants)
    if choice.algorithm == NVLS:
        return nvls_all_reduce(num_bytes, choice, interconnect, constants)
    return ring_collective(kind, num_bytes, choice, interconnect, constants)


def nvls_problem(call: CollectiveCall) -> str | None:
    """NVLS needs a switch that adds, at least 3 ranks before NCCL 2.28, and to be switched on."""
    interconnect, constants = call.interconnect.switched, call.constants
    if interconnect.kind is not InterconnectKind.NVSWITCH:
        return f"NVLS needs NVSwitch, and these GPUs are joined by {interconnect.kind.value}"
    if not constants.nvls_enabled:
        return "NVLS is switched off on this machine (collectives.nvls_enabled is 0)"
    if interconnect.num_devices < 3 and constants.nccl_minor_version < 28:
        return f"NCCL 2.{constants.nccl_minor_version} has no NVLS for 2 GPUs (2.28 and later do)"
    if NVLS not in constants.base_s.get("nvlink", {}):
        return "the profile has no constants for NVLS (collectives.base_s.nvlink.nvls)"
    return None
