"""Number formats: of activations, and what weights and inputs of GEMMs are quantised to and how."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal


class DType(StrEnum):
    """Number formats, named as torch names them."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"
    FLOAT8_E4M3 = "float8_e4m3fn"
    FLOAT4_E2M1 = "float4_e2m1fn"

    __hash__ = str.__hash__  # Enum's own is written in Python, and ops are looked up by the million

    @property
    def num_bytes(self) -> int:
        """Bytes per element, of a pair where two share one."""
        if self in (DType.FLOAT8_E4M3, DType.FLOAT4_E2M1):
            return 1
        return 4 if self is DType.FLOAT32 else 2

    @property
    def bytes_per_element(self) -> float:
        """Bytes per element, without the scales that a quantised format comes with."""
        return 0.5 if self is DType.FLOAT4_E2M1 else float(self.num_bytes)


ComputeDType = Literal[DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32]
"""Formats of activations; the others are what weights and inputs of GEMMs are quantised to."""


class Quantization(StrEnum):
    """What weights and inputs of GEMMs are stored in, by vLLM's names.

    fp8: e4m3 with a scale a tensor or a row; fp8_block: e4m3 with a scale for every 128 x 128 weights and every 128
    inputs of a token; nvfp4: e2m1 with an e4m3 scale for every 16 values and one for the tensor.
    """

    FP8 = "fp8"
    FP8_BLOCK = "fp8_block"
    NVFP4 = "nvfp4"

    __hash__ = str.__hash__  # faster than Enum's

    @property
    def dtype(self) -> DType:
        """The format of the values themselves."""
        return DType.FLOAT4_E2M1 if self is Quantization.NVFP4 else DType.FLOAT8_E4M3

    @property
    def bytes_per_weight(self) -> float:
        """Bytes of a weight with its share of the scales; one scale a tensor or a row counts nothing.

        A definition: fp32 for 128 x 128 weights (DeepSeek-V3), one byte for 16 weights (NVFP4).
        """
        if self is Quantization.FP8_BLOCK:
            return 1.0 + 4.0 / (128 * 128)
        return 0.5625 if self is Quantization.NVFP4 else 1.0

    @property
    def bytes_per_input(self) -> float:
        """The same of an input of a GEMM: fp32 for 128 of a token, one byte for 16 (NVFP4)."""
        if self is Quantization.FP8_BLOCK:
            return 1.0 + 4.0 / 128
        return 0.5625 if self is Quantization.NVFP4 else 1.0


class ActivationScheme(StrEnum):
    """How the scales of GEMMs' inputs are found: the `activation_scheme` of Hugging Face and vLLM, per tensor apart.

    static: one a tensor, known beforehand; dynamic: one a token, from its largest element; dynamic_tensor: one a
    tensor, from its largest element, which a kernel of its own finds first. Formats with scales by block are dynamic.
    """

    STATIC = "static"
    DYNAMIC = "dynamic"
    DYNAMIC_TENSOR = "dynamic_tensor"

    __hash__ = str.__hash__  # faster than Enum's


@dataclass(frozen=True, slots=True)
class InputFormat:
    """What the inputs of GEMMs are quantised to, and how their scales are found."""

    quantization: Quantization
    scheme: ActivationScheme = ActivationScheme.DYNAMIC

    @property
    def dtype(self) -> DType:
        """The format of the values themselves."""
        return self.quantization.dtype

    @property
    def by_row(self) -> bool:
        """Whether a scale is a token's."""
        return self == BY_TOKEN

    @property
    def reduces_rows(self) -> bool:
        """Whether a token, or a part of it, is read before it is quantised."""
        return self in (BY_TOKEN, BY_BLOCK, FP4)


STATIC: Final = InputFormat(Quantization.FP8, ActivationScheme.STATIC)
"""Fp8 with a scale a tensor, known beforehand."""
BY_TOKEN: Final = InputFormat(Quantization.FP8, ActivationScheme.DYNAMIC)
"""Fp8 with a scale a token."""
BY_TENSOR: Final = InputFormat(Quantization.FP8, ActivationScheme.DYNAMIC_TENSOR)
"""Fp8 with a scale a tensor, found first."""
BY_BLOCK: Final = InputFormat(Quantization.FP8_BLOCK)
"""Fp8 with a scale for 128 of a token."""
FP4: Final = InputFormat(Quantization.NVFP4)
"""Nvfp4, whose scale for the tensor is known beforehand."""


class KVCacheDType(StrEnum):
    """What keys and values are cached in: auto as activations, float8 as e4m3."""

    AUTO = "auto"
    FLOAT8 = "float8"

    __hash__ = str.__hash__  # faster than Enum's

    @property
    def dtype(self) -> DType | None:
        """The format; None for that of activations."""
        return DType.FLOAT8_E4M3 if self is KVCacheDType.FLOAT8 else None
