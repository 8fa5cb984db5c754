"""From records of small kernels, and of chains of one such kernel, to the samples of their fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from kraken_sim.calibration.memory_bound import MemoryBoundSample, kind_class
from kraken_sim.calibration.samples import HALF_PRECISION
from kraken_sim.measurements.records.kernels import MemoryBoundRecord
from kraken_sim.measurements.records.together import ChainedMemoryBound, ChainRecord
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.program.ops import Copy, Elementwise, Embedding, Norm
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from kraken_sim.calibration.split import Fit
    from kraken_sim.costs.memory_bound import MemoryBoundConstants, MemoryBoundOp
    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.program.ops import DType

_PLAIN, _GENERATED = KernelSet.PYTORCH, KernelSet.COMPILED

MIN_OF_A_KIND: Final = 3
"""Fewest shapes held out of a kind of kernels that has an error of its own; a limit of ours."""


def errors_of_kinds(fit: Fit[MemoryBoundConstants, MemoryBoundSample], machine: str) -> dict[str, Provenance]:
    """How far off the kinds of kernels are, each by itself, by their paths in the block; `machine` was measured."""
    return {
        f"kernels.{error.name}": Provenance(
            ProvenanceKind.FITTED, f"fit to {machine}; {error.count} shapes of this kernel held out", error.mean
        )
        for error in fit.class_errors("", kind_class)[1:]
        if error.count >= MIN_OF_A_KIND
    }


def memory_bound_samples(measurements: MeasurementFile) -> list[MemoryBoundSample]:
    """Kernels whose inputs the call before has left in L2 as far as they fit; operands of chains fresh or kept.

    Functions that are several kernels are left out.
    """
    samples = []
    for record in measurements.sample(MemoryBoundRecord):
        op = memory_bound_op(record)
        if op is not None and record.launch is Launch.GRAPH and record.dtype in HALF_PRECISION:
            samples.append(MemoryBoundSample(op, record.time_s.median, inputs_warm=True))
    for chain in measurements.sample(ChainRecord):
        alone = chained_op(chain)
        if alone is not None and chain.launch is Launch.GRAPH and chain.dtype in HALF_PRECISION:
            samples.append(MemoryBoundSample(alone, chain.time_s.median, inputs_warm=True))
    return samples


def memory_bound_op(record: MemoryBoundRecord) -> MemoryBoundOp | None:
    """The op that a program has for this kernel; None where it is several, or none of a program's."""
    if record.quantization is not None:
        return None
    return _op(record.function, record.num_tokens, record.hidden_size, record.dtype, record.kernels)


def chained_op(record: ChainRecord) -> MemoryBoundOp | None:
    """The op of a chain that is one small kernel over and over; None of other chains."""
    kernel, *others = record.compute
    if others or not isinstance(kernel, ChainedMemoryBound):
        return None
    op = _op(kernel.op, kernel.num_tokens, kernel.hidden_size, record.dtype, kernel.kernels)
    if record.operands == "kept" or op is None:
        return op
    return _cold(op)


def _cold(op: MemoryBoundOp) -> MemoryBoundOp:
    """The op with its parameters and its residual out of L2."""
    if isinstance(op, Norm):
        return replace(op, cold_parameters=True, cold_inputs=op.adds)
    if isinstance(op, Elementwise) and op.function == "add":
        return replace(op, cold_inputs=op.num_inputs - 1)
    return op


def _op(function: str, num_tokens: int, hidden_size: int, dtype: DType, kernels: KernelSet) -> MemoryBoundOp | None:
    elements, plain, generated = num_tokens * hidden_size, kernels is _PLAIN, kernels is _GENERATED
    if function == "norm":
        return Norm(num_tokens, hidden_size, dtype) if plain else None
    if function == "rms_norm":
        return Norm(num_tokens, hidden_size, dtype, "rms_norm", fused=generated) if plain or generated else None
    if function in ("add_norm", "add_rms_norm"):
        kind = "rms_norm" if function == "add_rms_norm" else "layer_norm"
        norm = Norm(num_tokens, hidden_size, dtype, kind, fused=True, adds=1, writes_sum=True)  # type: ignore[arg-type]
        return norm if generated else None
    if function == "embedding":
        return Embedding(num_tokens, hidden_size, dtype)
    if function == "copy":
        return Copy(elements * dtype.num_bytes)
    if function == "kv_write":
        # One token's keys and values lie side by side, which the library copies as one block.
        return Copy(2 * elements * dtype.num_bytes, strided=num_tokens > 1)
    if not plain or function in ("rope_kv_write", "quantize"):
        return None
    inputs = 2 if function in ("add", "silu_mul") else 1
    return Elementwise(function, elements, inputs, dtype)
