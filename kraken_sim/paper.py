"""The Kraken paper's latency experiment: a grid of scenarios, predicted beside what the paper reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kraken_sim.api import simulate
from kraken_sim.hardware.load import data_dir, load_profile
from kraken_sim.models.config import ArchitectureKind
from kraken_sim.scenario import RuntimeSpec, scenario_from
from kraken_sim.scenario_errors import problems_of
from kraken_sim.scenario_resolve import resolve_model
from kraken_sim.yaml_files import read_yaml

if TYPE_CHECKING:
    from kraken_sim.hardware.profile import HardwareProfile
    from kraken_sim.prediction import Prediction
    from kraken_sim.scenario import Scenario

KINDS = (ArchitectureKind.STANDARD, ArchitectureKind.PARALLEL, ArchitectureKind.KRAKEN)

Count = Annotated[int, Field(strict=True, ge=1)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GridModel(_Spec):
    """One model of the grid, perhaps with part of its layers only."""

    preset: str
    layers_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class Reported(_Spec):
    """What the publication says about the grid, in per cent."""

    min_speedup_percent: float
    max_speedup_percent: float
    geomean_speedup_percent: float
    source: str


class Assumption(_Spec):
    """A named alternative: the same grid under another runtime."""

    name: str
    description: str
    runtime: RuntimeSpec


class Grid(_Spec):
    """Models x context lengths x numbers of devices, each as standard, parallel and Kraken."""

    name: str
    hardware: str
    models: tuple[GridModel, ...] = Field(min_length=1)
    context_lengths: tuple[Count, ...] = Field(min_length=1)
    num_devices: tuple[Count, ...] = Field(min_length=1)
    batch_size: Count = 1
    dtype: str = "float16"
    runtime: RuntimeSpec = Field(default_factory=RuntimeSpec)
    reported: Reported | None = None
    assumptions: tuple[Assumption, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """One model, context length and number of devices."""

    model: str
    context_length: int
    num_devices: int
    predictions: dict[ArchitectureKind, Prediction]

    def speedup_percent(self, kind: ArchitectureKind) -> float:
        """How much faster than standard, in per cent: TTFT_standard / TTFT - 1."""
        standard = self.predictions[ArchitectureKind.STANDARD].latency_s
        return 100.0 * (standard / self.predictions[kind].latency_s - 1.0)


@dataclass(frozen=True, slots=True)
class GridResult:
    """Every cell of the grid, and the geometric mean of each assumption."""

    grid: Grid
    cells: tuple[Cell, ...]
    assumptions: tuple[tuple[str, tuple[Cell, ...]], ...]

    @property
    def geomean_kraken_speedup_percent(self) -> float:
        """Geometric mean of the ratios TTFT_standard / TTFT_kraken, minus one."""
        return geomean_percent(self.cells)

    def as_dict(self) -> dict[str, Any]:
        """The contract's JSON."""
        return {
            "name": self.grid.name,
            "hardware": self.grid.hardware,
            "cells": [_cell_dict(cell) for cell in self.cells],
            "geomean_kraken_speedup_percent": self.geomean_kraken_speedup_percent,
            "reported": None if self.grid.reported is None else self.grid.reported.model_dump(),
            "assumptions": [
                {
                    "name": name,
                    "geomean_kraken_speedup_percent": geomean_percent(cells),
                    "cells": [_cell_dict(cell) for cell in cells],
                }
                for name, cells in self.assumptions
            ],
        }


def geomean_percent(cells: tuple[Cell, ...]) -> float:
    """Geometric mean of Kraken's speed-ups over the cells, in per cent."""
    logs = [math.log1p(cell.speedup_percent(ArchitectureKind.KRAKEN) / 100.0) for cell in cells]
    return 100.0 * math.expm1(sum(logs) / len(logs))


def load_grid(name_or_path: str | None = None) -> Grid:
    """A grid's file; by default the paper's.

    Raises:
        InputError: The file is missing or wrong, with every problem.
    """
    path = data_dir("scenarios") / "paper_grid.yaml" if name_or_path is None else Path(name_or_path)
    document = read_yaml(path)
    try:
        return Grid.model_validate(document.data)
    except ValidationError as error:
        raise document.error(problems_of(error, Grid)) from None


def run_grid(grid: Grid) -> GridResult:
    """Predict every cell under the grid's own runtime and under each assumption.

    Raises:
        InputError, InfeasibleError: see `simulate`.
    """
    profile = load_profile(grid.hardware)
    cells = _run_cells(grid, grid.runtime, profile)
    alternatives = tuple(
        (assumption.name, _run_cells(grid, assumption.runtime, profile)) for assumption in grid.assumptions
    )
    return GridResult(grid, cells, alternatives)


def _run_cells(grid: Grid, runtime: RuntimeSpec, profile: HardwareProfile) -> tuple[Cell, ...]:
    return tuple(
        _run_cell(grid, runtime, profile, model, context_length, num_devices)
        for model, num_devices, context_length in product(grid.models, grid.num_devices, grid.context_lengths)
    )


def _run_cell(
    grid: Grid,
    runtime: RuntimeSpec,
    profile: HardwareProfile,
    model: GridModel,
    context_length: int,
    num_devices: int,
) -> Cell:
    predictions = {}
    for kind in KINDS:
        scenario = scenario_from(
            {
                "name": f"{kind}-{model.preset}-{num_devices}x{context_length}",
                "hardware": grid.hardware,
                "model": {"preset": model.preset},
                "architecture": {"kind": kind.value},
                "num_devices": num_devices,
                "batch_size": grid.batch_size,
                "context_length": context_length,
                "dtype": grid.dtype,
                "runtime": runtime.model_dump(mode="json"),
            }
        )
        predictions[kind] = simulate(with_layers_fraction(scenario, model.layers_fraction), profile=profile)
    return Cell(model.preset, context_length, num_devices, predictions)


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


def _cell_dict(cell: Cell) -> dict[str, Any]:
    kraken = cell.predictions[ArchitectureKind.KRAKEN]
    shape = kraken.resolved.kraken
    return {
        "model": cell.model,
        "context_length": cell.context_length,
        "num_devices": cell.num_devices,
        "ttft_s": {kind.value: prediction.ttft_s for kind, prediction in cell.predictions.items()},
        "kraken_hidden_size": None if shape is None else shape.hidden_size,
        "kraken_speedup_percent": cell.speedup_percent(ArchitectureKind.KRAKEN),
        "parallel_speedup_percent": cell.speedup_percent(ArchitectureKind.PARALLEL),
        "breakdown_s": {kind.value: prediction.breakdown_s for kind, prediction in cell.predictions.items()},
    }
