"""The formulas of the GEMM model, written once for floats and for numpy arrays.

    busy    = launch + (compute ^ p + memory ^ p) ^ (1/p) + partial sums of a split
    compute = prologue + waves * (tile + (k / split + fill) * max(tensor cores, feed from L2))
    memory  = HBM latency + (weights that are not in L2 + share of the activations) / HBM rate

The wave picture follows NVIDIA's "Matrix Multiplication Background User's Guide" (tile and wave quantisation)
and NeuSight (arXiv 2407.13853). Rates are shares of datasheet values and traffic rates are bytes a clock and
SM, so that constants carry over to similar GPUs.

Tensor cores that are busy take the clock down at once, before any limit of a second's power is reached, and float16
draws more than bfloat16: on an H200 products of one shape take 4 % longer in it where arithmetic limits them, and as
long where memory does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kraken_sim.costs.gemm_shapes import MIN_K_PER_SPLIT

if TYPE_CHECKING:
    from kraken_sim.costs.gemm_constants import GemmConstants
    from kraken_sim.costs.gemm_shapes import Tile
    from kraken_sim.costs.types import Number
    from kraken_sim.hardware.device import Device
    from kraken_sim.program.many import Maths

REFERENCE_TILE_ELEMENTS = 128 * 256
"""The tile that `tile_s` is stated for; a definition, 128 x 256 being the largest of cuBLAS's (`gemm_shapes`)."""

_MAX_FOOTPRINT_RATIO = 10.0
"""Footprint over what L2 holds beyond which nothing is found there; a limit of ours that keeps the power below it
finite."""

_PARTIAL_SUM_BYTES = 4.0
"""Bytes of a partial sum of a split product, which is kept in fp32; a definition."""


class Demand(NamedTuple):
    """One product y[m, n] = x[m, k] · W[n, k]ᵀ: its sizes and what surrounds it."""

    m: Number
    n: Number
    k: Number
    input_bytes: float
    """Of an element of x."""
    weight_bytes: float
    """Of an element of W."""
    output_bytes: float
    """Of an element of y."""
    reads_output: Number
    """1 when the product is added to y, else 0."""
    bias: Number
    """1 when a bias is added, else 0."""
    replayed: Number
    """1 when a benchmark replays the same weights, 0 when they come fresh from HBM."""
    float16: Number
    """1 when x and W are float16, else 0."""
    efficiency: Number
    """Share of the rates left by the alignment of the rows."""
    clock_ratio: float


class Rates(NamedTuple):
    """What a device offers one product under the constants."""

    num_sms: int
    mma_flops_per_sm: Number
    feed_bytes_per_s: Number
    split_bytes_per_s: float
    hbm_bytes: Number
    memory_s: Number
    warm: Number
    """Share of the weights that L2 holds."""


def resident_share(footprint_bytes: Number, l2_bytes: float, c: GemmConstants, maths: Maths) -> Number:
    """Share of data that a cyclic replay still finds in L2, for a footprint in bytes."""
    ratio = maths.minimum(footprint_bytes / (l2_bytes * c.l2_resident_share), _MAX_FOOTPRINT_RATIO)
    return 1.0 / (1.0 + ratio ** (1.0 / c.l2_resident_softness))


def rates(d: Demand, device: Device, peak_flops: float, c: GemmConstants, maths: Maths) -> Rates:
    """Rates and memory time of one product; `peak_flops` is the device's for the dtype."""
    weight_bytes = d.n * d.k * d.weight_bytes
    activation_bytes = d.m * (d.k * d.input_bytes + d.n * (1 + d.reads_output) * d.output_bytes)
    l2_bytes = device.l2_capacity_bytes
    copies = maths.maximum(1, maths.minimum(c.replay_copies, maths.ceil(l2_bytes / weight_bytes)))
    footprint = copies * weight_bytes + activation_bytes
    warm = d.replayed * resident_share(footprint, l2_bytes, c, maths)
    hbm_bytes = weight_bytes * (1.0 - warm) + c.activation_hbm_share * activation_bytes
    ideal_s = 2.0 * d.m * d.n * d.k / peak_flops
    own_ratio = 1.0 - c.throttle_depth * ideal_s / (ideal_s + c.throttle_onset_s)
    clock_ratio = maths.minimum(d.clock_ratio, own_ratio)
    of_format = 1.0 + d.float16 * (c.float16_rate - 1.0)
    num_sms = device.num_sms
    return Rates(
        num_sms=num_sms,
        mma_flops_per_sm=peak_flops / num_sms * c.mma_efficiency * of_format * d.efficiency * clock_ratio,
        feed_bytes_per_s=c.l2_bytes_per_clock * device.boost_clock_hz * d.efficiency,
        split_bytes_per_s=c.split_bytes_per_clock * device.boost_clock_hz * num_sms,
        hbm_bytes=hbm_bytes,
        memory_s=c.hbm_latency_s * (1.0 - warm) + hbm_bytes / (device.hbm_bandwidth_bytes_per_s * c.hbm_efficiency),
        warm=warm,
    )


def output_tiles(d: Demand, tile: Tile) -> Number:
    """Tiles that cover the output."""
    return -(-d.m // tile.rows) * -(-d.n // tile.cols)


def max_split(d: Demand, tile: Tile, tiles: Number, num_sms: int, c: GemmConstants, maths: Maths) -> Number:
    """The largest split of k that still fits one wave and leaves every CTA enough of k."""
    split = maths.minimum(num_sms * tile.ctas_per_sm // tiles, d.k // MIN_K_PER_SPLIT)
    return maths.maximum(1, maths.minimum(split, c.most_split))


def per_k_s(d: Demand, tile: Tile, r: Rates, maths: Maths) -> Number:
    """Seconds of one SM for one element of k of one tile: tensor cores or the feed from L2, the slower one."""
    rows, cols = tile.rows, tile.cols
    feed_s = (rows * d.input_bytes + cols * d.weight_bytes) / r.feed_bytes_per_s
    return maths.maximum(2.0 * rows * cols / r.mma_flops_per_sm, feed_s)


def compute_s(
    d: Demand, tile: Tile, tiles: Number, split: Number, k_s: Number, r: Rates, c: GemmConstants, maths: Maths
) -> Number:
    """Seconds of `tiles` x `split` CTAs' work on the SMs; `k_s` is `per_k_s` of the tile."""
    work = tiles * split
    waves = -(-work // r.num_sms) * c.wave_quantisation
    waves = waves + maths.maximum(1.0, work / r.num_sms) * (1.0 - c.wave_quantisation)
    size = tile.rows * tile.cols / REFERENCE_TILE_ELEMENTS
    tile_s = c.tile_s * (c.tile_fixed_share + (1.0 - c.tile_fixed_share) * size) + d.bias * c.bias_tile_s
    return c.prologue_s + waves * (tile_s + (d.k / split + c.k_fill) * k_s)


def busy_s(compute: Number, memory: Number, c: GemmConstants, maths: Maths) -> Number:
    """Seconds of a kernel whose arithmetic and memory traffic overlap, without the cost of a split."""
    high = maths.maximum(compute, memory)
    low = maths.minimum(compute, memory)
    p = c.overlap_exponent
    return c.launch_s + high * maths.power(1.0 + maths.power(low / high, p), 1.0 / p)


def split_cost_s(d: Demand, split: Number, r: Rates, c: GemmConstants) -> Number:
    """Seconds to write and add the fp32 partial sums of a split (split > 1)."""
    return c.split_s + d.m * d.n * split * _PARTIAL_SUM_BYTES / r.split_bytes_per_s


def gemv_s(d: Demand, r: Rates, device: Device, c: GemmConstants) -> Number:
    """Seconds of a matrix-vector kernel (m = 1): weights streamed once, a reduction along k."""
    weight_bytes = d.n * d.k * d.weight_bytes
    rate = device.hbm_bandwidth_bytes_per_s * d.efficiency
    stream = (1.0 - r.warm) / (rate * c.gemv_hbm_efficiency) + r.warm / (rate * c.gemv_l2_efficiency)
    return c.gemv_launch_s + weight_bytes * stream + d.k * c.gemv_k_element_s
