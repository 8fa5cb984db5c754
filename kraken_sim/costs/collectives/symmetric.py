"""NCCL's kernels over symmetric memory (2.27 and later): which runs, on how few CTAs, and how long it takes.

Source: NVIDIA/nccl src/sym_kernels.cc (queryModel_lsa). They run where all buffers are registered as symmetric windows,
in one node or NVLink domain. Start-up and CTAs are NCCL's own estimate, bytes move no faster than in the custom kernel
that moves them alike (multimem, two-shot, one-shot), as the machine's constants have it; nothing was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log1p
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.constants import link_value
from kraken_sim.costs.collectives.custom import MULTIMEM, ONE_SHOT, TWO_SHOT
from kraken_sim.costs.collectives.graph import COMPUTE_CAPABILITY, OTHER_CAPABILITY
from kraken_sim.costs.collectives.nccl import line_rate_bytes_per_s
from kraken_sim.costs.collectives.tuning import SIMPLE
from kraken_sim.costs.types import CollectiveCost
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.collectives.call import CollectiveCall

SYMMETRIC = "symmetric"
SYMMETRIC_MINOR = 27
"""The x of the first NCCL 2.x with these kernels (a definition: NCCL's release notes)."""

LL_BUS_FACTOR = 9.0
"""Bytes that LL moves for one of the message: LL_BusFactor of NCCL's src/sym_kernels.cc."""

BYTES_PER_US = 2.0**30 / 1e6
"""What NCCL calls a GB/s in its src/sym_kernels.cc, bytes/us."""

MAX_BLOCKS = 64
"""Most CTAs: ncclSymkMaxBlocks of NCCL's src/include/sym_kernels.h."""

NVLS_BLOCKS, NVLS_BLOCKS_BLACKWELL = 16, 32
"""CTAs over all ranks of a kernel that multicasts, before and from compute capability 10.0
(queryModel_lsa of NCCL's src/sym_kernels.cc)."""

TOLERANCE = 1.025
"""How much longer than with the most CTAs fewer may take (queryModel_lsa of NCCL's src/sym_kernels.cc)."""


@dataclass(frozen=True, slots=True)
class SymmetricKernel:
    """A kernel by its name in NCCL, and what it moves.

    Attributes:
        name: As NCCL_SYM_KERNEL takes it.
        low_latency: Whether flags go with the data (LL).
        multicast: Whether the switch adds or copies.
        bus_multiplier: Bytes on the bus for one that a CTA handles, as a factor and by rank.
    """

    name: str
    low_latency: bool
    multicast: bool
    bus_multiplier: float = 1.0
    by_rank: bool = False


KERNELS: Mapping[CollectiveKind, tuple[SymmetricKernel, ...]] = {
    CollectiveKind.ALL_REDUCE: (
        SymmetricKernel("AllReduce_AGxLL_R", low_latency=True, multicast=False),
        SymmetricKernel("AllReduce_AGxLLMC_R", low_latency=True, multicast=True, bus_multiplier=1.1),
        SymmetricKernel("AllReduce_RSxLD_AGxST", low_latency=False, multicast=False),
        SymmetricKernel("AllReduce_RSxLDMC_AGxSTMC", low_latency=False, multicast=True, by_rank=True),
    ),
    CollectiveKind.ALL_GATHER: (
        SymmetricKernel("AllGather_LL", low_latency=True, multicast=False),
        SymmetricKernel("AllGather_LLMC", low_latency=True, multicast=True, bus_multiplier=1.1),
        SymmetricKernel("AllGather_ST", low_latency=False, multicast=False),
        SymmetricKernel("AllGather_STMC", low_latency=False, multicast=True, bus_multiplier=0.55, by_rank=True),
    ),
    CollectiveKind.REDUCE_SCATTER: (
        SymmetricKernel("ReduceScatter_LL", low_latency=True, multicast=False),
        SymmetricKernel("ReduceScatter_LD", low_latency=False, multicast=False),
        SymmetricKernel("ReduceScatter_LDMC", low_latency=False, multicast=True, bus_multiplier=0.55, by_rank=True),
    ),
}
"""The kernels of one NVLink domain, with the busMultiplier of queryModel_lsa in NCCL's
src/sym_kernels.cc."""


@dataclass(frozen=True, slots=True)
class _Estimate:
    """NCCL's estimate of a kernel: time in us, of which `start_us` before any byte, and CTAs."""

    kernel: SymmetricKernel
    time_us: float
    start_us: float
    blocks: int


def symmetric_cost(call: CollectiveCall) -> CollectiveCost:
    """The kernel that NCCL believes to be the fastest."""
    n, num_bytes, kind = call.interconnect.num_devices, call.num_bytes, call.kind
    capability = COMPUTE_CAPABILITY.get(call.device.generation, OTHER_CAPABILITY)
    usable = [kernel for kernel in KERNELS[kind] if not kernel.multicast or _multicasts(call)]
    most = MAX_BLOCKS if call.policy.channels is None else call.policy.channels
    best = min((_estimate(kernel, kind, num_bytes, n, capability, most) for kernel in usable), key=_time_us)
    sent = sent_bytes(best.kernel, kind, num_bytes, n)
    transfer_s = max((best.time_us - best.start_us) * 1e-6, sent / _wire_bytes_per_s(best.kernel, call))
    return CollectiveCost(
        busy_s=best.start_us * 1e-6 + transfer_s,
        latency_s=best.start_us * 1e-6,
        transfer_s=transfer_s,
        algorithm=SYMMETRIC,
        protocol="ll" if best.kernel.low_latency else "direct",
        channels=best.blocks,
        hbm_bytes=2.0 * num_bytes,
        link_bytes=sent,
        detail=f"NCCL {best.kernel.name} over symmetric memory, {best.blocks} CTAs",
        line_bytes_per_s=min(sent / transfer_s, call.interconnect.bandwidth_bytes_per_s),
    )


def _time_us(estimate: _Estimate) -> float:
    return estimate.time_us


def _wire_bytes_per_s(kernel: SymmetricKernel, call: CollectiveCall) -> float:
    """What the links carry of a kernel's traffic: as of the custom kernel that moves bytes alike."""
    line = line_rate_bytes_per_s(call.interconnect, call.constants)
    alike = ONE_SHOT if kernel.low_latency else MULTIMEM if kernel.multicast else TWO_SHOT
    shares = [share for name, share in call.constants.custom_link_efficiency.items() if name.startswith(alike)]
    return line * (max(shares) if shares else link_value(call.constants, "link_efficiency", "nvlink", SIMPLE))


def _multicasts(call: CollectiveCall) -> bool:
    """The switch adds for three GPUs or more (hasLsaMultimem of ncclSymkInitOnce)."""
    switched = call.interconnect.kind is InterconnectKind.NVSWITCH and call.interconnect.num_devices > 2
    return switched and bool(call.constants.nvls_enabled)


def bus_bytes(kernel: SymmetricKernel, kind: CollectiveKind, num_bytes: float, num_devices: int) -> float:
    """The most that a rank sends or gets, as NCCL counts: an AllGather's and a ReduceScatter's bytes are one rank's."""
    n = num_devices
    share = num_bytes if kind is CollectiveKind.ALL_REDUCE else num_bytes / n
    if kernel.low_latency:
        return LL_BUS_FACTOR * n * share
    if kind is not CollectiveKind.ALL_REDUCE:
        return (n - 1) * share
    return share + share / n if kernel.multicast else 2.0 * (n - 1) / n * share


def sent_bytes(kernel: SymmetricKernel, kind: CollectiveKind, num_bytes: float, num_devices: int) -> float:
    """What a rank sends, flags not counted."""
    if kernel.low_latency:
        share = num_bytes if kind is CollectiveKind.ALL_REDUCE else num_bytes / num_devices
        return (num_devices - 1) * share
    return bus_bytes(kernel, kind, num_bytes, num_devices)


def _estimate(
    kernel: SymmetricKernel, kind: CollectiveKind, num_bytes: int, num_devices: int, capability: int, most: int
) -> _Estimate:
    """NCCL's time with the fewest CTAs that come within 2.5 % of the most."""
    start_us, cta, peak = _rates(kernel, kind, capability)
    multiplier = kernel.bus_multiplier * (num_devices if kernel.by_rank else 1)
    if kernel.by_rank:
        over_all = NVLS_BLOCKS if capability < 100 else NVLS_BLOCKS_BLACKWELL
        most = min(most, -(-over_all // num_devices))
    moved = bus_bytes(kernel, kind, num_bytes, num_devices)

    def time_us(blocks: int) -> float:
        rate = _soft_min(blocks * cta * multiplier, peak, cta)
        return start_us + _soft_plus(moved / (rate * BYTES_PER_US) - 1.0)

    least = TOLERANCE * time_us(most)
    blocks = next((count for count in range(1, most) if time_us(count) <= least), most)
    return _Estimate(kernel, time_us(blocks), start_us, blocks)


def _rates(kernel: SymmetricKernel, kind: CollectiveKind, capability: int) -> tuple[float, float, float]:
    """Start-up in us, rate of a CTA and most of all, in NCCL's GB/s: the constants of queryModel_lsa."""
    reduces_all = kind is CollectiveKind.ALL_REDUCE
    added_by_switch = reduces_all and kernel.multicast and not kernel.low_latency
    if capability < 100:
        return 4.5 if kernel.low_latency else 7.8, 65.0 if reduces_all else 44.0, 480.0 if added_by_switch else 320.0
    if kernel.low_latency:
        start_us = 8.5 if kind is CollectiveKind.ALL_GATHER else 11.0
    else:
        start_us = 19.5 if reduces_all else 13.0
    return start_us, 55.0, 1000.0 if added_by_switch else 600.0


def _soft_min(x: float, ceiling: float, softness: float) -> float:
    return ceiling - softness * log1p((exp(ceiling / softness) - 1.0) * exp(-x / softness))


def _soft_plus(x: float) -> float:
    return x if x >= 100.0 else log1p(exp(x))


def symmetric_problem(call: CollectiveCall) -> str | None:
    """Symmetric memory needs GPUs that reach each other over NVLink."""
    kind = call.interconnect.kind
    if kind not in (InterconnectKind.NVSWITCH, InterconnectKind.NVLINK):
        return f"symmetric memory is NVLink's here, and these GPUs are joined by {kind.value}"
    return None
