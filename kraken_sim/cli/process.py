"""What a command sets in a process of its own, for its speed."""

from __future__ import annotations

import os


def own() -> None:
    """Have libraries calculate on one thread. Must come before numpy is imported.

    The matrices of fits are so small that threads wait for one another: a calibration takes half the processor time.
    """
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
