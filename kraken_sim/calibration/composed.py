"""Small kernels of operators written out one by one, as Hugging Face models run them: samples of several kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kraken_sim.architectures.small_kernels import activation_kernels, composed_rms_norm, composed_rope
from kraken_sim.calibration.memory_bound import MemoryBoundSample
from kraken_sim.calibration.samples import HALF_PRECISION
from kraken_sim.measurements.records.kernels import MemoryBoundRecord
from kraken_sim.program.kernel_sets import RULES, KernelSet
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from kraken_sim.architectures.small_kernels import SmallKernel
    from kraken_sim.measurements.schema import MeasurementFile

_SET = KernelSet.PYTORCH_COMPOSED
_PARTS = 5
"""Heads of queries and keys in a record of rotary positions: four query heads to a key head; a definition."""


def composed_samples(measurements: MeasurementFile) -> list[MemoryBoundSample]:
    """RMSNorm, rotary positions and SiLU-mul, each all of its kernels."""
    samples = []
    for record in measurements.sample(MemoryBoundRecord):
        if record.kernels is not _SET or record.launch is not Launch.GRAPH or record.dtype not in HALF_PRECISION:
            continue
        ops: list[Any] = [kernel.op for kernel in _kernels(record)]
        if ops:
            samples.append(MemoryBoundSample(ops[0], record.time_s.median, inputs_warm=True, others=tuple(ops[1:])))
    return samples


def _kernels(record: MemoryBoundRecord) -> list[SmallKernel]:
    num_tokens, width, dtype = record.num_tokens, record.hidden_size, record.dtype
    if record.function == "rms_norm":
        return composed_rms_norm("norm", num_tokens, width, dtype)
    if record.function == "rope":
        keys = num_tokens * width // _PARTS
        return composed_rope("q", num_tokens * width - keys, dtype) + composed_rope("k", keys, dtype)
    if record.function == "silu_mul":
        return activation_kernels(num_tokens, width, dtype, RULES[_SET], gated=True)
    return []
