"""Llama-like and Qwen-like models, whole and as the share of one rank: which passes and kernels of them are measured.

A share has the heads, the FFN width and the vocabulary rows of one of N tensor-parallel ranks on the full width, so
that one device measures what each of N computes. Layers are fewer than the model's; all other sizes are the real ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kraken_sim.measurements.records.kernels import AttentionCase, GemmCase, MemoryBoundCase
from kraken_sim.measurements.records.launched import KernelsCase
from kraken_sim.measurements.records.passes import PassCase
from kraken_sim.program.kernel_sets import RULES, CardLoad, KernelSet
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.measurements.records.base import Case
    from kraken_sim.measurements.records.kernels import MemoryBoundFunction


@dataclass(frozen=True, slots=True)
class Shape:
    """A model or one rank's share of it; sizes as published in the model's config.json."""

    name: str
    model_type: str
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 8448

    def fields(self) -> dict[str, object]:
        """`model` of a scenario."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "name"}

    def matrices(self) -> list[tuple[int, int]]:
        """(n, k) of a layer's weights: queries, keys and values; attention's output; gate and up; down."""
        d, e, f = self.hidden_size, self.head_dim, self.intermediate_size
        queries = self.num_attention_heads * e
        return [(queries + 2 * self.num_key_value_heads * e, d), (d, queries), (2 * f, d), (d, f)]


SHAPES: Final = (
    Shape("Llama-3.1-8B", "llama", 4, 4096, 32, 8, 128, 14_336, 128_256),
    Shape("Llama-3.2-1B", "llama", 8, 2048, 32, 8, 64, 8192, 128_256, tie_word_embeddings=True),
    Shape("Qwen3-8B", "qwen3", 4, 4096, 32, 8, 128, 12_288, 151_936),
    Shape("Llama-3.1-70B/8", "llama", 6, 8192, 8, 1, 128, 3584, 16_032),
    Shape("Llama-3.2-3B", "llama", 6, 3072, 24, 8, 128, 8192, 128_256, tie_word_embeddings=True),
    Shape("Qwen2.5-7B", "qwen2", 4, 3584, 28, 4, 128, 18_944, 152_064),
    Shape("Llama-3.1-8B/2", "llama", 6, 4096, 16, 4, 128, 7168, 64_128),
    Shape("Qwen3-1.7B", "qwen3", 6, 2048, 16, 8, 128, 6144, 151_936, tie_word_embeddings=True),
)
"""Most telling first."""

Point = tuple[str, int, int]
"""Phase, sequences, tokens of the prompt or in the cache."""

PREFILLS: Final[tuple[Point, ...]] = tuple(("prefill", 1, tokens) for tokens in (128, 512, 2048, 8192))
DECODES: Final[tuple[Point, ...]] = tuple(
    ("decode", batch, tokens)
    for tokens, batches in ((512, (1, 4, 16, 64)), (2048, (1, 16, 64)), (8192, (1, 4, 16)))
    for batch in batches
)
SOME: Final[tuple[Point, ...]] = (("prefill", 1, 128), ("prefill", 1, 2048), ("decode", 1, 2048), ("decode", 16, 2048))
GPT2_DECODES: Final[tuple[Point, ...]] = tuple(
    ("decode", batch, tokens) for tokens in (512, 2000) for batch in (1, 4, 16, 64)
)


def pass_groups(condition: str, *, cpu: bool = False) -> Iterator[tuple[Case, ...]]:
    """Passes of one device, those with the same weights together; and behind all of them the kernels of some.

    Once a process has been profiled, the profiler stays between it and the driver: launching a graph then takes 1 to
    2 us a node longer, which an eager or a lone pass shows.
    """
    if cpu:
        yield tuple(_cpu_passes(condition))
        return
    traced = []
    for shape in SHAPES:
        passes = tuple(_passes(shape.fields(), DType.BFLOAT16, condition))
        yield passes
        traced.append(tuple(KernelsCase(of=case.key) for case in passes if _is_traced(shape, case)))
    for preset, layers in (("1.3B", 8), ("6.7B", 4)):
        model: dict[str, object] = {"preset": preset, "num_hidden_layers": layers}
        for dtype in (DType.FLOAT16, DType.BFLOAT16):
            yield tuple(_graphs(model, dtype, condition, KernelSet.PYTORCH, (*GPT2_DECODES, *SOME[:2])))
    for shape in SHAPES[:6]:
        yield tuple(_graphs(shape.fields(), DType.FLOAT16, condition, KernelSet.PYTORCH, SOME))
    yield from filter(None, traced)


def _is_traced(shape: Shape, case: PassCase) -> bool:
    telling = shape.name in ("Llama-3.1-8B", "Llama-3.2-1B", "Qwen3-8B")
    point = (case.phase, case.batch_size, case.context_length)
    return telling and case.launch is Launch.GRAPH and case.load is CardLoad.SUSTAINED and point in SOME[1:]


def _passes(model: dict[str, object], dtype: DType, condition: str) -> Iterator[PassCase]:
    for kernels in (KernelSet.PYTORCH, KernelSet.COMPILED):
        yield from _graphs(model, dtype, condition, kernels, (*PREFILLS, *DECODES))
    for point in (*PREFILLS, *DECODES):
        yield pass_case(model, dtype, condition, KernelSet.FUSED, point, Launch.GRAPH, CardLoad.SUSTAINED)
    for point in SOME:
        yield pass_case(model, dtype, condition, KernelSet.PYTORCH, point, Launch.GRAPH, None)
    yield from _graphs(model, dtype, condition, KernelSet.PYTORCH_COMPOSED, SOME)
    for kernels in (KernelSet.PYTORCH, KernelSet.PYTORCH_COMPOSED, KernelSet.COMPILED):
        for point in SOME:
            yield pass_case(model, dtype, condition, kernels, point, Launch.EAGER, CardLoad.SUSTAINED)


def _graphs(
    model: dict[str, object], dtype: DType, condition: str, kernels: KernelSet, points: tuple[Point, ...]
) -> Iterator[PassCase]:
    # Not in turn: the load of one pass carries over to the next.
    for load in (CardLoad.SUSTAINED, CardLoad.RESTED):
        for point in points:
            yield pass_case(model, dtype, condition, kernels, point, Launch.GRAPH, load)


def pass_case(
    model: dict[str, object],
    dtype: DType,
    condition: str,
    kernels: KernelSet,
    point: Point,
    launch: Launch,
    load: CardLoad | None,
    **quantization: object,
) -> PassCase:
    """A pass of one device; `quantization` says the formats of one that is not in `dtype` throughout."""
    phase, batch_size, context_length = point
    fields = {"phase": phase, "batch_size": batch_size, "context_length": context_length, "launch": launch}
    fields |= {"architecture": {"kind": "standard"}, "model": model, "num_devices": 1, "dtype": dtype}
    fields |= {"overlap": False, "condition": condition, "kernels": kernels, "load": load}
    return PassCase.model_validate(fields | quantization)


def _cpu_passes(condition: str) -> Iterator[PassCase]:
    """Tiny ones, which show that all of it runs."""
    tiny = Shape("tiny", "qwen3", 2, 64, 4, 2, 16, 96, 101, max_position_embeddings=64).fields()
    for kernels in TWIN_SETS:
        for point in (("prefill", 1, 16), ("decode", 2, 16)):
            for load in CardLoad:
                yield pass_case(tiny, DType.FLOAT32, condition, kernels, point, Launch.EAGER, load)


TWIN_SETS: Final = tuple(kernels for kernels in KernelSet if not RULES[kernels].all_reduce_norm)
"""The kernel sets that the models of `validation.models` have."""

ROWS: Final = (1, 4, 16, 64, 128, 512, 2048, 8192)
WIDTHS: Final = (2048, 3072, 4096, 8192)
_SETS: Final[tuple[tuple[MemoryBoundFunction, tuple[KernelSet, ...]], ...]] = (
    ("rms_norm", (KernelSet.PYTORCH, KernelSet.PYTORCH_COMPOSED, KernelSet.COMPILED)),
    ("add_rms_norm", (KernelSet.PYTORCH, KernelSet.COMPILED)),
    ("add", (KernelSet.PYTORCH,)),
    ("rope", (KernelSet.PYTORCH, KernelSet.PYTORCH_COMPOSED)),
    ("rope_kv_write", (KernelSet.PYTORCH, KernelSet.COMPILED)),
    ("silu_mul", (KernelSet.PYTORCH, KernelSet.PYTORCH_COMPOSED)),
)
"""What each function is made of; `pytorch` of one with two names is two kernels."""


def memory_bounds() -> Iterator[MemoryBoundCase]:
    """The small kernels of a layer at few to many rows."""
    for function, sets in _SETS:
        for kernels in sets:
            for width in _widths(function):
                for rows in ROWS:
                    yield _memory_bound(function, rows, width, kernels)
    for width in (128, 512, 1024):
        for rows in ROWS:
            yield _memory_bound("kv_write", rows, width, KernelSet.PYTORCH)
    for width in (2048, 4096, 8192):
        for rows in (1, 128, 2048):
            yield _memory_bound("norm", rows, width, KernelSet.PYTORCH)


def _widths(function: MemoryBoundFunction) -> tuple[int, ...]:
    """Of the stream, of queries and keys (8, 16 and 32 heads of 128 over a quarter as many), or of the FFN."""
    if function.startswith("rope"):
        return (1280, 2560, 5120)
    return (3584, 8192, 14_336) if function == "silu_mul" else WIDTHS


def _memory_bound(function: MemoryBoundFunction, rows: int, width: int, kernels: KernelSet) -> MemoryBoundCase:
    return MemoryBoundCase(
        function=function,
        num_tokens=rows,
        hidden_size=width,
        dtype=DType.BFLOAT16,
        launch=Launch.GRAPH,
        kernels=kernels,
    )


HEADS: Final = ((32, 8, 128), (32, 8, 64), (8, 1, 128), (16, 8, 128), (28, 4, 128), (16, 4, 128), (32, 32, 128))
WIDE_HEADS: Final = ((16, 16, 256), (8, 4, 256), (16, 1, 256))
"""Query heads, key/value heads, width of a head; heads of 256 are GPT-J's and Gemma's."""


def attentions() -> Iterator[AttentionCase]:
    """Grouped and ungrouped, prefill and decode."""
    for heads in (*HEADS, *WIDE_HEADS):
        for length in (128, 512, 2048, 8192):
            yield _attention(1, length, length, heads)
        for kv_len, batches in ((513, (1, 4, 16, 64)), (2049, (1, 4, 16, 64)), (8193, (1, 4, 16))):
            for batch in batches:
                yield _attention(batch, 1, kv_len, heads)


def _attention(batch: int, q_len: int, kv_len: int, heads: tuple[int, int, int]) -> AttentionCase:
    num_heads, num_kv_heads, head_dim = heads
    return AttentionCase(
        batch=batch,
        q_len=q_len,
        kv_len=kv_len,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        causal=q_len > 1,
        dtype=DType.BFLOAT16,
        launch=Launch.GRAPH,
    )


def gemms() -> Iterator[GemmCase]:
    """The matrices of a layer of each shape and their heads, without bias."""
    found: dict[tuple[int, int, int], None] = {}
    for shape in SHAPES:
        found |= dict.fromkeys((m, n, k) for n, k in shape.matrices() for m in ROWS)
        found |= dict.fromkeys((m, shape.vocab_size, shape.hidden_size) for m in (1, 16, 64))
    for m, n, k in found:
        yield GemmCase(m=m, n=n, k=k, epilogue="none", dtype=DType.BFLOAT16, launch=Launch.GRAPH)
