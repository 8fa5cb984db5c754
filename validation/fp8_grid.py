"""What the fp8 suites measure on one device: GEMMs on fp8 operands, kernels that quantise, passes with both.

The GEMMs are those of Llama-like layers of 1 B to 405 B and shares of them; the passes those of two of the models of
`validation.model_grid`, beside the same in bf16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kraken_sim.measurements.records.kernels import GemmCase, MemoryBoundCase
from kraken_sim.measurements.records.launched import KernelsCase
from kraken_sim.program.formats import ActivationScheme, Quantization
from kraken_sim.program.kernel_sets import CardLoad, KernelSet
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch
from validation.model_grid import PREFILLS, ROWS, SHAPES, Shape, pass_case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.measurements.records.base import Case
    from kraken_sim.measurements.records.kernels import MemoryBoundFunction
    from kraken_sim.measurements.records.passes import PassCase
    from validation.model_grid import Point

STATIC, DYNAMIC, BY_TENSOR = ActivationScheme
FP8, FP8_BLOCK = Quantization.FP8, Quantization.FP8_BLOCK

LARGE: Final = ((10_240, 8192), (8192, 8192), (28_672, 8192), (8192, 28_672), (16_384, 16_384), (1024, 1024))
"""(n, k) of matrices beside those of `model_grid.SHAPES`."""

MOST_FLOPS: Final = 4e12
"""Larger products last long enough to draw the clock down, and tell nothing that a smaller one does not."""

BETWEEN: Final = (32, 256, 1024, 4096)
"""Rows between those of `model_grid`, of every third matrix."""

EXACT_ROWS: Final = (16, 512, 2048, 8192)
BLOCK_ROWS: Final = (1, 16, 128, 512, 2048, 8192)


def matrices() -> list[tuple[int, int]]:
    """(n, k) of attention's and the FFN's matrices, without repeats."""
    found = dict.fromkeys(matrix for shape in SHAPES for matrix in shape.matrices())
    return [*found, *LARGE]


def gemms() -> Iterator[GemmCase]:
    """Scales a tensor and a row for all matrices; exact sums and scales by block for some."""
    found = matrices()
    for scheme in (STATIC, DYNAMIC):
        for index, (n, k) in enumerate(found):
            for m in (*ROWS, *(BETWEEN if index % 3 == 0 else ())):
                yield from _gemm(m, n, k, FP8, scheme)
    for n, k in found[::3]:
        for m in EXACT_ROWS:
            yield from _gemm(m, n, k, FP8, STATIC, exact_sums=True)
    for n, k in found[::2]:
        for m in BLOCK_ROWS:
            yield from _gemm(m, n, k, FP8_BLOCK, DYNAMIC)


def _gemm(
    m: int, n: int, k: int, quantization: Quantization, scheme: ActivationScheme, *, exact_sums: bool = False
) -> Iterator[GemmCase]:
    if 2.0 * m * n * k <= MOST_FLOPS:
        yield GemmCase(
            m=m,
            n=n,
            k=k,
            epilogue="none",
            dtype=DType.BFLOAT16,
            launch=Launch.GRAPH,
            quantization=quantization,
            activation_scheme=scheme,
            exact_sums=exact_sums,
        )


_QUANTISING: Final[tuple[tuple[MemoryBoundFunction, ActivationScheme, tuple[int, ...]], ...]] = (
    ("quantize", STATIC, (1024, 4096, 8192, 14_336)),
    ("quantize", DYNAMIC, (1024, 4096, 8192, 14_336)),
    ("quantize", BY_TENSOR, (4096, 14_336)),
    ("rms_norm", STATIC, (4096,)),
    ("rms_norm", DYNAMIC, (4096,)),
    ("add_rms_norm", STATIC, (2048, 4096, 8192)),
    ("add_rms_norm", DYNAMIC, (2048, 4096, 8192)),
    ("silu_mul", STATIC, (3584, 8192, 14_336)),
    ("silu_mul", DYNAMIC, (3584, 8192, 14_336)),
)
"""Functions and widths; each width is compiled twice, for one row and for more."""


def memory_bounds() -> Iterator[MemoryBoundCase]:
    """Kernels that quantise, alone or fused, at few to many rows."""
    for function, scheme, widths in _QUANTISING:
        for width in widths:
            for rows in ROWS:
                yield _memory_bound(function, FP8, scheme, rows, width)
    for rows in ROWS:
        yield _memory_bound("quantize", FP8_BLOCK, DYNAMIC, rows, 4096)


def _memory_bound(
    function: MemoryBoundFunction, quantization: Quantization, scheme: ActivationScheme, rows: int, width: int
) -> MemoryBoundCase:
    return MemoryBoundCase(
        function=function,
        num_tokens=rows,
        hidden_size=width,
        dtype=DType.BFLOAT16,
        launch=Launch.GRAPH,
        kernels=KernelSet.COMPILED,
        quantization=quantization,
        activation_scheme=scheme,
    )


POINTS: Final = (
    *PREFILLS,
    *(("decode", batch, 2048) for batch in (1, 16, 64)),
)


def pass_groups(condition: str, *, cpu: bool = False) -> Iterator[tuple[Case, ...]]:
    """Passes in fp8 and bf16, those with the same weights together; and behind all of them the kernels of some."""
    shapes = [shape for shape in SHAPES if shape.name in ("Llama-3.1-8B", "Llama-3.1-70B/8")]
    if cpu:
        tiny = Shape("tiny", "llama", 2, 64, 4, 2, 16, 96, 101, max_position_embeddings=64)
        for scheme in ActivationScheme:
            yield tuple(_tiny(tiny, condition, scheme))
        return
    traced = []
    for shape in shapes:
        for scheme in (STATIC, DYNAMIC):
            passes = tuple(_fp8_passes(shape, condition, scheme))
            yield passes
            if scheme is STATIC:
                traced.append(tuple(KernelsCase(of=case.key) for case in passes if _is_traced(case)))
        yield tuple(_pass(shape, condition, None, KernelSet.COMPILED, point, CardLoad.SUSTAINED) for point in POINTS)
    yield from traced


def _fp8_passes(shape: Shape, condition: str, scheme: ActivationScheme) -> Iterator[PassCase]:
    # Not in turn: the load of one pass carries over to the next.
    for load in (CardLoad.SUSTAINED, CardLoad.RESTED):
        for point in POINTS:
            yield _pass(shape, condition, scheme, KernelSet.COMPILED, point, load)
    for point in POINTS if scheme is STATIC else ():
        yield _pass(shape, condition, scheme, KernelSet.FUSED, point, CardLoad.SUSTAINED)


def _is_traced(case: PassCase) -> bool:
    telling = (case.phase, case.batch_size, case.context_length) in (("prefill", 1, 2048), ("decode", 16, 2048))
    return telling and case.load is CardLoad.SUSTAINED


def _pass(
    shape: Shape,
    condition: str,
    scheme: ActivationScheme | None,
    kernels: KernelSet,
    point: Point,
    load: CardLoad,
    *,
    launch: Launch = Launch.GRAPH,
    dtype: DType = DType.BFLOAT16,
) -> PassCase:
    """A pass in fp8, or without a scheme in `dtype` throughout."""
    formats = {} if scheme is None else {"quantization": FP8, "activation_scheme": scheme}
    return pass_case(shape.fields(), dtype, condition, kernels, point, launch, load, **formats)


def _tiny(shape: Shape, condition: str, scheme: ActivationScheme) -> Iterator[PassCase]:
    """Small ones, which show that all of it runs."""
    for kernels in (KernelSet.FUSED, KernelSet.COMPILED):
        for point in (("prefill", 1, 16), ("decode", 2, 16)):
            yield _pass(
                shape, condition, scheme, kernels, point, CardLoad.SUSTAINED, launch=Launch.EAGER, dtype=DType.FLOAT32
            )
