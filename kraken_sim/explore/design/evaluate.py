"""Judges designs one by one: what is predicted of each, or which constraint rejects it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.explore.design.batches import predictor_of
from kraken_sim.explore.design.bounded import parameter_words
from kraken_sim.explore.design.goodput import goodput_per_gpu
from kraken_sim.explore.design.request import MAXIMISED, Objective, base_config, budget_of
from kraken_sim.explore.procure.economics import cost_per_million_tokens
from kraken_sim.predict.energy import step_energy
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kraken_sim.explore.design.batches import Batches, SearchRecipe
    from kraken_sim.explore.design.request import DesignRequest
    from kraken_sim.explore.design.shape import Design
    from kraken_sim.models.config import TransformerConfig

BATCH: Final = 50
"""Designs that one process judges at once, some hundredths of a second; a choice of ours."""


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
