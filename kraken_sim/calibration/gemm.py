"""Fits the GEMM model to kernels measured alone: robust, on relative errors, checked on held-out shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import least_squares

from kraken_sim.calibration.gemm_batch import (
    ALIGNMENTS,
    Batch,
    GemmSample,
    batch_of,
    gemm_errors,
    gemm_periods,
    quantize_s,
    uncorrected_busy_s,
)
from kraken_sim.calibration.gemm_correction import CorrectionKnots, fit_correction
from kraken_sim.calibration.split import Fit, shape_of, split, split_again
from kraken_sim.costs.gemm_constants import GemmConstants
from kraken_sim.errors import InputError, Problem
from kraken_sim.program.formats import DType
from kraken_sim.program.ops import Gemm

__all__ = ["DEFAULT_START", "GemmSample", "fit_gemm", "gemm_periods", "gemm_shape", "rows_class"]

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from kraken_sim.calibration.split import Key
    from kraken_sim.hardware.device import Device

    Floats = NDArray[np.float64]

MIN_SAMPLES = 40
"""Fewest samples of a fit; a limit of ours, two for each constant."""

MIN_MISALIGNED = 20
"""Fewest samples of an alignment that gets an efficiency of its own; a limit of ours."""

_MAX_FIT_SAMPLES = 2500
"""Most samples of a fit; a limit of ours, for the time it takes."""

_LOSS_SCALE = 0.05
"""Relative error from which a sample counts less; a choice of ours, that of a good fit."""

_PRIOR_WEIGHT = 0.003
"""Weight that holds a constant at its start, against a sample's error; a choice of ours, weak."""

_MIN_GAIN = 0.02
"""By how much a correction must lower the error of unseen shapes to be kept; a choice of ours, above the noise of a
split."""

_JUDGES, _JUDGE_SHARE = 5, 0.2
"""A correction is judged this often, each time on this share of the fitted shapes; a choice of ours, so that each shape
is a judge about once."""


_BOUNDS: dict[str, tuple[float, float]] = {
    "launch_s": (0.1e-6, 5e-6),
    "prologue_s": (0.1e-6, 5e-6),
    "tile_s": (0.05e-6, 8e-6),
    "tile_fixed_share": (0.02, 1.0),
    "k_fill": (1.0, 600.0),
    "mma_efficiency": (0.3, 1.0),
    "l2_bytes_per_clock": (5.0, 200.0),
    "wave_quantisation": (0.02, 1.0),
    "hbm_efficiency": (0.4, 0.97),
    "hbm_latency_s": (0.05e-6, 8e-6),
    "activation_hbm_share": (0.02, 1.2),
    "overlap_exponent": (1.5, 12.0),
    "split_s": (0.1e-6, 8e-6),
    "split_bytes_per_clock": (1.0, 200.0),
    "throttle_depth": (0.005, 0.35),
    "throttle_onset_s": (3e-5, 3e-2),
    "gemv_launch_s": (0.1e-6, 6e-6),
    "gemv_hbm_efficiency": (0.3, 0.97),
    "gemv_l2_efficiency": (0.3, 6.0),
    "gemv_k_element_s": (1e-13, 1e-9),
    "l2_resident_share": (0.3, 1.2),
    "l2_resident_softness": (0.02, 0.25),
}
"""Bounds of the fitted fields. Outside of them a number loses its physical meaning; assumed."""

_QUANTIZE_BOUNDS: dict[str, tuple[float, float]] = {
    "serving_quantize_s": (0.1e-6, 20e-6),
    "serving_quantize_bytes_per_s": (2e11, 5e13),
}
"""The same of the fields that only samples with the quantisation of x in them tell."""

_QUANTIZE_START: dict[str, Any] = {"serving_quantize_s": 4e-6, "serving_quantize_bytes_per_s": 2e12}
"""Where a fit of these starts; assumed."""

_STARTS_OF_KERNELS = ("launch_s", "prologue_s")
"""What samples with the quantisation of x in them cannot tell from its start: they keep the values given."""

_LEAST_SHARE = 0.2
"""Least factor that a correction is asked for, where a quantisation takes most of a period; a limit of ours."""

_BIAS_BOUNDS: dict[str, tuple[float, float]] = {"bias_s": (1e-8, 5e-6), "bias_tile_s": (1e-9, 2e-6)}
"""The same of the fields that only products with and without a bias tell apart."""

_BIAS_START: dict[str, Any] = {"bias_s": 0.5e-6, "bias_tile_s": 0.1e-6}
"""Where a fit of these starts; assumed."""

_FLOAT16_BOUNDS = (0.8, 1.1)
"""The same of the rate in float16, which only products of both formats tell."""

MIN_OF_FORMAT = 20
"""Fewest samples of each of the two formats for that; a limit of ours."""

_ALIGNMENT_BOUNDS = (0.05, 1.0)
"""Bounds of what misaligned rows leave of the rates; assumed."""

DEFAULT_START = GemmConstants(
    launch_s=1e-6,
    prologue_s=0.6e-6,
    tile_s=1e-6,
    tile_fixed_share=0.5,
    k_fill=50.0,
    mma_efficiency=0.8,
    l2_bytes_per_clock=50.0,
    wave_quantisation=0.5,
    hbm_efficiency=0.85,
    hbm_latency_s=1e-6,
    activation_hbm_share=0.5,
    overlap_exponent=4.0,
    split_s=1.5e-6,
    split_bytes_per_clock=15.0,
    throttle_depth=0.1,
    throttle_onset_s=1e-3,
    gemv_launch_s=2e-6,
    gemv_hbm_efficiency=0.8,
    gemv_l2_efficiency=1.5,
    gemv_k_element_s=0.3e-9,
    l2_resident_share=0.7,
    l2_resident_softness=0.1,
    replay_copies=5,
    misaligned_efficiency={"8": 0.75, "4": 0.6, "2": 0.3},
    correction={},
)
"""Where a fit starts when no similar GPU is known; assumed."""


def gemm_shape(sample: GemmSample) -> Key:
    """What a GEMM is a measurement of: its three sizes."""
    return shape_of(Gemm(sample.m, sample.n, sample.k, sample.dtype))


def rows_class(sample: GemmSample) -> tuple[int, str]:
    """The class of a GEMM, by its number of rows."""
    edges = ((1, "m = 1"), (16, "m 2 to 16"), (128, "m 17 to 128"), (1024, "m 129 to 1024"))
    return next(((most, text) for most, text in edges if sample.m <= most), (1025, "m above 1024"))


def fit_gemm(
    records: Sequence[GemmSample],
    device: Device,
    initial: GemmConstants = DEFAULT_START,
    *,
    graph_node_gap_s: float = 1e-6,
    knots: CorrectionKnots | None = None,
) -> Fit[GemmConstants, GemmSample]:
    """Fits all constants on 70 % of the shapes and measures the error on the others.

    The correction grid is kept only when it lowers the error of shapes inside the fitted part that it has not
    seen. Deterministic; under a minute for 12,000 records on one core.

    Args:
        records: Measured products of one dtype (or of dtypes with one width and rate), at least 40.
        device: Datasheet of the GPU they were measured on.
        initial: Constants of a similar GPU; the fit stays near them where the records say nothing.
        graph_node_gap_s: The part of each period that belongs to the launch costs, not to the kernel.
        knots: Where the correction grid has its knots; default: a coarse grid over the shapes of the records.

    Raises:
        InputError: too few records, dtypes of different rates, or periods that are not longer than the gap.
    """
    _check(records, device, graph_node_gap_s)
    train, held_out = split(records, gemm_shape)
    plain, kept = _fit_plain(batch_of(train[:_MAX_FIT_SAMPLES], graph_node_gap_s), device, initial)
    correction = _useful_correction(train, device, plain, knots or CorrectionKnots(), graph_node_gap_s)
    fitted = replace(plain, correction=correction)
    periods_s = gemm_periods(held_out, device, fitted, graph_node_gap_s)
    errors = [float(s) / sample.period_s - 1.0 for s, sample in zip(periods_s, held_out, strict=True)]
    return Fit(fitted, tuple(zip(held_out, errors, strict=True)), tuple(train), kept)


def _fit_plain(train: Batch, device: Device, initial: GemmConstants) -> tuple[GemmConstants, dict[str, str]]:
    """The better of two fits, from `initial` and from the default start, without a correction; and what is kept."""
    own_bounds = _bounds_of(train)
    names = list(own_bounds)
    counts = {key: int(np.count_nonzero(train.alignment == int(key))) for key in ALIGNMENTS}
    keys = [key for key, count in counts.items() if count >= MIN_MISALIGNED]
    kept = {
        f"misaligned_efficiency.{key}": f"{count} fitted GEMMs of rows aligned to {key} bytes, {MIN_MISALIGNED} needed"
        for key, count in counts.items()
        if key not in keys
    }
    if "float16_rate" not in own_bounds and train.op.input_dtype in (DType.FLOAT16, DType.BFLOAT16):
        kept["float16_rate"] = f"fewer than {MIN_OF_FORMAT} fitted GEMMs of one of float16 and bfloat16"
    bounds = [own_bounds[name] for name in names] + [_ALIGNMENT_BOUNDS] * len(keys)
    low, high = np.log(np.array(bounds)).T
    measured = np.log(train.busy_s + train.gap_s)
    prior = _PRIOR_WEIGHT * np.sqrt(len(measured))

    def constants_at(z: Floats) -> GemmConstants:
        values = np.exp(z)
        aligned = dict(initial.misaligned_efficiency) | dict(zip(keys, values[len(names) :].tolist(), strict=True))
        changes: dict[str, Any] = dict(zip(names, values[: len(names)].tolist(), strict=True))
        return replace(initial, **changes, misaligned_efficiency=aligned, correction={})

    def attempt(start: GemmConstants) -> tuple[float, GemmConstants]:
        values = [getattr(start, name) for name in names] + [start.misaligned_efficiency[key] for key in keys]
        z0 = np.clip(np.log(np.array(values)), low + 1e-6, high - 1e-6)

        def residuals(z: Floats) -> Floats:
            predicted = np.log(uncorrected_busy_s(train, device, constants_at(z)) + train.gap_s)
            return np.concatenate([predicted - measured, prior * _LOSS_SCALE * (z - z0)])

        found = least_squares(
            residuals, z0, bounds=(low, high), loss="soft_l1", f_scale=_LOSS_SCALE,
            max_nfev=60, diff_step=1e-3, x_scale=0.3,
        )  # fmt: skip
        return float(found.cost), constants_at(found.x)

    starts = [initial] if initial == DEFAULT_START else [initial, DEFAULT_START]
    if train.composite.any():
        held: dict[str, Any] = {name: getattr(initial, name) for name in _STARTS_OF_KERNELS}
        starts = [replace(start, **held, **_QUANTIZE_START) for start in starts]
        initial = starts[0]
    if "bias_s" in own_bounds:
        starts = [start if start.bias_s else replace(start, **_BIAS_START) for start in starts]
    return min((attempt(start) for start in starts), key=lambda pair: pair[0])[1], kept


def _bounds_of(train: Batch) -> dict[str, tuple[float, float]]:
    """Bounds of the fields that the samples tell."""
    bounds = _BOUNDS | (_BIAS_BOUNDS if 0 < train.bias.sum() < len(train.bias) else {})
    if MIN_OF_FORMAT <= train.float16.sum() <= len(train.float16) - MIN_OF_FORMAT:
        bounds = bounds | {"float16_rate": _FLOAT16_BOUNDS}
    if not train.composite.any():
        return bounds
    return {name: own for name, own in bounds.items() if name not in _STARTS_OF_KERNELS} | _QUANTIZE_BOUNDS


def _useful_correction(
    train: Sequence[GemmSample], device: Device, plain: GemmConstants, knots: CorrectionKnots, gap_s: float
) -> Mapping[str, Mapping[str, float]]:
    """The grid over the residuals, or none when it does not help shapes that its fit has not seen."""

    def grid(samples: Sequence[GemmSample]) -> Mapping[str, Mapping[str, float]]:
        table = batch_of(samples, gap_s)
        added_s = quantize_s(table, plain)
        modelled_s = uncorrected_busy_s(table, device, plain) - added_s
        # What a quantisation leaves of a period may be next to nothing.
        wanted = np.log(np.maximum(table.busy_s - added_s, _LEAST_SHARE * modelled_s) / modelled_s)
        return fit_correction(table.m, table.n, table.k, wanted, knots)

    before = after = 0.0
    for judge in range(_JUDGES):
        inner, outer = split_again(train, gemm_shape, judge, _JUDGE_SHARE)
        judged = batch_of(outer, gap_s)
        before += gemm_errors(judged, device, plain).sum()
        after += gemm_errors(judged, device, replace(plain, correction=grid(inner))).sum()
    return {} if after > before * (1.0 - _MIN_GAIN) else grid(train)


def _check(records: Sequence[GemmSample], device: Device, gap_s: float) -> None:
    problems = []
    if len(records) < MIN_SAMPLES:
        problems.append(Problem("records", f"a fit needs at least {MIN_SAMPLES} of them", len(records)))
    formats = {(record.quantization, record.dtype): record.op for record in records}
    alike = {
        (q, op.bytes_per_input, op.dtype.num_bytes, device.peak_flops.get(op.input_dtype))
        for (q, _), op in formats.items()
    }
    if len(alike) > 1:
        message = "all must have one dtype, or dtypes of one width and rate, and one quantization"
        problems.append(Problem("records", message, sorted(f"{q or dtype}" for q, dtype in formats)))
    short = [r for r in records if not r.period_s > gap_s]
    if short:
        problems.append(
            Problem(
                "records.period_s",
                f"must exceed the gap between graph nodes, {gap_s:.3g} s",
                short[0].period_s,
            )
        )
    if problems:
        raise InputError(problems)
