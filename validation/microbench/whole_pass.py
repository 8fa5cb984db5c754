"""Whole passes of real models: time to first token as the host sees it.

The ranks' devices and hosts meet before each repeat, then every rank records an event, launches the pass and records
another: the launch of a graph, or the launches of its kernels one by one, is part of the time.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from validation.microbench.bench import Bench, Outcome, SkipCase
from validation.passes import PrefillPass, pass_model, required_bytes
from validation.timing import time_eager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kraken_sim.measurements.records import PassCase
    from validation.models.decoder import Decoder

_BUDGET_S = 0.6
_REPEATS = (7, 21)
_MEMORY_SHARE = 0.92


@contextlib.contextmanager
def model_of(bench: Bench, cases: Sequence[Any]) -> Iterator[Callable[[PassCase], Outcome]]:
    """What measures the cases of one model; the model is built with the first and dropped at the end."""
    with contextlib.ExitStack() as stack:
        held: list[Decoder] = []

        def measure(case: PassCase) -> Outcome:
            if not held:
                _check_memory(bench, cases)
                held.append(stack.enter_context(pass_model(cases[0], bench.device)))
            return _time(bench, held[0], case)

        yield measure


def _check_memory(bench: Bench, cases: Sequence[PassCase]) -> None:
    need = max(required_bytes(case) for case in cases)
    if bench.clock.is_cuda and need > bench.free_bytes * _MEMORY_SHARE:
        raise SkipCase(f"needs {need / 2**30:.1f} GiB of device memory, {bench.free_bytes / 2**30:.1f} GiB are free")


def _time(bench: Bench, model: Decoder, case: PassCase) -> Outcome:
    clock = bench.clock

    with PrefillPass(model, case) as prefill:
        first = time_eager(clock, [prefill.run], 2, before=bench.align, warmup=2)
        # The same on every rank: the slowest rank's time decides.
        slowest = max(bench.control.gather(min(first)))
        least, most = _REPEATS
        repeats = max(least, min(most, int(_BUDGET_S / slowest)))
        samples = time_eager(clock, [prefill.run], repeats, before=bench.align, warmup=0)
        if not bool(torch.isfinite(prefill.logits).all() if prefill.logits is not None else True):
            raise RuntimeError("the logits are not finite")
    return Outcome({"time_s": samples}, {"calls": 1, "repeats": repeats})
