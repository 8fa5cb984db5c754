"""Attention samples as columns, and the attention model over all of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kraken_sim.calibration.attention_correction import correction_factors
from kraken_sim.costs.attention import decode_rates, decode_step, prefill_rates, serving_rates
from kraken_sim.costs.attention_constants import SHARED, AttentionConstants
from kraken_sim.costs.attention_model import (
    DecodeRates,
    at_head_dim,
    by_head_dim,
    decode_times,
    prefill_times,
    serving_prefill_extra_s,
)
from kraken_sim.costs.attention_shape import (
    DecodeWork,
    PrefillWork,
    is_decode,
    prefill_work,
    tiling_of,
)
from kraken_sim.program.ops import Attention, DType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kraken_sim.hardware.device import Device

    Floats = NDArray[np.float64]


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
    kv_dtype: DType | None = None
    """The cache's format where that is not `dtype`."""
    rotary: bool = True
    """Whether a composite prefill has the rotary embedding in it, beside the write of the cache."""

    @property
    def op(self) -> Attention:
        """The op that was measured."""
        return Attention(
            batch=self.batch,
            q_len=self.q_len,
            kv_len=self.kv_len,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            causal=self.causal,
            dtype=self.dtype,
            kv_dtype=self.kv_dtype,
        )


@dataclass(frozen=True, slots=True)
class PrefillTable:
    """Prefill samples as columns."""

    work: PrefillWork
    head_dim: NDArray[np.int64]
    composite: Floats
    peak_flops: Floats


@dataclass(frozen=True, slots=True)
class DecodeTable:
    """Decode samples as columns; `variant` is the index of each one's kernel and head dimension in `variants`."""

    work: DecodeWork
    head_dim: NDArray[np.int64]
    kv_len: Floats
    composite: Floats
    variants: tuple[tuple[str, int], ...]
    variant: NDArray[np.int64]

    @property
    def kernels(self) -> list[str]:
        """The kernel of each sample."""
        return [self.variants[index][0] for index in self.variant]


def prefill_columns(samples: Sequence[AttentionSample], device: Device) -> PrefillTable:
    """The tiles of prefill samples on `device`."""
    works = [prefill_work(s.op, tiling_of(device.kernel_generation, s.head_dim), device.num_sms) for s in samples]
    work = PrefillWork(*np.array(works).T)
    rotary = np.array([float(s.rotary) for s in samples])
    return PrefillTable(
        work=work._replace(serving_q_bytes=work.serving_q_bytes * rotary),
        head_dim=np.array([s.head_dim for s in samples], dtype=np.int64),
        composite=np.array([float(s.composite) for s in samples]),
        peak_flops=np.array([device.peak_flops[s.dtype] for s in samples]),
    )


def prefill_busy(table: PrefillTable, device: Device, c: AttentionConstants) -> Floats:
    """Uncorrected `busy_s` of prefill samples [num_samples]; the same formulas as the cost functions."""
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


def decode_columns(samples: Sequence[AttentionSample], device: Device, c: AttentionConstants) -> DecodeTable:
    """The splits of decode samples on `device`; they depend on two constants of each kernel."""
    steps = [decode_step(sample.op, device, c, serving=sample.composite) for sample in samples]
    mine = [(step.kernel, sample.head_dim) for step, sample in zip(steps, samples, strict=True)]
    variants = tuple(sorted(set(mine)))
    return DecodeTable(
        work=DecodeWork(*np.array([step.work for step in steps]).T),
        head_dim=np.array([s.head_dim for s in samples], dtype=np.int64),
        kv_len=np.array([float(s.kv_len) for s in samples]),
        composite=np.array([float(s.composite) for s in samples]),
        variants=variants,
        variant=np.array([variants.index(one) for one in mine], dtype=np.int64),
    )


def decode_busy(table: DecodeTable, device: Device, c: AttentionConstants) -> Floats:
    """Uncorrected `busy_s` of decode samples [num_samples]; the same formulas as the cost functions."""
    of_variant = np.array([_rates(c, kernel, head_dim) for kernel, head_dim in table.variants])
    rates = DecodeRates(*of_variant[table.variant].T)
    core = decode_times(table.work, rates, device, table.composite).core_s
    dims, index = np.unique(table.head_dim, return_inverse=True)
    fixed = np.array([by_head_dim(c.serving_decode_s, int(dim)) for dim in dims])[index]
    return np.asarray(c.launch_s + core + table.composite * fixed)


def _rates(c: AttentionConstants, kernel: str, head_dim: int) -> DecodeRates:
    rates = decode_rates(c.decode[kernel])
    return at_head_dim(rates, c.decode_dim, head_dim) if kernel == SHARED else rates


def attention_periods(
    samples: Sequence[AttentionSample],
    device: Device,
    constants: AttentionConstants,
    graph_node_gap_s: float = 1e-6,
) -> Floats:
    """Predicted `period_s` of each sample [num_samples], seconds; the formulas of `attention_cost`."""
    result = np.empty(len(samples))
    decode = np.array([is_decode(sample.op) for sample in samples], dtype=bool)
    if not decode.all():
        some = pick(samples, ~decode)
        result[~decode] = prefill_busy(prefill_columns(some, device), device, constants)
    if decode.any():
        some = pick(samples, decode)
        table = decode_columns(some, device, constants)
        busy = decode_busy(table, device, constants)
        factors = correction_factors(constants.decode_correction, table.kernels, table.kv_len, table.work.ctas)
        result[decode] = busy * factors
    return result + graph_node_gap_s


def pick(samples: Sequence[AttentionSample], wanted: NDArray[np.bool_]) -> list[AttentionSample]:
    """The samples whose entry in `wanted` [num_samples] is true."""
    return [sample for sample, keep in zip(samples, wanted, strict=True) if keep]
