"""How libraries cut a matrix product into tiles: tile sets by GPU generation, splits of k, alignment."""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kraken_sim.program.many import is_many, maths_for, where

if TYPE_CHECKING:
    from kraken_sim.program.formats import DType
    from kraken_sim.program.many import Sizes


class Tile(NamedTuple):
    """An output tile of `rows` x `cols` elements that one CTA computes; `ctas_per_sm` fit on one SM."""

    rows: Sizes
    cols: Sizes
    ctas_per_sm: Sizes


PERSISTENT_GENERATIONS = frozenset({"hopper", "blackwell"})
"""Generations whose library kernels launch about one CTA an SM and let each walk over several tiles."""

CLUSTER_CTAS = 2
"""CTAs of a thread-block cluster; measured: grids of cuBLAS kernels on Hopper are multiples of it."""

_READ_OFF_SMS = 132
"""SMs of the H200 (datasheet) whose kernels the numbers below were read off: names and grids of 1,012 `nvjet` kernels,
CUDA 13.0."""

_LARGEST_TILE = 256 * 128
"""Elements of the largest tile; measured, read off kernel names."""

_TILE_ROWS = (64, 128, 256)
"""Heights of tiles that one-wave grids choose from; measured, read off kernel names."""

_TILE_WIDTHS = (*range(8, 184, 8), 192, 208, 216, 256)
"""Widths of tiles, ascending; measured, read off kernel names."""

_CLUSTERED_WIDTH, _CLUSTERED_CTAS = 72, 104
"""Small tiles come in clusters of 8 CTAs, of which 13 or 14 find room on 132 SMs; measured, read off grids."""

_LARGE_CLUSTER = 8
"""CTAs of the clusters that small tiles come in; measured, read off grids."""

_WIDTH_STEP, _WIDEST_EVEN = 8, 216
"""Tiles of 64 rows have widths in steps of 8; the widest that divides a product evenly; measured, read off names."""

_TWICE_COVERED = 2.2
"""Tiles of 192 x 192 stretch two tiles a CTA a little beyond 256 x 128; fitted to the schedules that were read off."""

_TYPICAL_TILE = 25_000
"""Elements of a tile in a dynamic schedule, whose count is not in the grid; fitted to the schedules that were read
off."""

_GRID_STEP = 8
"""One-wave grids leave a few SMs free: 128 CTAs on 132 SMs; measured, read off grids."""

MAX_SPLIT = 16
"""Most parts that k is split into. Assumed: cuBLAS does not publish its rule, and the GEMM constants were fitted with
this one."""

MIN_K_PER_SPLIT = 256
"""Least elements of k in a part of a split. Assumed, as `MAX_SPLIT` is."""

FULL_ALIGNMENT_BYTES = 16
"""Widest vector load, and the row alignment that bulk copies into shared memory need
(CUDA C++ Programming Guide, asynchronous copies and tensor maps)."""

# Hopper computes the transposed product for few rows, so n lies along the 64-row side of its instructions.
_PLAIN = (
    *((16, 64), (32, 64), (64, 32), (64, 64), (16, 128), (32, 128), (64, 128), (128, 64)),
    *((128, 128), (64, 256), (256, 64), (128, 256), (256, 128)),
)
"""Rows and columns of the tiles of one-tile-a-CTA kernels; measured, names of cuBLAS kernels
(`ampere_*gemm_128x256_...`)."""

_PERSISTENT = (
    *((8, 64), (16, 64), (32, 64), (64, 64), (16, 128), (32, 128), (64, 128), (128, 64)),
    *((128, 128), (64, 256), (256, 64), (128, 192), (192, 128), (128, 256), (256, 128)),
)
"""Rows and columns of the tiles of persistent kernels; measured, names of cuBLAS kernels (`nvjet_*_128x192_...`)."""

_TWO_PER_SM_MAX_ELEMENTS = 64 * 128
"""Elements of the largest tile of which an SM holds two. Assumed: what shared memory and registers leave room for."""


@lru_cache(maxsize=16)
def tiles_of(generation: str) -> tuple[Tile, ...]:
    """The tiles a library chooses from on a GPU of this generation.

    Accumulators of a tile of up to 64 x 128 in fp32 leave room in the register file for a second CTA.
    """
    shapes = _PERSISTENT if is_persistent(generation) else _PLAIN
    return tuple(Tile(a, b, 2 if a * b <= _TWO_PER_SM_MAX_ELEMENTS else 1) for a, b in shapes)


def offered_tiles(generation: str, only_rows: int, only_cols: int) -> tuple[Tile, ...]:
    """The tiles of a generation, or the only one that a library has."""
    return (Tile(only_rows, only_cols, 1),) if only_rows and only_cols else tiles_of(generation)


def is_persistent(generation: str) -> bool:
    """Whether library kernels of this generation are persistent rather than plain grids."""
    return generation in PERSISTENT_GENERATIONS


_NO_TILE, _NO_GRID = 1 << 40, 1 << 60
"""What stands for no width and for no number of CTAs; a definition, beyond all sizes."""


class KernelGrid(NamedTuple):
    """How a persistent kernel is launched: `ctas` walk over `tiles`.

    Up to two tiles a CTA are dealt out beforehand (`dynamic` False); more are fetched from a counter in memory
    as CTAs become free, so that a CTA that starts late takes what is left.
    """

    ctas: Sizes
    tiles: Sizes
    dynamic: Sizes


def persistent_grid(m: Sizes, n: Sizes, num_sms: int) -> KernelGrid:
    """The grid that cuBLAS launches for y[m, n] on Hopper.

    Read off the names and grids of 1,012 `nvjet` kernels (two H200, CUDA 13.0). Where tiles of 64 rows can cut y into
    128 parts without a rest, on 132 SMs, they do. Else, where tiles of at most 256 x 128 elements can cover y once with
    at most 128 CTAs, the narrowest such tile is taken (the squarest of those with 64, 128 or 256 rows); else every CTA
    gets two tiles; else tiles of about 25,000 elements are fetched from a counter, which a memset node before the
    kernel clears. 89 % of the grids with m >= 64 come out within 8 CTAs, 77 % to the CTA, 99 % of the schedules right,
    and whether they leave 8 SMs free for 91 %.
    """
    fit = num_sms - num_sms % _GRID_STEP
    ctas, squarest = _NO_GRID, _NO_TILE
    for rows in _TILE_ROWS:
        bands = -(-m // rows)
        width = _tile_width(n, fit // bands)
        if rows == min(_TILE_ROWS):
            clustered = _tile_width(n, _CLUSTERED_CTAS * num_sms // _READ_OFF_SMS // bands)
            width = where((width <= _CLUSTERED_WIDTH) & (clustered < _NO_TILE), clustered, width)
        longer = where(width > rows, width / rows, rows / width)
        grid = bands * -(-n // width)
        if rows == min(_TILE_ROWS):
            small = width <= _CLUSTERED_WIDTH
            grid = where(small, -(-grid // _LARGE_CLUSTER) * _LARGE_CLUSTER, grid)
            even = _even_width(n, fit, bands)
            width, grid = where(even < _NO_TILE, even, width), where(even < _NO_TILE, fit, grid)
            longer = where(even < _NO_TILE, 0.0, longer)
        better = (rows * width <= _LARGEST_TILE) & ((longer < squarest) | ((longer == squarest) & (grid < ctas)))
        ctas, squarest = where(better, grid, ctas), where(better, longer, squarest)
    found, twice = ctas < _NO_GRID, m * n <= _TWICE_COVERED * num_sms * _LARGEST_TILE
    fetched = -(-m * n // _TYPICAL_TILE)
    several = where(twice, 2 * fit, where(fetched > 2 * num_sms, fetched, 2 * num_sms + 1))
    return KernelGrid(where(found, ctas, num_sms), where(found, ctas, several), where(found | twice, False, True))


def _even_width(n: Sizes, ctas: int, bands: Sizes) -> Sizes:
    """The width of 64 rows that cuts y into one whole tile a CTA; `_NO_TILE` if there is none."""
    columns = where(bands < 1, 1, ctas // bands)
    columns = where(columns < 1, 1, columns)
    width = n // columns
    found = (bands > 1) & (ctas % bands == 0) & (n % (_WIDTH_STEP * columns) == 0)
    return where(found & (width >= min(_TILE_ROWS)) & (width <= _WIDEST_EVEN), width, _NO_TILE)


def _tile_width(n: Sizes, columns: Sizes) -> Sizes:
    """The narrowest tile that covers n with `columns` tiles; `_NO_TILE` if there is none."""
    wanted = -(-n // where(columns < 1, 1, columns))
    if is_many(wanted):
        widths = np.array((*_TILE_WIDTHS, _NO_TILE))[np.searchsorted(_TILE_WIDTHS, wanted)]
        return np.where(columns < 1, _NO_TILE, widths)
    index = bisect_left(_TILE_WIDTHS, wanted)
    return _TILE_WIDTHS[index] if columns >= 1 and index < len(_TILE_WIDTHS) else _NO_TILE


def row_alignment_bytes(n: Sizes, k: Sizes, inputs: DType, outputs: DType) -> Sizes:
    """Bytes that every row of x[m, k], W[n, k] and y[m, n] is aligned to, 2 to 16.

    Rows of x and W are k elements long and rows of y n; the smaller power of two that divides both counts. Formats of
    a byte and less have rows of 16 bytes at least, for there are no other kernels.
    """
    rows_of_y = (n & -n) * outputs.num_bytes
    rows_of_x = (k & -k) * inputs.num_bytes if inputs.num_bytes > 1 else FULL_ALIGNMENT_BYTES
    minimum = maths_for(n, k).minimum
    return minimum(FULL_ALIGNMENT_BYTES, minimum(rows_of_x, rows_of_y))
