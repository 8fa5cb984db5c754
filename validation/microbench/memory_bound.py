"""Kernels that stream activations: norms, GELU, SiLU-mul, add, rotary positions, copies, embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf

from kraken_sim.measurements.records.kernels import CLASSIC_FUNCTIONS, MemoryBoundCase
from kraken_sim.program.formats import ActivationScheme, Quantization
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.scenario.spec import Launch
from validation.microbench.bench import Bench, Outcome, SkipCase, chain_length
from validation.models import fused, quantized
from validation.timing import time_eager, time_graph

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.program.ops import DType

Formats = tuple[Quantization | None, ActivationScheme | None]

_VOCAB_SIZE = 51_200
_HEAD_DIM = 128
_GROUP = 4
_TYPICAL_BYTES_PER_S = 3e12
_TYPICAL_OVERHEAD_S = 3e-6


def calls(
    bench: Bench,
    function: str,
    num_tokens: int,
    hidden_size: int,
    dtype: DType,
    count: int,
    kernels: KernelSet = KernelSet.PYTORCH,
    formats: Formats = (None, None),
) -> list[Callable[[], object]]:
    """`count` kernels over the same activations [T, d], warm as far as they fit into L2.

    `formats` say what the output is quantised to, and by which scheme.
    """
    if formats[0] is not None:
        return [_quantizing(bench, function, num_tokens, hidden_size, dtype, formats)] * count
    if function not in CLASSIC_FUNCTIONS:
        return [_llama_like(bench, function, num_tokens, hidden_size, dtype, kernels)] * count
    x = bench.inputs(dtype).take(num_tokens, hidden_size)
    if function == "norm":
        weight, bias = bench.weights(dtype).take(2, hidden_size)
        return [lambda: nnf.layer_norm(x, (hidden_size,), weight, bias)] * count
    if function == "gelu":
        return [lambda: nnf.gelu(x)] * count
    if function == "add":
        other = bench.inputs(dtype).take(num_tokens, hidden_size)
        return [lambda: torch.add(x, other)] * count
    if function == "copy":
        target = bench.outputs(dtype).take(num_tokens, hidden_size)
        return [lambda: target.copy_(x)] * count
    if function == "kv_write":
        return [_kv_write(bench, num_tokens, hidden_size, dtype)] * count
    return [_embedding(bench, num_tokens, hidden_size, dtype) for _ in range(count)]


def _llama_like(
    bench: Bench, function: str, num_tokens: int, width: int, dtype: DType, kernels: KernelSet
) -> Callable[[], object]:
    """A small kernel of a Llama-like layer from a kernel set; two kernels where that set has two."""
    composed, compiled = kernels is KernelSet.PYTORCH_COMPOSED, kernels is KernelSet.COMPILED
    if function in ("rope", "rope_kv_write"):
        return _rope(bench, num_tokens, width // _HEAD_DIM, dtype, kernels, write=function == "rope_kv_write")
    if function == "silu_mul":
        both = bench.inputs(dtype).take(num_tokens, 2 * width)
        activation = fused.silu_mul_composed if composed else fused.silu_mul
        return lambda: activation(both)
    x = bench.inputs(dtype).take(num_tokens, width)
    weight = bench.weights(dtype).take(width)
    if function == "add_rms_norm":
        other = bench.inputs(dtype).take(num_tokens, width)
        if compiled:
            return lambda: fused.add_rms_norm(x, other, weight)
        return lambda: nnf.rms_norm(x + other, (width,), weight, fused.NORM_EPS)
    if composed or compiled:
        norm = fused.rms_norm_composed if composed else fused.rms_norm
        return lambda: norm(x, weight)
    return lambda: nnf.rms_norm(x, (width,), weight, fused.NORM_EPS)


def _quantizing(
    bench: Bench, function: str, num_tokens: int, width: int, dtype: DType, formats: Formats
) -> Callable[[], object]:
    """A quantisation to fp8, alone or at the end of a generated kernel."""
    quantization, scheme = formats
    if quantization is Quantization.FP8_BLOCK and function == "quantize":
        x = bench.inputs(dtype).take(num_tokens, width)
        return lambda: quantized.quantize_by_block(x)
    if quantization is not Quantization.FP8 or scheme is None:
        raise SkipCase(f"no kernel quantises to {quantization} here")
    quantizer = quantized.Quantizer(scheme, torch.tensor(1.0 / 64, device=bench.device))
    x = bench.inputs(dtype).take(num_tokens, 2 * width if function == "silu_mul" else width)
    if function == "quantize":
        return lambda: quantizer(x)
    if function == "silu_mul":
        return lambda: quantizer.silu_mul(x)
    weight = bench.weights(dtype).take(width)
    if function == "rms_norm":
        return lambda: quantizer.norm(x, weight)
    if function == "add_rms_norm":
        other = bench.inputs(dtype).take(num_tokens, width)
        return lambda: quantizer.add_norm(x, other, weight)
    raise SkipCase(f"{function} does not quantise")


def _rope(
    bench: Bench, num_tokens: int, num_heads: int, dtype: DType, kernels: KernelSet, *, write: bool
) -> Callable[[], object]:
    """Positions for `num_heads` query and key heads, four to one, and the cache write where `write`."""
    groups = num_heads // (_GROUP + 1)
    queries = num_heads - groups
    qkv = bench.inputs(dtype).take(num_tokens, num_heads + groups, _HEAD_DIM)
    cos, sin = bench.inputs(dtype).take(2, num_tokens, _HEAD_DIM)
    turned, values = qkv[:, :num_heads], qkv[:, num_heads:]
    cache = bench.outputs(dtype).take(num_tokens, 2, groups, _HEAD_DIM)
    if not write:
        if kernels is KernelSet.PYTORCH_COMPOSED:
            return lambda: [fused.rotate(part, cos, sin) for part in turned.split((queries, groups), dim=1)]
        return lambda: fused.rope(turned, cos, sin)
    if kernels is KernelSet.COMPILED:
        return lambda: fused.rope_store(qkv, cos, sin, cache)

    def apart() -> None:
        done = fused.rope(turned, cos, sin)
        fused.store(cache, done[:, queries:], values)

    return apart


def _kv_write(bench: Bench, num_tokens: int, kv_width: int, dtype: DType) -> Callable[[], object]:
    """K and V out of a projection of three equal parts [T, 3, g, e] into a cache [T, 2, g, e]."""
    heads, head_dim = (kv_width // _HEAD_DIM, _HEAD_DIM) if kv_width % _HEAD_DIM == 0 else (1, kv_width)
    keys_values = bench.inputs(dtype).take(num_tokens, 3, heads, head_dim)[:, 1:]
    cache = bench.outputs(dtype).take(num_tokens, 2, heads, head_dim)
    return lambda: cache.copy_(keys_values)


def _embedding(bench: Bench, num_tokens: int, hidden_size: int, dtype: DType) -> Callable[[], object]:
    """Random rows of a token table, then the add of position rows."""
    rows = _VOCAB_SIZE if bench.clock.is_cuda else 512
    # From the start each time: one table serves all calls, whose rows differ.
    arena = bench.weights(dtype)
    arena.rewind()
    table, positions = arena.take(rows, hidden_size), arena.take(num_tokens, hidden_size)
    ids = torch.randint(rows, (num_tokens,), device=bench.device)
    return lambda: nnf.embedding(ids, table) + positions


def calls_of(bench: Bench, case: MemoryBoundCase, count: int) -> list[Callable[[], object]]:
    """`count` of a case's kernels."""
    formats = (case.quantization, case.activation_scheme)
    return calls(bench, case.function, case.num_tokens, case.hidden_size, case.dtype, count, case.kernels, formats)


def run(bench: Bench, case: MemoryBoundCase) -> Outcome:
    """Time a chain of one kernel."""
    num_bytes = 3 * case.num_tokens * case.hidden_size * case.dtype.num_bytes
    estimate = _TYPICAL_OVERHEAD_S + num_bytes / _TYPICAL_BYTES_PER_S
    length = chain_length(estimate, most=10 if not bench.clock.is_cuda else 40)
    lead, *chain = calls_of(bench, case, length + 1)
    repeats = 7
    if case.launch is Launch.GRAPH:
        samples = time_graph(bench.clock, chain, repeats, before=bench.flush, lead=[lead])
    else:
        samples = time_eager(bench.clock, chain, repeats, before=bench.flush)
    return Outcome({"time_s": samples}, {"calls": length, "repeats": repeats})
