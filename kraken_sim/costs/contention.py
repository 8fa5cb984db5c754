"""What kernels that run at the same time cost each other: pure formulas over shares of one device.

Four causes are modelled apart. SMs: a collective's CTAs own their SMs for its whole life, and the engine
places CTAs on what is left. HBM: kernels that ask for more than its bandwidth are slowed alike. Interference:
what remains (L2, crossbar, copy paths) as one factor a side, active only while both sides run. And eviction: a
collective that polls buffers in L2 finds them in HBM once a layer's weights have streamed through L2, which lasts after
the kernels that read the weights have ended.
Sources for the causes: arXiv 2507.03114 (compute slows by 18.9 % on average, 40 % at most beside a
collective), nccl issues 689 (a CTA of NCCL fills its SM) and 1433 (collectives slow down beside GEMMs that
leave SMs free: memory contention).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from kraken_sim.costs.slower import slower_collective
from kraken_sim.files.meaning import means
from kraken_sim.program.many import maths_for

if TYPE_CHECKING:
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.program.many import Sizes

LL_LAP_BYTES: Final = 512 * 8 * 8 * 8
"""Data that a channel's LL buffer holds before it begins anew: threads, lines of a thread, steps, bytes of a line that
are data and not flags (NCCL_LL_MAX_NTHREADS, NCCL_LL_LINES_PER_THREAD, NCCL_STEPS, ncclLLFifoLine of NCCL's
src/include/device.h)."""


@dataclass(frozen=True, slots=True)
class ContentionConstants:
    """How strongly compute and a collective disturb each other on one device.

    A collective waits for flags and data in memory, whose latency grows with the load on HBM. Kernels that become
    ready at the same time are placed first.
    """

    compute_slowdown: float = field(
        metadata=means(
            "Extra time of a CTA of compute beside a collective that takes all of the HBM bandwidth.",
            0.0,
            0.2,
            100.0,
            "share of its time",
        )
    )
    collective_memory_slowdown: float = field(
        metadata=means(
            "Extra time of a collective while compute takes all of the HBM bandwidth.",
            0.0,
            1.0,
            100.0,
            "share of its time",
        )
    )
    memory_saturation_fraction: float = field(
        metadata=means("Share of the SMs whose loads alone saturate HBM.", 0.01, 0.7, 1.0, "share")
    )
    collective_dispatch_s: float = field(
        metadata=means(
            "How much longer than a kernel's a collective's way to its first SM is; part of its own time.",
            0.0,
            4e-6,
            1e-2,
        )
    )
    eviction_slowdown: float = field(
        default=0.0,
        metadata=means(
            "Extra time of a collective that polls buffers in L2 (LL over NVLink) where kernels stream through L2.",
            0.0,
            0.3,
            100.0,
            "share of its time",
        ),
    )
    evicted_memory_share: float = field(
        default=1.0,
        metadata=means("Share of `collective_memory_slowdown` that such a collective feels.", 0.0, 0.4, 10.0, "share"),
    )


def evicted(cost: CollectiveCost, streamed: Sizes, c: ContentionConstants) -> CollectiveCost:
    """A collective in a program whose kernels stream more than L2 holds, where `streamed`; 0 and 1 or an array of them.

    What it polls is then in HBM when it begins, and in L2 after its first lap over its buffers. While kernels run
    beside it they push it out again from lap to lap. Measured on two H200, with waits for SMs: LL AllReduces through
    one channel or two that outlast the GEMMs beside them take 34 to 66 % longer, at most 4 us beside attention, norms
    and copies, whose operands L2 holds.
    """
    gone = streamed * cost.polls_l2
    lap = maths_for(cost.link_bytes).minimum(1.0, LL_LAP_BYTES * cost.channels / cost.link_bytes)
    factor, always = 1.0 + c.eviction_slowdown * gone * lap, 1.0 + c.eviction_slowdown * gone
    share = 1.0 + (c.evicted_memory_share - 1.0) * gone
    return replace(slower_collective(cost, factor), memory_share=share, evicted_pace=factor / always)


def hbm_share(wanted: float) -> float:
    """What each of several kernels gets of its demand for HBM, if all together want `wanted` of its bandwidth."""
    return 1.0 / max(1.0, wanted)


def fill_speed(fill: float, compute_fraction: float, memory_fraction: float) -> float:
    """Speed of one CTA, relative to the full device, when a kernel runs `fill` of its usual CTAs.

    `compute_fraction` and `memory_fraction` are the shares of a CTA's life that arithmetic and HBM alone
    would need at full width (the larger is 1 for a kernel that has no other limit). Fewer CTAs share the
    same bandwidth, so a memory-bound CTA speeds up as the kernel narrows, until arithmetic or the
    outstanding loads of its SM bind it; a compute-bound CTA keeps its speed.
    """
    if fill >= 1.0:
        return 1.0
    if memory_fraction <= 0.0 or fill <= 0.0:
        return 1.0 / compute_fraction if compute_fraction > 0.0 else 1.0
    by_memory = 1.0 / (memory_fraction * fill)
    return min(1.0 / compute_fraction, by_memory) if compute_fraction > 0.0 else by_memory
