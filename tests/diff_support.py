"""Steps made of named kernels, and what a comparison with them must hold."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from trace_support import FIRST, written

from kraken_sim import simulate
from kraken_sim.traces.comparison import Predicted, predicted
from kraken_sim.traces.device_trace import read_trace
from kraken_sim.traces.kernel_names import class_of_name
from kraken_sim.traces.measured import measured_question
from kraken_sim.traces.nodes import TraceNode, accounted

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.traces.diff import StepDiff

US = 1e-6
LAYER = [("layer_norm", 5.0), ("gemm_qkv", 20.0), ("flash_attn", 30.0), ("gemm_out", 10.0), ("add_kernel", 2.0)]
STEP = [("vectorized_gather", 3.0), *LAYER, *LAYER, ("gemm_head", 9.0), ("ArgMaxOps", 1.0)]


def nodes(*kernels: tuple[str, float], gap_us: float = 0.5) -> list[TraceNode]:
    """Kernels of (name, us) one after the other."""
    now, found = 0.0, []
    for name, duration_us in kernels:
        found.append(TraceNode(name, class_of_name(name), now * US, duration_us * US, segment="layer"))
        now += duration_us + gap_us
    return accounted(found)


def checked(diff: StepDiff) -> StepDiff:
    """Whatever is compared, the terms add up to the difference."""
    total_s = math.fsum(term.seconds for term in diff.terms())
    assert total_s == pytest.approx(diff.theirs_s - diff.ours_s, abs=1e-12)
    return diff


@cache
def question() -> Predicted:
    """What the first committed trace answers."""
    return predicted(simulate(measured_question(f"{FIRST}#2", "OURS")))


def trace_of(tmp_path: Path, events: list[dict[str, Any]], **beside: Any) -> Any:
    return read_trace(written(tmp_path / f"{len(list(tmp_path.iterdir()))}.json", events, **beside))


def asked(*kernels: tuple[str, float], **fields: Any) -> Predicted:
    return Predicted("ours", tuple(nodes(*kernels)), **fields)
