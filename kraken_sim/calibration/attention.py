"""Fits the attention model to measured kernels: robust, on relative errors, checked on held-out shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kraken_sim.calibration.attention_correction import correction_of
from kraken_sim.calibration.attention_start import (
    DECODE_BOUNDS,
    DEFAULT_START,
    DIM_BOUNDS,
    EXTRA_BOUNDS,
    LAUNCH_BOUNDS,
    PREFILL_BOUNDS,
    SERVING_BOUNDS,
)
from kraken_sim.calibration.attention_tables import (
    AttentionSample,
    decode_busy,
    decode_columns,
    pick,
    predict_periods,
    prefill_busy,
    prefill_columns,
)
from kraken_sim.calibration.parameters import Parameters, robust_fit
from kraken_sim.costs.attention_model import PACKED, PER_HEAD, AttentionConstants, by_head_dim
from kraken_sim.costs.attention_shape import is_decode, packs_group
from kraken_sim.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from kraken_sim.hardware.device import Device

    Floats = NDArray[np.float64]

__all__ = ["DEFAULT_START", "AttentionSample", "FitResult", "fit_attention", "predict_periods"]

MIN_SAMPLES = 40
_MIN_PER_PHASE = 20
_MIN_PER_DIM = 8
_TRAIN_SHARE = 0.7
_MIN_GAIN = 0.02
_SEED = 20240
_SPLITS_PER_SM = (1.0, 2.0, 4.0, 8.0, 16.0)
_TOKENS_PER_SPLIT = (128.0, 256.0, 512.0)


@dataclass(frozen=True, slots=True)
class FitResult:
    """Fitted constants, and |predicted / measured - 1| on the held-out samples.

    `held_out` has each of these samples with its predicted / measured - 1.
    """

    constants: AttentionConstants
    residual: float
    errors_by_class: Mapping[str, float]
    residual_without_correction: float
    num_fitted: int
    num_held_out: int
    held_out: tuple[tuple[AttentionSample, float], ...]


def fit_attention(
    samples: Sequence[AttentionSample],
    device: Device,
    initial: AttentionConstants = DEFAULT_START,
    *,
    graph_node_gap_s: float = 1e-6,
) -> FitResult:
    """Fits prefill and decode constants on a random 70 % of the samples and measures the error on the rest.

    What the samples say nothing about (a phase, the additions of a serving engine) keeps its initial value. The
    correction of decode times is kept only when it lowers the error of shapes that it has not seen.
    Deterministic; under a minute for 10,000 samples on one core.

    Raises:
        InputError: too few samples, or periods that are not longer than the gap.
    """
    _check(samples, graph_node_gap_s)
    order = np.random.default_rng(_SEED).permutation(len(samples))
    cut = int(_TRAIN_SHARE * len(order))
    train = [samples[index] for index in order[:cut]]
    held_out = [samples[index] for index in order[cut:]]
    prefill = [sample for sample in train if not is_decode(sample.op)]
    decode = [sample for sample in train if is_decode(sample.op)]
    constants = replace(initial, decode_correction={}) if decode else initial
    if len(prefill) >= _MIN_PER_PHASE:
        constants = _fit_prefill(prefill, device, constants, graph_node_gap_s)
    plain = constants
    if len(decode) >= _MIN_PER_PHASE:
        fit_launch = len(prefill) < _MIN_PER_PHASE
        plain = _fit_decode(decode, device, constants, graph_node_gap_s, fit_launch)
        constants = _with_useful_correction(decode, device, plain, graph_node_gap_s)
    signed = _signed_errors(held_out, device, constants, graph_node_gap_s)
    errors = np.abs(signed)
    return FitResult(
        constants=constants,
        residual=float(errors.mean()),
        errors_by_class=_by_class(held_out, errors),
        residual_without_correction=float(_errors(held_out, device, plain, graph_node_gap_s).mean()),
        num_fitted=len(train),
        num_held_out=len(held_out),
        held_out=tuple(zip(held_out, signed.tolist(), strict=True)),
    )


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
    """Fits each kernel with every way to split, then both with the best ways."""
    packed = np.array([packs_group(s.op, device.num_sms, initial.max_group, s.composite) for s in samples], dtype=bool)
    best = initial
    for kernel, mine in ((PER_HEAD, ~packed), (PACKED, packed)):
        some = pick(samples, mine)
        if len(some) < _MIN_PER_PHASE:
            continue
        trials = []
        for per_sm in _SPLITS_PER_SM:
            for tokens in _TOKENS_PER_SPLIT:
                values = dict(best.decode[kernel]) | {"splits_per_sm": per_sm, "tokens_per_split": tokens}
                start = replace(best, decode=dict(best.decode) | {kernel: values})
                fitted = _fit_kernels(some, device, start, gap_s, fit_launch, (kernel,), 15)
                trials.append((_errors(some, device, fitted, gap_s).mean(), per_sm, tokens, fitted))
        chosen = min(trials, key=lambda trial: trial[0])[3]
        best = replace(best, decode=dict(best.decode) | {kernel: chosen.decode[kernel]})
    present = tuple(k for k, mine in ((PER_HEAD, ~packed), (PACKED, packed)) if mine.sum() >= _MIN_PER_PHASE)
    return _fit_kernels(samples, device, best, gap_s, fit_launch, present, 80)


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
    table = decode_columns(samples, device, plain)
    measured = np.array([sample.period_s for sample in samples]) - gap_s
    wanted = np.log(measured / decode_busy(table, device, plain))
    kernels = np.array(table.kernels)
    cut = int(0.8 * len(samples))

    def grid(part: slice) -> dict[str, dict[str, float]]:
        return correction_of(kernels[part], table.kv_len[part], table.work.ctas[part], wanted[part])

    trial = replace(plain, decode_correction=grid(slice(0, cut)))
    before = _errors(samples[cut:], device, plain, gap_s).mean()
    after = _errors(samples[cut:], device, trial, gap_s).mean()
    if after > before * (1.0 - _MIN_GAIN):
        return plain
    return replace(plain, decode_correction=grid(slice(0, len(samples))))


def _column(constants: AttentionConstants, name: str) -> dict[str, float]:
    return {dim: values[name] for dim, values in constants.prefill.items()}


def _dims(samples: Sequence[AttentionSample]) -> list[int]:
    """Head dimensions with enough samples to say something."""
    dims, counts = np.unique([sample.head_dim for sample in samples], return_counts=True)
    return [int(dim) for dim, count in zip(dims, counts, strict=True) if count >= _MIN_PER_DIM]


def _errors(samples: Sequence[AttentionSample], device: Device, constants: AttentionConstants, gap_s: float) -> Floats:
    return np.abs(_signed_errors(samples, device, constants, gap_s))


def _signed_errors(
    samples: Sequence[AttentionSample], device: Device, constants: AttentionConstants, gap_s: float
) -> Floats:
    measured = np.array([sample.period_s for sample in samples])
    return np.asarray(predict_periods(samples, device, constants, gap_s) / measured - 1.0)


def _by_class(samples: Sequence[AttentionSample], errors: Floats) -> dict[str, float]:
    """Mean error by phase, and by phase and head dimension."""
    names: dict[str, list[float]] = {}
    for sample, error in zip(samples, errors.tolist(), strict=True):
        phase = "decode" if is_decode(sample.op) else "prefill"
        for name in (phase, f"{phase} head_dim {sample.head_dim}"):
            names.setdefault(name, []).append(error)
    return {name: float(np.mean(values)) for name, values in sorted(names.items())}


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
