"""The clock that a card keeps within its power limit, under load or after a rest, and what kernels lose by it.

A card runs at its boost clock for some tens of milliseconds whatever it does; then its power controller lowers
the clock until the average power meets the limit. Formulas:

    P(f)   = idle + f^a · Σ_k share_k · (active · sms_k + tensor · format_k · flops_k / peak_k)
             + hbm · bytes / bandwidth
    t_k(f) = t_k · f^(-b · clocked_k)

with f the clock over the boost clock, share_k the part of the time that kernel k runs, sms_k the share of the SMs
that it fills (its launch and prologue left out, in which they draw next to nothing), flops_k and bytes per second,
peak_k the peak rate of the kernel's number format and format_k what the tensor cores draw at it over what they draw at
float16's. Memory has a clock of its own, which stays; L2 has the SMs'. So clocked_k is the time that SMs and L2 would
need by themselves over that and HBM's. b is below 1: at the boost clock kernels are held back by more than their clock.

A second loop keeps the average over a second at the limit: on an H200 the clock settles within 60 ms, and about once a
second dips for 0.1 to 0.2 s. The limit and all constants are those of the average, dips included.

Cards dip at times of their own, and a step of several waits for the slowest: with the excess of a card's time over its
floor taken as exponential, N cards are expected to lose

    lost_N = lost_1 · (1 + unevenness · (H_N - 1)),  H_N = 1 + 1/2 + ... + 1/N

(the mean of the largest of N exponential variables is H_N times theirs; Rényi, "On the theory of order statistics",
1953), with lost_1 what the limit costs a card.

Nor are cards of a kind equal, or equal steps of one card: with times taken as normal around what a card of the kind
takes, N cards that wait for each other are expected to take

    t_N = t_1 · (1 + spread · z_N),  z_N = Φ⁻¹((N - 3/8) / (N + 1/4))

(the mean of the largest of N standard normal variables, to 5 % for two and 1 % from four on; Blom, "Statistical
estimates and transformed beta-variables", 1958).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from math import exp
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kraken_sim.files.meaning import Meaning, Table, holds, means
from kraken_sim.program.many import at, each, is_many, least, power, same

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kraken_sim.hardware.device import Device
    from kraken_sim.program.many import Sizes
    from kraken_sim.program.ops import DType

_STEPS = 60
"""Most steps of the search for a clock; a limit of ours, where a dozen are usual."""

_CLOCK_PRECISION = 1e-13
"""Width of the interval, clock over boost clock, at which the search stops; a limit of ours, far below any effect."""

_PARTS = 16
"""Into which a lone step is cut; a limit of ours: twice as many move no step by 1e-4."""

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
    tensor_w: float = field(
        metadata=means("Power above that at the datasheet's peak FLOP rate in float16.", 0.0, 600.0, 1e5)
    )
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
    repeats: float = field(metadata=means("Steps back to back, of which the last counts.", 0.0, 1000.0, 1e6, "steps"))
    unevenness: float = field(
        default=0.0,
        metadata=means(
            "Mean excess of what the limit costs at a moment over its floor, over what it costs on average.",
            0.0,
            0.2,
            2.0,
            "share",
        ),
    )
    spread: float = field(
        default=0.0,
        metadata=means(
            "Standard deviation of the time of equal kernels, from card to card and from step to step, over its mean.",
            0.0,
            0.01,
            0.5,
            "share",
        ),
    )
    tensor_formats: Mapping[str, float] = field(
        default_factory=dict,
        hash=False,
        metadata=holds(
            Table(
                "Tensor cores' power at a number format's own peak rate over that in float16; 1 where it is missing.",
                keys=r"[a-z]\w*",
                each=Meaning("Over that in float16.", 0.05, 1.0, 10.0, "ratio"),
            )
        ),
    )


class Load(NamedTuple):
    """A kernel in a step: seconds it runs at the boost clock, and what it does in that time.

    `tensor_s` is the time that its FLOPs would take at the peak rate of their number format, weighed by what the tensor
    cores draw then; `sm_share` is the share of the SMs it fills, `clocked` how far its time follows the SMs' clock, 0
    to 1.
    """

    busy_s: Sizes
    tensor_s: Sizes
    hbm_bytes: Sizes
    sm_share: Sizes = 1.0
    clocked: Sizes = 1.0


def tensor_s(flops: Sizes, dtype: DType, device: Device, c: PowerConstants | None) -> Sizes:
    """Seconds that FLOPs take at the peak rate of their format, weighed by what it draws there over float16."""
    peak_flops = device.peak_flops.get(dtype)
    if peak_flops is None:
        return 0.0
    return flops / peak_flops * (1.0 if c is None else c.tensor_formats.get(dtype, 1.0))


def clock_factor(clocked: Sizes, stretch: Sizes) -> Sizes:
    """How much longer a kernel takes where pure arithmetic takes `stretch` times as long."""
    return power(stretch, clocked)


def clocked_w(load: Load, c: PowerConstants) -> Sizes:
    """Power above idle of the SMs while the kernel runs at the boost clock."""
    if least(load.busy_s) <= 0.0 and same(load.busy_s <= 0.0):
        return 0.0
    return c.active_w * load.sm_share + c.tensor_w * load.tensor_s / load.busy_s


def settled_clock(
    loads: Sequence[Load],
    transfers: Sequence[Load],
    other_s: Sizes,
    hbm_bandwidth_bytes_per_s: float,
    c: PowerConstants,
) -> Sizes:
    """Clock over boost clock at which the step's average power is the limit; 1 if it never reaches it.

    `transfers` are collectives, which take as long at any clock, beside compute or not; `other_s` is the time
    of the step without compute kernels: gaps, blocking collectives.
    """
    parts = _by_clocked(loads, c)
    transfer_j = sum(load.busy_s * clocked_w(load, c) for load in transfers)
    hbm_j = c.hbm_w * sum(load.hbm_bytes for load in (*loads, *transfers)) / hbm_bandwidth_bytes_per_s
    step = _Step(tuple(parts), transfer_j, hbm_j, other_s)
    if same(other_s + sum(seconds for _, seconds, _ in parts) <= 0.0):
        return 1.0
    excess_w = step.excess_w(1.0, c)
    if is_many(excess_w):
        clocks, limited = np.ones(len(excess_w)), np.flatnonzero(excess_w > 0.0)
        if len(limited):
            clocks[limited] = _roots(step.at(limited), c)
        return clocks
    if excess_w <= 0.0:
        return 1.0
    return _root(partial(step.excess_w, c=c), c.lowest_clock, 1.0)


class _Step(NamedTuple):
    """What a step's average power follows from: kernels' `_by_clocked`, joules of transfers and of HBM, other time."""

    parts: tuple[tuple[Sizes, Sizes, Sizes], ...]
    transfer_j: Sizes
    hbm_j: Sizes
    other_s: Sizes

    def excess_w(self, clock: Sizes, c: PowerConstants) -> Sizes:
        """Average power above the limit at a clock over boost clock."""
        duration_s, sms_j, stretch = self.other_s, self.transfer_j, power(clock, -c.rate_exponent)
        for clocked, seconds, joules in self.parts:
            factor = clock_factor(clocked, stretch)
            duration_s = duration_s + factor * seconds
            sms_j = sms_j + factor * joules
        return c.idle_w + (power(clock, c.power_exponent) * sms_j + self.hbm_j) / duration_s - c.limit_w

    def at(self, index: Sizes) -> _Step:
        """Those of some points."""
        parts = tuple(tuple(at(value, index) for value in part) for part in self.parts)
        return _Step(parts, *(at(value, index) for value in self[1:]))


def average_w(loads: Sequence[Load], other_s: float, hbm_bandwidth_bytes_per_s: float, c: PowerConstants) -> float:
    """Average power at the boost clock of kernels one after the other, `other_s` seconds without any."""
    duration_s: float = sum(load.busy_s for load in loads) + other_s
    sms_j: float = sum(load.busy_s * clocked_w(load, c) for load in loads)
    hbm_j: float = c.hbm_w * sum(load.hbm_bytes for load in loads) / hbm_bandwidth_bytes_per_s
    return c.idle_w + (sms_j + hbm_j) / duration_s


def _by_clocked(loads: Sequence[Load], c: PowerConstants) -> list[tuple[Sizes, Sizes, Sizes]]:
    """How far kernels follow the clock, seconds and the SMs' joules above idle at the boost clock.

    Those that follow it altogether are one part, the first.
    """
    fully_s: Sizes = 0.0
    fully_j: Sizes = 0.0
    parts = []
    for load in loads:
        seconds, joules = load.busy_s, load.busy_s * clocked_w(load, c)
        fully = load.clocked == 1.0
        if is_many(fully):
            fully_s, fully_j = fully_s + np.where(fully, seconds, 0.0), fully_j + np.where(fully, joules, 0.0)
            parts.append((load.clocked, np.where(fully, 0.0, seconds), np.where(fully, 0.0, joules)))
        elif fully:
            fully_s, fully_j = fully_s + seconds, fully_j + joules
        else:
            parts.append((load.clocked, seconds, joules))
    return [(1.0, fully_s, fully_j), *parts]


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


def _roots(step: _Step, c: PowerConstants) -> Sizes:
    """`_root` of the excess power of many steps, from the lowest clock to boost clock: the same search for each."""
    num = len(step.hbm_j)
    found = np.full(num, c.lowest_clock)
    index = np.arange(num)
    low, high, side = np.full(num, c.lowest_clock), np.ones(num), np.zeros(num)
    at_low, at_high = step.excess_w(low, c), step.excess_w(high, c)
    keep = at_low < 0.0
    for count in range(_STEPS + 1):
        if not keep.all():
            index, low, high, side, at_low, at_high = (
                values[keep] for values in (index, low, high, side, at_low, at_high)
            )
            step = step.at(np.flatnonzero(keep))
        if not len(index) or count == _STEPS:
            break
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        at_middle = step.excess_w(middle, c)
        ended = (at_middle == 0.0) | (high - low < _CLOCK_PRECISION)
        above = at_middle > 0.0
        at_low, at_high = (
            np.where(above, np.where(side > 0, at_low / 2.0, at_low), at_middle),
            np.where(above, at_middle, np.where(side < 0, at_high / 2.0, at_high)),
        )
        low, high, side = np.where(above, low, middle), np.where(above, middle, high), np.where(above, 1, -1)
        keep = ~(ended | (np.abs(at_middle) < _POWER_PRECISION_W))
        found[index] = middle
    found[index] = 0.5 * (low + high)
    return found


def slowdown(clock: Sizes, step_s: Sizes, c: PowerConstants) -> Sizes:
    """How much longer arithmetic takes in the `repeats`-th of equal steps of `step_s` seconds, at least 1."""
    return _stretch(clock, c.repeats * step_s, c)


def slowest_of(num_cards: int, factor: Sizes, c: PowerConstants) -> Sizes:
    """How much longer arithmetic is expected to take on the slowest of some cards, `factor` on one on average."""
    harmonic = sum(1.0 / number for number in range(1, num_cards + 1))
    return 1.0 + (factor - 1.0) * (1.0 + c.unevenness * (harmonic - 1.0))


def expected_slowest(num_cards: int, c: PowerConstants) -> float:
    """How much longer than a card of the kind takes the slowest of some is expected to take, at least 1."""
    if num_cards <= 1:
        return 1.0
    return 1.0 + c.spread * NormalDist().inv_cdf((num_cards - 0.375) / (num_cards + 0.25))


def slowdown_from_rest(clock: Sizes, step_s: Sizes, c: PowerConstants) -> Sizes:
    """How much longer arithmetic takes on average over a lone step of `step_s` seconds on a rested card, at least 1.

    The rate, one over the stretch, is averaged, by the midpoint rule.
    """
    parts = [(index + 0.5) / _PARTS for index in range(_PARTS)]
    return _PARTS / sum(1.0 / _stretch(clock, part * step_s, c) for part in parts)


def _stretch(clock: Sizes, load_s: Sizes, c: PowerConstants) -> Sizes:
    """How much longer arithmetic takes after `load_s` seconds of a load that settles at `clock`."""
    way_down = 1.0 - each(exp, -power(load_s / c.settle_s, c.settle_shape))
    return power(1.0 - way_down * (1.0 - clock), -c.rate_exponent)
