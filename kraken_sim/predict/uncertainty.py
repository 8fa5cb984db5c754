"""How sure a prediction is: an interval from the errors of the constants that it used.

Every fitted block, and every kind of memory-bound kernel, has a residual: the mean relative error on shapes that its
fit never saw. Most of a kernel's error is its shape's own (cuBLAS is good at one product and bad at the next) and
averages out over the kernels of a step, some is common to a block. With t_k the seconds in kernel k of a block,
T_b their sum, c the common share of the variance and r_b the residual

    variance of the latency = pi / 2 · Σ_b r_b² · (c · T_b² + (1 - c) · Σ_k t_k²)

(the mean absolute value of a normal variable is sqrt(2 / pi) of its standard deviation). A kernel that every layer has
is one kernel. What a pair of compute and collective is off counts on the whole time of overlapped collectives. To this
come what cards of one type differ by, the clock that a card settles at under its power limit, and the gaps of graphs.
The interval is as wide in factors on either side, so that a time stays above zero however little is known; above, it is
wider where ranks wait for each other, as each collective comes after the slowest of their cards.

Where the host launches kernel by kernel, what it needs differs from process to process by far more than any fit is off:
the step is simulated on a faster and on a slower host, as far apart as measured processes are (so is the launch of a
graph after a rest), and what that moves is added in quadrature to what the residuals say, in logarithms and on either
side.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, hypot, log, log1p, pi, sqrt
from typing import TYPE_CHECKING, Final

from kraken_sim.program.many import each, each_pair, is_many, maths_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.profiles.profile import Provenance
    from kraken_sim.program.many import Sizes

LEVEL: Final = 0.9
"""Probability that an interval is stated for; a definition."""

NORMAL_QUANTILE: Final = 1.645
"""Half width of a 90 % interval of a normal distribution in standard deviations; a definition."""

UNKNOWN_RESIDUAL: Final = 0.2
"""For fitted and assumed blocks that do not state one; assumed, above that of every fit that ships."""

_UNCERTAIN: Final = frozenset({"fitted", "assumed"})

COMMON_SHARE: Final = 0.1
"""Share of the variance of a block's errors that its kernels have in common, measured: held-out products and attention
of an H200 (validation/measurements, six files of five machines), variance of the means of a file's classes over that
of all, 0.03 and 0.1."""

CARD_RESIDUAL: Final = 0.01
"""Mean relative difference between cards of one type, measured: kernels of more than 100 us on three H200 0.2 to
0.7 %, rates under sustained loads on two more 1.0 and 1.5 % (validation/measurements)."""

RANKS_APART: Final = 0.08
"""By how much the compute of one rank may take longer than that of another, at whose collectives the others wait;
published: 8 % of variation between cards of one type on average (Sinha et al., SC 2022, arXiv 2208.11035)."""

AMONG_KERNELS: Final = 0.064
"""Mean relative difference between a collective among other kernels and in a chain of its like, measured: 579 graphs of
forks, an AllReduce and joins on two H200 against chains of the same AllReduces, longer by 2.7 % in the median."""

GRAPH_LAUNCH_RESIDUAL: Final = 0.3
"""Of launch costs in a CUDA graph, measured: one of four machines with one H200 takes 0.38 us longer from node to node
than the others' 0.50 us, and 6.4 in place of 4.0 us for the launch."""

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


@dataclass(frozen=True, slots=True)
class Interval:
    """The latency lies between `low_s` and `high_s` with probability `level`, as far as the residuals tell."""

    low_s: float
    high_s: float
    level: float = LEVEL

    def times(self, factor: float) -> Interval:
        """The interval of so many times the latency."""
        return Interval(factor * self.low_s, factor * self.high_s, self.level)

    def joined(self, other: Interval) -> Interval:
        """From the lower of the low ends to the higher of the high ends."""
        return Interval(min(self.low_s, other.low_s), max(self.high_s, other.high_s), self.level)


def interval_of(
    latency_s: Sizes,
    kernels_s: Mapping[str, Mapping[object, Sizes]],
    residuals: Mapping[str, float],
    *,
    hosts_s: tuple[Sizes, Sizes] | None = None,
    slowdown: Sizes = 1.0,
    awaited_s: Sizes = 0.0,
) -> Interval:
    """The interval of a step's latency.

    Args:
        latency_s: the prediction.
        kernels_s: seconds of it by what prices them and by kernel (`metrics.Totals`); "launch" is the device's own.
        residuals: of what prices them (`block_residuals`).
        hosts_s: where the step waits for hosts, which launch kernel by kernel or have rested, the latency on hosts at
            either end of a `HostRange`; else None.
        slowdown: what kernels lost to a clock below boost, as a factor.
        awaited_s: compute of other ranks that collectives wait for.
    """
    clock = clock_residual(residuals, slowdown)
    variance = CARD_RESIDUAL**2 + clock * clock
    for name, own in kernels_s.items():
        share = residual_of(name, residuals) / latency_s
        variance = variance + share * share * shared_square(own, own)
    half = NORMAL_QUANTILE * sqrt(pi / 2.0) * each(sqrt, variance)
    below = above = each(log1p, half)
    if is_many(awaited_s) or awaited_s > 0.0:
        above = each_pair(hypot, above, each(log1p, RANKS_APART * awaited_s / latency_s))
    if hosts_s is not None:
        below, above = (
            each_pair(hypot, each(log, host_s / latency_s), own)
            for host_s, own in zip(hosts_s, (below, above), strict=True)
        )
    return Interval(latency_s * each(exp, -below), latency_s * each(exp, above))


def shared_square(first: Mapping[object, Sizes], second: Mapping[object, Sizes]) -> Sizes:
    """What two times share of errors of one block, seconds squared: the common part, and that of kernels in both."""
    both = sum(seconds * second[kernel] for kernel, seconds in first.items() if kernel in second)
    return COMMON_SHARE * sum(first.values()) * sum(second.values()) + (1.0 - COMMON_SHARE) * both


def residual_of(name: str, residuals: Mapping[str, float]) -> float:
    """The residual of a block, or of a kind of kernel in one, which has the block's where it states none."""
    if name == "launch":
        return GRAPH_LAUNCH_RESIDUAL
    own = residuals.get(name, residuals.get(name.partition(".")[0], 0.0))
    return hypot(own, AMONG_KERNELS) if name in ("collectives", "contention") else own


def clock_residual(residuals: Mapping[str, float], slowdown: Sizes) -> Sizes:
    """Error of the settled clock where power limits it; no more than the clock is lowered by."""
    return maths_for(slowdown).minimum(residuals.get("power", UNKNOWN_RESIDUAL), slowdown - 1.0)


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
    """The largest residual among the fitted and assumed numbers of each block, and of each kind of kernel in one.

    A number that states none has no say beside others of its block that do, so that one constant set by judgement
    neither widens nor narrows what the block's fit says of itself; a block of such numbers alone has
    `UNKNOWN_RESIDUAL`.
    """
    stated: dict[str, float] = {}
    uncertain: set[str] = set()
    for path, record in provenance.items():
        if record.kind in _UNCERTAIN:
            name = _priced_apart(path)
            uncertain.add(name)
            if record.residual is not None:
                stated[name] = max(stated.get(name, 0.0), record.residual)
    return {name: stated.get(name, UNKNOWN_RESIDUAL) for name in sorted(uncertain)}


def _priced_apart(path: str) -> str:
    """The block of a number, or the kind of memory-bound kernel."""
    block, field, *rest = path.split(".")
    return f"{block}.{field}.{rest[0]}" if (block, field) == ("memory_bound", "kernels") and rest else block
