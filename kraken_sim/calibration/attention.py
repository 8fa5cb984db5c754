"""Fits the attention model to measured kernels: robust, on relative errors, checked on held-out shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kraken_sim.calibration.attention_correction import correction_of, correction_factors
from kraken_sim.calibration.attention_parameters import Parameters, robust_fit
from kraken_sim.costs.attention import decode_rates, prefill_rates, serving_rates
from kraken_sim.costs.attention_model import (
    PACKED,
    PER_HEAD,
    AttentionConstants,
    DecodeRates,
    by_head_dim,
    decode_times,
    prefill_times,
    serving_prefill_extra_s,
)
from kraken_sim.costs.attention_shape import (
    DecodeWork,
    PrefillWork,
    decode_work,
    is_decode,
    packs_group,
    prefill_work,
    tiling_of,
)
from kraken_sim.errors import InputError, Problem
from kraken_sim.program.ops import Attention, DType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from kraken_sim.hardware.device import Device

    Floats = NDArray[np.float64]

MIN_SAMPLES = 40
_MIN_PER_DIM = 8
_TRAIN_SHARE = 0.7
_MIN_GAIN = 0.02
_SEED = 20240
_SPLITS_PER_SM = (1.0, 2.0, 4.0, 8.0, 16.0)
_TOKENS_PER_SPLIT = (128.0, 256.0, 512.0)


@dataclass(frozen=True, slots=True)
class AttentionSample:
    """One measured attention op.

    `period_s` is the time from one graph node (or one group of nodes) to the next, its gap included.
    `composite`: the whole attention op of a serving engine (rotary embedding, cache write, warm cache); False for
    a bare kernel whose cache comes from HBM.
    """

    batch: int
    q_len: int
    kv_len: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    causal: bool
    dtype: DType
    period_s: float
    composite: bool

    @property
    def op(self) -> Attention:
        """The op that was measured."""
        return Attention(
            self.batch, self.q_len, self.kv_len, self.num_heads, self.num_kv_heads, self.head_dim, self.causal, self.dtype
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FitResult:
    """Fitted constants, and |predicted / measured - 1| on the held-out samples."""

    constants: AttentionConstants
    residual: float
    errors_by_class: Mapping[str, float]
    residual_without_correction: float
    num_fitted: int
    num_held_out: int


DEFAULT_START = AttentionConstants(
    launch_s=2e-6,
    prologue_s=3e-6,
    cta_s=1e-6,
    tile_s=1e-6,
    overlap_power=2.0,
    tail_share=0.3,
    hbm_efficiency=0.8,
    l2_bytes_per_s=4e12,
    max_group=32,
    persistent=0,
    serving_hbm_efficiency=0.6,
    serving_l2_bytes_per_s=2e12,
    serving_l2_share=0.7,
    serving_kv_weight=1.0,
    serving_packed_cache_share=1.0,
    prefill={"128": {"efficiency": 0.6, "serial_ratio": 0.8}},
    decode={
        PER_HEAD: {
            "prologue_s": 2e-6, "token_s": 1e-9, "cta_s": 1.2e-6, "dim_cta_s": 1e-8, "group_cta_s": 1e-9,
            "block_s": 1e-9, "crowded_s": 1e-6, "split_s": 3e-6, "split_step_s": 1e-6, "hbm_efficiency": 0.9,
            "l2_bytes_per_s": 8e12, "l2_share": 0.8, "l2_width": 0.4, "reread_bytes_per_s": 8e12,
            "cta_bytes_per_s": 5e10, "overlap_power": 2.0, "splits_per_sm": 4.0, "tokens_per_split": 256.0,
        },
        PACKED: {
            "prologue_s": 1e-6, "token_s": 1e-9, "cta_s": 3e-6, "dim_cta_s": 1.5e-6, "group_cta_s": 0.6e-6,
            "block_s": 5e-7, "crowded_s": 5e-7, "split_s": 1.5e-6, "split_step_s": 3e-7, "hbm_efficiency": 0.9,
            "l2_bytes_per_s": 8e12, "l2_share": 0.8, "l2_width": 0.4, "reread_bytes_per_s": 8e12,
            "cta_bytes_per_s": 5e10, "overlap_power": 2.0, "splits_per_sm": 8.0, "tokens_per_split": 128.0,
        },
    },
    decode_correction={},
    serving_prefill_s={"128": 7e-6},
    serving_decode_s={"128": 6e-6},
)  # fmt: skip
"""Where a fit starts when no similar GPU is known."""

_PREFILL_BOUNDS: dict[str, tuple[float, float]] = {
    "prologue_s": (1e-7, 2e-5),
    "cta_s": (1e-8, 1e-5),
    "tile_s": (1e-8, 1e-5),
    "overlap_power": (1.2, 8.0),
    "tail_share": (0.01, 2.0),
    "hbm_efficiency": (0.5, 1.0),
    "l2_bytes_per_s": (8e11, 4e13),
}
_SERVING_BOUNDS: dict[str, tuple[float, float]] = {
    "serving_hbm_efficiency": (0.05, 1.0),
    "serving_l2_bytes_per_s": (1e11, 4e13),
    "serving_l2_share": (0.2, 1.5),
    "serving_kv_weight": (0.3, 5.0),
}
_LAUNCH_BOUNDS = (2e-7, 2e-5)
_DIM_BOUNDS = {"efficiency": (0.1, 1.0), "serial_ratio": (0.05, 10.0)}
_EXTRA_BOUNDS = (1e-7, 3e-5)
_DECODE_BOUNDS: dict[str, tuple[float, float]] = {
    "prologue_s": (2e-8, 3e-5),
    "token_s": (1e-10, 1e-6),
    "cta_s": (5e-8, 2e-5),
    "dim_cta_s": (1e-9, 1e-5),
    "group_cta_s": (1e-9, 1e-5),
    "block_s": (1e-9, 1e-5),
    "crowded_s": (1e-8, 2e-5),
    "split_s": (1e-8, 6e-5),
    "split_step_s": (1e-9, 2e-5),
    "hbm_efficiency": (0.5, 1.0),
    "l2_bytes_per_s": (1e12, 4e13),
    "l2_share": (0.05, 2.0),
    "l2_width": (0.1, 3.0),
    "reread_bytes_per_s": (2e11, 1e14),
    "cta_bytes_per_s": (5e8, 2e11),
    "overlap_power": (1.0, 8.0),
}


def predict_periods(
    samples: Sequence[AttentionSample],
    device: Device,
    constants: AttentionConstants,
    graph_node_gap_s: float = 1e-6,
) -> Floats:
    """Predicted `period_s` of each sample [num_samples], seconds; the formulas of `attention_cost`."""
    result = np.empty(len(samples))
    decode = np.array([is_decode(sample.op) for sample in samples], dtype=bool)
    if not decode.all():
        some = _pick(samples, ~decode)
        result[~decode] = _prefill_busy(_prefill_columns(some, device), device, constants)
    if decode.any():
        some = _pick(samples, decode)
        table = _decode_columns(some, device, constants)
        busy = _decode_busy(table, device, constants)
        factors = correction_factors(constants.decode_correction, table.kernels, table.kv_len, table.work.ctas)
        result[decode] = busy * factors
    return result + graph_node_gap_s


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
    if len(prefill) >= MIN_SAMPLES:
        constants = _fit_prefill(prefill, device, constants, graph_node_gap_s)
    plain = constants
    if len(decode) >= MIN_SAMPLES:
        fit_launch = len(prefill) < MIN_SAMPLES
        plain = _fit_decode(decode, device, constants, graph_node_gap_s, fit_launch)
        constants = _with_useful_correction(decode, device, plain, graph_node_gap_s)
    errors = _errors(held_out, device, constants, graph_node_gap_s)
    return FitResult(
        constants=constants,
        residual=float(errors.mean()),
        errors_by_class=_by_class(held_out, errors),
        residual_without_correction=float(_errors(held_out, device, plain, graph_node_gap_s).mean()),
        num_fitted=len(train),
        num_held_out=len(held_out),
    )


@dataclass(frozen=True, slots=True)
class _PrefillTable:
    """Prefill samples as columns."""

    work: PrefillWork
    head_dim: NDArray[np.int64]
    composite: Floats
    peak_flops: Floats


@dataclass(frozen=True, slots=True)
class _DecodeTable:
    """Decode samples as columns; `packed` 1 where one CTA serves a group of heads."""

    work: DecodeWork
    head_dim: NDArray[np.int64]
    kv_len: Floats
    composite: Floats
    packed: NDArray[np.bool_]

    @property
    def kernels(self) -> list[str]:
        """The kernel of each sample."""
        return [PACKED if packed else PER_HEAD for packed in self.packed]


def _prefill_columns(samples: Sequence[AttentionSample], device: Device) -> _PrefillTable:
    works = [prefill_work(s.op, tiling_of(device.generation, s.head_dim), device.num_sms) for s in samples]
    return _PrefillTable(
        work=PrefillWork(*np.array(works).T),
        head_dim=np.array([s.head_dim for s in samples], dtype=np.int64),
        composite=np.array([float(s.composite) for s in samples]),
        peak_flops=np.array([device.peak_flops[s.dtype] for s in samples]),
    )


def _prefill_busy(table: _PrefillTable, device: Device, c: AttentionConstants) -> Floats:
    dims, index = np.unique(table.head_dim, return_inverse=True)
    at_dim = [prefill_rates(c, int(dim)) for dim in dims]
    rates = prefill_rates(c, int(dims[0]))._replace(
        efficiency=np.array([r.efficiency for r in at_dim])[index],
        serial_ratio=np.array([r.serial_ratio for r in at_dim])[index],
    )
    core = prefill_times(table.work, rates, device, table.peak_flops).core_s  # type: ignore[arg-type]
    fixed = np.array([by_head_dim(c.serving_prefill_s, int(dim)) for dim in dims])[index]
    extra = fixed + serving_prefill_extra_s(table.work, serving_rates(c), device)
    return np.asarray(c.launch_s + core + table.composite * extra)


def _decode_columns(samples: Sequence[AttentionSample], device: Device, c: AttentionConstants) -> _DecodeTable:
    ops = [sample.op for sample in samples]
    packed = [
        packs_group(op, device.num_sms, c.max_group, sample.composite)
        for op, sample in zip(ops, samples, strict=True)
    ]
    works = []
    for op, is_packed, sample in zip(ops, packed, samples, strict=True):
        values = c.decode[PACKED if is_packed else PER_HEAD]
        work = decode_work(
            op, is_packed, device.num_sms, values["splits_per_sm"], values["tokens_per_split"]
        )
        if is_packed and sample.composite:
            work = work._replace(kv_bytes=work.kv_bytes * c.serving_packed_cache_share)
        works.append(work)
    return _DecodeTable(
        work=DecodeWork(*np.array(works).T),
        head_dim=np.array([s.head_dim for s in samples], dtype=np.int64),
        kv_len=np.array([float(s.kv_len) for s in samples]),
        composite=np.array([float(s.composite) for s in samples]),
        packed=np.array(packed, dtype=bool),
    )


def _decode_busy(table: _DecodeTable, device: Device, c: AttentionConstants) -> Floats:
    per_head, packed = decode_rates(c.decode[PER_HEAD]), decode_rates(c.decode[PACKED])
    rates = DecodeRates(*(np.where(table.packed, p, h) for h, p in zip(per_head, packed, strict=True)))
    core = decode_times(table.work, rates, device, table.composite).core_s
    dims, index = np.unique(table.head_dim, return_inverse=True)
    fixed = np.array([by_head_dim(c.serving_decode_s, int(dim)) for dim in dims])[index]
    return np.asarray(c.launch_s + core + table.composite * fixed)


def _fit_prefill(
    samples: Sequence[AttentionSample], device: Device, initial: AttentionConstants, gap_s: float
) -> AttentionConstants:
    table = _prefill_columns(samples, device)
    composite, bare = bool(table.composite.any()), not bool(table.composite.all())
    parameters = Parameters(initial)
    for name, bounds in _PREFILL_BOUNDS.items():
        parameters.add_field(name, bounds)
    for dim in _dims(samples):
        for name, bounds in _DIM_BOUNDS.items():
            parameters.add_nested("prefill", str(dim), name, bounds, by_head_dim(_column(initial, name), dim))
        if composite:
            start = by_head_dim(initial.serving_prefill_s, dim)
            parameters.add_entry("serving_prefill_s", str(dim), _EXTRA_BOUNDS, start)
    if composite:
        for name, bounds in _SERVING_BOUNDS.items():
            parameters.add_field(name, bounds)
    if bare:
        parameters.add_field("launch_s", _LAUNCH_BOUNDS)
    measured = np.array([sample.period_s for sample in samples])
    return robust_fit(parameters, lambda c: _prefill_busy(table, device, c) + gap_s, measured)


def _fit_decode(
    samples: Sequence[AttentionSample],
    device: Device,
    initial: AttentionConstants,
    gap_s: float,
    fit_launch: bool,
) -> AttentionConstants:
    """Fits each kernel with every way to split, then both with the best ways."""
    packed = np.array(
        [packs_group(s.op, device.num_sms, initial.max_group, s.composite) for s in samples], dtype=bool
    )
    best = initial
    for kernel, mine in ((PER_HEAD, ~packed), (PACKED, packed)):
        some = _pick(samples, mine)
        if len(some) < MIN_SAMPLES:
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
    present = tuple(k for k, mine in ((PER_HEAD, ~packed), (PACKED, packed)) if mine.sum() >= MIN_SAMPLES)
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
    table = _decode_columns(samples, device, initial)
    parameters = Parameters(initial)
    for kernel in kernels:
        for name, bounds in _DECODE_BOUNDS.items():
            parameters.add_nested("decode", kernel, name, bounds, initial.decode[kernel][name])
    if table.composite.any():
        for dim in _dims(samples):
            start = by_head_dim(initial.serving_decode_s, dim)
            parameters.add_entry("serving_decode_s", str(dim), _EXTRA_BOUNDS, start)
    if fit_launch and not table.composite.all():
        parameters.add_field("launch_s", _LAUNCH_BOUNDS)
    measured = np.array([sample.period_s for sample in samples])
    return robust_fit(
        parameters, lambda c: _decode_busy(table, device, c) + gap_s, measured, max_evaluations
    )


def _with_useful_correction(
    samples: Sequence[AttentionSample], device: Device, plain: AttentionConstants, gap_s: float
) -> AttentionConstants:
    """Adds the grid over the residuals when it helps shapes that its fit has not seen."""
    table = _decode_columns(samples, device, plain)
    measured = np.array([sample.period_s for sample in samples]) - gap_s
    wanted = np.log(measured / _decode_busy(table, device, plain))
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


def _pick(samples: Sequence[AttentionSample], wanted: NDArray[np.bool_]) -> list[AttentionSample]:
    return [sample for sample, keep in zip(samples, wanted, strict=True) if keep]


def _errors(
    samples: Sequence[AttentionSample], device: Device, constants: AttentionConstants, gap_s: float
) -> Floats:
    measured = np.array([sample.period_s for sample in samples])
    return np.abs(predict_periods(samples, device, constants, gap_s) / measured - 1.0)


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
