"""How sure a prediction is: an interval from the residuals of the constants that it used.

Each block of fitted constants has a residual, the mean relative error on records that its fit never saw. Within a
block errors are taken to be common to all kernels (the same few shapes recur in every layer), between blocks to be
independent, so with w_b the share of the latency that block b prices

    relative standard deviation = sqrt(pi / 2) · sqrt(Σ_b (w_b · residual_b)²)

(the mean absolute value of a normal variable is sqrt(2 / pi) of its standard deviation). The interval is as wide in
factors on either side, so that a time stays above zero however little is known.

Where the host launches kernel by kernel, what it needs differs from process to process by far more than any fit is off:
the step is simulated on a faster and on a slower host, as far apart as measured processes are (so is the launch of a
graph after a rest), and what that moves is added in quadrature to what the residuals say, in logarithms and on either
side.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, hypot, log, log1p, pi, sqrt
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

HOST_SPREAD: Final = 0.34
"""Standard deviation of the logarithm of a host's time for a call where a profile has none of its own
(`launch.eager_spread`), measured: that of the eager chains of validation/measurements."""

ASSUMED_HOST_SPREAD: Final = 0.55
"""The same where nobody measured a host of the kind, assumed: evenly between a runtime in C++, some 5 us a kernel, and
the slowest process of PyTorch that was measured, 34 us."""

HOST_QUANTILES: Final = (
    (0.01, -1.53), (0.05, -1.25), (0.1, -0.35), (0.25, -0.13), (0.5, 0.0), (0.6, 0.13), (0.7, 0.28),
    (0.75, 0.96), (0.8, 1.05), (0.9, 2.13), (0.95, 2.44), (0.975, 2.55), (0.99, 2.8),
)  # fmt: skip
"""Quantiles of that logarithm over `HOST_SPREAD`, measured: 113 chains of kernels and AllReduces that wait for the
host, in four processes, each over the median of its kind. A host is as fast as most, or for a while 1.4 to 2.6 times
slower."""

APART: Final = 2
"""Ranks whose hosts are taken to be slow independently of each other; more are taken to be as slow as two, an
assumption: nobody measured how those of a larger machine go together."""

PROFILE_PROCESSES: Final = 9
"""Processes whose median a profile's host time is, those of validation/measurements/launch; measured there."""

HOST_RESIDUAL: Final = HOST_SPREAD * sqrt(2.0 / pi)
"""Mean relative error of a profile's host times on another host, by this spread; a definition."""

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
    hosts_s: tuple[float, float] | None = None,
    slowdown: float = 1.0,
) -> Interval:
    """The interval of a step's latency.

    Args:
        latency_s: the prediction.
        blocks_s: seconds of it by the block of constants that prices them (`metrics.Totals`).
        residuals: of the blocks (`block_residuals`).
        hosts_s: where the step waits for hosts, which launch kernel by kernel or have rested, the latency on hosts at
            either end of a `HostRange`; else None.
        slowdown: what kernels lost to a clock below boost, as a factor.
    """
    variance = (CLOCK_RESIDUAL * (slowdown - 1.0)) ** 2
    for block, seconds in blocks_s.items():
        if block == "launch" and hosts_s is not None:
            continue
        residual = GRAPH_LAUNCH_RESIDUAL if block == "launch" else residuals.get(block, 0.0)
        variance += (seconds / latency_s * residual) ** 2
    half = NORMAL_QUANTILE * sqrt(pi / 2.0) * sqrt(variance)
    if hosts_s is None:
        return Interval(latency_s / (1.0 + half), latency_s * (1.0 + half))
    below, above = (hypot(log(host_s / latency_s), log1p(half)) for host_s in hosts_s)
    return Interval(latency_s * exp(-below), latency_s * exp(above))


@dataclass(frozen=True, slots=True)
class HostRange:
    """How many times as long as one process of the median kind the hosts of a step take: at either end, and midway."""

    low: float
    median: float
    high: float


def host_range(spread: float, processes: int, num_ranks: int = 1) -> HostRange:
    """The hosts of a step.

    A step of several ranks is as fast as its slowest host: of N hosts of one distribution that one's quantile p is the
    quantile p^(1/N) of each.

    Args:
        spread: standard deviation of the logarithm of the times.
        processes: whose median they are: the fewer, the farther may another one be from it.
        num_ranks: processes that launch the step.
    """
    deviation, apart = spread * sqrt(1.0 + 1.0 / processes), min(num_ranks, APART)
    low = host_quantile((0.5 - LEVEL / 2.0) ** (1.0 / apart))
    median = host_quantile(0.5 ** (1.0 / apart))
    high = host_quantile((0.5 + LEVEL / 2.0) ** (1.0 / num_ranks))
    return HostRange(exp(deviation * low), exp(spread * median), exp(deviation * high))


def host_quantile(probability: float) -> float:
    """Quantile of the logarithm of a host's time over its spread, between the measured ones on a line."""
    (before, low), *rest = HOST_QUANTILES
    for after, high in rest:
        if probability <= after:
            return low + max(0.0, probability - before) / (after - before) * (high - low)
        before, low = after, high
    return low


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
