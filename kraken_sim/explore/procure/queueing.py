"""How long a prompt waits at a replica that serves one prompt at a time: the M/G/1 queue.

Prompts arrive as a Poisson process of rate λ (as MLPerf's server scenario sends them) and are served in order. Each
is of one of a few classes with a fixed service time s_i and a share p_i, so the service time S has a discrete
distribution and the utilisation is ρ = λ E[S] < 1. Waiting time before service:

    E[W] = λ E[S²] / (2 (1 - ρ))                                      Pollaczek-Khinchine
    P(W <= t) = (1 - ρ) Σ_n ρ^n F_e^{*n}(t),  F_e(t) = Σ_i p_i min(t, s_i) / E[S]

the second being the Pollaczek-Khinchine formula as a geometric sum of equilibrium service times (Asmussen, "Applied
Probability and Queues", 2nd ed., VIII.5). With one class it is Erlang's M/D/1 (1909). The sum is evaluated on a lattice
to which F_e is rounded up, so waiting is never understated; at `POINTS_A_SERVICE` points a mean service time, the
overstatement is below 2 %. Several replicas that get their prompts at random are independent queues of this kind
(thinning a Poisson process); a dispatcher that knows the queues waits less.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.signal import lfilter

if TYPE_CHECKING:
    from collections.abc import Sequence

POINTS_A_SERVICE: Final = 64
"""Points of the waiting time's distribution in one mean service time: the grid of its numerical convolution."""

MOST_POINTS: Final = 20_000
"""About 300 mean service times; whoever waits longer is not told from whoever waits that long."""

RATE_TOLERANCE: Final = 1e-4
"""Relative precision of `max_arrival_rate`."""


@dataclass(frozen=True, slots=True)
class ServiceClass:
    """Prompts alike: their share of all, their service time, and by when they must be answered (waiting included)."""

    share: float
    service_s: float
    limit_s: float = inf


def mean_service_s(classes: Sequence[ServiceClass]) -> float:
    """E[S], seconds."""
    return sum(item.share * item.service_s for item in classes)


def mean_wait_s(classes: Sequence[ServiceClass], rate_per_s: float) -> float:
    """E[W] by Pollaczek and Khinchine; infinite from a utilisation of one."""
    utilisation = rate_per_s * mean_service_s(classes)
    second_moment = sum(item.share * item.service_s**2 for item in classes)
    return rate_per_s * second_moment / (2.0 * (1.0 - utilisation)) if utilisation < 1.0 else inf


def wait_probability(classes: Sequence[ServiceClass], rate_per_s: float, times_s: Sequence[float]) -> list[float]:
    """P(W <= t) for each t, never overstated.

    Args:
        classes: shares that add up to one.
        rate_per_s: arrivals at the one replica.
        times_s: waiting times; a negative one has probability zero.
    """
    mean_s = mean_service_s(classes)
    utilisation = rate_per_s * mean_s
    longest_s = max(times_s)
    if utilisation >= 1.0 or longest_s < 0.0:
        return [0.0 for _ in times_s]
    if utilisation == 0.0:
        return [float(time_s >= 0.0) for time_s in times_s]
    # The lattice does not depend on the times asked for, so that a longer one never seems less probable.
    step_s = mean_s / POINTS_A_SERVICE
    points = min(MOST_POINTS, int(longest_s / step_s + 1e-9) + 1)
    reach = min(points, ceil(max(item.service_s for item in classes) / step_s) + 1)
    grid_s = step_s * np.arange(reach)
    equilibrium = sum(item.share * np.minimum(grid_s, item.service_s) for item in classes) / mean_s
    # f_k = (1 - ρ) δ_k + ρ Σ_j g_j f_(k-j): the geometric sum's recursion is a linear filter.
    steps = np.diff(np.asarray(equilibrium), prepend=0.0)
    impulse = np.zeros(points)
    impulse[0] = 1.0 - utilisation
    mass = lfilter([1.0], np.concatenate(([1.0], -utilisation * steps[1:])), impulse)
    cumulative = np.minimum(np.cumsum(mass), 1.0)
    # A time between two points of the lattice counts as the lower one, one beyond its end as the end.
    indices = [min(points - 1, int(time_s / step_s + 1e-9)) for time_s in times_s]
    return [float(cumulative[i]) if time_s >= 0.0 else 0.0 for i, time_s in zip(indices, times_s, strict=True)]


def in_time_probability(classes: Sequence[ServiceClass], rate_per_s: float) -> list[float]:
    """For each class the probability that waiting and service together keep its limit."""
    slacks_s = [item.limit_s - item.service_s for item in classes]
    finite_s = [slack for slack in slacks_s if slack != inf]
    if not finite_s:
        return [1.0 for _ in classes]
    found = iter(wait_probability(classes, rate_per_s, finite_s))
    return [1.0 if slack == inf else next(found) for slack in slacks_s]


def max_arrival_rate(classes: Sequence[ServiceClass], percentile: float, max_utilisation: float) -> float:
    """The most prompts a second for one replica at which every class keeps its limit.

    Args:
        classes: shares that add up to one.
        percentile: share of each class's prompts that must be in time, per cent, for example 99.
        max_utilisation: the utilisation not to exceed, between 0 and 1.

    Returns:
        The rate; 0 if some class is too slow even on an idle replica.
    """
    wanted = percentile / 100.0
    if any(item.service_s > item.limit_s for item in classes):
        return 0.0

    def keeps(rate_per_s: float) -> bool:
        return min(in_time_probability(classes, rate_per_s)) >= wanted

    high = max_utilisation / mean_service_s(classes)
    if keeps(high):
        return high
    low = 0.0
    while high - low > RATE_TOLERANCE * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low
