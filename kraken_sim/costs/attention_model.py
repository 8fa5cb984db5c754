"""The formulas of the attention model, written once for floats and for numpy arrays.

    prefill = launch + ((makespan ^ 3 + memory ^ 3) ^ (1/3)),   makespan from a soft maximum of
              throughput = (steps * step + tiles * (cta + fill * tile)) / SMs   and
              chain      = prologue + longest * serial ratio * step
    decode  = launch + soft maximum of (chain, CTAs, memory, few CTAs' pull) + cost of merging splits

Tile and wave picture: FlashAttention-2 (arXiv 2307.08691), FlashAttention-3 (arXiv 2407.08608), Flash-Decoding;
the soft maxima are ours.
"""

from __future__ import annotations

from math import exp, log
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kraken_sim.program.many import each, is_many

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kraken_sim.costs.attention_shape import DecodeWork, PrefillWork
    from kraken_sim.costs.types import Number
    from kraken_sim.hardware.device import Device
    from kraken_sim.program.many import Sizes

    Raised = Callable[[Number, Number], Number]

_REFERENCE_HEAD_DIM = 128.0
"""Head dimension that `tile_s`, `dim_cta_s` and `block_s` are stated for; a definition, as most models have it."""

_MEMORY_POWER = 3.0
"""Exponent of the soft maximum of arithmetic and memory in a prefill (1 adds them, infinity is a sharp maximum).
Assumed: the prefill constants were fitted with it in place."""

_FULL_SPEED_TOKENS = 64.0
"""Cached tokens of a part from which on a decode CTA pays its whole prologue; a shorter one stops filling its pipeline
earlier. Assumed: the decode constants were fitted with it in place."""

_PROLOGUE_POWER = 0.5
"""How a shorter part's prologue falls with its share of `_FULL_SPEED_TOKENS`. Assumed: the fitted
`prologue_s` rests on it."""

_MERGE_POWER = 0.25
"""How the cost of merging grows with the number of splits. Assumed: the fitted `split_step_s` rests on it."""


_DIM_FACTORS = ("latency", "memory")
"""Factors of the shared decode kernel by head dimension; a definition."""


class PrefillRates(NamedTuple):
    """What `prefill_times` needs of the constants; floats, or arrays of one value a sample."""

    efficiency: Number
    serial_ratio: Number
    prologue_s: Number
    cta_s: Number
    tile_s: Number
    overlap_power: Number
    tail_share: Number
    hbm_efficiency: Number
    l2_bytes_per_s: Number
    l2_share: Number


class ServingRates(NamedTuple):
    """Rates of the kernels a serving engine runs around a prefill: rotary embedding and KV-cache write."""

    hbm_efficiency: Number
    l2_bytes_per_s: Number
    l2_share: Number
    kv_weight: Number


class DecodeRates(NamedTuple):
    """Constants of one decode kernel (`AttentionConstants.decode` has the same names), SI units."""

    prologue_s: Number
    token_s: Number
    cta_s: Number
    dim_cta_s: Number
    group_cta_s: Number
    block_s: Number
    crowded_s: Number
    split_s: Number
    split_step_s: Number
    hbm_efficiency: Number
    l2_bytes_per_s: Number
    l2_share: Number
    l2_width: Number
    reread_bytes_per_s: Number
    cta_bytes_per_s: Number
    overlap_power: Number


class PrefillTimes(NamedTuple):
    """Seconds of a prefill after the launch: all of it, SM time (`compute_s`), memory time (`memory_s`)."""

    core_s: Number
    compute_s: Number
    memory_s: Number


class DecodeTimes(NamedTuple):
    """Seconds of a decode step after the launch.

    `parallel_s` is the part that more resources shorten, `sm_s` and `memory_s` what SMs and memory need of it.
    """

    core_s: Number
    parallel_s: Number
    sm_s: Number
    memory_s: Number


def larger(a: Number, b: Number) -> Number:
    """max(a, b) for floats and arrays alike."""
    return (a + b + abs(a - b)) / 2.0


def clipped(x: Number) -> Number:
    """`x` limited to [0, 1], for floats and arrays alike."""
    return (1.0 + abs(x) - abs(1.0 - x)) / 2.0


def prefill_times(
    work: PrefillWork,
    rates: PrefillRates,
    device: Device,
    peak_flops: float,
    clock_ratio: float = 1.0,
    raised: Raised = pow,
) -> PrefillTimes:
    """Times of the tiles of a prefill on all SMs of `device`; `peak_flops` of the op's dtype."""
    sm_flops = peak_flops / device.num_sms * rates.efficiency * clock_ratio
    step_s = 4.0 * work.q_rows * work.kv_rows * work.head_dim / sm_flops
    cta_s = rates.cta_s + rates.tile_s * work.fill * work.head_dim / _REFERENCE_HEAD_DIM
    throughput_s = (work.steps * step_s + work.tiles * cta_s) / device.num_sms
    chain_s = rates.prologue_s + work.longest * rates.serial_ratio * step_s
    load = throughput_s / chain_s
    power = rates.overlap_power
    soft = raised(1.0 + raised(load, power), 1.0 / power)
    compute_s = chain_s * (soft + rates.tail_share * load / (1.0 + load))
    held_bytes = rates.l2_share * device.l2_capacity_bytes
    hbm_rate = device.hbm_bandwidth_bytes_per_s * rates.hbm_efficiency
    memory_s = spilled_s(work.num_bytes, held_bytes, hbm_rate, rates.l2_bytes_per_s)
    core_s = raised(raised(compute_s, _MEMORY_POWER) + raised(memory_s, _MEMORY_POWER), 1.0 / _MEMORY_POWER)
    return PrefillTimes(core_s, compute_s, memory_s)


def spilled_s(num_bytes: Number, held_bytes: Number, hbm_rate: Number, l2_rate: Number) -> Number:
    """Seconds to move `num_bytes` of which L2 holds up to `held_bytes`; rates in bytes per second."""
    far = larger(num_bytes - held_bytes, 0.0)
    return far / hbm_rate + (num_bytes - far) / l2_rate


def serving_prefill_extra_s(work: PrefillWork, rates: ServingRates, device: Device) -> Number:
    """Seconds of rotary embedding and KV-cache write for the new tokens."""
    num_bytes = work.serving_q_bytes + rates.kv_weight * work.serving_kv_bytes
    return spilled_s(
        num_bytes,
        rates.l2_share * device.l2_capacity_bytes,
        device.hbm_bandwidth_bytes_per_s * rates.hbm_efficiency,
        rates.l2_bytes_per_s,
    )


def decode_times(
    work: DecodeWork, rates: DecodeRates, device: Device, warm: Number, raised: Raised = pow
) -> DecodeTimes:
    """Times of a decode step; `warm` 1 when the cache may still be in L2 from a previous call, else 0."""
    part = work.tokens_per_part
    shortfall = clipped(part / _FULL_SPEED_TOKENS)
    chain_s = rates.prologue_s * raised(shortfall, _PROLOGUE_POWER) + part * rates.token_s
    dim = work.head_dim / _REFERENCE_HEAD_DIM
    ctas_s = work.waves * (rates.cta_s + dim * (rates.dim_cta_s + rates.group_cta_s * work.group_tiles))
    blocks_s = work.blocks * rates.block_s * dim / device.num_sms
    sm_s = ctas_s + blocks_s + work.reread_bytes / rates.reread_bytes_per_s
    # Repeated streams through an LRU-like cache miss altogether soon after they exceed it.
    miss = clipped((work.kv_bytes / device.l2_capacity_bytes - rates.l2_share) / rates.l2_width)
    miss = 1.0 - warm * (1.0 - miss)
    hbm_rate = device.hbm_bandwidth_bytes_per_s * rates.hbm_efficiency
    memory_s = work.kv_bytes * (miss / hbm_rate + (1.0 - miss) / rates.l2_bytes_per_s)
    pull_s = work.kv_bytes / (work.ctas * work.splits * rates.cta_bytes_per_s)
    power = rates.overlap_power
    parallel_s = raised(chain_s, power) + raised(sm_s, power) + raised(memory_s, power) + raised(pull_s, power)
    parallel_s = raised(parallel_s, 1.0 / power)
    is_split = clipped(work.splits - 1.0)
    merge_s = is_split * (rates.split_s + rates.split_step_s * raised(work.splits, _MERGE_POWER))
    return DecodeTimes(parallel_s + merge_s + work.crowded * rates.crowded_s, parallel_s, sm_s, memory_s)


def at_head_dim(rates: DecodeRates, dims: Mapping[str, Mapping[str, float]], head_dim: int) -> DecodeRates:
    """The rates of the shared decode kernel at a head dimension, by its factors on latency and on memory."""
    if not dims:
        return rates
    latency, memory = (by_head_dim({dim: row[name] for dim, row in dims.items()}, head_dim) for name in _DIM_FACTORS)
    return rates._replace(
        prologue_s=rates.prologue_s * latency,
        token_s=rates.token_s * latency,
        cta_s=rates.cta_s * latency,
        dim_cta_s=rates.dim_cta_s * latency,
        hbm_efficiency=rates.hbm_efficiency / memory,
        cta_bytes_per_s=rates.cta_bytes_per_s / memory,
    )


def by_head_dim(values: Mapping[str, float], head_dim: int) -> float:
    """Value at `head_dim`, linear between known head dimensions and constant outside of them."""
    exact = values.get(str(head_dim))
    if exact is not None:
        return exact
    known = sorted((int(key), value) for key, value in values.items())
    return interpolate([float(key) for key, _ in known], [value for _, value in known], float(head_dim))


def interpolate(x: list[float], y: list[float], at: float) -> float:
    """The value at `at` of knots (x ascending, y), linear between them and constant outside of them."""
    if at <= x[0]:
        return y[0]
    for left in range(len(x) - 1):
        if at <= x[left + 1]:
            share = (at - x[left]) / (x[left + 1] - x[left])
            return y[left] + share * (y[left + 1] - y[left])
    return y[-1]


def attention_correction_factor(
    correction: Mapping[str, Mapping[str, float]], kernel: str, kv_len: Sizes, ctas: Sizes
) -> Sizes:
    """Factor on a decode time, bilinear in log kv_len and log CTAs; 1 where `correction` has no such kernel."""
    prefix = f"{kernel} "
    lengths = [int(key.removeprefix(prefix)) for key in correction if key.startswith(prefix)]
    if not lengths:
        return 1.0
    if is_many(kv_len) or is_many(ctas):
        return _correction_factors(
            {length: correction[f"{prefix}{length}"] for length in sorted(lengths)}, kv_len, ctas
        )
    low, high, share = _bracket(lengths, kv_len)
    lower = _row_log(correction[f"{prefix}{low}"], ctas)
    upper = lower if high == low else _row_log(correction[f"{prefix}{high}"], ctas)
    return exp(lower + share * (upper - lower))


def _correction_factors(rows: Mapping[int, Mapping[str, float]], kv_len: Sizes, ctas: Sizes) -> Sizes:
    """The same at many points: the logarithms of all rows at every number of CTAs, then between two of them."""
    kv_len, ctas = np.broadcast_arrays(kv_len, ctas)
    logs = np.stack([each(lambda at, row=row: _row_log(row, int(at)), ctas) for row in rows.values()])  # type: ignore[misc]
    places = {length: place for place, length in enumerate(rows)}
    found, back = np.unique(kv_len, return_inverse=True)
    brackets = [_bracket([*rows], int(length)) for length in found.tolist()]
    low, high, share = (np.array(column)[back] for column in zip(*brackets, strict=True))
    points = np.arange(len(ctas))
    lower = logs[[places[length] for length in low.tolist()], points]
    upper = logs[[places[length] for length in high.tolist()], points]
    return each(exp, lower + share * (upper - lower))


def _row_log(row: Mapping[str, float], ctas: int) -> float:
    low, high, share = _bracket([int(key) for key in row], ctas)
    lower = log(row[str(low)])
    return lower + share * (log(row[str(high)]) - lower)


def _bracket(knots: list[int], at: int) -> tuple[int, int, float]:
    """The knots below and above `at`, and how far along their logarithms it lies."""
    low = max((knot for knot in knots if knot <= at), default=min(knots))
    high = min((knot for knot in knots if knot >= low and knot >= at), default=low)
    if high <= low:
        return low, low, 0.0
    return low, high, max(0.0, log(at / low) / log(high / low))
