"""What a cost model takes and returns: how long a kernel runs alone, and what it holds while it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Number = Any
"""A float or an int (one op) or a numpy array (many at once, as the fits need them)."""


@dataclass(frozen=True, slots=True)
class KernelCost:
    """A kernel alone on an idle device, launched from a CUDA graph.

    `busy_s` runs from the start of its first CTA to the end of its last; the gap to the next graph node is
    not part of it (the launch costs of the profile hold that). The launch shape is what the engine needs to
    say what happens when other kernels hold SMs:

    - `ctas` CTAs are launched, at most `ctas_per_sm` of them live on one SM; a persistent kernel launches
      at most one CTA an SM and each walks over `ceil(tiles / ctas)` tiles, a plain grid has one tile a CTA.
    - `fixed_s` of `busy_s` (launch latency, prologue, epilogue) does not shrink with more resources.
    - `compute_s` and `memory_s` are the times the kernel would need if only its arithmetic (on the SMs it
      fills) or only its HBM traffic limited it; the larger one limits it.
    """

    busy_s: float
    ctas: int
    ctas_per_sm: int
    tiles: int
    persistent: bool
    flops: float
    hbm_bytes: float
    fixed_s: float
    compute_s: float
    memory_s: float
    detail: str
    """One phrase for people, such as `tile 256x128, 3 waves, split-K 1`."""


@dataclass(frozen=True, slots=True)
class CollectiveCost:
    """A collective alone on an idle machine, from the arrival of its last rank to its end.

    `busy_s == latency_s + transfer_s`; `channels` CTAs hold one SM each for the whole life of the kernel;
    `hbm_bytes` and `link_bytes` are what one device reads and writes in its HBM and sends over its links.
    `line_bytes_per_s` is the line rate that the transfer takes up of each device's way to the others, overhead
    of the protocol included: what there is to lose when others use the same links. `kernel` is the custom kernel
    that runs, by the profile's name for it; NCCL's has none. One that `polls_l2` waits for flags in buffers which
    are in L2 unless something else has filled it. Once a kernel has run beside it, it goes on at `evicted_pace` of its
    pace, and of what memory under load slows a collective, `memory_share` slows this one.
    """

    busy_s: float
    latency_s: float
    transfer_s: float
    algorithm: str
    protocol: str
    channels: int
    hbm_bytes: float
    link_bytes: float
    detail: str
    line_bytes_per_s: float = 0.0
    kernel: str = ""
    polls_l2: bool = False
    memory_share: float = 1.0
    evicted_pace: float = 1.0
