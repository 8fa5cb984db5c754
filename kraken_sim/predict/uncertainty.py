"""How sure a prediction is: an interval from the residuals of the constants that it used.

Each block of fitted constants has a residual, the mean relative error on records that its fit never saw. Within a
block errors are taken to be common to all kernels (the same few shapes recur in every layer), between blocks to be
independent, so with w_b the share of the latency that block b prices

    relative standard deviation = sqrt(pi / 2) · sqrt(Σ_b (w_b · residual_b)²)

(the mean absolute value of a normal variable is sqrt(2 / pi) of its standard deviation). The interval is as wide in
factors on either side, so that a time stays above zero however little is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.profiles.profile import Provenance

LEVEL: Final = 0.9
"""Probability that an interval is stated for; a definition."""

NORMAL_QUANTILE: Final = 1.645
"""Half width of a 90 % interval of a normal distribution in standard deviations; a definition."""

UNKNOWN_RESIDUAL: Final = 0.2
"""For fitted and assumed blocks that do not state one; assumed, above that of every fit that ships."""

_UNCERTAIN: Final = frozenset({"fitted", "assumed"})

GRAPH_LAUNCH_RESIDUAL: Final = 0.1
"""Of launch costs in a CUDA graph, assumed: gaps and edges are the device's own and hardly depend on the host."""

EAGER_LAUNCH_RESIDUAL: Final = 1.0
"""Hosts differ by two from process to process: the same eager pass took 6.0 to 11.0 ms on the measured machine, and
a kernel of the same layer 20 to 34 us in five processes on two others."""

CLOCK_RESIDUAL: Final = 0.5
"""Of what a lower clock costs: cards of one type settle at clocks some per cent apart, heat moves them further, and
profiles without measured loads carry another card's power over."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The latency lies between `low_s` and `high_s` with probability `level`, as far as the residuals tell."""

    low_s: float
    high_s: float
    level: float = LEVEL


def interval_of(
    latency_s: float,
    blocks_s: Mapping[str, float],
    residuals: Mapping[str, float],
    *,
    eager: bool,
    slowdown: float = 1.0,
) -> Interval:
    """The interval of a step's latency.

    Args:
        latency_s: the prediction.
        blocks_s: seconds of it by the block of constants that prices them (`metrics.Totals`).
        residuals: of the blocks (`block_residuals`).
        eager: how kernels were launched.
        slowdown: what kernels lost to a clock below boost, as a factor.
    """
    launch = EAGER_LAUNCH_RESIDUAL if eager else GRAPH_LAUNCH_RESIDUAL
    variance = (CLOCK_RESIDUAL * (slowdown - 1.0)) ** 2
    for block, seconds in blocks_s.items():
        residual = launch if block == "launch" else residuals.get(block, 0.0)
        variance += (seconds / latency_s * residual) ** 2
    half = NORMAL_QUANTILE * sqrt(pi / 2.0) * sqrt(variance)
    return Interval(latency_s / (1.0 + half), latency_s * (1.0 + half))


def block_residuals(provenance: Mapping[str, Provenance]) -> dict[str, float]:
    """The largest residual among the fitted and assumed numbers of each block.

    A number that states none has no say beside others of its block that do, so that one constant set by judgement
    neither widens nor narrows what the block's fit says of itself; a block of such numbers alone has
    `UNKNOWN_RESIDUAL`.
    """
    stated: dict[str, float] = {}
    uncertain: set[str] = set()
    for path, record in provenance.items():
        if record.kind in _UNCERTAIN:
            block = path.split(".")[0]
            uncertain.add(block)
            if record.residual is not None:
                stated[block] = max(stated.get(block, 0.0), record.residual)
    return {block: stated.get(block, UNKNOWN_RESIDUAL) for block in sorted(uncertain)}
