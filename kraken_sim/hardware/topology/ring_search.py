"""Search for the best cyclic order of ranks when hops share links in no simple pattern."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kraken_sim.hardware.topology.graph import Arc

Value = tuple[float, float, float]
"""What makes one ring better than another: bandwidth, minus latency, sum of the hops' own bandwidths."""

_TOLERANCE = 1e-9
"""Relative difference below which two rings are equally good: rounding errors; a limit of ours."""


def pairs_around(order: Sequence[str]) -> list[tuple[str, str]]:
    """Each rank of a ring with the next one, the last with the first."""
    return list(zip(order, [*order[1:], order[0]], strict=True))


@dataclass(frozen=True, slots=True)
class Ways:
    """The way between each pair of ranks, its latency, and what each link direction can carry (bytes/s)."""

    routes: Mapping[tuple[str, str], tuple[Arc, ...]]
    latency_s: Mapping[tuple[str, str], float]
    capacity: Mapping[Arc, float]

    def width(self, pair: tuple[str, str]) -> float:
        """Bandwidth of a hop that has its links for itself."""
        return min(self.capacity[arc] for arc in self.routes[pair])

    def value(self, order: Sequence[str]) -> Value:
        """The value of a whole ring."""
        pairs = pairs_around(order)
        loads = Counter(arc for pair in pairs for arc in self.routes[pair])
        bandwidth = min(self.capacity[arc] / load for arc, load in loads.items())
        return bandwidth, -sum(self.latency_s[pair] for pair in pairs), sum(map(self.width, pairs))


def better(value: Value, than: Value) -> bool:
    """Whether a ring is better by more than rounding errors."""
    for ours, theirs in zip(value, than, strict=True):
        if not math.isclose(ours, theirs, rel_tol=_TOLERANCE):
            return ours > theirs
    return False


def ceiling(ranks: Sequence[str], ways: Ways) -> Value:
    """A value that no ring through these ranks can exceed."""
    best_out = [max(ways.width((a, b)) for b in ranks if b != a) for a in ranks]
    return min(best_out), -len(ranks) * min(ways.latency_s.values()), sum(best_out)


def best_order(ranks: Sequence[str], ways: Ways) -> tuple[str, ...]:
    """The best order of all, by branch and bound; the first rank stays first."""
    search = _BranchAndBound(ranks, ways)
    search.extend(_Partial((ranks[0],), frozenset(ranks[1:]), math.inf, 0.0, 0.0))
    return search.best


@dataclass(frozen=True, slots=True)
class _Partial:
    """The first hops of a ring: their bandwidth so far, and the sums of their latencies and widths."""

    order: tuple[str, ...]
    rest: frozenset[str]
    bandwidth: float
    latency_s: float
    width: float


class _BranchAndBound:
    """Extends partial orders hop by hop and drops those whose optimistic value is no better than the best."""

    def __init__(self, ranks: Sequence[str], ways: Ways) -> None:
        self.ways = ways
        self.widths = {pair: ways.width(pair) for pair in ways.routes}
        self.least_latency_s = min(ways.latency_s.values())
        self.most_width = max(self.widths.values())
        self.ceiling = ceiling(ranks, ways)
        self.best = improved_order(ranks, ways)
        self.best_value = ways.value(self.best)
        self.loads: Counter[Arc] = Counter()

    def extend(self, partial: _Partial) -> None:
        """Tries every next rank; after the last one, the hop back to the first."""
        if not better(self.ceiling, self.best_value):
            return
        if not partial.rest:
            self._finish(partial)
            return
        for rank in self._candidates(partial):
            longer = self._enter(partial, rank)
            if better(self._optimistic(longer), self.best_value):
                self.extend(longer)
            self._leave(partial, rank)

    def _candidates(self, partial: _Partial) -> list[str]:
        # Widest hops first finds good rings early; names break ties, so that the result is deterministic.
        last = partial.order[-1]
        return sorted(partial.rest, key=lambda name: (-self.widths[last, name], self.ways.latency_s[last, name], name))

    def _enter(self, partial: _Partial, rank: str) -> _Partial:
        pair = (partial.order[-1], rank)
        route = self.ways.routes[pair]
        self.loads.update(route)
        return _Partial(
            order=(*partial.order, rank),
            rest=partial.rest - {rank},
            bandwidth=min(partial.bandwidth, *(self.ways.capacity[arc] / self.loads[arc] for arc in route)),
            latency_s=partial.latency_s + self.ways.latency_s[pair],
            width=partial.width + self.widths[pair],
        )

    def _leave(self, partial: _Partial, rank: str) -> None:
        self.loads.subtract(self.ways.routes[partial.order[-1], rank])

    def _optimistic(self, partial: _Partial) -> Value:
        hops_left = len(partial.rest) + 1
        return (
            min(partial.bandwidth, self.ceiling[0]),
            -(partial.latency_s + hops_left * self.least_latency_s),
            partial.width + hops_left * self.most_width,
        )

    def _finish(self, partial: _Partial) -> None:
        value = self.ways.value(partial.order)
        if better(value, self.best_value):
            self.best, self.best_value = partial.order, value


def improved_order(ranks: Sequence[str], ways: Ways, guess: tuple[str, ...] = ()) -> tuple[str, ...]:
    """A good order: nearest neighbour (or the numbering, or `guess`), then segment reversals while they help."""
    best = max((guess or tuple(ranks), tuple(ranks), _nearest_neighbour(ranks, ways)), key=ways.value)
    value, limit = ways.value(best), ceiling(ranks, ways)
    improved = True
    while improved and better(limit, value):
        improved = False
        for start in range(1, len(best) - 1):
            for end in range(start + 2, len(best) + 1):
                order = (*best[:start], *reversed(best[start:end]), *best[end:])
                if better(candidate := ways.value(order), value):
                    best, value, improved = order, candidate, True
    return best


def _nearest_neighbour(ranks: Sequence[str], ways: Ways) -> tuple[str, ...]:
    order, rest = [ranks[0]], set(ranks[1:])
    while rest:
        last = order[-1]
        order.append(min(rest, key=lambda name: (-ways.width((last, name)), ways.latency_s[last, name], name)))
        rest.remove(order[-1])
    return tuple(order)
