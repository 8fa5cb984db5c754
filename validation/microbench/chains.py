"""Which chains of unlike kernels are measured, and the kernels alone that they are compared with.

A chain costs the sum of its kernels alone (warm, as in chains of their like), the gaps between them, and what operands
out of HBM take longer: `fresh` against `kept`, and `flush` before a kernel, tell the last two apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from kraken_sim.measurements.records.kernels import AttentionCase, GemmCase, MemoryBoundCase, MemoryBoundFunction
from kraken_sim.measurements.records.together import (
    AttentionOp,
    ChainCase,
    ChainedMemoryBound,
    DecodeAttentionOp,
    FlushOp,
    GemmOp,
)
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kraken_sim.measurements.records.base import Case
    from kraken_sim.measurements.records.together import ChainedOp

ROWS: Final = (1, 16, 128, 512, 2048)
WIDTHS: Final = (4096, 2048, 8192)
_HEAD_DIM: Final = 128
_GROUP: Final = 4
_KV_LEN: Final = 2049

_Kernel = tuple[str, KernelSet]
_PLAIN, _MADE = KernelSet.PYTORCH, KernelSet.COMPILED
LLAMA: Final[tuple[_Kernel, ...]] = (
    ("rms_norm", _PLAIN),
    ("rms_norm", _MADE),
    ("norm", _PLAIN),
    ("add_rms_norm", _MADE),
    ("add", _PLAIN),
    ("rope", _PLAIN),
    ("rope_kv_write", _MADE),
    ("kv_write", _PLAIN),
    ("silu_mul", _PLAIN),
    ("gelu", _PLAIN),
)
CLASSIC: Final[tuple[_Kernel, ...]] = (
    ("norm", _PLAIN),
    ("add_norm", _MADE),
    ("add", _PLAIN),
    ("kv_write", _PLAIN),
    ("gelu", _PLAIN),
)
_WITH_OPERANDS: Final = frozenset({"norm", "add_norm", "rms_norm", "add_rms_norm", "add", "rope", "rope_kv_write"})
"""Those that read something besides what the kernel before them wrote."""
_ACROSS_WEIGHTS: Final = frozenset({"add", "rms_norm", "add_rms_norm"})
"""Those that are also measured with operands that were last read a GEMM ago."""


def chain_cases() -> Iterator[ChainCase]:
    """All chains, most telling first."""
    found: dict[str, ChainCase] = {}
    for dtype, kernels in ((DType.BFLOAT16, LLAMA), (DType.FLOAT16, CLASSIC)):
        for width in WIDTHS:
            for rows in ROWS:
                for case in _around(rows, width, dtype, kernels):
                    found.setdefault(case.key, case)
    for case in _evicting():
        found.setdefault(case.key, case)
    yield from found.values()


def _around(rows: int, width: int, dtype: DType, kernels: Sequence[_Kernel]) -> Iterator[ChainCase]:
    """Kernels of one width: alone, behind a GEMM, after a flush, and in threes."""
    square = GemmOp(op="gemm", m=rows, n=width, k=width)
    yield _case([square], dtype)
    for function, made_of in kernels:
        kernel = _kernel(function, rows, width, made_of)
        before = _before(function, rows, width)
        yield _case([kernel], dtype, "kept")
        if function in _WITH_OPERANDS:
            yield _case([kernel], dtype)
        yield _case([before], dtype)
        yield _case([before, kernel], dtype)
        if function in _ACROSS_WEIGHTS:
            yield _case([before, kernel], dtype, "kept")
        if dtype is DType.BFLOAT16:
            yield _case([FlushOp(op="flush"), kernel], dtype, "kept")
    add = _kernel("add", rows, width, _PLAIN)
    for function, made_of in kernels:
        if function in ("norm", "rms_norm"):
            yield _case([square, add, _kernel(function, rows, width, made_of)], dtype)
    if dtype is DType.BFLOAT16:
        yield _case([FlushOp(op="flush")], dtype)
        yield _case([add, _kernel("rms_norm", rows, width, _PLAIN)], dtype, "kept")
        yield from _ffn(rows, width, dtype)
        yield from _attending(rows, width, dtype)


def _ffn(rows: int, width: int, dtype: DType) -> Iterator[ChainCase]:
    up = GemmOp(op="gemm", m=rows, n=4 * width, k=width)
    down = GemmOp(op="gemm", m=rows, n=width, k=2 * width)
    yield _case([down], dtype)
    yield _case([up, _kernel("silu_mul", rows, width, _PLAIN), down], dtype)


def _attending(rows: int, width: int, dtype: DType) -> Iterator[ChainCase]:
    """Rotary positions, the cache write and attention: a decode step of `rows` sequences, or a prefill."""
    qkv = _before("rope", rows, width)
    rope, write = _kernel("rope", rows, width, _PLAIN), _kernel("kv_write", rows, width, _PLAIN)
    yield _case([rope, write], dtype, "kept")
    heads = {"num_heads": width // _HEAD_DIM, "num_kv_heads": width // _HEAD_DIM // _GROUP, "head_dim": _HEAD_DIM}
    attention: ChainedOp
    if rows < ROWS[2]:
        attention = DecodeAttentionOp(op="decode_attention", batch=rows, kv_len=_KV_LEN, **heads)
    else:
        attention = AttentionOp(op="attention", batch=1, q_len=rows, **heads)
    yield _case([attention], dtype)
    yield _case([qkv, attention], dtype)
    yield _case([qkv, rope, write, attention], dtype)


def _evicting() -> Iterator[ChainCase]:
    """GEMMs of ever more weights between two uses of an operand: when it is out of L2."""
    width, dtype = 4096, DType.BFLOAT16
    for rows in (16, 512):
        for k in (1024, 2048, 3072, 4096, 6144, 8192, 12_288, 16_384):
            gemm = GemmOp(op="gemm", m=rows, n=width, k=k)
            yield _case([gemm], dtype)
            for function in ("add", "rms_norm"):
                kernel = _kernel(function, rows, width, _PLAIN)
                yield _case([gemm, kernel], dtype)
                yield _case([gemm, kernel], dtype, "kept")


def _kernel(function: str, rows: int, width: int, made_of: KernelSet) -> ChainedMemoryBound:
    """The kernel of a layer of that width: queries as wide as the stream, an FFN of twice its width."""
    sizes = {"rope": width + width // _GROUP, "kv_write": width // _GROUP, "silu_mul": 2 * width, "gelu": 4 * width}
    own = sizes.get(function.removesuffix("_kv_write"), width)
    fields = {"op": function, "num_tokens": rows, "hidden_size": own, "kernels": made_of}
    return ChainedMemoryBound.model_validate(fields)


def _before(function: str, rows: int, width: int) -> GemmOp:
    """The GEMM whose result such a kernel reads."""
    wide = {"rope": 6 * width // _GROUP, "rope_kv_write": 6 * width // _GROUP, "kv_write": 6 * width // _GROUP}
    n = (wide | {"silu_mul": 4 * width, "gelu": 4 * width}).get(function, width)
    return GemmOp(op="gemm", m=rows, n=n, k=width)


def _case(ops: Sequence[ChainedOp], dtype: DType, operands: Literal["fresh", "kept"] = "fresh") -> ChainCase:
    return ChainCase(compute=tuple(ops), operands=operands, dtype=dtype, launch=Launch.GRAPH)


_MORE_WIDTHS: Final[tuple[tuple[MemoryBoundFunction, KernelSet, tuple[int, ...], tuple[int, ...]], ...]] = (
    ("rms_norm", _PLAIN, (5120, 6144, 12_288), (1, 16, 128, 512, 2048)),
    ("rms_norm", _MADE, (5120, 6144, 12_288), (1, 16, 128, 512, 2048)),
    ("rms_norm", _PLAIN, (64, 128), (8, 40, 128, 512, 4096, 20_480, 81_920)),
    ("rms_norm", _MADE, (64, 128), (8, 40, 128, 512, 4096, 20_480, 81_920)),
    ("add_rms_norm", _MADE, (5120, 6144, 12_288), (1, 16, 128, 512, 2048)),
    ("rope", _PLAIN, (640, 3840, 10_240), (1, 4, 16, 64, 128, 512, 2048)),
    ("rope_kv_write", _MADE, (640, 3840, 10_240), (1, 4, 16, 64, 128, 512, 2048)),
    ("silu_mul", _PLAIN, (1792, 6144, 12_288, 18_944, 28_672), (1, 16, 64, 128, 512, 2048)),
    ("gelu", _PLAIN, (8192, 16_384), (1, 16, 64, 128, 512, 2048)),
    ("kv_write", _PLAIN, (256, 2048, 4096), (1, 16, 64, 128, 512, 2048)),
    ("norm", _PLAIN, (2048, 4096, 8192, 12_288), (16, 64, 512)),
)
"""Shapes of the small kernels between those of `model_grid`; norms 64 and 128 wide are those of heads."""


def memory_bounds() -> Iterator[MemoryBoundCase]:
    """Small kernels alone, at widths that the other suites leave out."""
    for function, made_of, widths, rows in _MORE_WIDTHS:
        for width in widths:
            for tokens in rows:
                yield MemoryBoundCase(
                    function=function,
                    num_tokens=tokens,
                    hidden_size=width,
                    dtype=DType.BFLOAT16,
                    launch=Launch.GRAPH,
                    kernels=made_of,
                )


_HEADS: Final = (
    (8, 2, 128), (12, 2, 128), (4, 1, 128), (5, 1, 128), (10, 2, 128), (24, 8, 128), (64, 8, 128), (40, 8, 128),
    (16, 1, 128), (2, 2, 128), (25, 25, 64), (16, 4, 64), (8, 1, 64), (32, 32, 80), (32, 8, 96), (24, 8, 192),
    (8, 8, 256), (8, 1, 256), (4, 1, 256),
)  # fmt: skip
"""Query heads, key/value heads, width of a head, beside those of `model_grid`."""


def attentions() -> Iterator[AttentionCase]:
    """Attention of other groups and widths of a head."""
    for num_heads, num_kv_heads, head_dim in _HEADS:
        heads = {"num_heads": num_heads, "num_kv_heads": num_kv_heads, "head_dim": head_dim, "dtype": DType.BFLOAT16}
        for length in (256, 1024, 4096):
            yield AttentionCase.model_validate(
                {**heads, "batch": 1, "q_len": length, "kv_len": length, "causal": True, "launch": Launch.GRAPH}
            )
        for kv_len, batches in ((257, (1, 8)), (1025, (1, 2, 32)), (4097, (1, 8))):
            for batch in batches:
                yield AttentionCase.model_validate(
                    {**heads, "batch": batch, "q_len": 1, "kv_len": kv_len, "causal": False, "launch": Launch.GRAPH}
                )


_MATRICES: Final = (
    (2048, 2048), (4096, 4096), (6144, 4096), (28_672, 4096), (4096, 14_336), (8192, 2048), (16_384, 2048),
    (10_240, 8192), (5120, 5120), (12_288, 3072),
)  # fmt: skip


def gemms() -> Iterator[GemmCase]:
    """Few and middling rows without bias, in bf16; some in fp16, to compare the two."""
    for n, k in _MATRICES:
        for dtype, rows in ((DType.BFLOAT16, (2, 8, 32, 48, 96, 256, 1024)), (DType.FLOAT16, (1, 16, 64, 128, 512))):
            for m in rows:
                yield GemmCase(m=m, n=n, k=k, epilogue="none", dtype=dtype, launch=Launch.GRAPH)


def cpu_cases() -> Iterator[Case]:
    """Tiny ones, which show that all of it runs."""
    gemm = GemmOp(op="gemm", m=4, n=1024, k=512)
    for operands in ("fresh", "kept"):
        for function, made_of in LLAMA:
            kernel = _kernel(function, 4, 512, made_of)
            yield _tiny([gemm, kernel], operands)
    decode = DecodeAttentionOp(op="decode_attention", batch=2, kv_len=32, num_heads=4, num_kv_heads=2, head_dim=16)
    prefill = AttentionOp(op="attention", batch=1, q_len=16, num_heads=4, num_kv_heads=2, head_dim=16)
    yield _tiny([gemm, decode, prefill, FlushOp(op="flush")], "fresh")


def _tiny(ops: Sequence[ChainedOp], operands: Literal["fresh", "kept"]) -> ChainCase:
    return _case(ops, DType.FLOAT32, operands).model_copy(update={"launch": Launch.EAGER})
