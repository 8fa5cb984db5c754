"""Fits products of quantised operands to the kernels of torch that a file has measured."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from kraken_sim.calibration.gemm import MIN_SAMPLES, fit_gemm
from kraken_sim.calibration.samples import gemm_samples
from kraken_sim.program.formats import ActivationScheme, Quantization

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.calibration.gemm import GemmSample
    from kraken_sim.calibration.split import Fit
    from kraken_sim.costs.gemm_constants import GemmConstants
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
