"""The queue of one replica: closed forms, a simulated queue, and monotonicity."""

from __future__ import annotations

from math import exp, factorial, inf

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kraken_sim.explore.procure.queueing import (
    POINTS_A_SERVICE,
    ServiceClass,
    in_time_probability,
    max_arrival_rate,
    mean_service_s,
    mean_wait_s,
    wait_probability,
)


def erlang_md1(rate: float, service_s: float, time_s: float) -> float:
    """P(W <= t) of M/D/1 (Erlang, 1909): the sum's terms alternate, so it is exact for small t only."""
    rho = rate * service_s
    terms = range(int(time_s / service_s) + 1)
    return (1 - rho) * sum(
        (-rate * (time_s - k * service_s)) ** k / factorial(k) * exp(rate * (time_s - k * service_s)) for k in terms
    )


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("time_s", [0.0, 0.3, 0.99, 1.7, 4.4])
def test_one_class_is_erlangs_md1(rho: float, time_s: float) -> None:
    found = wait_probability([ServiceClass(1.0, 1.0)], rho, [time_s])[0]
    exact = erlang_md1(rho, 1.0, time_s)
    assert found <= exact + 1e-9
    assert found == pytest.approx(exact, abs=0.02)


def lindley_waits(classes: list[ServiceClass], rate: float, count: int) -> np.ndarray:
    """A simulated queue: W_(n+1) = max(0, W_n + S_n - A_n)."""
    random = np.random.default_rng(7)
    services = random.choice([c.service_s for c in classes], size=count, p=[c.share for c in classes])
    gaps = random.exponential(1.0 / rate, size=count)
    walk = np.concatenate(([0.0], np.cumsum(services - gaps)))
    waits: np.ndarray = walk - np.minimum.accumulate(walk)
    return waits[count // 10 :]


def test_a_mixture_agrees_with_a_simulated_queue() -> None:
    classes = [ServiceClass(0.9, 0.02), ServiceClass(0.1, 0.4)]
    rate = 0.7 / 0.058
    waits = lindley_waits(classes, rate, 1_000_000)
    assert np.mean(waits) == pytest.approx(mean_wait_s(classes, rate), rel=0.05)
    for quantile in (0.5, 0.9, 0.99):
        time_s = float(np.quantile(waits, quantile))
        assert wait_probability(classes, rate, [time_s])[0] == pytest.approx(quantile, abs=0.015)


def test_the_mean_of_the_distribution_is_pollaczek_khinchines() -> None:
    classes = [ServiceClass(0.5, 1.0), ServiceClass(0.5, 3.0)]
    times = np.linspace(0.0, 80.0, 4001)
    cdf = wait_probability(classes, 0.25, list(times))
    mean = float(np.sum(1.0 - np.array(cdf[:-1])) * (times[1] - times[0]))
    exact = mean_wait_s(classes, 0.25)
    assert exact == pytest.approx(0.25 * 5.0 / (2 * 0.5))
    assert exact <= mean < 1.04 * exact


def test_an_idle_or_overloaded_replica() -> None:
    classes = [ServiceClass(1.0, 1.0)]
    assert wait_probability(classes, 0.0, [0.0, -1.0]) == [1.0, 0.0]
    assert wait_probability(classes, 1.0, [5.0]) == [0.0]
    assert mean_wait_s(classes, 1.0) == inf
    assert in_time_probability(classes, 0.5) == [1.0]


def test_the_most_arrivals_keep_the_limit_and_no_more() -> None:
    classes = [ServiceClass(1.0, 0.1, 0.35)]
    rate = max_arrival_rate(classes, 99.0, 0.95)
    assert 0.0 < rate < 9.5
    assert in_time_probability(classes, rate)[0] >= 0.99
    assert in_time_probability(classes, 1.01 * rate)[0] < 0.99


def test_the_utilisation_limit_binds_where_the_deadline_does_not() -> None:
    assert max_arrival_rate([ServiceClass(1.0, 0.1, 100.0)], 99.0, 0.7) == pytest.approx(7.0)
    assert max_arrival_rate([ServiceClass(1.0, 0.1, 0.09)], 99.0, 0.7) == 0.0


@settings(max_examples=60, deadline=None)
@given(
    short=st.floats(0.001, 0.2),
    ratio=st.floats(1.0, 20.0),
    share=st.floats(0.05, 0.95),
    slack=st.floats(1.0, 8.0),
    looser=st.floats(1.0, 3.0),
    percentile=st.floats(60.0, 99.9),
)
def test_a_looser_limit_or_a_lower_percentile_never_allows_fewer_arrivals(
    short: float, ratio: float, share: float, slack: float, looser: float, percentile: float
) -> None:
    def rate(limit_s: float, at: float) -> float:
        classes = [ServiceClass(share, short, limit_s), ServiceClass(1.0 - share, short * ratio, limit_s)]
        return max_arrival_rate(classes, at, 0.9)

    limit_s = short * ratio * slack
    assert rate(limit_s * looser, percentile) >= rate(limit_s, percentile)
    assert rate(limit_s, 50.0) >= rate(limit_s, percentile)


class TestLattice:
    """The sum is evaluated on steps of a 64th of a mean service time, to which equilibrium times are rounded up."""

    def test_on_the_lattice_one_class_has_a_closed_form(self) -> None:
        # Equal parts of ρ at the steps 1 to 64: P(W <= k) = (1 - ρ) (1 + ρ / 64)^k up to one service time.
        rho, steps = 0.8, [0, 1, 2, 3, 31, 64]
        found = wait_probability([ServiceClass(1.0, 1.0)], rho, [k / POINTS_A_SERVICE for k in steps])
        assert found == pytest.approx([(1 - rho) * (1 + rho / POINTS_A_SERVICE) ** k for k in steps], rel=1e-12)

    def test_who_comes_to_an_idle_replica_does_not_wait_and_only_they(self) -> None:
        for rho in (0.1, 0.5, 0.9):
            first, later = wait_probability([ServiceClass(1.0, 2.0)], rho / 2.0, [0.0, 5.0])
            assert first == pytest.approx(1.0 - rho)
            assert later > first

    def test_a_time_between_two_steps_counts_as_the_lower_one(self) -> None:
        step = 1.0 / POINTS_A_SERVICE
        times = [3 * step, 3.5 * step, 3.99 * step, 4 * step]
        at, half, nearly, after = wait_probability([ServiceClass(1.0, 1.0)], 0.7, times)
        assert at == half == nearly < after

    @given(
        short=st.floats(0.01, 1.0),
        ratio=st.floats(1.0, 30.0),
        share=st.floats(0.05, 0.95),
        rho=st.floats(0.05, 0.95),
    )
    def test_waiting_is_never_understated_on_average(
        self, short: float, ratio: float, share: float, rho: float
    ) -> None:
        """A distribution's mean is the sum of what lies beyond each step; Pollaczek and Khinchine have it exact."""
        classes = [ServiceClass(share, short), ServiceClass(1.0 - share, short * ratio)]
        mean_s = mean_service_s(classes)
        step_s = mean_s / POINTS_A_SERVICE
        points = [k * step_s for k in range(64 * POINTS_A_SERVICE)]
        beyond = sum(1.0 - found for found in wait_probability(classes, rho / mean_s, points)) * step_s
        exact_s = mean_wait_s(classes, rho / mean_s)
        assume(1.0 - wait_probability(classes, rho / mean_s, [points[-1]])[0] < 1e-9)
        assert exact_s * (1 - 1e-6) <= beyond <= exact_s * 1.03 + step_s


def test_a_prompt_s_own_service_counts_towards_its_limit() -> None:
    (found,) = in_time_probability([ServiceClass(1.0, 1.0, 1.5)], 0.6)
    assert found == wait_probability([ServiceClass(1.0, 1.0)], 0.6, [0.5])[0]
    assert in_time_probability([ServiceClass(1.0, 1.0, 1.0)], 0.6) == pytest.approx([0.4])


def test_every_class_must_keep_its_own_limit() -> None:
    easy, hard = ServiceClass(0.5, 0.1, 10.0), ServiceClass(0.5, 0.1, 0.2)
    rate = max_arrival_rate([easy, hard], 95.0, 0.95)
    assert min(in_time_probability([easy, hard], rate)) >= 0.95
    assert min(in_time_probability([easy, hard], 1.01 * rate)) < 0.95 <= max(in_time_probability([easy, hard], rate))
