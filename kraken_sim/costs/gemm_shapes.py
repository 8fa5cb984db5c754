"""How libraries cut a matrix product into tiles: tile sets by GPU generation, splits of k, alignment."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class Tile(NamedTuple):
    """An output tile of `rows` x `cols` elements that one CTA computes; `ctas_per_sm` fit on one SM."""

    rows: int
    cols: int
    ctas_per_sm: int


PERSISTENT_GENERATIONS = frozenset({"hopper", "blackwell"})
"""Generations whose library kernels launch about one CTA an SM and let each walk over several tiles."""

CLUSTER_CTAS = 2
"""CTAs of a thread-block cluster; grids of cuBLAS kernels on Hopper are multiples of it."""

MAX_SPLIT = 16
MIN_K_PER_SPLIT = 256
FULL_ALIGNMENT_BYTES = 16
"""Widest vector load, and the row alignment that bulk copies into shared memory need
(CUDA C++ Programming Guide, asynchronous copies and tensor maps)."""

# Tiles that the names of cuBLAS kernels carry: `ampere_*gemm_128x256_...` and `nvjet_*_128x192_...`. Hopper
# computes the transposed product for few rows, so n lies along the 64-row side of its instructions.
_PLAIN = (
    *((16, 64), (32, 64), (64, 32), (64, 64), (16, 128), (32, 128), (64, 128), (128, 64)),
    *((128, 128), (64, 256), (256, 64), (128, 256), (256, 128)),
)
_PERSISTENT = (
    *((8, 64), (16, 64), (32, 64), (64, 64), (16, 128), (32, 128), (64, 128), (128, 64)),
    *((128, 128), (64, 256), (256, 64), (128, 192), (192, 128), (128, 256), (256, 128)),
)
_TWO_PER_SM_MAX_ELEMENTS = 64 * 128


@lru_cache(maxsize=16)
def tiles_of(generation: str) -> tuple[Tile, ...]:
    """The tiles a library chooses from on a GPU of this generation.

    Accumulators of a tile of up to 64 x 128 in fp32 leave room in the register file for a second CTA.
    """
    shapes = _PERSISTENT if is_persistent(generation) else _PLAIN
    return tuple(Tile(a, b, 2 if a * b <= _TWO_PER_SM_MAX_ELEMENTS else 1) for a, b in shapes)


def is_persistent(generation: str) -> bool:
    """Whether library kernels of this generation are persistent rather than plain grids."""
    return generation in PERSISTENT_GENERATIONS


def row_alignment_bytes(n: int, k: int, element_bytes: int) -> int:
    """Bytes that every row of x[m, k], W[n, k] and y[m, n] is aligned to, at most 16.

    Rows of x and W are k elements long and rows of y n, so the smaller power of two that divides both counts.
    """
    low = (n | k) & -(n | k)
    return min(FULL_ALIGNMENT_BYTES, low * element_bytes)
