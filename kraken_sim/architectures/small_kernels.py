"""The small kernels between GEMMs and attention, by kernel set: which run, in what order, on which shapes.

Shape letters: T tokens, h query and g key/value heads of a device, e width of a head, f its share of the FFN's width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kraken_sim.program.kernel_sets import Positions
from kraken_sim.program.many import same
from kraken_sim.program.ops import Copy, DType, Elementwise, Norm
from kraken_sim.program.program import Category

if TYPE_CHECKING:
    from kraken_sim.program.kernel_sets import KernelRules
    from kraken_sim.program.ops import ComputeOp, NormFunction


class SmallKernel(NamedTuple):
    """A kernel and where its time is counted."""

    name: str
    op: ComputeOp
    category: Category = Category.OTHER


class HeadShapes(NamedTuple):
    """What a device's QKV projection gives: T tokens, h query and g key/value heads of width e, and their format.

    `cache_dtype` is the cache's where that is another.
    """

    num_tokens: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: DType
    cache_dtype: DType | None = None

    def elements(self, num_heads: int) -> int:
        """Elements of so many heads of all tokens."""
        return self.num_tokens * num_heads * self.head_dim


def norm_kernels(
    name: str, num_tokens: int, hidden_size: int, dtype: DType, function: NormFunction, rules: KernelRules
) -> list[SmallKernel]:
    """A norm over [num_tokens, hidden_size]; a LayerNorm is torch's in all sets."""
    if function == "layer_norm":
        return [SmallKernel(name, Norm(num_tokens, hidden_size, dtype), Category.NORM)]
    if rules.composed:
        return composed_rms_norm(name, num_tokens, hidden_size, dtype)
    norm = Norm(num_tokens, hidden_size, dtype, function, fused=rules.generated_norm)
    return [SmallKernel(name, norm, Category.NORM)]


def add_norm(num_tokens: int, hidden_size: int, dtype: DType, function: NormFunction) -> Norm:
    """A sum of two and its norm in one kernel, which writes both."""
    return Norm(num_tokens, hidden_size, dtype, function, fused=True, adds=1, writes_sum=True)


def composed_rms_norm(name: str, num_tokens: int, hidden_size: int, dtype: DType) -> list[SmallKernel]:
    """Weight * (x * rsqrt(mean(x²) + eps)), in float32 inside (Hugging Face modeling_llama.py): 8 kernels, or 6."""
    elements, wide = num_tokens * hidden_size, DType.FLOAT32
    steps = [
        ("pow", Elementwise("pow", elements, 1, wide)),
        ("mean", Elementwise("mean", elements, 1, wide, num_outputs=0, rows=num_tokens)),
        ("add", Elementwise("add", num_tokens, 1, wide)),
        ("rsqrt", Elementwise("rsqrt", num_tokens, 1, wide)),
        ("mul", Elementwise("mul", elements, 1, wide, strided=True)),
        ("weight", Elementwise("mul", elements, 1, dtype, strided=bool(same(num_tokens > 1)))),
    ]
    if dtype.num_bytes < wide.num_bytes:
        steps.insert(0, ("widen", Elementwise("convert", elements, 1, dtype, output_dtype=wide, strided=True)))
        steps.insert(-1, ("narrow", Elementwise("convert", elements, 1, wide, output_dtype=dtype)))
    return [SmallKernel(f"{name}_{step}", op, Category.NORM) for step, op in steps]


def attention_preparation(
    heads: HeadShapes, rules: KernelRules, *, qk_norm: bool, rotary: bool, decode: bool, copies: Category
) -> list[SmallKernel]:
    """What lies between the QKV projection and attention: norms of the heads, rotary positions, the cache write.

    Args:
        heads: what the projection gives.
        rules: the kernel set.
        qk_norm: whether the model has an RMSNorm over each query and key head.
        rotary: whether its positions are rotary.
        decode: whether attention is a decode step's.
        copies: where the time of copies is counted.
    """
    if rules.composed:
        return _composed_preparation(heads, qk_norm=qk_norm, rotary=rotary, copies=copies)
    in_attention = rules.positions is Positions.IN_ATTENTION
    if rotary and rules.positions is Positions.COMPILED:
        return _compiled_preparation(heads, qk_norm=qk_norm)
    queries_keys = heads.num_heads + heads.num_kv_heads
    found = []
    if qk_norm and in_attention:
        found.append(_head_norm("norm_qk", heads, queries_keys))
    elif qk_norm:
        found += [_head_norm("norm_q", heads, heads.num_heads), _head_norm("norm_k", heads, heads.num_kv_heads)]
    if in_attention and decode:
        return found
    if rotary and in_attention:
        return [*found, _rope_and_write(heads, heads.num_heads)]
    if rotary:
        found.append(SmallKernel("rope", Elementwise("rope", heads.elements(queries_keys), 1, heads.dtype)))
    return [*found, _cache_write("kv_cache", heads, 2 * heads.num_kv_heads, copies)]


def _head_norm(name: str, heads: HeadShapes, num_heads: int) -> SmallKernel:
    """A generated norm, as torch has none for rows of another stride that is one kernel."""
    norm = Norm(heads.num_tokens * num_heads, heads.head_dim, heads.dtype, "rms_norm", fused=True)
    return SmallKernel(name, norm, Category.NORM)


def _cache_write(name: str, heads: HeadShapes, num_heads: int, category: Category) -> SmallKernel:
    if heads.cache_dtype is not None:
        # It scales what it writes.
        elements = heads.elements(num_heads)
        return SmallKernel(name, Elementwise("quantize", elements, 1, heads.dtype, output_dtype=heads.cache_dtype))
    # The keys and values of one token lie side by side: a slice of many tokens is strided, of one it is not.
    num_bytes = heads.elements(num_heads) * heads.dtype.num_bytes
    return SmallKernel(name, Copy(num_bytes, bool(same(heads.num_tokens > 1))), category)


def _rope_and_write(heads: HeadShapes, num_heads: int) -> SmallKernel:
    """Keys turned on their way into the cache with the values, and so many query heads beside them."""
    cached = heads.elements(2 * heads.num_kv_heads)
    elements = heads.elements(num_heads) + cached
    if heads.cache_dtype is None:
        return SmallKernel("rope_kv_write", Elementwise("rope_kv_write", elements, 1, heads.dtype))
    # It scales what it writes into the cache; queries keep their format.
    op = Elementwise("rope_kv_write", elements, 1, heads.dtype, output_dtype=heads.cache_dtype, converted=cached)
    return SmallKernel("rope_kv_write", op)


def _compiled_preparation(heads: HeadShapes, *, qk_norm: bool) -> list[SmallKernel]:
    """What torch.compile makes of the whole: keys and values into the cache, then queries; a norm joins its own."""
    write = _rope_and_write(heads, 0)
    if qk_norm:
        return [
            _head_norm("norm_k", heads, heads.num_kv_heads),
            write,
            _head_norm("norm_rope_q", heads, heads.num_heads),
        ]
    return [write, SmallKernel("rope_q", Elementwise("rope", heads.elements(heads.num_heads), 1, heads.dtype))]


def _composed_preparation(heads: HeadShapes, *, qk_norm: bool, rotary: bool, copies: Category) -> list[SmallKernel]:
    """Queries, then keys, each by operators of its own."""
    found = []
    parts = (("q", heads.num_heads), ("k", heads.num_kv_heads))
    if qk_norm:
        for name, number in parts:
            rows = heads.num_tokens * number
            found += composed_rms_norm(f"norm_{name}", rows, heads.head_dim, heads.dtype)
    if not rotary:
        return [*found, _cache_write("kv_cache", heads, 2 * heads.num_kv_heads, copies)]
    for name, number in parts:
        found += composed_rope(f"rope_{name}", heads.elements(number), heads.dtype)
    return found + [_cache_write(f"{name}_cache", heads, heads.num_kv_heads, copies) for name in ("k", "v")]


def composed_rope(name: str, elements: int, dtype: DType) -> list[SmallKernel]:
    """Five kernels of x * cos + cat(-x2, x1) * sin."""
    return [
        SmallKernel(f"{name}_neg", Elementwise("neg", elements // 2, 1, dtype, strided=True)),
        SmallKernel(f"{name}_cat", Elementwise("cat", elements, 1, dtype, strided=True)),
        SmallKernel(f"{name}_cos", Elementwise("mul", elements, 1, dtype, strided=True)),
        SmallKernel(f"{name}_sin", Elementwise("mul", elements, 1, dtype, strided=True)),
        SmallKernel(f"{name}_add", Elementwise("add", elements, 2, dtype)),
    ]


def activation_kernels(
    num_tokens: int, width: int, dtype: DType, rules: KernelRules, *, gated: bool
) -> list[SmallKernel]:
    """GELU of T x f elements, or SiLU(a) * b of two such halves; of many tokens a half is a slice."""
    elements, sliced = num_tokens * width, bool(same(num_tokens > 1))
    if not gated:
        return [SmallKernel("gelu", Elementwise("gelu", elements, 1, dtype))]
    if rules.composed:
        return [
            SmallKernel("silu", Elementwise("silu", elements, 1, dtype, strided=sliced)),
            SmallKernel("mul", Elementwise("mul", elements, 2, dtype, strided=sliced)),
        ]
    return [SmallKernel("silu_mul", Elementwise("silu_mul", elements, 2, dtype))]
