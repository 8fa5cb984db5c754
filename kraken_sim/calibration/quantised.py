"""Products of quantised operands, and the kernels that quantise, as torch runs them: samples and fits from a file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from kraken_sim.calibration.gemm import MIN_SAMPLES, fit_gemm
from kraken_sim.calibration.memory_bound import MemoryBoundSample
from kraken_sim.calibration.samples import HALF_PRECISION, gemm_samples
from kraken_sim.measurements.records.kernels import MemoryBoundRecord
from kraken_sim.program.formats import ActivationScheme, Quantization
from kraken_sim.program.ops import Elementwise, Norm
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.calibration.gemm import GemmSample
    from kraken_sim.calibration.split import Fit
    from kraken_sim.costs.gemm_constants import GemmConstants
    from kraken_sim.costs.memory_bound import MemoryBoundOp
    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.profiles.profile import HardwareProfile


class QuantisedBlock(NamedTuple):
    """A block of a profile that prices products of a format: which records tell it, and the tiles of its library.

    `only_tile` is the side of the one tile of cuBLASLt's kernels with a scale a row or a block, which are not split:
    measured, names of the kernels on Hopper (`nvjet_sm90_qqtst_128x128_..._ovscale`, `..._Ablk128_Bvec128`), CUDA 13.0.
    """

    block: str
    quantization: Quantization
    scheme: ActivationScheme | None
    only_tile: int = 0
    what: str = ""


QUANTISED_BLOCKS = (
    QuantisedBlock("gemm_fp8", Quantization.FP8, ActivationScheme.STATIC, what="a scale a tensor"),
    QuantisedBlock("gemm_fp8_rows", Quantization.FP8, ActivationScheme.DYNAMIC, 128, "a scale a row"),
    QuantisedBlock("gemm_fp8_block", Quantization.FP8_BLOCK, None, 128, "scales by block"),
)
"""What torch._scaled_mm runs; the tile is measured, as above."""


def fit_quantised(
    measurements: MeasurementFile, profile: HardwareProfile, gap_s: float
) -> Iterator[tuple[QuantisedBlock, Fit[GemmConstants, GemmSample]]]:
    """The fit of each block that the file has enough products for, from the profile's products in 16 bits.

    Args:
        measurements: a file of `validation.measure`.
        profile: of the same kind of device, with its peak rates.
        gap_s: between graph nodes, which every period contains.
    """
    for one in QUANTISED_BLOCKS:
        if one.quantization.dtype not in profile.device.peak_flops:
            continue
        samples = gemm_samples(measurements, profile.device, gap_s, one.quantization, one.scheme)
        if len(samples) < MIN_SAMPLES:
            continue
        start = replace(profile.gemm, only_tile_rows=one.only_tile, only_tile_cols=one.only_tile)
        yield one, fit_gemm(samples, profile.device, start, graph_node_gap_s=gap_s)


def quantising_samples(measurements: MeasurementFile) -> list[MemoryBoundSample]:
    """Kernels that quantise to fp8 with a known scale or one a token, alone or at the end of a norm or SiLU-mul.

    One scale a tensor takes two kernels, of which torch.compile's reduction over any number of rows is none that an
    engine would run.
    """
    samples = []
    for record in measurements.sample(MemoryBoundRecord):
        op = quantising_op(record)
        if op is not None and record.launch is Launch.GRAPH and record.dtype in HALF_PRECISION:
            samples.append(MemoryBoundSample(op, record.time_s.median, inputs_warm=True))
    return samples


def quantising_op(record: MemoryBoundRecord) -> MemoryBoundOp | None:
    """The op that a program has for a kernel that quantises; None for others."""
    if record.quantization is not Quantization.FP8 or record.activation_scheme is ActivationScheme.DYNAMIC_TENSOR:
        return None
    num_tokens, width, dtype = record.num_tokens, record.hidden_size, record.dtype
    by_row, fp8 = record.activation_scheme is ActivationScheme.DYNAMIC, record.quantization.dtype
    if record.function in ("quantize", "silu_mul"):
        inputs, rows = 2 if record.function == "silu_mul" else 1, num_tokens if by_row else None
        return Elementwise(record.function, num_tokens * width, inputs, dtype, output_dtype=fp8, rows=rows)
    if record.function in ("rms_norm", "add_rms_norm"):
        adds = int(record.function == "add_rms_norm")
        norm = Norm(num_tokens, width, dtype, "rms_norm", fused=True, adds=adds, writes_sum=bool(adds))
        return replace(norm, output_dtype=fp8, row_scales=by_row)
    return None
