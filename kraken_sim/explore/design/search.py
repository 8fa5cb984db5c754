"""The best designs of a space: all of it where it is small, sampled with Optuna where it is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kraken_sim.errors import InfeasibleError, check_is
from kraken_sim.explore.design.batches import batches_of
from kraken_sim.explore.design.bounded import BoundedSearch
from kraken_sim.explore.design.evaluate import DesignEvaluator
from kraken_sim.explore.design.optuna_search import sample
from kraken_sim.explore.design.pareto import pareto_front
from kraken_sim.explore.design.request import (
    DesignRequest,
    Objective,
    SearchMethod,
    check_design_request,
    designs,
    load_design_request,
    may_use_bounds,
)
from kraken_sim.explore.design.space import candidates
from kraken_sim.explore.sensitivity import Alternative, decide
from kraken_sim.explore.sweep.sweep import check_jobs
from kraken_sim.predict.answer import Answer
from kraken_sim.predict.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kraken_sim.explore.design.batches import Batches
    from kraken_sim.explore.design.evaluate import Evaluated, Rejections
    from kraken_sim.explore.sensitivity import Decision
    from kraken_sim.scenario.request_file import RequestSource

MOST_COMPARED = 6
"""Designs whose ranking is judged by the doubt about the constants."""


@dataclass(frozen=True, repr=False)
class SearchResult(Answer):
    """The Pareto front of a search; `method` is how it searched, `complete` whether it was not interrupted."""

    request: DesignRequest
    evaluated: tuple[Evaluated, ...]
    front: tuple[Evaluated, ...]
    rejections: Rejections
    num_designs: int
    method: str
    complete: bool
    decision: Decision | None
    """How sure the fastest is against the next few; None where latency is not the first objective."""

    @property
    def headline(self) -> str:
        """How many designs were tried, and the best."""
        design, tried = self.best.design, f"{len(self.front)} of {len(self.evaluated)} designs on the front"
        where = f"{design.kind} on {design.num_devices} x {design.hardware}"
        return f"{self.request.name}: {tried}; best by {self.request.objectives[0].value}: {where}"

    @property
    def best(self) -> Evaluated:
        """The best by the first objective."""
        return self.front[0]

    @property
    def records(self) -> Records:
        """Every evaluated design as a flat row that says whether it is on the front."""
        on_front = {id(item) for item in self.front}
        return Records({**item.as_dict(), "on_front": id(item) in on_front} for item in self.evaluated)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.request.name,
            "objectives": [objective.value for objective in self.request.objectives],
            "method": self.method,
            "complete": self.complete,
            "num_designs": self.num_designs,
            "num_evaluated": len(self.evaluated),
            "rejected": dict(self.rejections.counts),
            "best": self.best.as_dict(),
            "front": [item.as_dict() for item in self.front],
            "decision": None if self.decision is None else self.decision.as_dict(),
            "evaluated": self.records,
        }


def search_designs(
    request: DesignRequest | RequestSource,
    progress: Callable[[int], None] | None = None,
    *,
    out: str | Path | None = None,
    jobs: int | None = 1,
    cluster: str | None = None,
) -> SearchResult:
    """Searches the space of a request; Ctrl-C ends it with what was found so far.

    Args:
        request: what to search: a request, a mapping of its shape, the path of a file or the name of one that ships.
        progress: called with the number of designs judged so far.
        out: a Parquet file for the evaluated designs; a search that was stopped before it was written goes on.
        jobs: processes; None: as many as cores.
        cluster: `dask://host:port` or `ray://host:port` to run on instead.

    Raises:
        InputError: the request, `out` or `cluster` is wrong, or the space is too large to try whole and Optuna is not
            installed.
        InfeasibleError: no design keeps the constraints; names the number that limits.
    """
    if isinstance(request, str | Path | Mapping):
        request = load_design_request(request)
    check_is(request, DesignRequest, "request", 'load_design_request("request.yaml")')
    show = None if progress is None else lambda done, _: progress(done)
    return search_to_file(request, None if out is None else Path(out), jobs=jobs, cluster=cluster, progress=show)


def search_to_file(
    request: DesignRequest,
    out: Path | None = None,
    *,
    jobs: int | None = 1,
    cluster: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    force: bool = False,
) -> SearchResult:
    """`search_designs` with `progress` of designs judged and designs in all, where `force` replaces others' files."""
    check_jobs(jobs)
    check_design_request(request)
    with batches_of(request, jobs=jobs, cluster=cluster, out=out, force=force) as ask:
        result = _bounded(request, ask, progress) if _by_bounds(request) else _listed(request, ask, progress)
        if ask.store is not None and result.complete:
            rows = json.loads(json.dumps(list(result.records)))
            ask.store.write(iter([pa.Table.from_pylist(rows)]))
    return result


def _listed(request: DesignRequest, ask: Batches, progress: Callable[[int, int], None] | None) -> SearchResult:
    """The front of the designs that are tried one by one: all, or those that Optuna picks."""
    space = list(designs(request))
    evaluator = DesignEvaluator(request, ask)
    exhaustive, complete = _tries_all(request, len(space)), True
    try:
        if exhaustive:
            evaluator.judge(space, progress)
        else:
            sample(space, evaluator, progress)
    except KeyboardInterrupt:
        complete = False
    if not evaluator.evaluated:
        raise _nothing_found(evaluator.rejections, len(space))
    method = f"all {len(space)} designs" if exhaustive else f"Optuna, {request.max_evaluations} of {len(space)} designs"
    found = list(evaluator.evaluated.values())
    front = front_of(found, request.objectives)
    return SearchResult(
        request, tuple(found), front, evaluator.rejections, len(space), method, complete, _sureness(request, found)
    )


def _tries_all(request: DesignRequest, num_designs: int) -> bool:
    return request.method is SearchMethod.ALL or (request.method is None and num_designs <= request.max_evaluations)


def _by_bounds(request: DesignRequest) -> bool:
    """Whether the space is searched by bounds: as it is asked for, or as it is large and every objective has one."""
    if not may_use_bounds(request):
        return False
    return request.method is SearchMethod.BOUNDS or not _tries_all(request, sum(map(len, candidates(request))))


def _bounded(request: DesignRequest, ask: Batches, progress: Callable[[int, int], None] | None) -> SearchResult:
    """The front of all designs, of which those are simulated that their bounds leave a chance."""
    evaluator, complete = DesignEvaluator(request, ask), True
    search = BoundedSearch(request, evaluator.rejections.add, progress, ask)
    try:
        search.run()
    except KeyboardInterrupt:
        complete, evaluator.ask = False, None
    best = list(dict.fromkeys((*search.best, *search.next_best)))
    if complete:
        evaluator.judge(best)
    else:
        for design in best:
            evaluator(design)
    found, rejections = list(evaluator.evaluated.values()), evaluator.rejections
    if not found:
        raise _nothing_found(rejections, search.num_designs)
    method = f"{search.num_designs:,} designs by bounds, {search.num_simulated:,} of them simulated"
    front, sure = front_of(found, request.objectives), _sureness(request, found)
    return SearchResult(request, tuple(found), front, rejections, search.num_designs, method, complete, sure)


def front_of(found: Sequence[Evaluated], objectives: Sequence[Objective]) -> tuple[Evaluated, ...]:
    """The Pareto front, the best by the first objective first."""
    points = [[item.minimised(objective) for objective in objectives] for item in found]
    front = sorted(pareto_front(points), key=lambda index: points[index])
    return tuple(found[index] for index in front)


def _sureness(request: DesignRequest, found: Sequence[Evaluated]) -> Decision | None:
    """How sure the fastest design is against those that come next, if latency is what the search is for."""
    if request.objectives[0] not in (Objective.TTFT, Objective.TPOT) or len(found) < 2:
        return None
    fastest = sorted(found, key=lambda item: [item.minimised(objective) for objective in request.objectives])
    compared = fastest[:MOST_COMPARED]
    return decide([Alternative.of(item.design.label, item.design.scenario(request.base)) for item in compared])


def _nothing_found(rejections: Rejections, num_designs: int) -> InfeasibleError:
    if not rejections.counts:
        return InfeasibleError("the space has no designs: widths, heads and devices do not divide", "0 designs")
    listed = ", ".join(f"{constraint} {count}" for constraint, count in rejections.counts.most_common())
    # The constraints are checked in turn: the last one that rejected anything is the one in the way.
    order = ["parameters", "min_hidden_size", "min_num_hidden_layers", "split", "device memory"]
    order += ["max_memory", "max_latency"]
    last = max(rejections.counts, key=order.index)
    message = f"none of {num_designs} designs keeps the constraints (rejected by: {listed})"
    return InfeasibleError(message, rejections.nearest[last][1])
