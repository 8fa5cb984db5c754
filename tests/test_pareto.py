"""The Pareto front against its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kraken_sim.explore.design.pareto import dominates, pareto_front

# Few values, so that points share coordinates and repeat.
POINTS = st.integers(1, 3).flatmap(
    lambda size: st.lists(st.tuples(*[st.integers(0, 4)] * size), min_size=1, max_size=25)
)


@given(POINTS)
def test_the_front_is_what_nothing_dominates_without_repeats(points: list[tuple[int, ...]]) -> None:
    front = pareto_front(points)
    best = {point for point in points if not any(dominates(other, point) for other in points)}
    assert {points[index] for index in front} == best
    assert len(front) == len(best)
    assert all(points.index(points[index]) == index for index in front)


@given(POINTS)
def test_everything_else_is_dominated_by_or_equal_to_a_point_of_the_front(points: list[tuple[int, ...]]) -> None:
    front = [points[index] for index in pareto_front(points)]
    assert all(any(kept == point or dominates(kept, point) for kept in front) for point in points)


@given(POINTS)
def test_the_front_of_the_front_is_itself_and_order_does_not_matter(points: list[tuple[int, ...]]) -> None:
    front = [points[index] for index in pareto_front(points)]
    assert [front[index] for index in pareto_front(front)] == front
    backwards = points[::-1]
    assert {backwards[index] for index in pareto_front(backwards)} == set(front)


def test_one_objective_has_one_best() -> None:
    assert pareto_front([(3.0,), (1.0,), (2.0,), (1.0,)]) == [1]
    assert pareto_front([]) == []
