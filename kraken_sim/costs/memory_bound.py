"""What kernels cost that stream operands: norms, pointwise functions, copies, embedding lookups.

    busy = launch + ((waves * CTA) ^ p + memory ^ p) ^ (1/p) + cold rounds * DRAM latency

A CTA's time is its latency (a norm reads its row, reduces it, and writes it) plus its bytes at the rate one CTA can
draw; memory is L2 for what the previous kernel left there and HBM for the rest. A norm's parameters, or the residual
of an add, that weights have pushed out of L2 cost a DRAM latency for every round of loads that waits for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from kraken_sim.costs.types import KernelCost, Number
from kraken_sim.errors import InputError, Problem
from kraken_sim.files.meaning import Meaning, Table, exactly, holds, means
from kraken_sim.program.many import POINTS, bit_length, least, maths_for, where
from kraken_sim.program.ops import Copy, Elementwise, Embedding, Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kraken_sim.hardware.device import Device

    Raised = Callable[[Number, Number], Number]

MemoryBoundOp = Norm | Elementwise | Copy | Embedding

NORM, RMS_NORM, FUSED_NORM, ELEMENTWISE, GELU, SILU_MUL, ROPE, ROPE_KV_WRITE, QUANTIZE = (
    "norm", "rms_norm", "fused_norm", "elementwise", "gelu", "silu_mul", "rope", "rope_kv_write", "quantize",
)  # fmt: skip
QUANTIZE_ROWS, NORM_QUANTIZE, NORM_QUANTIZE_ROWS = "quantize_rows", "norm_quantize", "norm_quantize_rows"
SILU_MUL_QUANTIZE, SILU_MUL_QUANTIZE_ROWS = "silu_mul_quantize", "silu_mul_quantize_rows"
QUANTISING = (
    QUANTIZE, QUANTIZE_ROWS, NORM_QUANTIZE, NORM_QUANTIZE_ROWS, SILU_MUL_QUANTIZE, SILU_MUL_QUANTIZE_ROWS,
)  # fmt: skip
FUSED_LAYER_NORM, STRIDED, REDUCTION, CAT = "fused_layer_norm", "strided_elementwise", "reduction", "cat"
COMPOSED = (STRIDED, REDUCTION, CAT)
COPY, STRIDED_COPY, EMBEDDING = "copy", "strided_copy", "embedding"
KINDS = (
    NORM, ELEMENTWISE, GELU, COPY, STRIDED_COPY, EMBEDDING,
    RMS_NORM, FUSED_NORM, SILU_MUL, ROPE, ROPE_KV_WRITE, FUSED_LAYER_NORM, STRIDED, REDUCTION, CAT, *QUANTISING,
)  # fmt: skip
STAND_INS: Mapping[str, str] = MappingProxyType(
    {
        GELU: ELEMENTWISE,
        STRIDED: ELEMENTWISE,
        REDUCTION: ELEMENTWISE,
        CAT: STRIDED,
        STRIDED_COPY: COPY,
        RMS_NORM: NORM,
        FUSED_NORM: NORM,
        FUSED_LAYER_NORM: FUSED_NORM,
        SILU_MUL: ELEMENTWISE,
        ROPE: ELEMENTWISE,
        ROPE_KV_WRITE: ROPE,
        QUANTIZE: ELEMENTWISE,
        QUANTIZE_ROWS: FUSED_NORM,
        NORM_QUANTIZE: FUSED_NORM,
        NORM_QUANTIZE_ROWS: NORM_QUANTIZE,
        SILU_MUL_QUANTIZE: SILU_MUL,
        SILU_MUL_QUANTIZE_ROWS: QUANTIZE_ROWS,
    }
)
"""Kernels that a profile may leave out, and the one whose constants they then have, or its stand-in's."""

_POINTWISE = frozenset({GELU, SILU_MUL, ROPE, ROPE_KV_WRITE, QUANTIZE})
"""Pointwise kernels with constants of their own; a definition."""

_POINTWISE_ELEMENTS_PER_CTA = 1024
"""Elements of a CTA of PyTorch's vectorised pointwise kernels: 128 threads with 4 elements of 16 bits, twice unrolled
(ATen/native/cuda/CUDALoops.cuh)."""

_STRIDED_ELEMENTS_PER_CTA = 512
"""Elements of a CTA of PyTorch's kernel for strided operands: 128 threads with 4 (ATen/native/cuda/CUDALoops.cuh)."""

_COPY_BYTES_PER_CTA = 8192
"""Bytes of a CTA of a device-to-device copy. Assumed: 128 threads, four loads of 16 bytes each, the pointwise kernels'
way with the widest load."""

_STRIDED_BYTES_PER_CTA = 1024
"""Bytes of a CTA where operands are strided, which takes the kernel that is not vectorised: 128 threads with 4 elements
of 16 bits (ATen/native/cuda/CUDALoops.cuh)."""

_GATHER_BYTES_PER_CTA = 4096
"""Bytes of a CTA of the gather: 256 threads of 16 bytes (ATen/native/cuda/IndexKernelUtils.cu)."""

_SERIAL_ROWS = 16
"""Most rows that another kernel takes one after the other (indexSelectSmallIndex in ATen/native/cuda/Indexing.cu)."""

_NORM_ELEMENTS_PER_ROUND = 1024
"""Elements of a row that a CTA of torch's norms loads at a time, parameters with them: 128 threads with vectors of 8
(vectorized_layer_norm_kernel in ATen/native/cuda/layer_norm_kernel.cu: 128 threads; the vectors of 16-bit formats
measured on H200, whose cold parameters cost a DRAM latency for every 1,024 elements of width)."""

_FUSED_ELEMENTS_PER_CTA = 256
"""Elements that a CTA of a generated norm takes at least, of several rows where these are short. Assumed: 128 threads
with 2 elements each; TorchInductor's choice differs from shape to shape."""

_REDUCTION_THREADS, _WARP = 512, 32
"""Threads of a CTA of torch's reductions in float32, and of a warp (MAX_NUM_THREADS in ATen/native/cuda/Reduce.cuh)."""

_REDUCTION_UNROLL = 4
"""Elements that a thread of torch's reductions loads at once (vt0 in ATen/native/cuda/Reduce.cuh)."""

_LEAST_SHARED = 16
"""Elements that a thread must have left before several warps share a row; 256 in any case
(ReduceConfig in ATen/native/cuda/Reduce.cuh)."""

_NORM_FLOPS = 8.0
"""FLOP an element of a norm, counted: mean, variance, scaling, weight and bias, rounded up. Assumed: it only enters the
power."""

_GATHER_MOVES, _POSITION_MOVES = 2.0, 3.0
"""Rows moved a token: the gather reads and writes one, the add reads it and a position and writes the sum; a
definition."""


_OWN: Final = {
    "launch_s": Meaning("Start and end of the kernel.", 0.0, 1.2e-6, 1e-3),
    "cta_s": Meaning("Latency of a CTA.", 0.0, 0.8e-6, 1e-3),
    "cta_bytes_per_s": Meaning("What one CTA draws, or computes.", 1e6, 1e10, 1e16),
    "ctas_per_sm": Meaning("How many run on an SM at once.", 1.0, 16.0, 64.0, "CTAs"),
}
_INSTEAD: Final = {
    "hbm_efficiency": Meaning("Share of the HBM bandwidth, in place of the common one.", 0.01, 0.9, 1.0, "share"),
    "l2_bytes_per_s": Meaning("What L2 delivers, in place of the common one.", 1e9, 5e12, 1e16),
    "overlap_power": Meaning("Exponent of the soft maximum, in place of the common one.", 1.0, 3.0, 10.0, "exponent"),
    "row_s": Meaning(
        "A row that an embedding gathers alone, where there are few; a load of a reduction's thread.",
        0.0,
        0.6e-6,
        1e-3,
    ),
    "cold_round_s": Meaning(
        "What a round of loads takes longer whose operands are in HBM and not in L2.", 0.0, 0.35e-6, 1e-3
    ),
}
_KERNEL: Final = Table("One kernel.", own={**_OWN, **_INSTEAD}, required=tuple(_OWN))


@dataclass(frozen=True, slots=True)
class MemoryBoundConstants:
    """Constants of the memory-bound kernels of one GPU; the mapping is left out of its hash.

    The kernels of `STAND_INS` may be left out: they are then priced as their stand-ins.
    """

    hbm_efficiency: float = field(
        metadata=means("Share of the datasheet's HBM bandwidth that is reached.", 0.01, 0.9, 1.0, "share")
    )
    l2_bytes_per_s: float = field(metadata=means("What L2 delivers.", 1e9, 5e12, 1e16))
    l2_share: float = field(
        metadata=means(
            "Share of L2's capacity up to which it holds what the kernel before wrote.", 0.0, 0.5, 10.0, "share"
        )
    )
    l2_width: float = field(
        metadata=means("Share of L2's capacity over which it comes to hold nothing of it.", 0.01, 0.5, 10.0, "share")
    )
    overlap_power: float = field(
        metadata=means("Exponent of the soft maximum of CTAs and memory.", 1.0, 3.0, 10.0, "exponent")
    )
    kernels: Mapping[str, Mapping[str, float]] = field(
        hash=False,
        metadata=holds(
            exactly(
                "Constants by kernel.",
                *(kind for kind in KINDS if kind not in STAND_INS),
                each=_KERNEL,
                optional=tuple(STAND_INS),
            )
        ),
    )
    held_share: float = field(
        default=0.6,
        metadata=means(
            "Share of L2's capacity after which, streamed through, an operand used before is no longer there.",
            0.0,
            0.6,
            10.0,
            "share",
        ),
    )


class Stream(NamedTuple):
    """What a memory-bound op moves and launches; `cold_bytes` of `num_bytes` are never in L2 beforehand.

    `serial_rows`, or the loads of a reduction's thread, are handled one after the other, `cold_rounds` loads wait for
    HBM one after the other.
    """

    ctas: Number
    num_bytes: Number
    cold_bytes: Number
    serial_rows: Number = 0.0
    cold_rounds: Number = 0.0


class StreamRates(NamedTuple):
    """What `stream_times` needs of the constants; floats, or arrays of one value a sample."""

    launch_s: Number
    cta_s: Number
    cta_bytes_per_s: Number
    ctas_per_sm: Number
    hbm_efficiency: Number
    l2_bytes_per_s: Number
    l2_share: Number
    l2_width: Number
    overlap_power: Number
    row_s: Number
    cold_round_s: Number


class StreamTimes(NamedTuple):
    """Seconds: the whole kernel, its CTAs if memory were infinitely fast, its memory alone, its HBM bytes."""

    busy_s: Number
    ctas_s: Number
    memory_s: Number
    hbm_bytes: Number


def memory_bound_cost(op: MemoryBoundOp, device: Device, constants: MemoryBoundConstants) -> KernelCost:
    """A memory-bound kernel whose input the previous kernel of the pass has just written.

    Args:
        op: Norm (x and what is added read, y and maybe the sum written), Elementwise (inputs read, outputs written),
            Copy, or Embedding (rows of the table from HBM, the rest through L2).
        device: Datasheet of the GPU.
        constants: Constants of the GPU.

    Raises:
        InputError: a size is not positive.
    """
    _check(op)
    kind = kind_of(op)
    stream = stream_of(op)
    rates = stream_rates(constants, kind)
    maths = maths_for(*stream)
    times = stream_times(stream, rates, device, 1.0, maths.power)
    launch_s = rates.launch_s
    if isinstance(op, Embedding) and not op.positions:
        # The constants are of both kernels; the add is a pointwise one, than which no kernel starts faster.
        added = stream_rates(constants, ELEMENTWISE)
        launch_s = max(min(launch_s, added.launch_s), launch_s - added.launch_s - added.cta_s)
        times = times._replace(busy_s=times.busy_s - (rates.launch_s - launch_s))
    hbm_bytes = times.hbm_bytes
    busy_s = maths.maximum(times.busy_s, launch_s + hbm_bytes / device.hbm_bandwidth_bytes_per_s)
    ctas = stream.ctas
    ctas_per_sm = max(1, int(rates.ctas_per_sm))
    slots = device.num_sms * ctas_per_sm
    return KernelCost(
        busy_s=busy_s,
        ctas=ctas,
        ctas_per_sm=ctas_per_sm,
        tiles=ctas,
        persistent=False,
        flops=_flops(op),
        hbm_bytes=hbm_bytes,
        fixed_s=launch_s,
        compute_s=times.ctas_s,
        memory_s=times.memory_s,
        detail="" if maths is POINTS else _detail(ctas, ctas / slots, hbm_bytes / max(stream.num_bytes, 1.0)),
    )


def _detail(ctas: int, waves: float, far: float) -> str:
    return f"{ctas} CTAs, {waves:.1f} waves, {far:.0%} from HBM"


def kind_of(op: MemoryBoundOp) -> str:
    """The kernel that runs `op`, one of `KINDS`."""
    if isinstance(op, Norm):
        if op.output_dtype is not None:
            return NORM_QUANTIZE_ROWS if op.row_scales else NORM_QUANTIZE
        if op.function == RMS_NORM:
            return FUSED_NORM if op.fused else RMS_NORM
        return FUSED_LAYER_NORM if op.fused else NORM
    if isinstance(op, Elementwise):
        if op.strided:
            return CAT if op.function == CAT else STRIDED
        if op.rows is not None and op.num_outputs == 0:
            return REDUCTION
        if op.rows is not None:
            return SILU_MUL_QUANTIZE_ROWS if op.function == SILU_MUL else QUANTIZE_ROWS
        if op.function == SILU_MUL and op.output_dtype is not None:
            return SILU_MUL_QUANTIZE
        return op.function if op.function in _POINTWISE else ELEMENTWISE
    if isinstance(op, Copy):
        return STRIDED_COPY if op.strided else COPY
    return EMBEDDING


def stream_of(op: MemoryBoundOp) -> Stream:
    """CTAs and bytes of `op`: of norms one CTA a row, or several short rows; of embeddings one for a part of a row."""
    if isinstance(op, Norm):
        tensor = 1.0 * op.num_tokens * op.hidden_size * op.dtype.num_bytes
        cold = op.cold_parameters | (op.cold_inputs > 0)
        rounds = 1 if op.fused else -(-op.hidden_size // _NORM_ELEMENTS_PER_ROUND)
        maximum = maths_for(op.hidden_size).maximum
        rows_per_cta = maximum(1, _FUSED_ELEMENTS_PER_CTA // op.hidden_size) if op.fused else 1
        ctas = -(-op.num_tokens // rows_per_cta)
        return Stream(ctas, op.moved_bytes, op.cold_inputs * tensor, 0.0, 1.0 * rounds * cold)
    if isinstance(op, Elementwise):
        cold_bytes = 1.0 * op.cold_inputs * op.num_elements * op.dtype.num_bytes
        if op.rows is not None and op.num_outputs == 0:
            return _reduction(op, op.rows)
        elements = _STRIDED_ELEMENTS_PER_CTA if op.strided else _POINTWISE_ELEMENTS_PER_CTA
        ctas = -(-op.num_elements // elements) if op.rows is None else op.rows
        return Stream(ctas, op.moved_bytes, cold_bytes, 0.0, 1.0 * (op.cold_inputs > 0))
    if isinstance(op, Copy):
        part = _STRIDED_BYTES_PER_CTA if op.strided else _COPY_BYTES_PER_CTA
        return Stream(-(-op.num_bytes // part), 2.0 * op.num_bytes, 0.0)
    row_bytes = 1.0 * op.hidden_size * op.dtype.num_bytes
    moves = _GATHER_MOVES + _POSITION_MOVES * op.positions
    moved, table = moves * op.num_tokens * row_bytes, op.num_tokens * row_bytes
    serial = 1.0 * op.num_tokens * (op.num_tokens <= _SERIAL_ROWS)
    parts = -(-op.hidden_size * op.dtype.num_bytes // _GATHER_BYTES_PER_CTA)
    return Stream(op.num_tokens * parts, moved, table, serial)


def _reduction(op: Elementwise, rows: Number) -> Stream:
    """Torch's reduction of rows: as many rows a CTA as there are, up to one a warp, before several warps share a row.

    So a few dozen rows are each read by one warp, load after load, and take longer than one row or very wide ones.
    """
    width = op.num_elements / rows
    maths = maths_for(op.num_elements, rows)
    rows_per_cta = maths.minimum(_REDUCTION_THREADS // _WARP, 2 ** (bit_length(rows) - 1))
    a_thread = width * rows_per_cta / _REDUCTION_THREADS
    shared = a_thread >= maths.minimum(_LEAST_SHARED * rows_per_cta, _LEAST_SHARED**2)
    a_thread, rows_per_cta = where(shared, width / _REDUCTION_THREADS, a_thread), where(shared, 1, rows_per_cta)
    loads = 1.0 * maths.ceil(a_thread / _REDUCTION_UNROLL)
    return Stream(-(-rows // rows_per_cta), op.moved_bytes, 0.0, loads)


def kernel_row(constants: MemoryBoundConstants, kind: str) -> Mapping[str, float]:
    """The constants of one kernel, or of what stands in for it."""
    found = constants.kernels.get(kind)
    return kernel_row(constants, STAND_INS[kind]) if found is None else found


def stream_rates(constants: MemoryBoundConstants, kind: str) -> StreamRates:
    """The constants of one kernel."""
    kernel = kernel_row(constants, kind)
    return StreamRates(
        launch_s=kernel["launch_s"],
        cta_s=kernel["cta_s"],
        cta_bytes_per_s=kernel["cta_bytes_per_s"],
        ctas_per_sm=kernel["ctas_per_sm"],
        hbm_efficiency=kernel.get("hbm_efficiency", constants.hbm_efficiency),
        l2_bytes_per_s=kernel.get("l2_bytes_per_s", constants.l2_bytes_per_s),
        l2_share=constants.l2_share,
        l2_width=constants.l2_width,
        overlap_power=kernel.get("overlap_power", constants.overlap_power),
        row_s=kernel.get("row_s", 0.0),
        cold_round_s=kernel.get("cold_round_s", 0.0),
    )


def stream_times(stream: Stream, rates: StreamRates, device: Device, warm: Number, raised: Raised = pow) -> StreamTimes:
    """Times of a stream; `warm` 1 when its inputs were just written, 0 when they come from HBM."""
    waves = _larger(stream.ctas / (device.num_sms * rates.ctas_per_sm), 1.0)
    ctas_s = waves * (rates.cta_s + stream.num_bytes / stream.ctas / rates.cta_bytes_per_s)
    footprint = stream.num_bytes / device.l2_capacity_bytes
    spilled = _clipped((footprint - rates.l2_share) / rates.l2_width)
    miss = 1.0 - warm * (1.0 - spilled)
    hbm_bytes = stream.cold_bytes + (stream.num_bytes - stream.cold_bytes) * miss
    near_s = (stream.num_bytes - hbm_bytes) / rates.l2_bytes_per_s
    memory_s = hbm_bytes / (device.hbm_bandwidth_bytes_per_s * rates.hbm_efficiency) + near_s
    power = rates.overlap_power
    # CTAs of a second wave work while those of the first wait.
    waits_s = stream.cold_rounds * rates.cold_round_s * _clipped(2.0 - waves)
    one_by_one_s = waits_s + stream.serial_rows * rates.row_s
    busy_s = rates.launch_s + raised(raised(ctas_s, power) + raised(memory_s, power), 1.0 / power) + one_by_one_s
    return StreamTimes(busy_s, ctas_s, memory_s, hbm_bytes)


def _larger(a: Number, b: Number) -> Number:
    return (a + b + abs(a - b)) / 2.0


def _clipped(x: Number) -> Number:
    return (1.0 + abs(x) - abs(1.0 - x)) / 2.0


def _flops(op: MemoryBoundOp) -> float:
    if isinstance(op, Norm):
        return _NORM_FLOPS * op.num_tokens * op.hidden_size
    if isinstance(op, Elementwise):
        return 1.0 * op.num_elements
    return 1.0 * (op.num_tokens * op.hidden_size) if isinstance(op, Embedding) and op.positions else 0.0


def _check(op: MemoryBoundOp) -> None:
    names = ("num_tokens", "hidden_size", "num_elements", "num_inputs", "num_bytes")
    sizes = {name: least(getattr(op, name)) for name in names if hasattr(op, name)}
    problems = [Problem(name, "must be positive", size, "1") for name, size in sizes.items() if not size > 0]
    if problems:
        raise InputError(problems)
