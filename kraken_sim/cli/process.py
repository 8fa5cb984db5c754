"""What a command sets in a process of its own, for its speed."""

from __future__ import annotations

import gc
import os


def own() -> None:
    """Have libraries calculate on one thread, and Python look for garbage less often.

    The matrices of fits are so small that threads wait for one another: a calibration takes half the processor time.
    What commands build is nearly all kept until they end, so that looking through it finds little: a fifth of the time
    of a machine of 4,096 GPUs. Must come before numpy is imported.
    """
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    gc.set_threshold(20_000, 20, 20)
