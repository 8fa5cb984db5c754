"""What kernels that run at the same time cost each other: pure formulas over shares of one device.

Three causes are modelled apart. SMs: a collective's CTAs own their SMs for its whole life, and the engine
places CTAs on what is left. HBM: kernels that ask for more than its bandwidth are slowed alike. Interference:
what remains (L2, crossbar, copy paths) as one factor a side, active only while both sides run.
Sources for the causes: arXiv 2507.03114 (compute slows by 18.9 % on average, 40 % at most beside a
collective), nccl issues 689 (a CTA of NCCL fills its SM) and 1433 (collectives slow down beside GEMMs that
leave SMs free: memory contention).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kraken_sim.files.meaning import means


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
