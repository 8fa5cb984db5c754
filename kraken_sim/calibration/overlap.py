"""The records of overlap and of sustained load as samples of their fits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kraken_sim.calibration.contention import PairSample
from kraken_sim.calibration.samples import collective_of, compute_side, sustained_ops
from kraken_sim.calibration.split import shape_of
from kraken_sim.calibration.sustained import SustainedSample
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library, Transport
from kraken_sim.measurements.records.loads import SustainedRecord
from kraken_sim.measurements.records.together import PairRecord
from kraken_sim.predict.card_load import arithmetic_format, load_of
from kraken_sim.predict.pricing import Pricing
from kraken_sim.program.ops import Gemm
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.profiles.profile import HardwareProfile


def pair_samples(measurements: MeasurementFile) -> list[PairSample]:
    """Pairs from CUDA graphs, under conditions that a scenario can describe."""
    samples = []
    for record in measurements.sample(PairRecord):
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


def sustained_samples(measurements: MeasurementFile, profile: HardwareProfile) -> list[SustainedSample]:
    """Chains of kernels with the readings of the card's sensors; what the kernels do is as `profile` prices them."""
    return [
        sustained_sample(record, profile)
        for record in measurements.each(SustainedRecord)
        # Pauses and loads right after others show the controller; they have no boost rate of their own.
        if not record.pause_share and not record.load_before_s and record.dtype in profile.device.peak_flops
    ]


def sustained_sample(record: SustainedRecord, profile: HardwareProfile) -> SustainedSample:
    """One chain of kernels under load."""
    pricing, device, launch = Pricing(profile), profile.device, profile.launch
    ops = sustained_ops(record)
    flops = sum(op.flops for op in ops if isinstance(op, Gemm))
    gap_s = launch.graph_node_gap_s if record.launch is Launch.GRAPH else launch.eager_kernel_gap_s
    return SustainedSample(
        idle_before_s=record.idle_before_s,
        chunk_end_s=record.chunk_end_s,
        chunk_rounds_per_s=record.chunk_rounds_per_s or tuple(rate / flops for rate in record.chunk_flops),
        samples=tuple((at, clock, watts) for at, clock, watts, _ in record.samples),
        loads=tuple(load_of(op, pricing.kernel(op), device, None) for op in ops),
        formats=tuple(arithmetic_format(op) for op in ops),
        shape=tuple(shape_of(replace(op, quantization=None) if isinstance(op, Gemm) else op) for op in ops),
        gemms_only=all(isinstance(op, Gemm) for op in ops),
        energy_j=record.energy_j,
        other_s=gap_s * len(ops),
    )
