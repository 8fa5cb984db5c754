"""Time and launch shape of one matrix product on one GPU (formulas in `kraken_sim.costs.gemm_model`).

The library's choice is taken to be the fastest candidate over its tiles and splits of k, or a matrix-vector
kernel for a single row. Persistent kernels (Hopper, Blackwell) launch about one CTA an SM and each walks over
several tiles; older generations launch one CTA a tile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kraken_sim.costs.gemm_constants import GemmConstants
from kraken_sim.costs.gemm_correction import gemm_correction_factor
from kraken_sim.costs.gemm_model import (
    Demand,
    Rates,
    busy_s,
    compute_s,
    gemv_s,
    max_split,
    output_tiles,
    per_k_s,
    rates,
    split_cost_s,
)
from kraken_sim.costs.gemm_shapes import (
    FULL_ALIGNMENT_BYTES,
    Tile,
    is_persistent,
    offered_tiles,
    persistent_grid,
    row_alignment_bytes,
)
from kraken_sim.costs.types import KernelCost
from kraken_sim.errors import InputError, Problem
from kraken_sim.program.formats import DType
from kraken_sim.program.many import POINT, POINTS, at, is_many, least

if TYPE_CHECKING:
    from kraken_sim.hardware.device import Device
    from kraken_sim.program.many import Sizes
    from kraken_sim.program.ops import Gemm

__all__ = ["GemmConstants", "gemm_cost", "serving_quantize_s"]

_GEMV_ROWS_PER_CTA = 4
"""Outputs that one CTA of a matrix-vector kernel computes, assumed: it says how the kernel shares SMs with others, not
how long it takes alone."""

_GEMV_CTAS_PER_SM = 16
"""CTAs of such a kernel that one SM holds, assumed: as many of 128 threads as an SM has room for (CUDA C++ Programming
Guide, compute capabilities)."""


class _Choice(NamedTuple):
    """A candidate: its total, compute and fixed time in seconds, tile (None: matrix-vector) and split."""

    busy_s: Sizes
    compute_s: Sizes
    fixed_s: Sizes
    tile: Any
    """A `Tile`; in between, of many products, its number."""
    split: Sizes
    vector: Sizes = False
    """Of many products: those of a matrix-vector kernel, whatever `tile` says."""


def gemm_cost(
    op: Gemm,
    device: Device,
    constants: GemmConstants,
    clock_ratio: float = 1.0,
    weights_warm: bool = False,
) -> KernelCost:
    """Cost of y[m, n] = x[m, k] · W[n, k]ᵀ alone on `device`.

    Args:
        op: The product; sizes in elements, all at least 1.
        device: Datasheet of the GPU.
        constants: Fitted constants of the GPU for the op's number format.
        clock_ratio: Sustained clock over the clock of a short kernel; scales the arithmetic rate. A long
            kernel lowers its own clock too; the lower of the two counts.
        weights_warm: False for a pass of a model, whose weights come from HBM. True for a benchmark that
            replays the same few copies of the weights, which stay in L2 as far as they fit.

    Raises:
        InputError: a size below 1, a clock ratio outside (0, 1], or a dtype the device has no rate for.
    """
    peak_flops = _peak_flops(op, device, clock_ratio)
    alignment = row_alignment_bytes(op.n, op.k, op.input_dtype, op.dtype)
    many = is_many(op.m)
    maths = POINTS if many else POINT
    demand = Demand(
        m=op.m,
        n=op.n,
        k=op.k,
        input_bytes=op.bytes_per_input,
        weight_bytes=op.bytes_per_weight,
        output_bytes=op.dtype.num_bytes,
        reads_output=1 * op.accumulate,
        bias=1 * op.bias,
        replayed=1.0 if weights_warm else 0.0,
        float16=1.0 if op.input_dtype is DType.FLOAT16 else 0.0,
        efficiency=_aligned_efficiency(alignment, constants),
        clock_ratio=clock_ratio,
    )
    offered = rates(demand, device, peak_flops, constants, maths)
    choose = best_of_many if many else _best_choice
    best = choose(demand, device, offered, constants)
    bias_s = demand.bias * constants.bias_s
    best = best._replace(busy_s=best.busy_s + bias_s, fixed_s=best.fixed_s + bias_s)
    return _kernel_cost(op, device, peak_flops, offered, best, constants)


def _aligned_efficiency(alignment: Sizes, c: GemmConstants) -> Sizes:
    """Share of the rates that is left to rows of that alignment."""
    if is_many(alignment):
        found = np.ones(len(alignment))
        for key, efficiency in c.misaligned_efficiency.items():
            found[alignment == int(key)] = efficiency
        return found
    return 1.0 if alignment == FULL_ALIGNMENT_BYTES else c.misaligned_efficiency[str(alignment)]


def serving_quantize_s(op: Gemm, constants: GemmConstants) -> float:
    """What a serving engine's kernels that quantise x[m, k] add to a product in public benchmarks, in seconds.

    Published rows of quantised products hold them; a Program has ops of its own for them.
    """
    moved_bytes = op.m * op.k * (op.dtype.num_bytes + op.bytes_per_input)
    return constants.serving_quantize_s + moved_bytes / constants.serving_quantize_bytes_per_s


def _best_choice(d: Demand, device: Device, r: Rates, c: GemmConstants) -> _Choice:
    """The fastest candidate; arithmetic alone ranks the unsplit ones, as all move the same bytes."""
    tiles = offered_tiles(device.kernel_generation, c.only_tile_rows, c.only_tile_cols)
    counts = [output_tiles(d, tile) for tile in tiles]
    rates_per_k = [per_k_s(d, tile, r, POINT) for tile in tiles]
    computes = [
        compute_s(d, tile, count, 1, k_s, r, c, POINT)
        for tile, count, k_s in zip(tiles, counts, rates_per_k, strict=True)
    ]
    compute = min(computes)
    fixed_s = c.launch_s + c.prologue_s
    busy = busy_s(compute, r.memory_s, c, POINT)
    best = _Choice(busy, compute - c.prologue_s, fixed_s, tiles[computes.index(compute)], 1)
    if c.only_tile_rows:
        return best
    if d.m == 1:
        vector_s = gemv_s(d, r, device, c)
        if vector_s < best.busy_s:
            best = _Choice(vector_s, d.k * c.gemv_k_element_s, c.gemv_launch_s, None, 1)
    for tile, count, k_s in zip(tiles, counts, rates_per_k, strict=True):
        largest = max_split(d, tile, count, r.num_sms, c, POINT)
        for split in {largest, largest // 2} - {0, 1}:
            extra_s = split_cost_s(d, split, r, c)
            if c.launch_s + r.memory_s + extra_s >= best.busy_s:
                continue
            compute = compute_s(d, tile, count, split, k_s, r, c, POINT)
            busy = busy_s(compute, r.memory_s, c, POINT) + extra_s
            if busy < best.busy_s:
                best = _Choice(busy, compute - c.prologue_s, fixed_s + c.split_s, tile, split)
    return best


def best_of_many(d: Demand, device: Device, r: Rates, c: GemmConstants) -> _Choice:
    """`_best_choice` of many products, whose sizes are arrays [num_products], with a row for each candidate.

    Of equal ones the first counts, as there.
    """
    offered = offered_tiles(device.kernel_generation, c.only_tile_rows, c.only_tile_cols)
    tile = Tile(*np.array(offered).T[:, :, None])
    counts = output_tiles(d, tile)
    k_s = per_k_s(d, tile, r, POINTS)
    computes = compute_s(d, tile, counts, 1, k_s, r, c, POINTS)
    index = np.argmin(computes, axis=0)
    compute = np.take_along_axis(computes, index[None], 0)[0]
    fixed_s = np.full(len(index), c.launch_s + c.prologue_s)
    busy = busy_s(compute, r.memory_s, c, POINTS)
    chosen = [busy, compute - c.prologue_s, fixed_s, index, np.ones(len(index), dtype=np.int64)]
    vector = np.zeros(len(index), dtype=bool)
    if not c.only_tile_rows:
        vector_s = np.where(d.m == 1, gemv_s(d, r, device, c), np.inf)
        vector = vector_s < busy
        streamed = (vector_s, np.broadcast_to(d.k * c.gemv_k_element_s, busy.shape), c.gemv_launch_s, index, 1)
        chosen = [np.where(vector, new, old) for new, old in zip(streamed, chosen, strict=True)]
        found = _best_split(d, tile, counts, k_s, r, c, chosen[0])
        better = found.busy_s < chosen[0]
        split = (found.busy_s, found.compute_s, fixed_s + c.split_s, found.tile, found.split)
        chosen = [np.where(better, new, old) for new, old in zip(split, chosen, strict=True)]
        vector &= ~better
    tiles = Tile(*(axis[chosen[3], 0] for axis in tile))
    return _Choice(chosen[0], chosen[1], chosen[2], tiles, chosen[4], vector)


def _best_split(
    d: Demand, tile: Tile, counts: Sizes, k_s: Sizes, r: Rates, c: GemmConstants, below_s: Sizes
) -> _Choice:
    """The fastest of the split candidates that may be faster than `below_s`; infinite where there is none.

    The tile is its number; no kernel is faster than its launch, its memory traffic and its partial sums.
    """
    largest = max_split(d, tile, counts, r.num_sms, c, POINTS)
    splits = np.stack((largest, largest // 2), axis=1)
    extra_s = split_cost_s(d, splits, r, c)
    rows, halves, columns = np.nonzero((splits > 1) & (c.launch_s + r.memory_s + extra_s < below_s))
    one, own, split = at(d, columns), at(r, columns), splits[rows, halves, columns]
    picked = Tile(*(axis[rows, 0] for axis in tile))
    compute = compute_s(one, picked, counts[rows, columns], split, k_s[rows, columns], own, c, POINTS)
    busy = np.full(splits.shape, np.inf)
    busy[rows, halves, columns] = busy_s(compute, own.memory_s, c, POINTS) + extra_s[rows, halves, columns]
    computes = np.zeros(splits.shape)
    computes[rows, halves, columns] = compute - c.prologue_s
    flat = (-1, splits.shape[2])
    best = np.argmin(busy.reshape(flat), axis=0)
    busy_of, compute_of, split_of = (
        np.take_along_axis(values.reshape(flat), best[None], 0)[0] for values in (busy, computes, splits)
    )
    return _Choice(busy_of, compute_of, 0.0, best // 2, split_of)


def _kernel_cost(op: Gemm, device: Device, peak_flops: float, r: Rates, best: _Choice, c: GemmConstants) -> KernelCost:
    maximum = POINTS.maximum if is_many(op.m) else max
    floor_s = maximum(op.flops / peak_flops, r.hbm_bytes / device.hbm_bandwidth_bytes_per_s)
    corrected_s = maximum(best.busy_s * gemm_correction_factor(c, op.m, op.n, op.k), floor_s)
    factor = corrected_s / best.busy_s
    ctas, ctas_per_sm, tiles, persistent, detail = _launch_shape(op, device, best)
    return KernelCost(
        busy_s=corrected_s,
        ctas=ctas,
        ctas_per_sm=ctas_per_sm,
        tiles=tiles,
        persistent=persistent,
        flops=op.flops,
        hbm_bytes=r.hbm_bytes,
        fixed_s=best.fixed_s * factor,
        compute_s=best.compute_s * factor,
        memory_s=r.memory_s * factor,
        detail=detail,
    )


def _launch_shape(op: Gemm, device: Device, best: _Choice) -> tuple[int, int, int, bool, str]:
    tile = best.tile
    if is_many(op.m):
        return _launch_shapes(op, device, best)
    if tile is None:
        ctas = -(-op.n // _GEMV_ROWS_PER_CTA)
        return ctas, _GEMV_CTAS_PER_SM, ctas, False, f"matrix-vector, {ctas} CTAs"
    tiles = -(-op.m // tile.rows) * -(-op.n // tile.cols) * best.split
    cut = f"tile {tile.rows}x{tile.cols}, split-K {best.split}"
    if not is_persistent(device.kernel_generation):
        waves = -(-tiles // (device.num_sms * tile.ctas_per_sm))
        detail = f"{cut}, {waves} wave{'s' if waves != 1 else ''} of {tiles} CTAs"
        return tiles, tile.ctas_per_sm, tiles, False, detail
    grid = persistent_grid(op.m, op.n, device.num_sms)
    if grid.dynamic:
        # A dynamic schedule keeps every SM that it gets busy to the end, as a grid of one tile a CTA does.
        return grid.tiles, 1, grid.tiles, False, f"{cut}; {grid.tiles} tiles fetched by {grid.ctas} persistent CTAs"
    return grid.ctas, 1, grid.tiles, True, f"{cut}; {grid.tiles} tiles dealt to {grid.ctas} persistent CTAs"


def _launch_shapes(op: Gemm, device: Device, best: _Choice) -> tuple[Sizes, Sizes, Sizes, Sizes, str]:
    """The same of many products, without words."""
    tile, vector, one_by_one = best.tile, best.vector, -(-op.n // _GEMV_ROWS_PER_CTA)
    if is_persistent(device.kernel_generation):
        grid = persistent_grid(op.m, op.n, device.num_sms)
        tiles = grid.tiles
        shape = (np.where(grid.dynamic, tiles, grid.ctas), 1, tiles, ~grid.dynamic)
    else:
        tiles = -(-op.m // tile.rows) * -(-op.n // tile.cols) * best.split
        shape = (tiles, tile.ctas_per_sm, tiles, False)
    streamed = (one_by_one, _GEMV_CTAS_PER_SM, one_by_one, False)
    ctas, per_sm, tiles, persistent = (np.where(vector, *pair) for pair in zip(streamed, shape, strict=True))
    return ctas, per_sm, tiles, persistent, ""


def _peak_flops(op: Gemm, device: Device, clock_ratio: float) -> float:
    problems = [
        Problem(f"gemm.{name}", "must be at least 1", value, example="4096")
        for name, value in (("m", least(op.m)), ("n", least(op.n)), ("k", least(op.k)))
        if value < 1
    ]
    if not 0.0 < clock_ratio <= 1.0:
        problems.append(Problem("clock_ratio", "must be above 0 and at most 1", clock_ratio, example="0.9"))
    peak = device.peak_flops.get(op.input_dtype)
    if peak is None:
        known = ", ".join(sorted(str(dtype) for dtype in device.peak_flops))
        message = f"{device.name} has no arithmetic rate for it"
        problems.append(Problem("gemm.dtype", message, str(op.input_dtype), example=known))
    if problems or peak is None:
        raise InputError(problems)
    return peak
