"""How many examples the fuzzer takes, and from which seeds.

A minute of examples from fixed seeds; `make fuzz` tries others for as long as one wants. `KRAKEN_SIM_FUZZ` multiplies
the examples of each test and takes fresh seeds; what fails is printed with how to repeat it.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, Phase, settings

TIMES: Final = float(os.environ.get("KRAKEN_SIM_FUZZ", "0"))
PHASES: Final = (Phase.generate, Phase.shrink) if os.environ.get("KRAKEN_SIM_FUZZ_SHRINK") != "0" else (Phase.generate,)
"""Failures are made small, unless one asks not to wait for that."""


def examples(number: int) -> settings:
    """Fixed seeds and so many examples, or fresh ones and many times as many."""
    return settings(
        max_examples=round(number * (TIMES or 1)),
        derandomize=not TIMES,
        database=None,
        deadline=None,
        print_blob=True,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )
