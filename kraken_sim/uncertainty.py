"""How sure a prediction is: an interval from the residuals of the constants that it used.

Each block of fitted constants has a residual, the mean relative error on records that its fit never saw. Within a
block errors are taken to be common to all kernels (the same few shapes recur in every layer), between blocks to be
independent, so with w_b the share of the latency that block b prices

    relative standard deviation = sqrt(pi / 2) · sqrt(Σ_b (w_b · residual_b)²)

(the mean absolute value of a normal variable is sqrt(2 / pi) of its standard deviation).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import TYPE_CHECKING, Final

from kraken_sim.engine.timeline import SpanKind
from kraken_sim.metrics import main_stream_slices
from kraken_sim.program.ops import Attention, Gemm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.engine.timeline import Timeline
    from kraken_sim.hardware.profile import Provenance

LEVEL: Final = 0.9
NORMAL_QUANTILE: Final = 1.645
"""Half width of a 90 % interval in standard deviations."""

UNKNOWN_RESIDUAL: Final = 0.2
"""For fitted blocks that do not state one."""

GRAPH_LAUNCH_RESIDUAL: Final = 0.1
EAGER_LAUNCH_RESIDUAL: Final = 1.0
"""Hosts differ by two from process to process: the same eager pass took 6.0 to 11.0 ms on the measured machine."""

CLOCK_RESIDUAL: Final = 0.5
"""Of what a lower clock costs: the power of other loads than GEMM chains is an assumption of the profiles."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The latency lies between `low_s` and `high_s` with probability `level`, as far as the residuals tell."""

    low_s: float
    high_s: float
    level: float = LEVEL


def prediction_interval(
    timeline: Timeline, provenance: Mapping[str, Provenance], *, eager: bool, slowdown: float = 1.0
) -> Interval:
    """The interval of a step's latency; `slowdown` is what kernels lost to a clock below boost."""
    latency_s = timeline.duration_s
    residuals = block_residuals(provenance)
    residuals["launch"] = EAGER_LAUNCH_RESIDUAL if eager else GRAPH_LAUNCH_RESIDUAL
    shares = block_seconds(timeline)
    variance = sum((seconds / latency_s * residuals.get(block, 0.0)) ** 2 for block, seconds in shares.items())
    variance += (CLOCK_RESIDUAL * (slowdown - 1.0)) ** 2
    half = NORMAL_QUANTILE * sqrt(pi / 2.0) * sqrt(variance)
    return Interval(latency_s * max(0.0, 1.0 - half), latency_s * (1.0 + half))


def block_residuals(provenance: Mapping[str, Provenance]) -> dict[str, float]:
    """The largest residual among the numbers of each block."""
    found: dict[str, float] = {}
    for path, record in provenance.items():
        block = path.split(".")[0]
        if record.kind == "fitted":
            residual = UNKNOWN_RESIDUAL if record.residual is None else record.residual
            if record.residual is not None or block not in found:
                found[block] = max(found.get(block, 0.0) if record.residual is not None else 0.0, residual)
    return found


def block_seconds(timeline: Timeline) -> dict[str, float]:
    """Seconds of the compute stream by the block of constants that prices them.

    What overlapped kernels lose to each other is contention's; gaps and waiting for the host are the launch's.
    """
    seconds = dict.fromkeys(("gemm", "attention", "memory_bound", "collectives", "contention", "launch"), 0.0)
    for part in main_stream_slices(timeline):
        span = part.span
        if span.kind is SpanKind.WAIT:
            seconds["contention"] += part.duration_s * part.weight
            continue
        alone_s = min(span.alone_s, span.duration_s)
        block = "collectives" if span.kind is SpanKind.COLLECTIVE else block_of_op(span.op)
        seconds[block] += alone_s * part.weight
        seconds["contention"] += (span.duration_s - alone_s) * part.weight
        seconds["launch"] += max(0.0, part.duration_s - span.duration_s) * part.weight
    return seconds


def block_of_op(op: object) -> str:
    """The block of constants that prices a compute kernel."""
    if isinstance(op, Gemm):
        return "gemm"
    return "attention" if isinstance(op, Attention) else "memory_bound"
