"""What a node of a graph takes longer on a machine of several GPUs than on one, from the same small kernels on both.

The gap between nodes is measured with kernels that spin. Kernels that read and write took 0.39 us longer each on the
measured machine of two H200 than on machines of one, whatever they did; launching a graph took 6.4 us there and 4.0 us
here, so the front end's way to the host is the longer one.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

from kraken_sim.calibration.small_kernels import memory_bound_samples
from kraken_sim.calibration.split import shape_of
from kraken_sim.errors import InputError
from kraken_sim.program.ops import Embedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.measurements.schema import MeasurementFile

LONGEST_S: Final = 5e-6
"""Longest kernel that is looked at; a limit of ours: of longer ones the bandwidth's spread shows."""

MIN_KERNELS: Final = 5
"""Fewest kernels that the machines must share; a limit of ours, for a median."""


class NodeWait(NamedTuple):
    """Seconds a node, and the number of kernels that they are the median of."""

    seconds: float
    num_kernels: int


def node_wait(several: MeasurementFile, one: Sequence[MeasurementFile]) -> NodeWait:
    """What small kernels take longer on the machine of several GPUs.

    Raises:
        InputError: the machines share too few.
    """
    here, there = _periods((several,)), _periods(one)
    both = [key for key in here if key in there and max(here[key], there[key]) < LONGEST_S]
    if len(both) < MIN_KERNELS:
        message = f"shares {len(both)} small kernels with the files of one GPU, {MIN_KERNELS} are needed"
        raise InputError.single("", message, source=several.source)
    return NodeWait(max(0.0, median(here[key] - there[key] for key in both)), len(both))


def _periods(files: Sequence[MeasurementFile]) -> dict[tuple[object, ...], float]:
    """Periods by shape of kernels that are one node, whatever their format, with operands at hand."""
    periods: dict[tuple[object, ...], list[float]] = {}
    for file in files:
        for sample in memory_bound_samples(file):
            cold = getattr(sample.op, "cold_parameters", False) or getattr(sample.op, "cold_inputs", 0)
            if not cold and not isinstance(sample.op, Embedding):
                periods.setdefault(shape_of(sample.op), []).append(sample.period_s)
    return {key: median(found) for key, found in periods.items()}
