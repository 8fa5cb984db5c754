"""The Kraken paper's latency experiment: a grid of scenarios, predicted beside what the paper reports."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from kraken_sim.api import simulate
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.hardware.load import load_profile
from kraken_sim.ideal_overlap import ideal_overlap
from kraken_sim.models.config import ArchitectureKind
from kraken_sim.models.kraken_width import widths_within_tolerance
from kraken_sim.paper_gemm import gemm_delays_s
from kraken_sim.paper_grid import Grid, OverlapModel, Widths, load_grid
from kraken_sim.paper_machine import machine_of, with_interconnect
from kraken_sim.program.program import Category
from kraken_sim.scenario import RuntimeSpec, scenario_from
from kraken_sim.scenario_resolve import resolve_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kraken_sim.hardware.profile import HardwareProfile
    from kraken_sim.paper_grid import Assumption, GridModel, InterconnectSpec, Setup
    from kraken_sim.prediction import Prediction
    from kraken_sim.scenario import Scenario

__all__ = ["Cell", "GridResult", "geomean_percent", "load_grid", "run_grid", "tensor_parallel_predictions"]

KINDS = (ArchitectureKind.STANDARD, ArchitectureKind.PARALLEL, ArchitectureKind.KRAKEN)


@dataclass(frozen=True, slots=True)
class Cell:
    """One model, context length and number of devices.

    `ttft_s` and `breakdown_s` are those of the `predictions` unless the set-up changes GEMM times afterwards.
    """

    model: str
    context_length: int
    num_devices: int
    predictions: Mapping[ArchitectureKind, Prediction]
    ttft_s: Mapping[ArchitectureKind, float]
    breakdown_s: Mapping[ArchitectureKind, Mapping[str, float]]

    def speedup_percent(self, kind: ArchitectureKind) -> float:
        """How much faster than standard, in per cent: TTFT_standard / TTFT - 1."""
        return 100.0 * (self.ttft_s[ArchitectureKind.STANDARD] / self.ttft_s[kind] - 1.0)

    @property
    def all_reduce_share(self) -> float:
        """Share of AllReduce in the standard model's forward pass."""
        standard = ArchitectureKind.STANDARD
        return self.breakdown_s[standard][Category.ALL_REDUCE] / self.ttft_s[standard]

    def as_dict(self) -> dict[str, Any]:
        """The contract's JSON of a cell."""
        shape = self.predictions[ArchitectureKind.KRAKEN].resolved.kraken
        return {
            "model": self.model,
            "context_length": self.context_length,
            "num_devices": self.num_devices,
            "ttft_s": {kind.value: seconds for kind, seconds in self.ttft_s.items()},
            "kraken_hidden_size": None if shape is None else shape.hidden_size,
            "kraken_speedup_percent": self.speedup_percent(ArchitectureKind.KRAKEN),
            "parallel_speedup_percent": self.speedup_percent(ArchitectureKind.PARALLEL),
            "breakdown_s": {kind.value: dict(parts) for kind, parts in self.breakdown_s.items()},
        }


Cells = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class GridResult:
    """Every cell of the grid, under its set-up, under each assumption and over each interconnect."""

    grid: Grid
    profile: HardwareProfile
    cells: Cells
    assumptions: tuple[tuple[Assumption, Cells], ...]
    interconnects: tuple[tuple[InterconnectSpec, Cells], ...] = ()

    @property
    def geomean_kraken_speedup_percent(self) -> float:
        """Geometric mean of the ratios TTFT_standard / TTFT_kraken, minus one."""
        return geomean_percent(self.cells)

    def as_dict(self) -> dict[str, Any]:
        """The contract's JSON."""
        from kraken_sim.paper_summary import summary_dict

        reported = self.grid.reported
        return {
            "name": self.grid.name,
            "hardware": self.grid.hardware,
            **_cells_dict(self.cells),
            "reported": None if reported is None else reported.model_dump(),
            "summary": summary_dict(self),
            "assumptions": [
                {
                    "name": assumption.name,
                    "description": assumption.description,
                    "change_of": assumption.change_of,
                    **_cells_dict(cells),
                }
                for assumption, cells in self.assumptions
            ],
            "interconnects": [
                {"name": spec.name, "device_bytes_per_s": spec.device_bytes_per_s, **_cells_dict(cells)}
                for spec, cells in self.interconnects
            ],
        }


def geomean_percent(cells: Sequence[Cell], kind: ArchitectureKind = ArchitectureKind.KRAKEN) -> float:
    """Geometric mean of an architecture's speed-ups over the cells, in per cent."""
    logs = [math.log1p(cell.speedup_percent(kind) / 100.0) for cell in cells]
    return 100.0 * math.expm1(sum(logs) / len(logs))


def run_grid(grid: Grid) -> GridResult:
    """Predict every cell under the grid's own set-up, under each assumption and over each interconnect.

    Raises:
        InputError, InfeasibleError: see `simulate`.
    """
    profile = load_profile(grid.hardware)
    runner = _Runner(grid, profile)
    cells = runner.cells(grid.setup)
    alternatives = tuple((assumption, runner.cells(setup)) for assumption, setup in grid.setups())
    others = tuple(
        (spec, _Runner(grid, with_interconnect(profile, spec)).cells(grid.setup)) for spec in grid.interconnects
    )
    return GridResult(grid, profile, cells, alternatives, others)


def tensor_parallel_predictions(
    result: GridResult, preset: str, degrees: Sequence[int]
) -> dict[tuple[int, int], Prediction]:
    """The standard model by context length and devices, one device included, under the main set-up.

    Raises:
        InputError, InfeasibleError: see `simulate`.
    """
    grid, standard = result.grid, ArchitectureKind.STANDARD
    model = next(model for model in grid.models if model.preset == preset)
    runner = _Runner(grid, result.profile)
    return {
        (tokens, degree): runner.predict(grid.setup, standard, model, tokens, degree)
        for tokens, degree in product(grid.context_lengths, degrees)
    }


@dataclass(slots=True)
class _Runner:
    """Runs the grid on one machine; a scenario that several set-ups share is simulated once."""

    grid: Grid
    profile: HardwareProfile
    _machines: dict[tuple[object, ...], HardwareProfile] = field(default_factory=dict)
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
        ttft_s, breakdown_s = {}, {}
        for kind, prediction in predictions.items():
            delays_s = gemm_delays_s(prediction.timeline, setup.gemm_factors) if setup.gemm_factors else {}
            ttft_s[kind] = prediction.latency_s + sum(delays_s.values())
            breakdown_s[kind] = {
                category: seconds + delays_s.get(category, 0.0) for category, seconds in prediction.breakdown_s.items()
            }
        return Cell(model.preset, context_length, num_devices, predictions, ttft_s, breakdown_s)

    def predict(
        self, setup: Setup, kind: ArchitectureKind, model: GridModel, context_length: int, num_devices: int
    ) -> Prediction:
        """One architecture in one cell."""
        runtime = _runtime_for(setup, kind)
        key = (setup.launch_costs, setup.nccl_latency)
        if key not in self._machines:
            self._machines[key] = machine_of(self.profile, setup)
        widths = setup.kraken_widths if kind is ArchitectureKind.KRAKEN else None
        cell = (key, runtime, kind, widths, model.preset, context_length, num_devices)
        if cell not in self._done:
            with _named_errors(f"{kind} {model.preset}, {context_length} tokens on {num_devices} devices"):
                scenario = self._scenario(setup, runtime, kind, model, context_length, num_devices)
                self._done[cell] = simulate(scenario, profile=self._machines[key])
        prediction = self._done[cell]
        if kind is ArchitectureKind.KRAKEN and setup.overlap_model is OverlapModel.IDEAL:
            return replace(prediction, timeline=ideal_overlap(prediction.scenario, self._machines[key]))
        return prediction

    def _scenario(
        self,
        setup: Setup,
        runtime: RuntimeSpec,
        kind: ArchitectureKind,
        model: GridModel,
        context_length: int,
        num_devices: int,
    ) -> Scenario:
        scenario = scenario_from(
            {
                "name": f"{kind}-{model.preset}-{num_devices}x{context_length}",
                "hardware": self.grid.hardware,
                "model": {"preset": model.preset},
                "architecture": {"kind": kind.value},
                "num_devices": num_devices,
                "batch_size": self.grid.batch_size,
                "context_length": context_length,
                "dtype": self.grid.dtype,
                "runtime": runtime.model_dump(mode="json"),
            }
        )
        if kind is ArchitectureKind.KRAKEN:
            scenario = _with_width(scenario, _width(setup, model, scenario))
        return with_layers_fraction(scenario, model.layers_fraction)


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


def _runtime_for(setup: Setup, kind: ArchitectureKind) -> RuntimeSpec:
    """The part of the runtime that matters to an architecture, so that equal runs are recognised."""
    runtime = setup.runtime
    if kind is not ArchitectureKind.KRAKEN:
        unused = RuntimeSpec()
        return runtime.model_copy(update={"overlap": unused.overlap, "overlap_copies": unused.overlap_copies})
    return runtime


def _width(setup: Setup, model: GridModel, scenario: Scenario) -> int | None:
    """The width of a sub-layer that the grid or the set-up says; None for the budget's."""
    assert scenario.num_devices is not None
    given = model.kraken_hidden_size.get(scenario.num_devices)
    if given is not None or setup.kraken_widths is Widths.BUDGET:
        return given
    widths = widths_within_tolerance(resolve_model(scenario).config, scenario.num_devices)
    return widths[0] if setup.kraken_widths is Widths.NARROWEST else widths[-1]


def _with_width(scenario: Scenario, hidden_size: int | None) -> Scenario:
    if hidden_size is None:
        return scenario
    architecture = scenario.architecture.model_copy(update={"hidden_size": hidden_size})
    return scenario.model_copy(update={"architecture": architecture})


def with_layers_fraction(scenario: Scenario, fraction: float) -> Scenario:
    """The scenario with part of the layers, as wide as the whole model: Kraken's width is that of the whole."""
    if fraction == 1.0:
        return scenario
    whole = resolve_model(scenario)
    layers = max(1, round(whole.config.num_hidden_layers * fraction))
    architecture = scenario.architecture
    if whole.kraken is not None:
        architecture = architecture.model_copy(
            update={
                "hidden_size": whole.kraken.hidden_size,
                "num_attention_heads": whole.kraken.num_attention_heads,
                "num_key_value_heads": whole.kraken.num_key_value_heads,
            }
        )
    model = scenario.model.model_copy(update={"num_hidden_layers": layers})
    return scenario.model_copy(update={"model": model, "architecture": architecture})


def _cells_dict(cells: Cells) -> dict[str, Any]:
    return {
        "geomean_kraken_speedup_percent": geomean_percent(cells),
        "cells": [cell.as_dict() for cell in cells],
    }
