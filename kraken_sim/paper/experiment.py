"""The Kraken paper's latency experiment: a grid of scenarios, predicted beside what the paper reports."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from kraken_sim.paper.grid import STANDARD, Grid, load_grid
from kraken_sim.paper.machine import with_interconnect
from kraken_sim.paper.result import GridResult, geomean_percent
from kraken_sim.paper.run import Cell, Cells, Runner
from kraken_sim.profiles.load import load_profile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.predict.prediction import Prediction

__all__ = ["Cell", "Cells", "GridResult", "geomean_percent", "load_grid", "run_grid", "tensor_parallel_predictions"]


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
