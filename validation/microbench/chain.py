"""Unlike kernels one after another, as in a layer: what a change of kernel and operands out of HBM cost.

A round runs the ops of a case once, a graph holds several rounds. Each kernel reads what the one before it wrote, as
far as the shapes fit; GEMMs have weights of their own every round, so L2 is streamed through as in a model.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, assert_never

import torch
import torch.nn.functional as nnf

from kraken_sim.measurements.records.kernels import AttentionCase
from kraken_sim.measurements.records.together import (
    AttentionOp,
    ChainCase,
    ChainedMemoryBound,
    DecodeAttentionOp,
    FlushOp,
    GemmOp,
)
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.scenario.spec import Launch
from validation.microbench import attention, gemm
from validation.microbench.bench import Bench, Outcome, SkipCase, chain_length
from validation.models import fused
from validation.timing import time_eager, time_graph

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kraken_sim.measurements.records.together import ChainedOp
    from kraken_sim.program.ops import DType

    Step = Callable[[int, Tensor | None], Tensor | None]
    """Runs an op in a round on what the kernel before it wrote; what it writes itself."""

_HEAD_DIM = 128
_GROUP = 4
_REPEATS = 7
_FLUSH_S = 40e-6
_TYPICAL_BYTES_PER_S = 3e12
_TYPICAL_OVERHEAD_S = 3e-6
_LONGEST_ROUNDS = 24


def run(bench: Bench, case: ChainCase) -> Outcome:
    """Time rounds of a chain."""
    estimate = sum(_estimate_s(op, case.dtype) for op in case.compute)
    length = chain_length(estimate, most=6 if not bench.clock.is_cuda else _LONGEST_ROUNDS)
    lead, *rounds = calls(bench, case, length + 1)
    if case.launch is Launch.GRAPH:
        samples = time_graph(bench.clock, rounds, _REPEATS, before=bench.flush, lead=[lead])
    else:
        samples = time_eager(bench.clock, rounds, _REPEATS, before=bench.flush)
    return Outcome({"time_s": samples}, {"calls": length, "repeats": _REPEATS})


def calls(bench: Bench, case: ChainCase, count: int) -> list[Callable[[], object]]:
    """`count` rounds of the chain."""
    fresh = case.operands == "fresh"
    steps = [_step(bench, op, case.dtype, count, fresh=fresh) for op in case.compute]
    # What the first kernel of a round reads where it does not fit what the last one wrote is its own buffer.
    last: list[Tensor | None] = [None]

    def one_round(index: int) -> None:
        if index == 0:
            last[0] = None
        for step in steps:
            last[0] = step(index, last[0])

    return [partial(one_round, index) for index in range(count)]


def _step(bench: Bench, op: ChainedOp, dtype: DType, count: int, *, fresh: bool) -> Step:
    if isinstance(op, GemmOp):
        return _gemm(bench, op, dtype, count)
    if isinstance(op, AttentionOp):
        return _attention(bench, op, dtype)
    if isinstance(op, DecodeAttentionOp):
        return _decode_attention(bench, op, dtype, count)
    if isinstance(op, FlushOp):
        return lambda _index, _before: bench.flush()
    if isinstance(op, ChainedMemoryBound):
        return _memory_bound(bench, op, dtype, count if fresh else 1)
    assert_never(op)


def _fitting(before: Tensor | None, own: Tensor) -> Tensor:
    """What the kernel before wrote where it has the right number of elements, else a buffer of the op's own."""
    return before.view(own.shape) if before is not None and before.numel() == own.numel() else own


def _gemm(bench: Bench, op: GemmOp, dtype: DType, count: int) -> Step:
    x = bench.inputs(dtype).take(op.m, op.k)
    y = bench.outputs(dtype).take(op.m, op.n)
    arena = bench.weights(dtype)
    distinct = bench.cold_count(op.n * op.k * dtype.num_bytes, count)
    weights = [arena.take(op.n, op.k).t() for _ in range(distinct)]

    def step(index: int, before: Tensor | None) -> Tensor:
        return torch.mm(_fitting(before, x), weights[index % distinct], out=y)

    return step


def _attention(bench: Bench, op: AttentionOp, dtype: DType) -> Step:
    heads = (op.num_heads, op.num_kv_heads, op.num_kv_heads)
    own = bench.inputs(dtype).take(op.batch, op.q_len, sum(heads), op.head_dim)

    def step(_index: int, before: Tensor | None) -> Tensor | None:
        parts = _fitting(before, own).split(heads, dim=2)
        q, k, v = (part.transpose(1, 2) for part in parts)
        attention.prefill_call(q, k, v)()
        return None

    return step


def _decode_attention(bench: Bench, op: DecodeAttentionOp, dtype: DType, count: int) -> Step:
    sizes = op.model_dump(exclude={"op"})
    case = AttentionCase(**sizes, q_len=1, causal=False, dtype=dtype, launch=Launch.GRAPH)
    views, _ = attention.calls(bench, case, count)

    def step(index: int, _before: Tensor | None) -> Tensor | None:
        views[index]()
        return None

    return step


def _memory_bound(bench: Bench, op: ChainedMemoryBound, dtype: DType, distinct: int) -> Step:
    rows, width = op.num_tokens, op.hidden_size
    if op.op in ("rope", "rope_kv_write", "kv_write"):
        return _positions(bench, op, dtype, distinct)
    if op.op in ("gelu", "silu_mul"):
        own = bench.inputs(dtype).take(rows, (2 if op.op == "silu_mul" else 1) * width)
        function = fused.silu_mul if op.op == "silu_mul" else nnf.gelu
        return lambda _index, before: function(_fitting(before, own))
    own = bench.inputs(dtype).take(rows, width)
    if op.op == "add":
        others = [bench.weights(dtype).take(rows, width) for _ in range(_few(rows * width, dtype, bench, distinct))]
        # Scaled, so that sums and products of many rounds stay finite.
        scale = 1.0 / math.sqrt(width)
        return lambda index, before: torch.add(others[index % len(others)], _fitting(before, own), alpha=scale)
    weights = [bench.weights(dtype).take(2, width) for _ in range(distinct)]
    if op.op == "norm":
        return lambda index, before: nnf.layer_norm(_fitting(before, own), (width,), *weights[index % distinct])
    generated = op.kernels is not KernelSet.PYTORCH
    if op.op == "rms_norm":
        norm = fused.rms_norm if generated else _torch_rms_norm
        return lambda index, before: norm(_fitting(before, own), weights[index % distinct][0])
    if not generated:
        raise SkipCase("torch has no kernel that adds and norms")
    others = [bench.weights(dtype).take(rows, width) for _ in range(_few(rows * width, dtype, bench, distinct))]

    def add_norm(index: int, before: Tensor | None) -> Tensor:
        weight, bias = weights[index % distinct]
        x, y = _fitting(before, own), others[index % len(others)]
        both = fused.add_layer_norm(x, y, weight, bias) if op.op == "add_norm" else fused.add_rms_norm(x, y, weight)
        normed: Tensor = both[1]
        return normed

    return add_norm


def _torch_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return nnf.rms_norm(x, weight.shape, weight, fused.NORM_EPS)


def _few(num_elements: int, dtype: DType, bench: Bench, distinct: int) -> int:
    """Buffers of which each is out of L2 when its turn comes again; one where one is asked for."""
    return 1 if distinct == 1 else bench.cold_count(num_elements * dtype.num_bytes, distinct)


def _positions(bench: Bench, op: ChainedMemoryBound, dtype: DType, distinct: int) -> Step:
    """Rotary positions, the cache write, or both in one kernel, of a projection [T, h + 2g, e] with h = 4g."""
    rows = op.num_tokens
    if op.op == "kv_write":
        groups, queries = op.hidden_size // _HEAD_DIM, _GROUP * op.hidden_size // _HEAD_DIM
    else:
        groups = op.hidden_size // _HEAD_DIM // (_GROUP + 1)
        queries = op.hidden_size // _HEAD_DIM - groups
    own = bench.inputs(dtype).take(rows, queries + 2 * groups, _HEAD_DIM)
    cache = bench.outputs(dtype).take(rows, 2, groups, _HEAD_DIM)
    angles = [bench.weights(dtype).take(2, rows, _HEAD_DIM) for _ in range(distinct)]

    def rope(index: int, before: Tensor | None) -> Tensor:
        qkv = _fitting(before, own)
        fused.rope(qkv[:, : queries + groups], *angles[index % distinct])
        return qkv

    def write(_index: int, before: Tensor | None) -> Tensor:
        qkv = _fitting(before, own)
        cache.copy_(qkv[:, queries:].unflatten(1, (2, groups)))
        return qkv

    def both(index: int, before: Tensor | None) -> Tensor:
        qkv = _fitting(before, own)
        fused.rope_store(qkv, *angles[index % distinct], cache)
        return qkv

    return {"rope": rope, "kv_write": write, "rope_kv_write": both}[op.op]


def _estimate_s(op: ChainedOp, dtype: DType) -> float:
    """A rough duration on a recent data-center GPU."""
    if isinstance(op, GemmOp):
        return gemm.estimate_s(op.m, op.n, op.k)
    if isinstance(op, FlushOp):
        return _FLUSH_S
    if isinstance(op, ChainedMemoryBound):
        return _TYPICAL_OVERHEAD_S + 3 * op.num_tokens * op.hidden_size * dtype.num_bytes / _TYPICAL_BYTES_PER_S
    q_len = op.q_len if isinstance(op, AttentionOp) else 1
    kv_len = op.q_len if isinstance(op, AttentionOp) else op.kv_len
    sizes = op.model_dump(include={"batch", "num_heads", "num_kv_heads", "head_dim"})
    case = AttentionCase(**sizes, q_len=q_len, kv_len=kv_len, causal=q_len > 1, dtype=dtype, launch=Launch.GRAPH)
    return attention.estimate_s(case)
