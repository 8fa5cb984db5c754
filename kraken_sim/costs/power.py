"""Sustained load: the clock that a card keeps within its power limit, and what kernels lose by it.

A card runs at its boost clock for some tens of milliseconds whatever it does; then its power controller lowers
the clock until the average power meets the limit. Formulas:

    P(f)   = idle + f^a · Σ_k share_k · (active · sms_k + tensor · flops_k / peak) + hbm · bytes / bandwidth
    t_k(f) = t_k · max(1, clocked_k · f^(-b))

with f the clock over the boost clock, share_k the part of the time that kernel k runs, sms_k the share of the SMs
that it fills, flops_k and bytes per second. Memory has a clock of its own, which stays: clocked_k is the time that a
kernel's arithmetic would need over the time that it takes, so a kernel that waits for HBM loses nothing until the
SMs are as slow. b is below 1: at the boost clock kernels are held back by more than their clock (L2, current).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp
from typing import TYPE_CHECKING, NamedTuple

from kraken_sim.files.meaning import means

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_STEPS = 60
"""Most steps of the search for a clock; a limit of ours, where a dozen are usual."""

_CLOCK_PRECISION = 1e-13
"""Width of the interval, clock over boost clock, at which the search stops; a limit of ours, far below any effect."""

_POWER_PRECISION_W = 1e-9
"""Distance from the limit at which the search stops; a limit of ours, far below any effect."""


@dataclass(frozen=True, slots=True)
class PowerConstants:
    """One card's power at its boost clock, and its controller; NVLink's power is in none of them.

    After t seconds of load the clock has come 1 - exp(-(t / settle_s)^settle_shape) of its way down. A latency is that
    of the `repeats`-th of equal steps run back to back, as a server under load and any benchmark runs them.
    """

    idle_w: float = field(metadata=means("Power without work.", 0.0, 120.0, 1e5))
    active_w: float = field(metadata=means("Power above idle while a kernel fills the SMs.", 0.0, 300.0, 1e5))
    tensor_w: float = field(metadata=means("Power above that at the datasheet's peak FLOP rate.", 0.0, 600.0, 1e5))
    hbm_w: float = field(metadata=means("Power above idle at the datasheet's HBM bandwidth.", 0.0, 300.0, 1e5))
    limit_w: float = field(metadata=means("Power that the controller settles at.", 1.0, 700.0, 1e5))
    power_exponent: float = field(
        metadata=means("Exponent of the clock in the SMs' power.", 0.01, 1.0, 10.0, "exponent")
    )
    rate_exponent: float = field(
        metadata=means("Exponent of the clock in the rate of arithmetic.", 0.001, 0.5, 5.0, "exponent")
    )
    lowest_clock: float = field(
        metadata=means("Clock over boost clock below which the controller does not go.", 0.01, 0.3, 1.0, "share")
    )
    settle_s: float = field(metadata=means("Time that the controller takes to settle.", 1e-4, 0.06, 100.0))
    settle_shape: float = field(metadata=means("Shape of the way down.", 0.1, 4.0, 20.0, "exponent"))
    repeats: float = field(metadata=means("Steps back to back, of which the last counts.", 0.0, 10.0, 1e6, "steps"))


class Load(NamedTuple):
    """A kernel in a step: seconds it runs at the boost clock, and what it does in that time.

    `sm_share` is the share of the SMs it fills, `clocked` the time its arithmetic needs over the time it takes.
    """

    busy_s: float
    flops: float
    hbm_bytes: float
    sm_share: float = 1.0
    clocked: float = 1.0


def clock_factor(clocked: float, stretch: float) -> float:
    """How much longer a kernel takes where pure arithmetic takes `stretch` times as long."""
    return max(1.0, clocked * stretch)


def clocked_w(load: Load, peak_flops: float, c: PowerConstants) -> float:
    """Power above idle of the SMs while the kernel runs at the boost clock."""
    if load.busy_s <= 0.0:
        return 0.0
    return c.active_w * load.sm_share + c.tensor_w * min(1.0, load.flops / load.busy_s / peak_flops)


def settled_clock(
    loads: Sequence[Load],
    transfers: Sequence[Load],
    other_s: float,
    peak_flops: float,
    hbm_bandwidth_bytes_per_s: float,
    c: PowerConstants,
) -> float:
    """Clock over boost clock at which the step's average power is the limit; 1 if it never reaches it.

    `transfers` are collectives, which take as long at any clock, beside compute or not; `other_s` is the time
    of the step without compute kernels: gaps, blocking collectives.
    """
    always_s = always_j = sometimes_s = sometimes_j = 0.0
    sometimes = []
    for load in loads:
        watts = clocked_w(load, peak_flops, c)
        if load.clocked == 1.0:
            always_s += load.busy_s
            always_j += load.busy_s * watts
        else:
            sometimes.append((load.busy_s, load.clocked, watts))
            sometimes_s += load.busy_s
            sometimes_j += load.busy_s * watts
    transfer_j = sum(load.busy_s * clocked_w(load, peak_flops, c) for load in transfers)
    hbm_j = c.hbm_w * sum(load.hbm_bytes for load in (*loads, *transfers)) / hbm_bandwidth_bytes_per_s
    boost_s = always_s + sometimes_s + other_s
    if boost_s <= 0.0 or c.idle_w + (always_j + sometimes_j + transfer_j + hbm_j) / boost_s <= c.limit_w:
        return 1.0

    def excess_w(clock: float) -> float:
        stretch = float(clock**-c.rate_exponent)
        duration_s, sms_j = always_s * stretch + other_s, always_j * stretch + transfer_j
        for busy_s, clocked, watts in sometimes:
            time_s = busy_s * clock_factor(clocked, stretch)
            duration_s += time_s
            sms_j += time_s * watts
        return c.idle_w + (float(clock**c.power_exponent) * sms_j + hbm_j) / duration_s - c.limit_w

    return _root(excess_w, c.lowest_clock, 1.0)


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function that is positive at `high` crosses zero; `low` if it is positive there too.

    Regula falsi with the Illinois rule: a dozen calls where bisection takes forty.
    """
    at_low, at_high = rising(low), rising(high)
    if at_low >= 0.0:
        return low
    side = 0
    for _ in range(_STEPS):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        at_middle = rising(middle)
        if at_middle == 0.0 or high - low < _CLOCK_PRECISION:
            return middle
        if at_middle > 0.0:
            high, at_high = middle, at_middle
            at_low = at_low / 2.0 if side > 0 else at_low
            side = 1
        else:
            low, at_low = middle, at_middle
            at_high = at_high / 2.0 if side < 0 else at_high
            side = -1
        if abs(at_middle) < _POWER_PRECISION_W:
            return middle
    return 0.5 * (low + high)


def slowdown(clock: float, step_s: float, c: PowerConstants) -> float:
    """How much longer arithmetic takes in the `repeats`-th of equal steps of `step_s` seconds, at least 1."""
    load_s = c.repeats * step_s
    way_down = 1.0 - exp(-((load_s / c.settle_s) ** c.settle_shape))
    return float((1.0 - way_down * (1.0 - clock)) ** -c.rate_exponent)
