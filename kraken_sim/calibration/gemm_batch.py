"""Many measured GEMMs at once: the model's formulas over numpy columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kraken_sim.calibration.gemm_correction import grid_factors
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
from kraken_sim.costs.gemm_shapes import offered_tiles, row_alignment_bytes
from kraken_sim.program.formats import DType
from kraken_sim.program.many import Maths
from kraken_sim.program.ops import Gemm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kraken_sim.costs.gemm_constants import GemmConstants
    from kraken_sim.costs.gemm_shapes import Tile
    from kraken_sim.hardware.device import Device
    from kraken_sim.program.formats import Quantization

    Floats = NDArray[np.float64]

Columns = TypeVar("Columns", Demand, Rates)

ARRAYS = Maths(np.maximum, np.minimum, np.ceil)
ALIGNMENTS = ("2", "4", "8")
"""Row alignments in bytes, below the full 16, that have an efficiency of their own."""


@dataclass(frozen=True, slots=True)
class GemmSample:
    """One measured GEMM: y[m, n] = x[m, k] · W[n, k]ᵀ in a chain of graph nodes.

    `period_s` is the time from one node to the next, its gap included. `weights_warm`: the benchmark replays a
    few copies of the weights; False when it makes sure that they come from HBM.
    """

    m: int
    n: int
    k: int
    dtype: DType
    period_s: float
    weights_warm: bool
    accumulate: bool = False
    """Whether it adds to y, which it then reads."""
    quantization: Quantization | None = None
    """Of x and W; y has `dtype`."""
    composite: bool = False
    """Whether the kernels that quantise x are in the period, as in published rows."""
    bias: bool = False
    """Whether a bias is added."""

    @property
    def op(self) -> Gemm:
        """The product."""
        return Gemm(self.m, self.n, self.k, self.dtype, self.accumulate, self.quantization, self.bias)


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one number format as columns [num_samples]; `busy_s` is the period without the gap."""

    m: NDArray[np.int64]
    n: NDArray[np.int64]
    k: NDArray[np.int64]
    warm: Floats
    reads_output: Floats
    bias: Floats
    float16: Floats
    alignment: NDArray[np.int64]
    busy_s: Floats
    composite: Floats
    op: Gemm
    """One of them: all have its number formats, or formats of the same width and rate."""
    gap_s: float


def gemm_periods(
    samples: Sequence[GemmSample], device: Device, constants: GemmConstants, graph_node_gap_s: float = 1e-6
) -> Floats:
    """Predicted `period_s` of each sample [num_samples], seconds."""
    table = batch_of(samples, graph_node_gap_s)
    return _corrected_busy_s(table, device, constants) + graph_node_gap_s


def uncorrected_busy_s(t: Batch, device: Device, c: GemmConstants) -> Floats:
    """`busy_s` of every sample by the formulas of `gemm_cost`, the correction left out [num_samples]."""
    return np.asarray(np.maximum(*_busy_and_roofline_s(t, device, c)), dtype=np.float64) + quantize_s(t, c)


def _corrected_busy_s(t: Batch, device: Device, c: GemmConstants) -> Floats:
    model_s, roofline_s = _busy_and_roofline_s(t, device, c)
    corrected_s = model_s * grid_factors(c.correction, t.m, t.n, t.k)
    return np.asarray(np.maximum(corrected_s, roofline_s), dtype=np.float64) + quantize_s(t, c)


def quantize_s(t: Batch, c: GemmConstants) -> Floats:
    """What quantising x adds to the samples that have it in them [num_samples]."""
    moved_bytes = t.m * t.k * (t.op.dtype.num_bytes + t.op.bytes_per_input)
    return np.asarray(t.composite * (c.serving_quantize_s + moved_bytes / c.serving_quantize_bytes_per_s))


def _busy_and_roofline_s(t: Batch, device: Device, c: GemmConstants) -> tuple[Floats, Floats]:
    efficiency = np.ones(len(t.m))
    for key in ALIGNMENTS:
        efficiency[t.alignment == int(key)] = c.misaligned_efficiency[key]
    op, peak_flops = t.op, device.peak_flops[t.op.input_dtype]
    element_bytes = (op.bytes_per_input, op.bytes_per_weight, op.dtype.num_bytes)
    demand = Demand(t.m, t.n, t.k, *element_bytes, t.reads_output, t.bias, t.warm, t.float16, efficiency, 1.0)
    offered = rates(demand, device, peak_flops, c, ARRAYS)
    chooses = not c.only_tile_rows
    best = np.where((t.m == 1) & chooses, gemv_s(demand, offered, device, c), np.inf)
    for tile in offered_tiles(device.kernel_generation, c.only_tile_rows, c.only_tile_cols):
        tiles, k_s = output_tiles(demand, tile), per_k_s(demand, tile, offered, ARRAYS)
        compute = compute_s(demand, tile, tiles, 1, k_s, offered, c, ARRAYS)
        best = np.minimum(best, busy_s(compute, offered.memory_s, c, ARRAYS))
        largest = max_split(demand, tile, tiles, device.num_sms, c, ARRAYS)
        some = np.flatnonzero((largest > 1) & chooses)
        if len(some):
            split_s = _best_split_s(_at(demand, some), tile, k_s[some], largest[some], _at(offered, some), c)
            best[some] = np.minimum(best[some], split_s)
    roofline_s = np.maximum(
        2.0 * t.m * t.n * t.k / peak_flops,
        offered.hbm_bytes / device.hbm_bandwidth_bytes_per_s,
    )
    return best + t.bias * c.bias_s, roofline_s


def _best_split_s(d: Demand, tile: Tile, k_s: Floats, largest: NDArray[np.int64], r: Rates, c: GemmConstants) -> Floats:
    """The faster of the largest split and half of it."""
    times = []
    for split in (np.maximum(1, largest // 2), largest):
        compute = compute_s(d, tile, output_tiles(d, tile), split, k_s, r, c, ARRAYS)
        extra = np.where(split > 1, split_cost_s(d, split, r, c), 0.0)
        times.append(busy_s(compute, r.memory_s, c, ARRAYS) + extra)
    return np.asarray(np.minimum(*times), dtype=np.float64)


def _at(columns: Columns, index: NDArray[np.int64]) -> Columns:
    picked: Any = [value[index] if isinstance(value, np.ndarray) else value for value in columns]
    return type(columns)(*picked)


def gemm_errors(t: Batch, device: Device, c: GemmConstants) -> Floats:
    """|predicted / measured - 1| of the periods, correction included [num_samples]."""
    return np.asarray(np.abs((_corrected_busy_s(t, device, c) + t.gap_s) / (t.busy_s + t.gap_s) - 1.0))


def batch_of(samples: Sequence[GemmSample], gap_s: float) -> Batch:
    """Columns of the samples, whose number formats have one width and one rate."""
    m, n, k = (np.array([getattr(s, axis) for s in samples], dtype=np.int64) for axis in ("m", "n", "k"))
    op = samples[0].op
    alignment = [row_alignment_bytes(s.n, s.k, op.input_dtype, op.dtype) for s in samples]
    return Batch(
        m=m,
        n=n,
        k=k,
        composite=np.array([1.0 if s.composite else 0.0 for s in samples]),
        op=op,
        warm=np.array([1.0 if s.weights_warm else 0.0 for s in samples]),
        reads_output=np.array([1.0 if s.accumulate else 0.0 for s in samples]),
        bias=np.array([1.0 if s.bias else 0.0 for s in samples]),
        float16=np.array([1.0 if s.op.input_dtype is DType.FLOAT16 else 0.0 for s in samples]),
        alignment=np.array(alignment, dtype=np.int64),
        busy_s=np.array([s.period_s for s in samples]) - gap_s,
        gap_s=gap_s,
    )
