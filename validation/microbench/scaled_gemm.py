"""GEMMs on quantised operands as torch runs them: torch._scaled_mm on fp8, scales by tensor, row or block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as nnf

from kraken_sim.program.formats import ActivationScheme, Quantization
from kraken_sim.program.ops import DType
from validation.microbench.bench import Bench, SkipCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    Call = Callable[[], object]
    ScaledMm = Callable[[Tensor, Tensor], object]

_BLOCK = 128
_SCALE = 1.0 / 64
_SCALES_ALIGNED_TO = 4
"""Columns of a block's scales that torch pads to, on Hopper."""


def calls(
    bench: Bench,
    shape: tuple[int, int, int],
    dtype: DType,
    quantization: Quantization,
    scheme: ActivationScheme | None,
    count: int,
    *,
    exact_sums: bool = False,
) -> list[Call]:
    """`count` GEMMs y[m, n] in `dtype` from x [m, k] and cold W [n, k] in fp8; x is the same in all.

    Raises:
        SkipCase: torch or the device has no such GEMM.
    """
    if quantization is Quantization.NVFP4:
        raise SkipCase("no fp4 here")
    m, n, k = shape
    x = bench.inputs(DType.FLOAT8_E4M3).take(m, k)
    arena = bench.weights(DType.FLOAT8_E4M3)
    distinct = bench.cold_count(n * k, count)
    weights = [arena.take(n, k).t() for _ in range(distinct)]
    out_dtype = getattr(torch, dtype.value)
    if quantization is Quantization.FP8_BLOCK:
        multiply = _by_block(bench, x, weights[0], out_dtype)
    else:
        multiply = _by_tensor_or_row(bench, shape, scheme, out_dtype, exact_sums)
    return [_call(multiply, x, weights[index % distinct]) for index in range(count)]


def _call(multiply: ScaledMm, x: Tensor, weight: Tensor) -> Call:
    return lambda: multiply(x, weight)


def _by_tensor_or_row(
    bench: Bench, shape: tuple[int, int, int], scheme: ActivationScheme | None, out_dtype: torch.dtype, exact_sums: bool
) -> ScaledMm:
    m, n, _ = shape
    by_row = scheme is ActivationScheme.DYNAMIC
    sizes: tuple[tuple[int, ...], tuple[int, ...]] = ((m, 1), (1, n)) if by_row else ((), ())
    scale_a, scale_b = (torch.full(size, _SCALE, device=bench.device) for size in sizes)

    def multiply(x: Tensor, weight: Tensor) -> Tensor:
        y: Tensor = torch._scaled_mm(
            x, weight, scale_a=scale_a, scale_b=scale_b, out_dtype=out_dtype, use_fast_accum=not exact_sums
        )
        return y

    return multiply


def _by_block(bench: Bench, x: Tensor, weight: Tensor, out_dtype: torch.dtype) -> ScaledMm:
    """With the first layout of scales that this torch takes: its versions differ, and say so in an error."""
    errors = []
    for multiply in _block_products(bench, (x.shape[0], weight.shape[1], x.shape[1]), out_dtype):
        try:
            multiply(x, weight)
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            errors.append(str(error))
        else:
            return multiply
    raise SkipCase(f"no GEMM with scales by block: {errors[0] if errors else 'unknown to this torch'}")


def _block_products(bench: Bench, shape: tuple[int, int, int], out_dtype: torch.dtype) -> Iterator[ScaledMm]:
    m, n, k = shape
    rows, columns = -(-k // _BLOCK), -(-n // _BLOCK)
    padded = -(-rows // _SCALES_ALIGNED_TO) * _SCALES_ALIGNED_TO
    full = torch.full((columns, padded), _SCALE, device=bench.device)
    # One scale for 128 of a token, tokens next to each other.
    scale_a = torch.full((rows, m), _SCALE, device=bench.device).t()
    scales_b = (full[:, :rows].t(), full[:, :rows], full[:, :rows].t().contiguous(), full.t())
    kinds: Any = getattr(nnf, "ScalingType", None)
    for scale_b in scales_b:
        if kinds is not None and hasattr(nnf, "scaled_mm"):
            yield lambda x, weight, scale_b=scale_b: nnf.scaled_mm(  # type: ignore[misc]
                x,
                weight,
                scale_a,
                kinds.BlockWise1x128,
                scale_b,
                kinds.BlockWise128x128,
                output_dtype=out_dtype,
            )
        yield lambda x, weight, scale_b=scale_b: torch._scaled_mm(  # type: ignore[misc]
            x, weight, scale_a=scale_a, scale_b=scale_b, out_dtype=out_dtype
        )
