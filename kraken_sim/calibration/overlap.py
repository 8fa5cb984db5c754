"""The records of overlap and of sustained load as samples of their fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.calibration.contention import PairSample
from kraken_sim.calibration.power import SustainedSample
from kraken_sim.calibration.samples import collective_of, compute_side
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library, Transport
from kraken_sim.measurements.records import Launch, PairRecord, SustainedRecord

if TYPE_CHECKING:
    from kraken_sim.measurements.schema import MeasurementFile


def pair_samples(measurements: MeasurementFile) -> list[PairSample]:
    """Pairs from CUDA graphs, under conditions that a scenario can describe."""
    samples = []
    for record in measurements.select(PairRecord):
        runtime = collective_of(measurements, record.condition)
        if record.launch is not Launch.GRAPH or runtime is None:
            continue
        policy = CollectivePolicy(
            library=Library(runtime.get("library", "nccl")),
            channels=runtime.get("channels"),
            transport=Transport(runtime.get("transport", "auto")),
        )
        samples.append(
            PairSample(
                compute=compute_side(record),
                num_bytes=record.num_bytes,
                num_devices=record.num_devices,
                policy=policy,
                together_s=record.together_s.median,
                compute_alone_s=record.compute_alone_s.median,
                collective_alone_s=record.collective_alone_s.median,
                condition=record.condition,
            )
        )
    return samples


def sustained_samples(measurements: MeasurementFile) -> list[SustainedSample]:
    """Chains of GEMMs with the readings of the card's sensors."""
    samples = []
    for record in measurements.select(SustainedRecord):
        flops = sum(2.0 * m * n * k for m, n, k in record.shapes)
        if flops == 0.0:
            continue
        elements = sum(m * k + n * k + m * n for m, n, k in record.shapes)
        samples.append(
            SustainedSample(
                idle_before_s=record.idle_before_s,
                dtype=record.dtype.value,
                chunk_end_s=record.chunk_end_s,
                chunk_flops=record.chunk_flops,
                samples=tuple((at, clock, watts) for at, clock, watts, _ in record.samples),
                hbm_bytes_per_flop=elements * record.dtype.num_bytes / flops,
            )
        )
    return samples
