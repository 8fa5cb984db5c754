"""What a grid's result rests on: how far each assumption moves the mean, and the bracket they span."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kraken_sim.paper.grid import KRAKEN, STANDARD
from kraken_sim.paper.result import geomean_percent
from kraken_sim.predict.uncertainty import block_residuals
from kraken_sim.program.program import Category

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kraken_sim.paper.result import GridResult
    from kraken_sim.paper.run import Cell, Cells


@dataclass(frozen=True, slots=True)
class Effect:
    """One assumption: the mean under it, and by how many points it moves the mean of what it changes."""

    name: str
    description: str
    change_of: str | None
    mean_percent: float
    min_percent: float
    max_percent: float
    points: float


@dataclass(frozen=True, slots=True)
class Bracket:
    """The span of several runs' means, and of the speed-ups of single cells."""

    low_percent: float
    high_percent: float
    lowest_cell_percent: float
    highest_cell_percent: float

    def contains(self, mean_percent: float) -> bool:
        """Whether a mean lies within the span."""
        return self.low_percent <= mean_percent <= self.high_percent

    def contains_cells(self, lowest_percent: float, highest_percent: float) -> bool:
        """Whether a range of single cells lies within the span of the cells."""
        return self.lowest_cell_percent <= lowest_percent and highest_percent <= self.highest_cell_percent


def speedups_percent(cells: Sequence[Cell]) -> list[float]:
    """Kraken's speed-up in every cell."""
    return [cell.speedup_percent(KRAKEN) for cell in cells]


def mean_by_degree(cells: Sequence[Cell]) -> dict[int, float]:
    """Geometric mean of Kraken's speed-ups by number of devices."""
    degrees = sorted({cell.num_devices for cell in cells})
    return {degree: geomean_percent([cell for cell in cells if cell.num_devices == degree]) for degree in degrees}


def effects(result: GridResult) -> list[Effect]:
    """Every assumption in the file's order."""
    means: dict[str | None, float] = {None: result.geomean_kraken_speedup_percent}
    found = []
    for assumption, cells in result.assumptions:
        means[assumption.name] = mean = geomean_percent(cells)
        each = speedups_percent(cells)
        points = mean - means[assumption.change_of]
        text, base = assumption.description, assumption.change_of
        found.append(Effect(assumption.name, text, base, mean, min(each), max(each), points))
    return found


def bracket(result: GridResult, *, single_changes: bool = False) -> Bracket:
    """The span of the main prediction and its alternatives, or of those that change one thing of it only."""
    runs = [result.cells]
    runs += [cells for assumption, cells in result.assumptions if not (single_changes and assumption.change_of)]
    means = [geomean_percent(cells) for cells in runs]
    each = [speedup for cells in runs for speedup in speedups_percent(cells)]
    return Bracket(min(means), max(means), min(each), max(each))


def mean_if_standard_were_slower(cells: Sequence[Cell], category: Category, share: float) -> float:
    """The mean speed-up if the standard model alone spent `share` more time in a category than predicted."""

    def extra(cell: Cell) -> float:
        slower_s = share * cell.breakdown_s[STANDARD][category]
        return math.log((cell.ttft_s[STANDARD] + slower_s) / cell.ttft_s[KRAKEN])

    return _geomean_percent(cells, extra)


def mean_without_all_reduce(cells: Sequence[Cell]) -> float:
    """How much faster the standard model would be, as a mean, if its AllReduces took no time.

    Kraken does as much other work as the standard model, so hiding AllReduces can give it no more than this.
    """
    return _geomean_percent(cells, lambda cell: -math.log1p(-cell.all_reduce_share))


def _geomean_percent(cells: Sequence[Cell], log_ratio: Callable[[Cell], float]) -> float:
    return 100.0 * math.expm1(sum(log_ratio(cell) for cell in cells) / len(cells))


def gemm_error_points(result: GridResult) -> tuple[float, float]:
    """The GEMM fit's residual, and the points the mean moves if it hit the standard model's shapes only."""
    residual = block_residuals(result.profile.provenance).get("gemm", 0.0)
    moved = mean_if_standard_were_slower(result.cells, Category.GEMM, residual)
    return residual, moved - result.geomean_kraken_speedup_percent


def host_bound_share(cells: Sequence[Cell]) -> float:
    """The largest share of a pass, of any architecture, that the device waits for its host."""
    passes = [prediction for cell in cells for prediction in cell.predictions.values()]
    return max(prediction.host_wait_s / prediction.latency_s for prediction in passes)


def paying_cells(cells: Sequence[Cell]) -> list[Cell]:
    """The cells in which Kraken is faster than the standard model."""
    return [cell for cell in cells if cell.speedup_percent(KRAKEN) > 0.0]


def summary_dict(result: GridResult) -> dict[str, Any]:
    """What a result rests on, for JSON."""
    reported, span, single = result.grid.reported, bracket(result), bracket(result, single_changes=True)
    residual, points = gemm_error_points(result)
    summary: dict[str, Any] = {
        "geomean_by_num_devices": {str(n): mean for n, mean in mean_by_degree(result.cells).items()},
        "effects": [asdict(effect) for effect in effects(result)],
        "bracket": asdict(span),
        "bracket_of_single_changes": asdict(single),
        "geomean_without_all_reduce_percent": mean_without_all_reduce(result.cells),
        "gemm_residual": residual,
        "gemm_residual_points": points,
        "host_bound_share": host_bound_share(result.cells),
    }
    if reported is not None:
        mean, low, high = (
            reported.geomean_speedup_percent,
            reported.min_speedup_percent,
            reported.max_speedup_percent,
        )
        summary["reported_mean_in_bracket"] = span.contains(mean)
        summary["reported_mean_in_bracket_of_single_changes"] = single.contains(mean)
        summary["reported_range_in_bracket"] = span.contains_cells(low, high)
    return summary


def grid_dict(result: GridResult) -> dict[str, Any]:
    """The contract's JSON."""
    reported = result.grid.reported
    return {
        "name": result.grid.name,
        "hardware": result.grid.hardware,
        **_cells_dict(result.cells),
        "reported": None if reported is None else reported.model_dump(),
        "summary": summary_dict(result),
        "assumptions": [
            {
                "name": assumption.name,
                "description": assumption.description,
                "change_of": assumption.change_of,
                **_cells_dict(cells),
            }
            for assumption, cells in result.assumptions
        ],
        "interconnects": [
            {"name": spec.name, "device_bytes_per_s": spec.device_bytes_per_s, **_cells_dict(cells)}
            for spec, cells in result.interconnects
        ],
    }


def _cells_dict(cells: Cells) -> dict[str, Any]:
    return {
        "geomean_kraken_speedup_percent": geomean_percent(cells),
        "cells": [cell.as_dict() for cell in cells],
    }
