"""From the records of a measurement file to the samples that the fits take.

Only single kernels and single collectives are picked, by the type of their record and launched as a graph: the
host does not show in those. Periods keep the gap between two nodes, and whatever else a call puts into a graph
(the memset before a large GEMM or an attention), since a pass has that too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kraken_sim.calibration.attention_tables import AttentionSample
from kraken_sim.calibration.collectives import AllReduceSample
from kraken_sim.calibration.gemm_batch import GemmSample
from kraken_sim.measurements.records.kernels import AllReduceRecord, AttentionRecord, GemmRecord
from kraken_sim.measurements.records.launched import KernelsRecord
from kraken_sim.measurements.records.together import AttentionOp, ChainRecord, GemmOp
from kraken_sim.measurements.schema import CONDITIONS, MOST_HELD
from kraken_sim.program.ops import Attention, Copy, DType, Elementwise, Gemm, Norm
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.hardware.device import Device
    from kraken_sim.measurements.records.loads import SustainedRecord
    from kraken_sim.measurements.records.together import PairedOp, PairRecord
    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.program.formats import ActivationScheme, Quantization
    from kraken_sim.program.ops import ComputeOp

HALF_PRECISION = (DType.FLOAT16, DType.BFLOAT16)
"""The dtypes that the fits take; tensor cores run both at one rate."""

SLOWED = 1.05
"""A chain this much slower than its kernels one by one ran at a lower clock, assumed; less is noise, and taking the
smaller of two noisy times would come out too fast."""


def too_many_to_fit(measurements: MeasurementFile) -> list[str]:
    """Of which kinds of record a fit takes a part."""
    return [
        f"of {count:,} records of kind {kind} {MOST_HELD:,} are fitted"
        for kind, count in measurements.drawn_from().items()
        if kind not in ("launch", "pass", "note", "kernels")
    ]


def gemm_samples(
    measurements: MeasurementFile,
    device: Device,
    graph_node_gap_s: float,
    quantization: Quantization | None = None,
    scheme: ActivationScheme | None = None,
) -> list[GemmSample]:
    """GEMMs of one number format at the boost clock; weights come from HBM, as every call takes fresh ones.

    A row of chains of large GEMMs drives a card into its power limit, which lowers the clock for a second or so:
    the same kernel then takes up to a fifth longer. What sustained load costs is not the kernel's own time, so
    where the profiler saw the kernels of a chain run faster one by one, with the card at rest before, that time and
    the gaps count. Only for products that arithmetic limits: the weights of others may be warm under the profiler.
    """
    records = measurements.sample(GemmRecord)
    keys = {record.key for record in records}
    profiled = {record.of: record.kernels for record in measurements.each(KernelsRecord) if record.of in keys}
    samples = []
    for record in records:
        if record.launch is not Launch.GRAPH or record.dtype not in HALF_PRECISION or record.exact_sums:
            continue
        if record.quantization is not quantization or scheme not in (None, record.activation_scheme):
            continue
        period_s = record.time_s.median
        kernels = profiled.get(record.key, ())
        if kernels and _limited_by_arithmetic(record, device):
            rested_s = sum(kernel.busy_s + graph_node_gap_s for kernel in kernels)
            period_s = rested_s if period_s > SLOWED * rested_s else period_s
        samples.append(
            GemmSample(
                record.m,
                record.n,
                record.k,
                record.dtype,
                period_s,
                weights_warm=False,
                accumulate=record.epilogue == "accumulate",
                quantization=quantization,
                bias=record.epilogue == "bias",
            )
        )
    return samples + (_chained_gemms(measurements) if quantization is None else [])


def _chained_gemms(measurements: MeasurementFile) -> list[GemmSample]:
    """Chains of one GEMM over and over, without bias."""
    samples = []
    for record in measurements.sample(ChainRecord):
        product, *others = record.compute
        right = record.launch is Launch.GRAPH and record.dtype in HALF_PRECISION
        if right and not others and isinstance(product, GemmOp):
            sizes = (product.m, product.n, product.k)
            samples.append(GemmSample(*sizes, record.dtype, record.time_s.median, weights_warm=False))
    return samples


def _limited_by_arithmetic(record: GemmRecord, device: Device) -> bool:
    op = Gemm(record.m, record.n, record.k, record.dtype, quantization=record.quantization)
    arithmetic_s = op.flops / device.peak_flops[op.input_dtype]
    memory_s = (op.n * op.k + 2.0 * op.m * (op.n + op.k)) * op.input_dtype.num_bytes / device.hbm_bandwidth_bytes_per_s
    return arithmetic_s > memory_s


def attention_samples(measurements: MeasurementFile) -> list[AttentionSample]:
    """Bare attention kernels: no rotary embedding, no cache write, the cache of a decode step from HBM."""
    return [
        AttentionSample(
            batch=record.batch,
            q_len=record.q_len,
            kv_len=record.kv_len,
            num_heads=record.num_heads,
            num_kv_heads=record.num_kv_heads,
            head_dim=record.head_dim,
            causal=record.causal,
            dtype=record.dtype,
            period_s=record.time_s.median,
            composite=False,
        )
        for record in measurements.sample(AttentionRecord)
        if record.launch is Launch.GRAPH and record.dtype in HALF_PRECISION
    ]


def compute_side(record: PairRecord) -> tuple[ComputeOp, ...]:
    """The kernels of a pair's compute side as a program has them."""
    return tuple(_chain_op(op, record.dtype) for op in record.compute)


def sustained_ops(record: SustainedRecord) -> tuple[ComputeOp, ...]:
    """The kernels of one round of a sustained load as a program has them."""
    gemms = tuple(Gemm(m, n, k, record.dtype) for m, n, k in record.shapes)
    ops = gemms + tuple(_chain_op(op, record.dtype) for op in record.compute)
    if record.quantization is None:
        return ops
    return tuple(replace(op, quantization=record.quantization) if isinstance(op, Gemm) else op for op in ops)


def _chain_op(op: PairedOp, dtype: DType) -> ComputeOp:
    if isinstance(op, GemmOp):
        return Gemm(op.m, op.n, op.k, dtype)
    if isinstance(op, AttentionOp):
        heads, kv_len = (op.num_heads, op.num_kv_heads), op.kv_len or op.q_len
        return Attention(op.batch, op.q_len, kv_len, *heads, op.head_dim, op.kv_len is None, dtype)
    elements = op.num_tokens * op.hidden_size
    if op.op == "norm":
        return Norm(op.num_tokens, op.hidden_size, dtype)
    if op.op == "copy":
        return Copy(elements * dtype.num_bytes)
    return Elementwise(op.op, elements, 2 if op.op == "add" else 1, dtype)


def all_reduce_samples(measurements: MeasurementFile, graph_node_gap_s: float) -> list[AllReduceSample]:
    """AllReduces under conditions that a scenario can describe."""
    samples = []
    for record in measurements.sample(AllReduceRecord):
        runtime = collective_of(measurements, record.condition)
        if record.launch is not Launch.GRAPH or runtime is None:
            continue
        samples.append(
            AllReduceSample(
                num_bytes=record.num_bytes,
                num_devices=record.num_devices,
                library=str(runtime.get("library", "nccl")),
                kernel="",
                channels=runtime.get("channels"),
                transport="shm" if runtime.get("transport") == "shm" else "p2p",
                launch=record.launch.value,
                period_s=record.time_s.median,
                gap_s=graph_node_gap_s,
            )
        )
    return samples


def collective_of(measurements: MeasurementFile, condition: str) -> Mapping[str, Any] | None:
    """`runtime.collective` of a scenario under this condition; None where no scenario describes it."""
    if condition in measurements.header.conditions:
        return measurements.header.conditions[condition]
    known = CONDITIONS.get(condition)
    return known.collective if known is not None else None
