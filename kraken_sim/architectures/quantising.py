"""The kernels that quantise the inputs of a layer's GEMMs: in the kernel before where a set has it so, or their own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kraken_sim.architectures.small_kernels import SmallKernel
from kraken_sim.program.formats import BY_TENSOR
from kraken_sim.program.ops import Elementwise, Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.program.formats import InputFormat
    from kraken_sim.program.kernel_sets import KernelRules
    from kraken_sim.program.ops import DType

QUANTIZE = "quantize"
"""The function of a kernel that does nothing else, and the beginning of its name."""


def quantize_kernels(
    name: str, num_tokens: int, hidden_size: int, dtype: DType, inputs: InputFormat | None
) -> list[SmallKernel]:
    """What quantises [num_tokens, hidden_size] by itself; nothing where GEMMs take their inputs as they are.

    One kernel, which reads the input and writes it quantised; a scale a tensor that is not known takes one more before
    it, which finds the largest element.
    """
    if inputs is None:
        return []
    elements, rows = num_tokens * hidden_size, num_tokens if inputs.reduces_rows else None
    op = Elementwise(QUANTIZE, elements, 1, dtype, output_dtype=inputs.dtype, rows=rows)
    found = [SmallKernel(f"{QUANTIZE}_{name}", op)]
    if inputs == BY_TENSOR:
        found.insert(0, SmallKernel(f"amax_{name}", Elementwise("amax", elements, 1, dtype, num_outputs=0)))
    return found


def norm_in(norm: Norm, inputs: InputFormat | None, formats: frozenset[InputFormat]) -> tuple[Norm, InputFormat | None]:
    """The norm, quantising where its kernel may to one of `formats`, and what is left to quantise to."""
    if inputs is None or inputs not in formats or norm.function != "rms_norm":
        return norm, inputs
    return replace(norm, output_dtype=inputs.dtype, row_scales=inputs.reduces_rows), None


def quantised_norm(
    name: str, kernels: Sequence[SmallKernel], shape: tuple[int, int], inputs: InputFormat | None, rules: KernelRules
) -> list[SmallKernel]:
    """A norm's kernels over [num_tokens, hidden_size], with what quantises its output."""
    found, (num_tokens, hidden_size), left = list(kernels), shape, inputs
    last = found[-1].op
    dtype = last.dtype if isinstance(last, Norm | Elementwise) else None
    if isinstance(last, Norm):
        op, left = norm_in(last, inputs, rules.quantize_in_norm)
        found[-1] = found[-1]._replace(op=op)
    return found if dtype is None else [*found, *quantize_kernels(name, num_tokens, hidden_size, dtype, left)]


def quantised_activation(
    kernels: Sequence[SmallKernel], shape: tuple[int, int], inputs: InputFormat | None, rules: KernelRules
) -> list[SmallKernel]:
    """An activation's kernels over [num_tokens, f], with what quantises its output."""
    found, (num_tokens, width) = list(kernels), shape
    last = found[-1].op
    if not isinstance(last, Elementwise):
        return found
    if inputs is None or inputs not in rules.quantize_in_activation or last.function != "silu_mul":
        return [*found, *quantize_kernels("down", num_tokens, width, last.dtype, inputs)]
    op = replace(last, output_dtype=inputs.dtype, rows=num_tokens if inputs.reduces_rows else None)
    return [*found[:-1], found[-1]._replace(op=op)]
