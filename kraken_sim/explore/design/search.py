"""The best designs of a space: all of it where it is small, sampled with Optuna where it is not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from kraken_sim.errors import InfeasibleError, InputError, check_is
from kraken_sim.explore.design.batches import batches_of, predictor_of
from kraken_sim.explore.design.bounded import BoundedSearch, parameter_words
from kraken_sim.explore.design.goodput import goodput_per_gpu
from kraken_sim.explore.design.optuna_search import sample
from kraken_sim.explore.design.pareto import pareto_front
from kraken_sim.explore.design.request import (
    MAXIMISED,
    DesignRequest,
    Objective,
    SearchMethod,
    base_config,
    budget_of,
    check_design_request,
    designs,
    load_design_request,
    may_use_bounds,
)
from kraken_sim.explore.design.space import candidates
from kraken_sim.explore.procure.economics import cost_per_million_tokens
from kraken_sim.explore.sensitivity import Alternative, decide
from kraken_sim.explore.sweep.sweep import check_jobs
from kraken_sim.predict.answer import Answer
from kraken_sim.predict.energy import step_energy
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.predict.records import Records
from kraken_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kraken_sim.explore.design.batches import Batches, SearchRecipe
    from kraken_sim.explore.design.shape import Design
    from kraken_sim.explore.sensitivity import Decision
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.scenario.request_file import RequestSource

BATCH: Final = 50
"""Designs that one process judges at once, some hundredths of a second; a choice of ours."""

MOST_COMPARED = 6
"""Designs whose ranking is judged by the doubt about the constants."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A design that keeps the constraints, and what is predicted of it."""

    design: Design
    latency_s: float
    low_s: float
    high_s: float
    memory_bytes: int
    num_parameters: int
    energy_j: float
    energy_basis: str
    cost: float | None
    """Per million tokens, where the request has a price; replicas always busy."""
    tpot_s: float | None = None
    """Of whole answers, whose `latency_s` is the time to the first token."""
    goodput_per_s: float | None = None
    """Requests a second a GPU within the limits, where that is an objective."""

    def value(self, objective: Objective) -> float:
        """What the objective says of the design, larger or smaller being better as the objective has it."""
        values: dict[Objective, float] = {
            Objective.TTFT: self.latency_s,
            Objective.TPOT: self.latency_s if self.tpot_s is None else self.tpot_s,
            Objective.GOODPUT: self.goodput_per_s or 0.0,
            Objective.ENERGY: self.energy_j,
            Objective.COST: float("inf") if self.cost is None else self.cost,
            Objective.MEMORY: self.memory_bytes,
            Objective.GPUS: self.design.num_devices,
            Objective.PARAMETERS: self.num_parameters,
            Objective.WIDTH: self.design.hidden_size,
            Objective.DEPTH: self.design.num_hidden_layers,
        }
        return values[objective]

    def minimised(self, objective: Objective) -> float:
        """The same with its sign turned where more is better."""
        return -self.value(objective) if objective in MAXIMISED else self.value(objective)

    def as_dict(self) -> dict[str, Any]:
        """A flat record, for JSON and DataFrames."""
        return {
            **self.design.as_dict(),
            "latency_s": self.latency_s,
            "low_s": self.low_s,
            "high_s": self.high_s,
            "memory_bytes": self.memory_bytes,
            "num_parameters": self.num_parameters,
            "energy_j": self.energy_j,
            "energy_basis": self.energy_basis,
            "cost_per_million_tokens": self.cost,
            "tpot_s": self.tpot_s,
            "goodput_per_s": self.goodput_per_s,
        }


@dataclass
class Rejections:
    """How many designs each constraint rejected, and the nearest miss of each."""

    counts: Counter[str] = field(default_factory=Counter)
    nearest: dict[str, tuple[float, str]] = field(default_factory=dict)
    """By constraint: relative miss of the nearest design, and the limiting number in words."""

    def join(self, counts: Mapping[str, int], nearest: Mapping[str, Sequence[Any]]) -> None:
        """Notes what other designs were rejected for."""
        for constraint, number in counts.items():
            miss, words = nearest[constraint]
            self.add(constraint, miss, words, number)

    def add(self, constraint: str, miss: float, words: str, number: int = 1) -> None:
        """Notes one rejected design, or the nearest miss of several."""
        self.counts[constraint] += number
        if constraint not in self.nearest or miss < self.nearest[constraint][0]:
            self.nearest[constraint] = (miss, words)


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


class DesignEvaluator:
    """Judges designs of one request, each at most once: cheap constraints first, then the simulation.

    Args:
        request: the request.
        ask: who answers for it; default: itself, with `predictor`.
        predictor: where it answers itself.
    """

    def __init__(self, request: DesignRequest, ask: Batches | None = None, predictor: Predictor | None = None) -> None:
        self.request = request
        self.ask = ask
        self.predictor = Predictor() if predictor is None else predictor
        self.config: TransformerConfig = base_config(request)
        self.budget = budget_of(request, self.config)
        self.rejections = Rejections()
        self.evaluated: dict[Design, Evaluated] = {}
        self.rejected: set[Design] = set()

    def __call__(self, design: Design) -> Evaluated | None:
        """What is predicted of the design; None if it breaks a constraint."""
        if design not in self.rejected and design not in self.evaluated:
            if self.ask is None:
                self._note(design, self._evaluate(design))
            else:
                self.judge([design])
        return self.evaluated.get(design)

    def judge(self, designs: Sequence[Design], progress: Callable[[int, int], None] | None = None) -> None:
        """Judge designs in batches by who answers for it; `progress` is called with how many are, and are to be.

        Batches of one where each takes some seconds.
        """
        assert self.ask is not None
        size, total, done = 1 if Objective.GOODPUT in self.request.objectives else BATCH, len(designs), 0
        batches = [tuple(designs[start : start + size]) for start in range(0, total, size)]
        for batch, data in zip(batches, self.ask(answer_designs, batches), strict=True):
            answer = json.loads(data)
            self.rejections.join(answer["counts"], answer["nearest"])
            for design, values in zip(batch, answer["evaluated"], strict=True):
                self._note(design, None if values is None else Evaluated(design, **values))
                done += 1
                if progress is not None:
                    progress(done, total)

    def _note(self, design: Design, found: Evaluated | None) -> None:
        if found is None:
            self.rejected.add(design)
        else:
            self.evaluated[design] = found

    def _evaluate(self, design: Design) -> Evaluated | None:
        if self.breaks_shape(design):
            return None
        try:
            prediction = self.predictor.predict(design.scenario(self.request.base))
        except InputError as error:
            self.rejections.add("split", 0.0, "; ".join(str(problem) for problem in error.problems))
            return None
        except InfeasibleError as error:
            self.rejections.add("device memory", 0.0, str(error))
            return None
        memory_bytes, limits = prediction.memory.total_bytes, self.request.constraints
        if limits.max_memory is not None and memory_bytes > limits.max_memory:
            words = f"max_memory {format_bytes(limits.max_memory)}; the least is {format_bytes(memory_bytes)}"
            self.rejections.add("max_memory", memory_bytes / limits.max_memory, words)
            return None
        whole = prediction.e2e_s is not None
        latency_s = prediction.ttft_s if whole and prediction.ttft_s is not None else prediction.latency_s
        if limits.max_latency is not None and latency_s > limits.max_latency:
            words = f"max_latency {format_seconds(limits.max_latency)}; the fastest takes {format_seconds(latency_s)}"
            self.rejections.add("max_latency", latency_s / limits.max_latency, words)
            return None
        energy = step_energy(prediction)
        # Of whole answers the interval is that of the prefill, whose time stands for them.
        interval = prediction.steps[0][1].interval if whole else prediction.interval
        cost = self._cost(design, prediction.latency_s, len(prediction.profile.topology.gpus))
        try:
            goodput = self._goodput(design)
        except InfeasibleError as error:
            self.rejections.add("device memory", 0.0, str(error))
            return None
        return Evaluated(
            design,
            latency_s,
            interval.low_s,
            interval.high_s,
            memory_bytes,
            design.num_parameters(self.config),
            energy.energy_j,
            energy.basis,
            cost,
            prediction.tpot_s if whole else None,
            goodput,
        )

    def _goodput(self, design: Design) -> float | None:
        request = self.request
        if Objective.GOODPUT not in request.objectives or request.sla is None:
            return None
        scenario = design.scenario(request.base)
        return goodput_per_gpu(scenario, request.sla.resolve(), request.scheduler, self.predictor)

    def breaks_shape(self, design: Design) -> bool:
        """Checks that need no simulation: parameters and, as a stand-in for quality, width and depth."""
        parameters = design.num_parameters(self.config)
        limits, tolerance = self.request.constraints, self.request.constraints.budget_tolerance
        low, high = self.budget * (1.0 - tolerance), self.budget * (1.0 + tolerance)
        low = max(low, limits.min_parameters or 0.0)
        high = min(high, limits.max_parameters or float("inf"))
        if not low <= parameters <= high:
            miss = max(low / parameters, parameters / high)
            self.rejections.add("parameters", miss, parameter_words(low, high, parameters))
            return True
        for name, least, value in (
            ("min_hidden_size", limits.min_hidden_size, design.hidden_size),
            ("min_num_hidden_layers", limits.min_num_hidden_layers, design.num_hidden_layers),
        ):
            if least is not None and value < least:
                self.rejections.add(name, least / value, f"{name} {least}; the most is {value}")
                return True
        return False

    def _cost(self, design: Design, latency_s: float, num_gpus: int) -> float | None:
        """Cost of a million tokens on the design's share of its machine, always busy."""
        price = self.request.prices.get(design.hardware)
        if price is None:
            return None
        base = self.request.base
        tokens = base.batch_size * (1 if base.phase.value == "decode" else base.context_length)
        tokens += base.batch_size * (base.output_length or 0)
        return cost_per_million_tokens(price.per_hour * design.num_devices / num_gpus, tokens / latency_s)


def answer_designs(recipe: SearchRecipe, designs: Sequence[Design]) -> bytes:
    """What is predicted of designs, and what those that break a constraint break, as JSON."""
    evaluator = DesignEvaluator(recipe.request, predictor=predictor_of(recipe))
    names = [item.name for item in fields(Evaluated) if item.name != "design"]
    found = [evaluator(design) for design in designs]
    answer = {
        "evaluated": [None if item is None else {name: getattr(item, name) for name in names} for item in found],
        "counts": evaluator.rejections.counts,
        "nearest": evaluator.rejections.nearest,
    }
    return json.dumps(answer).encode()


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
