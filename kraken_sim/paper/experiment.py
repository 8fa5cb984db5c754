"""The Kraken paper's latency experiment: a grid of scenarios, predicted beside what the paper reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from kraken_sim.paper.grid import KRAKEN, STANDARD, Grid, load_grid
from kraken_sim.paper.machine import with_interconnect
from kraken_sim.paper.run import Cell, Cells, Runner
from kraken_sim.profiles.load import load_profile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.paper.grid import Assumption, InterconnectSpec
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.profiles.profile import HardwareProfile

__all__ = ["Cell", "Cells", "GridResult", "geomean_percent", "load_grid", "run_grid", "tensor_parallel_predictions"]


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
        from kraken_sim.paper.summary import summary_dict

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


def geomean_percent(cells: Sequence[Cell], kind: str = KRAKEN) -> float:
    """Geometric mean of an architecture's speed-ups over the cells, in per cent."""
    logs = [math.log1p(cell.speedup_percent(kind) / 100.0) for cell in cells]
    return 100.0 * math.expm1(sum(logs) / len(logs))


def run_grid(grid: Grid) -> GridResult:
    """Predict every cell under the grid's own set-up, under each assumption and over each interconnect.

    Raises:
        InputError, InfeasibleError: see `simulate`.
    """
    profile = load_profile(grid.hardware)
    runner = Runner(grid, profile)
    cells = runner.cells(grid.setup)
    alternatives = tuple((assumption, runner.cells(setup)) for assumption, setup in grid.setups())
    others = tuple(
        (spec, Runner(grid, with_interconnect(profile, spec)).cells(grid.setup)) for spec in grid.interconnects
    )
    return GridResult(grid, profile, cells, alternatives, others)


def tensor_parallel_predictions(
    result: GridResult, preset: str, degrees: Sequence[int]
) -> dict[tuple[int, int], Prediction]:
    """The standard model by context length and devices, one device included, under the main set-up.

    Raises:
        InputError, InfeasibleError: see `simulate`.
    """
    grid = result.grid
    model = next(model for model in grid.models if model.preset == preset)
    runner = Runner(grid, result.profile)
    return {
        (tokens, degree): runner.predict(grid.setup, STANDARD, model, tokens, degree)
        for tokens, degree in product(grid.context_lengths, degrees)
    }


def _cells_dict(cells: Cells) -> dict[str, Any]:
    return {
        "geomean_kraken_speedup_percent": geomean_percent(cells),
        "cells": [cell.as_dict() for cell in cells],
    }
