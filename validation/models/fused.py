"""The small kernels between the GEMMs, as each kernel set has them.

    op              pytorch                      pytorch_composed             compiled
    RMSNorm         torch's F.rms_norm           8 pointwise and reductions   with the add before it, one
    rotary          one over queries and keys    5 for queries, 5 for keys    } two, three with the norms of
    cache write     one                          keys, values: 2              } queries and keys
    SiLU(a) * b     one                          2                            one
    residual add    one                          one                          in the norm after it

`pytorch` is one kernel for each op of the simulator's program: torch's own where it has one, else a function of this
module through torch.compile. `pytorch_composed` is what a model written in torch's operators launches without a
compiler, such as Hugging Face's. `fused` is `pytorch` with a generated RMSNorm, as engines have one. `compiled` is what
torch.compile makes of neighbours. `serving` is `compiled` with the rotary positions and cache write of `pytorch`, as
vLLM runs them. GEMMs, attention, embedding, LayerNorm and GELU are torch's in all sets, but that the last two take the
residual add into a LayerNorm too.

On CUDA the functions are compiled for any number of rows (one row apart); elsewhere they run as they are written,
each under a label of the profiler that stands for its kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

NORM_EPS = 1e-5  # GPT-2's and Llama's
LABEL = "fused::"
"""What the profiler's names of fused functions begin with."""

_MOST_VERSIONS = 512
"""Versions of a function that torch.compile may keep: one a width, dtype and one-or-more rows; its default is 8."""


class Fused:
    """A function of row-wise tensors [R, ...] that is one kernel, or as few as torch.compile makes of it."""

    def __init__(self, function: Callable[..., Any], kind: str) -> None:
        self.function, self.label = function, LABEL + kind
        self._compiled: Callable[..., Any] | None = None
        self._seen: set[object] = set()

    def __call__(self, *arguments: Any) -> Any:
        """Runs it on the tensors' device."""
        if arguments[0].device.type != "cuda":
            with torch.profiler.record_function(self.label):
                return self.function(*arguments)
        if self._compiled is None:
            self._compiled = _compile(self.function)
        self._mark_rows(arguments)
        return self._compiled(*arguments)

    def _mark_rows(self, arguments: tuple[Any, ...]) -> None:
        """Says before the first call of a kind that the number of rows will differ, and nothing else."""
        tensors = [value for value in arguments if isinstance(value, Tensor) and value.dim() > 1]
        key = tuple((x.shape[0] > 1, x.is_contiguous(), x.shape[1:], x.stride()[1:], x.dtype) for x in tensors)
        if key not in self._seen:
            self._seen.add(key)
            for x in tensors:
                if x.shape[0] > 1:
                    torch._dynamo.mark_dynamic(x, 0)


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    # Widths stay constants of the kernels; only marked sizes vary.
    settings: Any = torch._dynamo.config
    settings.automatic_dynamic_shapes = False
    settings.recompile_limit = settings.accumulated_recompile_limit = _MOST_VERSIONS
    return torch.compile(function, fullgraph=True)


def rms_norm_composed(x: Tensor, weight: Tensor) -> Tensor:
    """RMSNorm over the last dimension as Hugging Face writes it, in float32 for half precision."""
    wide = x.float() if x.dtype.itemsize < torch.float32.itemsize else x
    variance = wide.pow(2).mean(-1, keepdim=True)
    normed = wide * torch.rsqrt(variance + NORM_EPS)
    return weight * normed.to(x.dtype)


def _add_rms_norm(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    total = x + y
    return total, rms_norm_composed(total, weight)


def _add_layer_norm(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    total = x + y
    return total, nnf.layer_norm(total, weight.shape, weight, bias, NORM_EPS)


def _norm_into(out: Tensor, x: Tensor, weight: Tensor) -> None:
    out.copy_(rms_norm_composed(x, weight))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of x [..., heads, e] by cos, sin [..., e] of its rows: five kernels in plain torch."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos.unsqueeze(-2) + turned * sin.unsqueeze(-2)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` without a concatenation, of which a generated kernel computes both sides for every element."""
    pairs, halves = x.unflatten(-1, (2, -1)), (2, x.shape[-1] // 2)
    sign = (2 * torch.arange(2, device=x.device) - 1).unsqueeze(-1)
    turned = pairs.flip(-2) * (sin.unflatten(-1, halves) * sign).unsqueeze(-3)
    y: Tensor = pairs * cos.unflatten(-1, halves).unsqueeze(-3) + turned
    return y.flatten(-2)


def _store(kv: Tensor, keys: Tensor, values: Tensor) -> None:
    """Keys and values [R, g, e] into rows [R, 2, g, e] of a cache."""
    is_value = torch.arange(2, device=kv.device).view(1, 2, 1, 1) == 1
    kv.copy_(torch.where(is_value, values.unsqueeze(1), keys.unsqueeze(1)))


def _rope_store(qkv: Tensor, cos: Tensor, sin: Tensor, kv: Tensor) -> Tensor:
    """Queries of a projection [R, h + 2g, e], rotated; keys (rotated) and values go into the cache's rows."""
    num_kv_heads = kv.shape[2]
    num_heads = qkv.shape[1] - 2 * num_kv_heads
    queries, keys, values = qkv.split((num_heads, num_kv_heads, num_kv_heads), dim=1)
    _store(kv, _turn(keys, cos, sin), values)
    return _turn(queries, cos, sin)


def _rope_store_at(qkv: Tensor, cos: Tensor, sin: Tensor, kv: Tensor, places: Tensor) -> Tensor:
    """`_rope_store` into the rows of a cache [P, 2, g, e] that `places` [R, 1] says."""
    num_kv_heads = kv.shape[2]
    num_heads = qkv.shape[1] - 2 * num_kv_heads
    queries, keys, values = qkv.split((num_heads, num_kv_heads, num_kv_heads), dim=1)
    kv[places.squeeze(1)] = torch.stack((_turn(keys, cos, sin), values), dim=1)
    return _turn(queries, cos, sin)


def _norm_rope_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, kv: Tensor, query_weight: Tensor, key_weight: Tensor
) -> Tensor:
    """The same, with an RMSNorm over each query and key head before."""
    num_kv_heads = kv.shape[2]
    num_heads = qkv.shape[1] - 2 * num_kv_heads
    queries, keys, values = qkv.split((num_heads, num_kv_heads, num_kv_heads), dim=1)
    _store(kv, _turn(rms_norm_composed(keys, key_weight), cos, sin), values)
    return _turn(rms_norm_composed(queries, query_weight), cos, sin)


def silu_mul_composed(x: Tensor) -> Tensor:
    """SiLU(a) * b of the halves a, b of x [R, 2f]: two kernels."""
    gate, up = x.chunk(2, dim=-1)
    return nnf.silu(gate) * up


head_norm = Fused(rms_norm_composed, "norm")
head_norm_into = Fused(_norm_into, "norm")
rms_norm = Fused(rms_norm_composed, "norm")
add_rms_norm = Fused(_add_rms_norm, "add_norm")
add_layer_norm = Fused(_add_layer_norm, "add_norm")
rope = Fused(_turn, "rope")
store = Fused(_store, "copy")
rope_store = Fused(_rope_store, "rope_store")
rope_store_at = Fused(_rope_store_at, "rope_store")
norm_rope_store = Fused(_norm_rope_store, "norm_rope_store")
silu_mul = Fused(silu_mul_composed, "silu_mul")
