"""Time and launch shape of one matrix product on one GPU (formulas in `kraken_sim.costs.gemm_model`).

The library's choice is taken to be the fastest candidate over its tiles and splits of k, or a matrix-vector
kernel for a single row. Persistent kernels (Hopper, Blackwell) launch about one CTA an SM and each walks over
several tiles; older generations launch one CTA a tile.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from kraken_sim.costs.gemm_constants import GemmConstants
from kraken_sim.costs.gemm_correction import gemm_correction_factor
from kraken_sim.costs.gemm_model import (
    Demand,
    Maths,
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

if TYPE_CHECKING:
    from kraken_sim.hardware.device import Device
    from kraken_sim.program.ops import Gemm

__all__ = ["GemmConstants", "gemm_cost", "serving_quantize_s"]

SCALAR = Maths(max, min, ceil)
_GEMV_ROWS_PER_CTA = 4
"""Outputs that one CTA of a matrix-vector kernel computes, assumed: it says how the kernel shares SMs with others, not
how long it takes alone."""

_GEMV_CTAS_PER_SM = 16
"""CTAs of such a kernel that one SM holds, assumed: as many of 128 threads as an SM has room for (CUDA C++ Programming
Guide, compute capabilities)."""


class _Choice(NamedTuple):
    """A candidate: its total, compute and fixed time in seconds, tile (None: matrix-vector) and split."""

    busy_s: float
    compute_s: float
    fixed_s: float
    tile: Tile | None
    split: int


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
    aligned = alignment == FULL_ALIGNMENT_BYTES
    demand = Demand(
        m=op.m,
        n=op.n,
        k=op.k,
        input_bytes=op.bytes_per_input,
        weight_bytes=op.bytes_per_weight,
        output_bytes=op.dtype.num_bytes,
        reads_output=1 if op.accumulate else 0,
        bias=1 if op.bias else 0,
        replayed=1.0 if weights_warm else 0.0,
        efficiency=1.0 if aligned else constants.misaligned_efficiency[str(alignment)],
        clock_ratio=clock_ratio,
    )
    offered = rates(demand, device, peak_flops, constants, SCALAR)
    best = _best_choice(demand, device, offered, constants)
    if op.bias:
        best = best._replace(busy_s=best.busy_s + constants.bias_s, fixed_s=best.fixed_s + constants.bias_s)
    return _kernel_cost(op, device, peak_flops, offered, best, constants)


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
    rates_per_k = [per_k_s(d, tile, r, SCALAR) for tile in tiles]
    computes = [
        compute_s(d, tile, count, 1, k_s, r, c, SCALAR)
        for tile, count, k_s in zip(tiles, counts, rates_per_k, strict=True)
    ]
    compute = min(computes)
    fixed_s = c.launch_s + c.prologue_s
    busy = busy_s(compute, r.memory_s, c, SCALAR)
    best = _Choice(busy, compute - c.prologue_s, fixed_s, tiles[computes.index(compute)], 1)
    if c.only_tile_rows:
        return best
    if d.m == 1:
        vector_s = gemv_s(d, r, device, c)
        if vector_s < best.busy_s:
            best = _Choice(vector_s, d.k * c.gemv_k_element_s, c.gemv_launch_s, None, 1)
    for tile, count, k_s in zip(tiles, counts, rates_per_k, strict=True):
        largest = max_split(d, tile, count, r.num_sms, SCALAR)
        for split in {largest, largest // 2} - {0, 1}:
            extra_s = split_cost_s(d, split, r, c)
            if c.launch_s + r.memory_s + extra_s >= best.busy_s:
                continue
            compute = compute_s(d, tile, count, split, k_s, r, c, SCALAR)
            busy = busy_s(compute, r.memory_s, c, SCALAR) + extra_s
            if busy < best.busy_s:
                best = _Choice(busy, compute - c.prologue_s, fixed_s + c.split_s, tile, split)
    return best


def _kernel_cost(op: Gemm, device: Device, peak_flops: float, r: Rates, best: _Choice, c: GemmConstants) -> KernelCost:
    floor_s = max(op.flops / peak_flops, r.hbm_bytes / device.hbm_bandwidth_bytes_per_s)
    corrected_s = max(best.busy_s * gemm_correction_factor(c, op.m, op.n, op.k), floor_s)
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


def _peak_flops(op: Gemm, device: Device, clock_ratio: float) -> float:
    problems = [
        Problem(f"gemm.{name}", "must be at least 1", value, example="4096")
        for name, value in (("m", op.m), ("n", op.n), ("k", op.k))
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
