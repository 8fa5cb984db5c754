"""What a grid predicts: its cells under the main set-up, under each assumption and over each interconnect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.paper.grid import KRAKEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.paper.grid import Assumption, Grid, InterconnectSpec
    from kraken_sim.paper.run import Cell, Cells
    from kraken_sim.profiles.profile import HardwareProfile


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


def geomean_percent(cells: Sequence[Cell], kind: str = KRAKEN) -> float:
    """Geometric mean of an architecture's speed-ups over the cells, in per cent."""
    logs = [math.log1p(cell.speedup_percent(kind) / 100.0) for cell in cells]
    return 100.0 * math.expm1(sum(logs) / len(logs))
