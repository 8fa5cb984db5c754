"""Running a grid: every cell under a set-up, each scenario that several set-ups share simulated once."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from kraken_sim.architectures.architecture import Question
from kraken_sim.architectures.registry import architecture
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.explore.sensitivity import speedup_interval
from kraken_sim.models.kraken_width import widths_within_tolerance
from kraken_sim.models.presets import preset
from kraken_sim.paper.gemm import gemm_delays_s
from kraken_sim.paper.grid import KINDS, KRAKEN, PARALLEL, STANDARD, Grid, OverlapModel, Widths
from kraken_sim.paper.machine import machine_of
from kraken_sim.predict.ideal_overlap import ideal_overlap
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.program.program import Category
from kraken_sim.scenario.spec import RuntimeSpec, scenario_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kraken_sim.architectures.architecture import ArchitectureFields
    from kraken_sim.paper.grid import GridModel, Setup
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.scenario.resolve import ResolvedModel
    from kraken_sim.scenario.spec import Scenario


@dataclass(frozen=True, slots=True)
class Cell:
    """One model, context length and number of devices.

    `ttft_s` and `breakdown_s` are those of the `predictions` unless the set-up changes GEMM times afterwards.
    """

    model: str
    context_length: int
    num_devices: int
    predictions: Mapping[str, Prediction]
    ttft_s: Mapping[str, float]
    breakdown_s: Mapping[str, Mapping[str, float]]

    def speedup_percent(self, kind: str) -> float:
        """How much faster than standard, in per cent: TTFT_standard / TTFT - 1."""
        return 100.0 * (self.ttft_s[STANDARD] / self.ttft_s[kind] - 1.0)

    def speedup_interval(self, kind: str) -> tuple[float, float]:
        """Where the speed-up lies with a probability of 90 %, as a fraction, by the residuals of the profile."""
        standard, own = self.predictions[STANDARD], self.predictions[kind]
        changed = (self.ttft_s[STANDARD] / standard.latency_s) / (self.ttft_s[kind] / own.latency_s)
        low, high = ((1.0 + end) * changed - 1.0 for end in speedup_interval(standard, own))
        return low, high

    @property
    def all_reduce_share(self) -> float:
        """Share of AllReduce in the standard model's forward pass."""
        return self.breakdown_s[STANDARD][Category.ALL_REDUCE] / self.ttft_s[STANDARD]

    @property
    def others(self) -> tuple[str, ...]:
        """The architectures beside standard, parallel and Kraken."""
        return tuple(kind for kind in self.predictions if kind not in KINDS)

    def as_dict(self) -> dict[str, Any]:
        """The contract's JSON of a cell."""
        others = {kind: self.speedup_percent(kind) for kind in self.others}
        return {
            "model": self.model,
            "context_length": self.context_length,
            "num_devices": self.num_devices,
            "ttft_s": dict(self.ttft_s),
            "kraken_hidden_size": self.predictions[KRAKEN].resolved.layout.block.hidden_size,
            "kraken_speedup_percent": self.speedup_percent(KRAKEN),
            "kraken_speedup_interval_percent": [100.0 * end for end in self.speedup_interval(KRAKEN)],
            "parallel_speedup_percent": self.speedup_percent(PARALLEL),
            "parallel_speedup_interval_percent": [100.0 * end for end in self.speedup_interval(PARALLEL)],
            "breakdown_s": {kind: dict(parts) for kind, parts in self.breakdown_s.items()},
            **({"other_speedups_percent": others} if others else {}),
        }


Cells = tuple[Cell, ...]


@dataclass(slots=True)
class Runner:
    """Runs the grid on one machine; a scenario that several set-ups share is simulated once."""

    grid: Grid
    profile: HardwareProfile
    _predictors: dict[tuple[object, ...], Predictor] = field(default_factory=dict)
    _done: dict[tuple[object, ...], Prediction] = field(default_factory=dict)

    def cells(self, setup: Setup) -> Cells:
        """Every cell under one set-up."""
        grid = self.grid
        return tuple(
            self._cell(setup, model, context_length, num_devices)
            for model, num_devices, context_length in product(grid.models, grid.num_devices, grid.context_lengths)
        )

    def _cell(self, setup: Setup, model: GridModel, context_length: int, num_devices: int) -> Cell:
        predictions = {kind: self.predict(setup, kind, model, context_length, num_devices) for kind in KINDS}
        for other in self.grid.architectures if setup == self.grid.setup else ():
            found = self.predict(setup, other.kind, model, context_length, num_devices, other)
            predictions[found.resolved.kind] = found
        ttft_s, breakdown_s = {}, {}
        for kind, prediction in predictions.items():
            delays_s = gemm_delays_s(prediction.timeline, setup.gemm_factors) if setup.gemm_factors else {}
            ttft_s[kind] = prediction.latency_s + sum(delays_s.values())
            breakdown_s[kind] = {
                category: seconds + delays_s.get(category, 0.0) for category, seconds in prediction.breakdown_s.items()
            }
        return Cell(model.preset, context_length, num_devices, predictions, ttft_s, breakdown_s)

    def predict(
        self,
        setup: Setup,
        kind: str,
        model: GridModel,
        context_length: int,
        num_devices: int,
        fields: ArchitectureFields | None = None,
    ) -> Prediction:
        """One architecture in one cell, with `fields` of its own where the grid says them."""
        width = _width(setup, model, num_devices) if kind == KRAKEN and fields is None else None
        runtime, predictor = _runtime_for(setup, kind), self._predictor(setup)
        run = (_machine_key(setup), runtime, kind, width, fields, model.preset, model.layers_fraction)
        cell = (*run, context_length, num_devices)
        if cell not in self._done:
            with _named_errors(f"{kind} {model.preset}, {context_length} tokens on {num_devices} devices"):
                wired = {"kind": kind} | ({} if width is None else {"hidden_size": width})
                if fields is not None:
                    wired = fields.model_dump(exclude_none=True)
                scenario = self._scenario(runtime, wired, model.preset, context_length, num_devices)
                whole = predictor.resolve(scenario)
                self._done[cell] = predictor.predict(with_layers_fraction(scenario, whole, model.layers_fraction))
        prediction = self._done[cell]
        if kind == KRAKEN and setup.overlap_model is OverlapModel.IDEAL:
            return replace(prediction, timeline=ideal_overlap(prediction.prepared))
        return prediction

    def _predictor(self, setup: Setup) -> Predictor:
        key = _machine_key(setup)
        if key not in self._predictors:
            self._predictors[key] = Predictor(machine_of(self.profile, setup))
        return self._predictors[key]

    def _scenario(
        self,
        runtime: RuntimeSpec,
        wired: Mapping[str, object],
        name: str,
        context_length: int,
        num_devices: int,
    ) -> Scenario:
        return scenario_from(
            {
                "name": f"{wired['kind']}-{name}-{num_devices}x{context_length}",
                "hardware": self.grid.hardware,
                "model": {"preset": name},
                "architecture": wired,
                "num_devices": num_devices,
                "batch_size": self.grid.batch_size,
                "context_length": context_length,
                "dtype": self.grid.dtype,
                "runtime": runtime.model_dump(mode="json"),
            }
        )


def _width(setup: Setup, model: GridModel, num_devices: int) -> int | None:
    """The width of a sub-layer that the grid or the set-up says; None for the budget's."""
    given = model.kraken_hidden_size.get(num_devices)
    if given is not None or setup.kraken_widths is Widths.BUDGET:
        return given
    widths = widths_within_tolerance(preset(model.preset), num_devices)
    return widths[0] if setup.kraken_widths is Widths.NARROWEST else widths[-1]


def _machine_key(setup: Setup) -> tuple[object, ...]:
    """What of a set-up changes the machine."""
    return (setup.launch_costs, setup.nccl_latency)


@contextmanager
def _named_errors(cell: str) -> Iterator[None]:
    """Errors inside say which cell they are about."""
    try:
        yield
    except InfeasibleError as error:
        message = str(error).removesuffix(f"; limiting number: {error.limit}")
        raise InfeasibleError(f"{cell}: {message}", error.limit) from None
    except InputError as error:
        raise InputError(replace(problem, message=f"{cell}: {problem.message}") for problem in error.problems) from None


def _runtime_for(setup: Setup, kind: str) -> RuntimeSpec:
    """The part of the runtime that matters to an architecture, so that equal runs are recognised."""
    runtime = setup.runtime
    if not architecture(kind).overlaps:
        unused = RuntimeSpec()
        return runtime.model_copy(update={"overlap": unused.overlap, "overlap_copies": unused.overlap_copies})
    return runtime


def with_layers_fraction(scenario: Scenario, whole: ResolvedModel, fraction: float) -> Scenario:
    """The scenario with part of the layers, as wide as the `whole` model: Kraken's width is that of the whole."""
    if fraction == 1.0:
        return scenario
    layers = max(1, round(whole.config.num_hidden_layers * fraction))
    asked = Question(whole.config, whole.num_devices, scenario.architecture)
    own = whole.architecture.with_block(asked, whole.layout).fields
    model = scenario.model.model_copy(update={"num_hidden_layers": layers})
    return scenario.model_copy(update={"model": model, "architecture": own})
