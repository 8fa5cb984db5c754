"""Overlap as tools have it that add kernels up: max(compute, communication), at no cost to either side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.predict.what_if import without_cost

if TYPE_CHECKING:
    from kraken_sim.engine.timeline import Timeline
    from kraken_sim.predict.prepared import Prepared


def ideal_overlap(prepared: Prepared) -> Timeline:
    """The step if both sides of an overlap ran as they run alone, so that the longer one counts.

    The same costs, launch costs and clock; the collective holds no SMs and takes no HBM bandwidth, and neither
    side slows the other.
    """
    return prepared.run(without_cost(prepared.machine))
