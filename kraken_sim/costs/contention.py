"""What kernels that run at the same time cost each other: pure formulas over shares of one device.

Three causes are modelled apart. SMs: a collective's CTAs own their SMs for its whole life, and the engine
places CTAs on what is left. HBM: kernels share its bandwidth max-min fairly. Interference: what remains
(L2, crossbar, copy paths) as one factor a side, active only while both sides run.
Sources for the causes: arXiv 2507.03114 (compute slows by 18.9 % on average, 40 % at most beside a
collective), nccl issues 689 (a CTA of NCCL fills its SM) and 1433 (collectives slow down beside GEMMs that
leave SMs free: memory contention).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContentionConstants:
    """How strongly compute and a collective disturb each other on one device.

    - `compute_slowdown`: extra time per CTA of compute, as a fraction, while a collective that uses all of
      the link bandwidth runs beside it.
    - `collective_slowdown`: extra time of a collective, as a fraction, while compute fills the SMs.
    - `collective_memory_slowdown`: the same while compute takes all of the HBM bandwidth; a collective waits
      for flags and data in memory, whose latency grows with the load.
    - `memory_saturation_fraction`: the fraction of the SMs whose loads alone saturate HBM, so a memory-bound
      kernel that has fewer SMs slows down only below it.
    - `collective_dispatch_s`: how much longer than a compute kernel's a collective's way to its first SM is;
      kernels that become ready at the same time are placed first. It is part of the collective's own time.
    - `stranded_sms`: SMs that running compute leaves free and a collective cannot use. NCCL launches clusters
      of 4 CTAs on Hopper (NCCL_CGA_CLUSTER_SIZE), which need 4 free SMs in one GPC.
    """

    compute_slowdown: float
    collective_slowdown: float
    collective_memory_slowdown: float
    memory_saturation_fraction: float
    collective_dispatch_s: float
    stranded_sms: int


def fill_speed(fill: float, compute_fraction: float, memory_fraction: float) -> float:
    """Speed of one CTA, relative to the full device, when a kernel runs `fill` of its usual CTAs.

    `compute_fraction` and `memory_fraction` are the shares of a CTA's life that arithmetic and HBM alone
    would need at full width (the larger is 1 for a kernel that has no other limit). Fewer CTAs share the
    same bandwidth, so a memory-bound CTA speeds up as the kernel narrows, until arithmetic or the
    outstanding loads of its SM bind it; a compute-bound CTA keeps its speed.
    """
    limits = [1.0 / compute_fraction] if compute_fraction > 0.0 else []
    if memory_fraction > 0.0 and fill > 0.0:
        limits.append(1.0 / (memory_fraction * fill))
    return min(limits, default=1.0)
