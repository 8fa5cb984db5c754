"""What changing from one kernel to another costs, from chains of unlike kernels.

The records of pairs hold the compute side alone, in a loop of fork, chain, join. Against the sum of its kernels a
chain of one kernel repeated shows what the loop costs, and a chain of different ones what changing costs on top.
A kernel counts as it was measured alone, where it was: else the errors of fits, which differ by as much from shape to
shape, would decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from kraken_sim.calibration.gemm import gemm_shape
from kraken_sim.calibration.samples import attention_samples, compute_side, gemm_samples, memory_bound_samples
from kraken_sim.calibration.split import shape_of
from kraken_sim.measurements.records import Launch, PairRecord
from kraken_sim.predict.pricing import Pricing

if TYPE_CHECKING:
    from kraken_sim.calibration.attention_tables import AttentionSample
    from kraken_sim.calibration.memory_bound import MemoryBoundSample
    from kraken_sim.calibration.split import Key
    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.profiles.profile import HardwareProfile

LONGEST_MIXED_S: Final = 150e-6
"""Longest chain of unlike kernels that is read; a limit of ours: in longer ones the errors of the kernels' own models
are larger than what is looked for."""

LONGEST_REPEATED_S: Final = 70e-6
"""The same of one kernel repeated, whose loop is what is looked for; a limit of ours."""

MIN_CHAINS: Final = 3
"""Fewest chains of either kind; a limit of ours, for a median."""


@dataclass(frozen=True, slots=True)
class SwitchFit:
    """Seconds a change of kernel, and the number of chains that it is the median of."""

    kernel_switch_s: float
    num_chains: int


def kernel_switch(measurements: MeasurementFile, profile: HardwareProfile) -> SwitchFit | None:
    """The cost of a change of kernel; None where too few chains say so.

    Kernels that were not measured alone cost what the cost models of `profile` say.
    """
    pricing, gap_s = Pricing(profile), profile.launch.graph_node_gap_s
    alone_s = _alone_s(measurements, profile)
    repeated: list[float] = []
    mixed: list[tuple[float, int]] = []
    seen = set()
    for record in measurements.sample(PairRecord):
        # The same compute side is measured once and stands in many records.
        if record.launch is not Launch.GRAPH or record.compute_key in seen:
            continue
        seen.add(record.compute_key)
        chain_s = record.compute_alone_s.median
        ops = compute_side(record)
        extra_s = chain_s - sum(alone_s.get(shape_of(op)) or pricing.kernel(op).busy_s + gap_s for op in ops)
        if len(set(ops)) == 1 and chain_s < LONGEST_REPEATED_S:
            repeated.append(extra_s)
        elif len(set(ops)) == len(ops) > 1 and chain_s < LONGEST_MIXED_S:
            mixed.append((extra_s, len(ops)))
    if min(len(repeated), len(mixed)) < MIN_CHAINS:
        return None
    loop_s = median(repeated)
    switches = [(extra_s - loop_s) / count for extra_s, count in mixed]
    return SwitchFit(max(0.0, median(switches)), len(mixed))


def _alone_s(measurements: MeasurementFile, profile: HardwareProfile) -> dict[Key, float]:
    """Periods in chains of one kernel, gap included, by shape."""
    gap_s = profile.launch.graph_node_gap_s
    periods: dict[Key, list[float]] = {}
    for gemm in gemm_samples(measurements, profile.device, gap_s):
        if not gemm.accumulate:
            periods.setdefault(gemm_shape(gemm), []).append(gemm.period_s)
    others: list[AttentionSample | MemoryBoundSample] = [*attention_samples(measurements)]
    others += memory_bound_samples(measurements)
    for sample in others:
        periods.setdefault(shape_of(sample.op), []).append(sample.period_s)
    return {shape: median(found) for shape, found in periods.items()}
