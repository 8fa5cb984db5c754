"""The whole front of millions of designs, of which few are simulated: the others are worse by their bounds alone.

Every round takes twice as many designs as the one before, the most promising first by the roofline of their weights,
prices their stream of compute, and simulates those that nothing known beats by their bounds. Whatever is beaten by a
design that was simulated goes, in each objective being no better: the front is that of all designs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from kraken_sim.explore.design.batches import batches_of
from kraken_sim.explore.design.bounds import TOGETHER, answer_bounds, bounds_in, roofline_s
from kraken_sim.explore.design.pareto import beaten, front_of_many
from kraken_sim.explore.design.request import MAXIMISED, Objective, base_config, budget_of
from kraken_sim.explore.design.space import candidates
from kraken_sim.explore.procure.economics import cost_per_million_tokens
from kraken_sim.models.counts import parameter_count
from kraken_sim.profiles.load import load_profile
from kraken_sim.scenario.spec import Phase
from kraken_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kraken_sim.explore.design.batches import Batches
    from kraken_sim.explore.design.bounds import Bounds
    from kraken_sim.explore.design.request import DesignRequest
    from kraken_sim.explore.design.shape import Design
    from kraken_sim.explore.design.space import Candidates
    from kraken_sim.program.many import Sizes

    Reject = Callable[[str, float, str, int], None]

FIRST_ROUND: Final = 4_000
"""Designs of the first round; a choice of ours."""

AT_ONCE: Final = 200
"""Designs that are simulated before what they beat is dropped; a choice of ours."""

SIMULATED_TOGETHER: Final = 50
"""Designs that one process simulates at once; a choice of ours."""

NEXT_BEST: Final = 6
"""Designs by the first objective that are simulated beside the front, to be compared with its best."""


@dataclass(slots=True)
class _Part:
    """Designs of one structure that keep the constraints on shape: what is known of each, by column.

    `points` [num_designs, num_objectives] are lower bounds of what is minimised, `exact` where they are the answers.
    """

    found: Candidates
    num_parameters: Sizes
    latency_s: Sizes
    points: Sizes
    priced: Sizes
    exact: Sizes
    alive: Sizes


def parameter_words(low: float, high: float, nearest: float) -> str:
    """Which numbers of parameters are allowed, and the nearest that any design has."""
    asked, found = f"{1e-9 * low:.4g} to {1e-9 * high:.4g} B", f"{1e-9 * nearest:.4g} B"
    return f"parameters {asked}; the nearest design has {found}"


@dataclass(slots=True)
class BoundedSearch:
    """A search through all designs of a request by bounds; `reject` is told of constraints that some break."""

    request: DesignRequest
    reject: Reject
    progress: Callable[[int, int], None] | None = None
    """Called with the designs judged so far and all that keep the constraints on shape."""
    ask: Batches | None = None
    """Who answers; default: this process."""
    num_designs: int = 0
    num_simulated: int = 0
    """Of those beside which something runs; the others' bounds are their answers."""
    _parts: list[_Part] = field(default_factory=list)
    _front: Sizes = None
    _front_ranks: Sizes = None
    _judged: int = 0

    def run(self) -> None:
        """Search until nothing is left that could be on the front."""
        if self.ask is None:
            with batches_of(self.request) as here:
                self.ask = here
                self.run()
            return
        self._parts = [part for found in candidates(self.request) if (part := self._shaped(found)) is not None]
        num_objectives = len(self.request.objectives)
        self._front, self._front_ranks = np.empty((0, num_objectives)), np.empty(0, dtype=np.int64)
        size = FIRST_ROUND
        while self._round(size):
            size *= 2
        while self._simulate():
            pass

    @property
    def best(self) -> list[Design]:
        """The front, best by the first objective first."""
        front = set(self._front_ranks.tolist())
        rows = [
            (tuple(part.points[index]), int(part.found.rank[index]), part.found.design(index))
            for part in self._parts
            for index in np.flatnonzero(part.exact).tolist()
            if int(part.found.rank[index]) in front
        ]
        return [design for _, _, design in sorted(rows, key=lambda row: row[:2])]

    @property
    def next_best(self) -> list[Design]:
        """The best of those whose answers are known by the first objective."""
        rows = [
            (float(part.points[index, 0]), int(part.found.rank[index]), part.found.design(int(index)))
            for part in self._parts
            for index in _lowest(part, NEXT_BEST)
        ]
        return [design for _, _, design in sorted(rows, key=lambda row: row[:2])[:NEXT_BEST]]

    def _shaped(self, found: Candidates) -> _Part | None:
        """Those that keep the constraints on shape, with the bounds that shapes alone give."""
        request, config = self.request, base_config(self.request)
        self.num_designs += len(found)
        num_parameters = parameter_count(*found.first_shapes(config))
        limits, budget = request.constraints, budget_of(request, config)
        low = max(budget * (1.0 - limits.budget_tolerance), limits.min_parameters or 0.0)
        high = min(budget * (1.0 + limits.budget_tolerance), limits.max_parameters or float("inf"))
        kept = (num_parameters >= low) & (num_parameters <= high)
        miss = np.maximum(low / num_parameters, num_parameters / high)
        self._rejected("parameters", ~kept, miss, num_parameters, partial(parameter_words, low, high))
        for name, least, values in (
            ("min_hidden_size", limits.min_hidden_size, found.hidden_size),
            ("min_num_hidden_layers", limits.min_num_hidden_layers, found.num_hidden_layers),
        ):
            if least is not None:
                words = f"{name} {least}; the most is {{}}".format
                self._rejected(name, kept & (values < least), least / values, values, words)
                kept &= values >= least
        index = np.flatnonzero(kept)
        if not len(index):
            return None
        found, counts = found.at(index), np.asarray(num_parameters)[index]
        scenario = found.design(0).scenario(request.base)
        latency_s = roofline_s(scenario, config, load_profile(found.template.hardware), found)
        zeros, none = np.zeros(len(found)), np.zeros(len(found), dtype=bool)
        points = self._points(found, counts, latency_s, zeros, zeros)
        return _Part(found, counts, latency_s, points, none, none.copy(), ~none)

    def _rejected(self, name: str, broken: Sizes, miss: Sizes, values: Sizes, words: Callable[..., str]) -> None:
        index = np.flatnonzero(broken)
        if len(index):
            nearest = index[np.argmin(miss[index])]
            self.reject(name, float(miss[nearest]), words(values[nearest].item()), len(index))

    def _points(
        self, found: Candidates, num_parameters: Sizes, latency_s: Sizes, energy_j: Sizes, memory: Sizes
    ) -> Sizes:
        """What is minimised [num_designs, num_objectives], for lower bounds of time, energy and memory."""
        design, price = found.template, self.request.prices.get(found.template.hardware)
        cost: Sizes = np.full(len(found), np.inf)
        if price is not None:
            base = self.request.base
            tokens = base.batch_size * (1 if base.phase is Phase.DECODE else base.context_length)
            num_gpus = len(load_profile(design.hardware).topology.gpus)
            cost = cost_per_million_tokens(price.per_hour * design.num_devices / num_gpus, tokens / latency_s)
        values = {
            Objective.TTFT: latency_s,
            Objective.TPOT: latency_s,
            Objective.ENERGY: energy_j,
            Objective.COST: cost,
            Objective.MEMORY: memory,
            Objective.GPUS: np.full(len(found), design.num_devices),
            Objective.PARAMETERS: num_parameters,
            Objective.WIDTH: found.hidden_size,
            Objective.DEPTH: found.num_hidden_layers,
        }
        columns = [(-1.0 if name in MAXIMISED else 1.0) * values[name] for name in self.request.objectives]
        return np.stack(columns, axis=1).astype(np.float64)

    def _round(self, size: int) -> bool:
        """Price the next most promising designs and simulate the best of them; False where none is left."""
        waiting = [np.flatnonzero(part.alive & ~part.priced) for part in self._parts]
        left = [part.latency_s[index] for part, index in zip(self._parts, waiting, strict=True)]
        if not sum(map(len, left)):
            return False
        bounds_s = np.concatenate(left)
        limit = np.partition(bounds_s, size)[size] if size < len(bounds_s) else np.inf
        found = zip(self._parts, waiting, strict=True)
        self._price([(part, index[part.latency_s[index] <= limit]) for part, index in found])
        self._drop()
        self._simulate()
        return True

    def _price(self, chosen: list[tuple[_Part, Sizes]], *, simulate: bool = False) -> None:
        """Bounds, or answers, of some designs of parts."""
        assert self.ask is not None
        most = SIMULATED_TOGETHER if simulate else TOGETHER
        batches = [(part, some) for part, index in chosen for some in _at_most(index, most)]
        asked = [(part.found.at(index), simulate) for part, index in batches]
        for (part, index), data in zip(batches, self.ask(answer_bounds, asked), strict=True):
            self._take(part, index, bounds_in(data), simulate=simulate)

    def _take(self, part: _Part, index: Sizes, bounds: Bounds | str, *, simulate: bool) -> None:
        """Take in what is known of some designs of a part; text says why nobody can answer them."""
        if isinstance(bounds, str):
            self.reject("split", 0.0, bounds, len(index))
            part.alive[index] = False
            return
        found = part.found.at(index)
        part.latency_s[index] = bounds.latency_s
        part.points[index] = self._points(
            found, part.num_parameters[index], bounds.latency_s, bounds.energy_j, bounds.memory_bytes
        )
        part.priced[index], part.exact[index] = True, bounds.exact
        kept = self._keeps_limits(part, bounds)
        part.alive[index[~kept]] = part.exact[index[~kept]] = False
        self._judged += 0 if simulate else len(index)
        self._known(part, index[kept & bounds.exact])
        if self.progress is not None:
            self.progress(self._judged, sum(len(other.found) for other in self._parts))

    def _keeps_limits(self, part: _Part, bounds: Bounds) -> Sizes:
        """Which of the designs are not known to break a limit on memory or time."""
        limits, memory = self.request.constraints, bounds.memory_bytes
        capacity = load_profile(part.found.template.hardware).device.hbm_capacity_bytes
        kept = memory <= capacity
        self._rejected(
            "device memory", ~kept, memory / capacity, memory,
            lambda least: f"device memory {format_bytes(capacity)}; the least is {format_bytes(least)}",
        )  # fmt: skip
        most, slowest_s = limits.max_memory, limits.max_latency
        if most is not None:
            limit, over = f"max_memory {format_bytes(most)}; the least is ", kept & (memory > most)
            self._rejected("max_memory", over, memory / most, memory, lambda least: limit + format_bytes(least))
            kept &= ~over
        if slowest_s is not None:
            times_s, words = bounds.latency_s, f"max_latency {format_seconds(slowest_s)}; the fastest takes "
            late = kept & (times_s > slowest_s)
            miss = times_s / slowest_s
            self._rejected("max_latency", late, miss, times_s, lambda least: words + format_seconds(least))
            kept &= ~late
        return np.asarray(kept)

    def _known(self, part: _Part, index: Sizes) -> None:
        """Add answers to the front."""
        points = np.concatenate((self._front, part.points[index]))
        ranks = np.concatenate((self._front_ranks, part.found.rank[index]))
        kept = front_of_many(points, ranks)
        self._front, self._front_ranks = points[kept], ranks[kept]

    def _drop(self) -> None:
        """Drop what is worse than something known."""
        for part in self._parts:
            index = np.flatnonzero(part.alive)
            worse = beaten(part.points[index], part.found.rank[index], self._front, self._front_ranks)
            part.alive[index[worse]] = False

    def _simulate(self) -> bool:
        """Simulate the most promising of the designs that are priced but not answered; False where there are none."""
        pool = [np.flatnonzero(part.alive & part.priced & ~part.exact) for part in self._parts]
        points = [part.points[index] for part, index in zip(self._parts, pool, strict=True)]
        if not sum(map(len, pool)):
            return False
        ranks = np.concatenate([part.found.rank[index] for part, index in zip(self._parts, pool, strict=True)])
        everything = np.concatenate(points)
        chosen = ranks[_spread(front_of_many(everything, ranks), AT_ONCE)]
        found = zip(self._parts, pool, strict=True)
        some = [(part, index[np.isin(part.found.rank[index], chosen)]) for part, index in found]
        self.num_simulated += sum(len(index) for _, index in some)
        self._price(some, simulate=True)
        self._drop()
        return True


def _at_most(index: Sizes, most: int) -> Iterator[Sizes]:
    """The index in parts of at most so many."""
    for start in range(0, len(index), most):
        yield index[start : start + most]


def _lowest(part: _Part, most: int) -> Iterator[int]:
    index = np.flatnonzero(part.exact)
    yield from index[np.lexsort((part.found.rank[index], part.points[index, 0]))][:most].tolist()


def _spread(index: Sizes, most: int) -> Sizes:
    """At most so many of them, evenly."""
    return index if len(index) <= most else index[np.linspace(0, len(index) - 1, most).astype(np.int64)]
