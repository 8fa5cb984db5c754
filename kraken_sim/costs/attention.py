"""What an attention kernel costs: flash attention over tiles in prefill, split key/value streams in decode."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kraken_sim.costs.attention_constants import PACKED, PER_HEAD, SHARED, AttentionConstants
from kraken_sim.costs.attention_model import (
    DecodeRates,
    PrefillRates,
    ServingRates,
    at_head_dim,
    attention_correction_factor,
    by_head_dim,
    decode_times,
    prefill_times,
    serving_prefill_extra_s,
)
from kraken_sim.costs.attention_shape import (
    attention_flops,
    decode_work,
    is_decode,
    packs_group,
    prefill_work,
    shared_work,
    tiling_of,
    within_window,
)
from kraken_sim.costs.types import KernelCost
from kraken_sim.errors import InputError, Problem
from kraken_sim.program.many import POINTS, least, maths_for, same, where, whole_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.attention_shape import DecodeWork
    from kraken_sim.hardware.device import Device
    from kraken_sim.program.many import Sizes
    from kraken_sim.program.ops import Attention

__all__ = ["AttentionConstants", "attention_cost", "serving_attention_cost"]

_CTAS_PER_SM = {PER_HEAD: 4, PACKED: 1, SHARED: 4}
"""CTAs of a decode kernel that one SM holds at a time, assumed: a packed one fills its SM (TensorRT-LLM's XQA kernels),
four of the small ones share it. It says which SMs a kernel beside others takes, not how long it takes alone."""

_WORDS = {PER_HEAD: "one CTA a head", PACKED: "packed", SHARED: "one CTA a key/value head"}

_MOST_PROLOGUE = 0.9
"""Share of a prefill's time at most that is counted as fixed; a limit of ours, so that a part remains which more SMs
shorten."""


def attention_cost(
    op: Attention, device: Device, constants: AttentionConstants, clock_ratio: float = 1.0
) -> KernelCost:
    """A bare attention kernel: q, k and v were just written in prefill; the cache of a decode step comes from HBM.

    Args:
        op: q_len == kv_len is a prefill, q_len < kv_len a chunk of one, q_len == 1 < kv_len a decode step.
        device: Datasheet of the GPU.
        constants: Fitted constants of the GPU.
        clock_ratio: Clock under load over boost clock; scales arithmetic.

    Raises:
        InputError: a size is not positive, or query heads do not divide by key/value heads.
    """
    _check(op)
    op = within_window(op)
    if same(is_decode(op)):
        return _decode_cost(op, device, constants, serving=False)
    return _prefill_cost(op, device, constants, clock_ratio, serving=False)


def serving_attention_cost(
    op: Attention, device: Device, constants: AttentionConstants, clock_ratio: float = 1.0
) -> KernelCost:
    """The attention op of a serving engine as public benchmarks measure it, all of its small kernels as one.

    To `attention_cost` it adds the rotary embedding, the write of new keys and values to the paged cache, and the
    fixed times of these kernels. In a decode step the cache may still be in L2 from the previous repetition, and
    small batches use the kernel with one CTA a query head. Use it to compare with rows such as those of
    ai-dynamo/aiconfigurator; a Program has ops of its own for the copy and the embedding.

    Raises:
        InputError: as `attention_cost`.
    """
    _check(op)
    op = within_window(op)
    if is_decode(op):
        return _decode_cost(op, device, constants, serving=True)
    return _prefill_cost(op, device, constants, clock_ratio, serving=True)


def _prefill_cost(
    op: Attention, device: Device, constants: AttentionConstants, clock_ratio: float, serving: bool
) -> KernelCost:
    head_dim, maths = same(op.head_dim), maths_for(op.batch, op.q_len, op.kv_len, op.num_heads)
    tiling = tiling_of(device.kernel_generation, head_dim)
    work = prefill_work(op, tiling, device.num_sms)
    peak_flops = device.rate_flops(op.dtype)
    rates = prefill_rates(constants, head_dim)
    times = prefill_times(work, rates, device, peak_flops, clock_ratio, maths.power)
    extra_s = 0.0
    if serving:
        extra_s = by_head_dim(constants.serving_prefill_s, head_dim)
        extra_s += serving_prefill_extra_s(work, serving_rates(constants), device)
    flops = attention_flops(op)
    core_s = maths.maximum(times.core_s, flops / (peak_flops * clock_ratio))
    tiles = whole_part(work.tiles)
    slots = device.num_sms * tiling.ctas_per_sm
    prologue_s = maths.minimum(constants.prologue_s, _MOST_PROLOGUE * core_s)
    return KernelCost(
        busy_s=constants.launch_s + core_s + extra_s,
        ctas=maths.minimum(tiles, slots) if constants.persistent else _equal_ctas(op, tiles, slots),
        ctas_per_sm=tiling.ctas_per_sm,
        tiles=tiles,
        persistent=bool(constants.persistent),
        flops=flops,
        hbm_bytes=work.num_bytes,
        fixed_s=constants.launch_s + prologue_s + extra_s,
        compute_s=maths.maximum(times.compute_s - prologue_s, 0.0),
        memory_s=times.memory_s,
        detail="" if maths is POINTS else f"tile {tiling.q_tile}x{tiling.kv_tile}, {tiles / slots:.1f} waves",
    )


def _equal_ctas(op: Attention, tiles: Sizes, slots: int) -> Sizes:
    """CTAs of equal length that do the same work: causal tiles do half of the longest one's on average.

    A grid of less than two tiles a slot runs as long as its longest tile, and its short ones fill in elsewhere.
    """
    return where(op.causal & (tiles < 2 * slots), -(-tiles // 2), tiles)


class DecodeStep(NamedTuple):
    """The kernel of a decode step, its constants and its work."""

    kernel: str
    rates: DecodeRates
    work: DecodeWork


def decode_step(op: Attention, device: Device, constants: AttentionConstants, *, serving: bool) -> DecodeStep:
    """Which kernel runs a decode step, and what it has to do; `serving` as a serving engine's attention op."""
    if not serving and SHARED in constants.decode:
        values = constants.decode[SHARED]
        work = shared_work(op, device.num_sms, values["splits_per_sm"], values["tokens_per_split"])
        return DecodeStep(SHARED, at_head_dim(decode_rates(values), constants.decode_dim, same(op.head_dim)), work)
    packed = packs_group(op, device.num_sms, constants.max_group, serving)
    kernel = PACKED if packed else PER_HEAD
    values, most = constants.decode[kernel], constants.max_group
    work = decode_work(op, packed, device.num_sms, values["splits_per_sm"], values["tokens_per_split"], most)
    if serving and packed:
        work = work._replace(kv_bytes=work.kv_bytes * constants.serving_packed_cache_share)
    return DecodeStep(kernel, decode_rates(values), work)


def _decode_cost(op: Attention, device: Device, constants: AttentionConstants, serving: bool) -> KernelCost:
    kernel, rates, work = decode_step(op, device, constants, serving=serving)
    maths = maths_for(op.batch, op.kv_len, op.num_heads)
    times = decode_times(work, rates, device, 1.0 if serving else 0.0, maths.power)
    extra_s = by_head_dim(constants.serving_decode_s, op.head_dim) if serving else 0.0
    factor = attention_correction_factor(constants.decode_correction, kernel, op.kv_len, whole_part(work.ctas))
    flops = attention_flops(op)
    busy_s = (constants.launch_s + times.core_s + extra_s) * factor
    if not serving:
        busy_s = maths.maximum(busy_s, work.kv_bytes / device.hbm_bandwidth_bytes_per_s)
    ctas = whole_part(work.ctas * work.splits)
    parallel_s = maths.minimum(times.parallel_s * factor, busy_s)
    return KernelCost(
        busy_s=busy_s,
        ctas=ctas,
        ctas_per_sm=_CTAS_PER_SM[kernel],
        tiles=ctas,
        persistent=False,
        flops=flops,
        hbm_bytes=work.kv_bytes,
        fixed_s=busy_s - parallel_s,
        compute_s=maths.minimum(times.sm_s, busy_s),
        memory_s=maths.minimum(times.memory_s, busy_s),
        detail="" if maths is POINTS else _decode_detail(kernel, int(work.splits)),
    )


def _decode_detail(kernel: str, splits: int) -> str:
    return f"{_WORDS[kernel]}, {splits} split{'s' if splits > 1 else ''}"


def prefill_rates(constants: AttentionConstants, head_dim: int) -> PrefillRates:
    """The constants of a prefill at one head dimension."""
    by_dim = constants.prefill
    return PrefillRates(
        efficiency=by_head_dim({key: row["efficiency"] for key, row in by_dim.items()}, head_dim),
        serial_ratio=by_head_dim({key: row["serial_ratio"] for key, row in by_dim.items()}, head_dim),
        prologue_s=constants.prologue_s,
        cta_s=constants.cta_s,
        tile_s=constants.tile_s,
        overlap_power=constants.overlap_power,
        tail_share=constants.tail_share,
        hbm_efficiency=constants.hbm_efficiency,
        l2_bytes_per_s=constants.l2_bytes_per_s,
        l2_share=constants.l2_share,
    )


def serving_rates(constants: AttentionConstants) -> ServingRates:
    """The constants of the kernels that a serving engine runs around a prefill."""
    return ServingRates(
        constants.serving_hbm_efficiency,
        constants.serving_l2_bytes_per_s,
        constants.serving_l2_share,
        constants.serving_kv_weight,
    )


def decode_rates(values: Mapping[str, float]) -> DecodeRates:
    """The constants of one decode kernel."""
    return DecodeRates(*(values[name] for name in DecodeRates._fields))


def _check(op: Attention) -> None:
    problems = [
        Problem(name, "must be positive", least(getattr(op, name)), "1")
        for name in ("batch", "q_len", "kv_len", "num_heads", "num_kv_heads", "head_dim", "window")
        if getattr(op, name) is not None and not least(getattr(op, name)) > 0
    ]
    if not problems and least(-(op.num_heads % op.num_kv_heads)):
        problems.append(Problem("num_heads", f"must be a multiple of num_kv_heads {op.num_kv_heads}", op.num_heads))
    if problems:
        raise InputError(problems)
