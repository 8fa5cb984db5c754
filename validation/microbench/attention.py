"""Attention as a real layer calls it: strided views of one QKV projection, torch's own choice of backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as nnf
from torch.nn.attention import SDPBackend

from kraken_sim.measurements.records.kernels import AttentionCase
from kraken_sim.scenario.spec import Launch
from validation.microbench.bench import Bench, Outcome, SkipCase, chain_length
from validation.timing import time_eager, time_graph

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kraken_sim.measurements.records.together import AttentionOp
    from kraken_sim.program.ops import DType

_WARM_BUFFERS = 2
# Of a recent data-center GPU; only used to choose how long a chain is.
_TYPICAL_FLOPS = 4e14
_TYPICAL_BYTES_PER_S = 3e12
_TYPICAL_OVERHEAD_S = 6e-6


def estimate_s(case: AttentionCase) -> float:
    """A rough duration on a recent data-center GPU."""
    flops = 4 * case.batch * case.num_heads * case.q_len * case.kv_len * case.head_dim / (2 if case.causal else 1)
    num_bytes = 4 * case.batch * case.kv_len * case.num_kv_heads * case.head_dim
    return _TYPICAL_OVERHEAD_S + max(flops / _TYPICAL_FLOPS, num_bytes / _TYPICAL_BYTES_PER_S)


def prefill_views(
    bench: Bench, batch: int, q_len: int, num_heads: int, num_kv_heads: int, head_dim: int, dtype: DType
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v [B, h, T, e] as views of one projection [B, T, h + 2g, e]."""
    qkv = bench.inputs(dtype).take(batch, q_len, num_heads + 2 * num_kv_heads, head_dim)
    parts = qkv.split((num_heads, num_kv_heads, num_kv_heads), dim=2)
    q, k, v = (part.transpose(1, 2) for part in parts)
    return q, k, v


def prefill_call(q: Tensor, k: Tensor, v: Tensor) -> Callable[[], object]:
    """One causal attention over such views."""
    grouped = q.shape[1] != k.shape[1]
    return lambda: nnf.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)


def decode_calls(bench: Bench, op: AttentionOp, kv_len: int, dtype: DType, count: int) -> list[Callable[[], object]]:
    """`count` decode attentions of a load, each over a cache of its own as far as that matters for L2."""
    fields = op.model_dump(exclude={"op", "kv_len"})
    case = AttentionCase(**fields, kv_len=kv_len, causal=False, dtype=dtype, launch=Launch.GRAPH)
    return calls(bench, case, count)[0]


def _decode_views(bench: Bench, case: AttentionCase, count: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Q of one token and distinct caches [B, T, 2, g, e], which are too large to stay in L2 between layers."""
    q = bench.inputs(case.dtype).take(case.batch, 1, case.num_heads, case.head_dim).transpose(1, 2)
    shape = (case.batch, case.kv_len, 2, case.num_kv_heads, case.head_dim)
    num_bytes = 2 * case.batch * case.kv_len * case.num_kv_heads * case.head_dim * case.dtype.num_bytes
    distinct = bench.cold_count(num_bytes, count)
    caches = [bench.weights(case.dtype).take(*shape) for _ in range(distinct)]
    pairs = [(cache[:, :, 0].transpose(1, 2), cache[:, :, 1].transpose(1, 2)) for cache in caches]
    return [(q, *pairs[index % distinct]) for index in range(count)]


def calls(bench: Bench, case: AttentionCase, count: int) -> tuple[list[Callable[[], object]], str | None]:
    """`count` attentions and the name of the backend that torch picks for them."""
    if case.causal and case.q_len != case.kv_len:
        raise SkipCase("causal attention needs as many queries as keys")
    grouped = case.num_heads != case.num_kv_heads
    if case.q_len == case.kv_len:
        views = [
            prefill_views(bench, case.batch, case.q_len, case.num_heads, case.num_kv_heads, case.head_dim, case.dtype)
            for _ in range(min(_WARM_BUFFERS, count))
        ]
        views = [views[index % len(views)] for index in range(count)]
    else:
        views = _decode_views(bench, case, count)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Callable[[], object]:
        return lambda: nnf.scaled_dot_product_attention(q, k, v, is_causal=case.causal, enable_gqa=grouped)

    return [call(*view) for view in views], backend(views[0], causal=case.causal, grouped=grouped)


def backend(view: tuple[Tensor, Tensor, Tensor], *, causal: bool, grouped: bool) -> str | None:
    """The name of the implementation that torch would pick; None where this torch does not tell."""
    choose: Any = getattr(torch, "_fused_sdp_choice", None)
    if choose is None:
        return None
    try:
        return SDPBackend(choose(*view, None, 0.0, causal, enable_gqa=grouped)).name.lower()
    except (RuntimeError, TypeError, ValueError):
        return None


def run(bench: Bench, case: AttentionCase) -> Outcome:
    """Time a chain of one attention."""
    estimate = estimate_s(case)
    length = chain_length(estimate, most=10 if not bench.clock.is_cuda else 30)
    repeats = 7 if estimate < 2e-3 else 5
    (lead, *chain), chosen = calls(bench, case, length + 1)
    if case.launch is Launch.GRAPH:
        burst_s = (length + 1) * estimate
        samples = time_graph(bench.clock, chain, repeats, before=lambda: bench.cool_and_flush(burst_s), lead=[lead])
    else:
        samples = time_eager(bench.clock, chain, repeats, before=bench.flush)
    return Outcome({"time_s": samples}, {"calls": length, "repeats": repeats, "backend": chosen})
