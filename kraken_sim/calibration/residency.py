"""How much may stream through L2 before an operand used earlier is no longer there, from chains of unlike kernels.

A GEMM and a small kernel alternate; the small kernel's operands are fresh in one chain and the same every round in
another. What the second saves of the first, against what the kernel saves alone, says whether they were still there.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from kraken_sim.measurements.records.together import ChainedMemoryBound, ChainRecord, GemmOp
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kraken_sim.hardware.device import Device
    from kraken_sim.measurements.schema import MeasurementFile

LEAST_SAVED_S: Final = 0.3e-6
"""Least that operands in L2 save a kernel alone that is looked at; a limit of ours, several times the noise."""

MIN_CHAINS: Final = 8
"""Fewest chains of a fit; a limit of ours."""


class HeldFit(NamedTuple):
    """The share of L2's capacity, and the number of chains that it separates best."""

    held_share: float
    num_chains: int


def fit_held_share(files: Iterable[MeasurementFile], device: Device) -> HeldFit | None:
    """The share of L2 up to which operands are still there; None where too few chains say so."""
    points = sorted(point for file in files for point in _points(file))
    if len(points) < MIN_CHAINS:
        return None
    edges = [(low + high) / 2.0 for (low, _), (high, _) in pairwise(points) if high > low]

    def error(edge: float) -> float:
        return sum((saved - (streamed < edge)) ** 2 for streamed, saved in points)

    best = min(edges, key=error, default=0.0)
    return HeldFit(best / device.l2_capacity_bytes, len(points))


def _points(file: MeasurementFile) -> Iterable[tuple[float, float]]:
    """Bytes streamed between two uses, and the share saved of what warm operands save."""
    times: dict[tuple[object, ...], dict[str, float]] = {}
    for record in file.sample(ChainRecord):
        if record.launch is Launch.GRAPH:
            key = (record.dtype, *map(str, record.compute))
            times.setdefault(key, {})[record.operands] = record.time_s.median
    for record in file.sample(ChainRecord):
        first, *rest = record.compute
        if record.operands != "kept" or len(rest) != 1:
            continue
        kernel = rest[0]
        if not isinstance(first, GemmOp) or not isinstance(kernel, ChainedMemoryBound):
            continue
        alone = times.get((record.dtype, str(kernel)), {})
        both = times[(record.dtype, str(first), str(kernel))]
        if len(alone) < 2 or len(both) < 2:
            continue
        saves_s = alone["fresh"] - alone["kept"]
        if saves_s >= LEAST_SAVED_S:
            streamed = float(first.n * first.k + first.m * first.n) * record.dtype.num_bytes
            yield streamed, min(1.0, max(0.0, (both["fresh"] - both["kept"]) / saves_s))
