"""A kernel of a few CTAs that does nothing but wait: what a collective's kernel is while it waits for other ranks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from validation.microbench.bench import SkipCase

if TYPE_CHECKING:
    from collections.abc import Callable

_THREADS = 512
"""Of a CTA, as NCCL's kernels have."""

_SOURCE = """
extern "C" __global__ void spin(volatile int* words, int nanoseconds) {
    unsigned long long begun, now;
    volatile int* word = words + 32 * blockIdx.x;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begun));
    do {
        if (*word) break;
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while (now - begun < (unsigned long long)nanoseconds);
}
"""


def spin_call(device: torch.device, ctas: int, seconds: float) -> Callable[[], object]:
    """A call that holds `ctas` CTAs for `seconds`, each thread polling a word of its CTA; on a CPU it sleeps.

    Raises:
        SkipCase: this torch cannot compile the kernel.
    """
    if device.type != "cuda":
        return lambda: time.sleep(seconds)
    try:
        kernel = torch.cuda._compile_kernel(_SOURCE, "spin")
    except (AttributeError, OSError, RuntimeError) as error:
        raise SkipCase(f"this torch cannot compile a kernel: {error}") from error
    words = torch.zeros(32 * ctas, dtype=torch.int32, device=device)
    arguments = [words, round(seconds * 1e9)]
    return lambda: kernel((ctas, 1, 1), (_THREADS, 1, 1), arguments)
