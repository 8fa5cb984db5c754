"""Fits the attention model to measured kernels: robust, on relative errors, checked on held-out shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kraken_sim.calibration.attention_correction import correction_of
from kraken_sim.calibration.attention_start import (
    DECODE_BOUNDS,
    DECODE_DIM_BOUNDS,
    DEFAULT_START,
    DIM_BOUNDS,
    EXTRA_BOUNDS,
    LAUNCH_BOUNDS,
    PREFILL_BOUNDS,
    SERVING_BOUNDS,
)
from kraken_sim.calibration.attention_tables import (
    AttentionSample,
    attention_periods,
    decode_busy,
    decode_columns,
    pick,
    prefill_busy,
    prefill_columns,
)
from kraken_sim.calibration.parameters import Parameters, robust_fit
from kraken_sim.calibration.split import Fit, shape_of, split, split_again
from kraken_sim.costs.attention_constants import PACKED, PER_HEAD, SHARED, AttentionConstants
from kraken_sim.costs.attention_model import by_head_dim
from kraken_sim.costs.attention_shape import is_decode
from kraken_sim.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kraken_sim.calibration.split import Key
    from kraken_sim.hardware.device import Device

    Floats = NDArray[np.float64]

__all__ = [
    "DEFAULT_START",
    "AttentionSample",
    "attention_periods",
    "attention_shape",
    "fit_attention",
    "phase_class",
]

MIN_SAMPLES = 40
"""Fewest samples of a fit; a limit of ours, about as many as it has constants."""

_MIN_PER_PHASE = 20
"""Fewest samples of prefill, or of a decode kernel, from which its constants are fitted; a limit of ours."""

_MIN_PER_DIM = 5
"""Fewest samples of a head dimension that gets constants of its own; a limit of ours."""

_MIN_GAIN = 0.02
"""By how much a correction must lower the error of unseen shapes to be kept; a choice of ours, above the noise of a
split."""

_JUDGES, _JUDGE_SHARE = 5, 0.2
"""A correction is judged this often, each time on this share of the fitted shapes; a choice of ours, so that each shape
is a judge about once."""

_PLAIN_DIM = 128
"""Head dimension at which the shared decode kernel's factors are 1; a definition."""

_SPLITS_PER_SM = (1.0, 2.0, 4.0, 8.0, 16.0)
"""CTAs an SM up to which streams are split: what a fit tries; a choice of ours."""

_TOKENS_PER_SPLIT = (128.0, 256.0, 512.0)
"""Least cached tokens of a part: what a fit tries; a choice of ours."""


def attention_shape(sample: AttentionSample) -> Key:
    """What an attention is a measurement of: all its sizes."""
    return shape_of(sample.op)


def phase_class(sample: AttentionSample) -> tuple[int, str]:
    """The class of an attention: prefill or decode."""
    return (1, "decode") if is_decode(sample.op) else (0, "prefill")


def fit_attention(
    samples: Sequence[AttentionSample],
    device: Device,
    initial: AttentionConstants = DEFAULT_START,
    *,
    graph_node_gap_s: float = 1e-6,
) -> Fit[AttentionConstants, AttentionSample]:
    """Fits prefill and decode constants on 70 % of the shapes and measures the error on the others.

    What the samples say nothing about (a phase, the additions of a serving engine) keeps its initial value. The
    correction of decode times is kept only when it lowers the error of shapes that it has not seen.
    Deterministic; under a minute for 10,000 samples on one core.

    Raises:
        InputError: too few samples, or periods that are not longer than the gap.
    """
    _check(samples, graph_node_gap_s)
    train, held_out = split(samples, attention_shape)
    prefill = [sample for sample in train if not is_decode(sample.op)]
    decode = [sample for sample in train if is_decode(sample.op)]
    kept = {
        phase: f"{len(some)} fitted samples, {_MIN_PER_PHASE} needed"
        for phase, some in (("prefill", prefill), ("decode", decode))
        if len(some) < _MIN_PER_PHASE
    }
    constants = initial
    if "prefill" not in kept:
        constants = _fit_prefill(prefill, device, constants, graph_node_gap_s)
    if "decode" not in kept:
        plain = replace(constants, decode_correction={})
        plain = _fit_decode(decode, device, plain, graph_node_gap_s, fit_launch="prefill" in kept)
        constants = _with_useful_correction(decode, device, plain, graph_node_gap_s)
    measured = np.array([sample.period_s for sample in held_out])
    errors = attention_periods(held_out, device, constants, graph_node_gap_s) / measured - 1.0
    return Fit(constants, tuple(zip(held_out, errors.tolist(), strict=True)), tuple(train), kept)


def _fit_prefill(
    samples: Sequence[AttentionSample], device: Device, initial: AttentionConstants, gap_s: float
) -> AttentionConstants:
    table = prefill_columns(samples, device)
    composite, bare = bool(table.composite.any()), not bool(table.composite.all())
    parameters = Parameters(initial)
    for name, bounds in PREFILL_BOUNDS.items():
        parameters.add_field(name, bounds)
    for dim in _dims(samples):
        for name, bounds in DIM_BOUNDS.items():
            parameters.add_nested("prefill", str(dim), name, bounds, by_head_dim(_column(initial, name), dim))
        if composite:
            start = by_head_dim(initial.serving_prefill_s, dim)
            parameters.add_entry("serving_prefill_s", str(dim), EXTRA_BOUNDS, start)
    if composite:
        for name, bounds in SERVING_BOUNDS.items():
            parameters.add_field(name, bounds)
    if bare:
        parameters.add_field("launch_s", LAUNCH_BOUNDS)
    measured = np.array([sample.period_s for sample in samples])
    return robust_fit(parameters, lambda c: prefill_busy(table, device, c) + gap_s, measured)


def _fit_decode(
    samples: Sequence[AttentionSample],
    device: Device,
    initial: AttentionConstants,
    gap_s: float,
    fit_launch: bool,
) -> AttentionConstants:
    """Fits each kernel with every way to split, then all with the best ways."""
    best = _with_shared(samples, initial)
    kernels = np.array(decode_columns(samples, device, best).kernels)
    present = [kernel for kernel in (PER_HEAD, PACKED, SHARED) if (kernels == kernel).sum() >= _MIN_PER_PHASE]
    for kernel in present:
        some = pick(samples, kernels == kernel)
        trials = []
        for per_sm in _SPLITS_PER_SM:
            for tokens in _TOKENS_PER_SPLIT:
                values = dict(best.decode[kernel]) | {"splits_per_sm": per_sm, "tokens_per_split": tokens}
                start = replace(best, decode=dict(best.decode) | {kernel: values})
                fitted = _fit_kernels(some, device, start, gap_s, fit_launch, (kernel,), 15)
                trials.append((_errors(some, device, fitted, gap_s).mean(), per_sm, tokens, fitted))
        chosen = min(trials, key=lambda trial: trial[0])[3]
        best = replace(best, decode=dict(best.decode) | {kernel: chosen.decode[kernel]})
    return _fit_kernels(samples, device, best, gap_s, fit_launch, tuple(present), 80)


def _with_shared(samples: Sequence[AttentionSample], initial: AttentionConstants) -> AttentionConstants:
    """The constants with the shared kernel, which runs bare samples, where there are enough of them to fit it."""
    if SHARED in initial.decode or sum(not sample.composite for sample in samples) < _MIN_PER_PHASE:
        return initial
    unused = {name: DEFAULT_START.decode[PACKED][name] for name in ("group_cta_s", "block_s")}
    decode = {**initial.decode, SHARED: {**DEFAULT_START.decode[PER_HEAD], **unused}}
    return replace(initial, decode=decode, decode_dim={str(_PLAIN_DIM): dict.fromkeys(DECODE_DIM_BOUNDS, 1.0)})


def _fit_kernels(
    samples: Sequence[AttentionSample],
    device: Device,
    initial: AttentionConstants,
    gap_s: float,
    fit_launch: bool,
    kernels: tuple[str, ...],
    max_evaluations: int,
) -> AttentionConstants:
    table = decode_columns(samples, device, initial)
    parameters = Parameters(initial)
    for kernel in kernels:
        for name, bounds in DECODE_BOUNDS.items():
            if name == "hbm_efficiency" and kernel == PACKED and initial.serving_packed_cache_share < 1.0:
                # such rows do not say how fast HBM delivers the whole cache
                continue
            parameters.add_nested("decode", kernel, name, bounds, initial.decode[kernel][name])
    for dim in _dims([s for s in samples if not s.composite]) if SHARED in kernels else ():
        for name, bounds in DECODE_DIM_BOUNDS.items() if dim != _PLAIN_DIM else ():
            start = by_head_dim({known: row[name] for known, row in initial.decode_dim.items()}, dim)
            parameters.add_nested("decode_dim", str(dim), name, bounds, start)
    if table.composite.any():
        for dim in _dims(samples):
            start = by_head_dim(initial.serving_decode_s, dim)
            parameters.add_entry("serving_decode_s", str(dim), EXTRA_BOUNDS, start)
    if fit_launch and not table.composite.all():
        parameters.add_field("launch_s", LAUNCH_BOUNDS)
    measured = np.array([sample.period_s for sample in samples])
    return robust_fit(parameters, lambda c: decode_busy(table, device, c) + gap_s, measured, max_evaluations)


def _with_useful_correction(
    samples: Sequence[AttentionSample], device: Device, plain: AttentionConstants, gap_s: float
) -> AttentionConstants:
    """Adds the grid over the residuals when it helps shapes that its fit has not seen."""

    def grid(some: Sequence[AttentionSample]) -> AttentionConstants:
        table = decode_columns(some, device, plain)
        measured = np.array([sample.period_s for sample in some]) - gap_s
        wanted = np.log(measured / decode_busy(table, device, plain))
        correction = correction_of(np.array(table.kernels), table.kv_len, table.work.ctas, wanted)
        return replace(plain, decode_correction=correction)

    before = after = 0.0
    for judge in range(_JUDGES):
        inner, outer = split_again(samples, attention_shape, judge, _JUDGE_SHARE)
        before += _errors(outer, device, plain, gap_s).sum()
        after += _errors(outer, device, grid(inner), gap_s).sum()
    return plain if after > before * (1.0 - _MIN_GAIN) else grid(samples)


def _column(constants: AttentionConstants, name: str) -> dict[str, float]:
    return {dim: values[name] for dim, values in constants.prefill.items()}


def _dims(samples: Sequence[AttentionSample]) -> list[int]:
    """Head dimensions with enough samples to say something."""
    dims, counts = np.unique([sample.head_dim for sample in samples], return_counts=True)
    return [int(dim) for dim, count in zip(dims, counts, strict=True) if count >= _MIN_PER_DIM]


def _errors(samples: Sequence[AttentionSample], device: Device, constants: AttentionConstants, gap_s: float) -> Floats:
    measured = np.array([sample.period_s for sample in samples])
    return np.asarray(np.abs(attention_periods(samples, device, constants, gap_s) / measured - 1.0))


def _check(samples: Sequence[AttentionSample], gap_s: float) -> None:
    problems: list[Any] = []
    if len(samples) < MIN_SAMPLES:
        problems.append(Problem("samples", f"a fit needs at least {MIN_SAMPLES} of them", len(samples)))
    short = [sample for sample in samples if not sample.period_s > gap_s]
    if short:
        message = f"must exceed the gap between graph nodes, {gap_s:.3g} s"
        problems.append(Problem("samples.period_s", message, short[0].period_s))
    if problems:
        raise InputError(problems)
