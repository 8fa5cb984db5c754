"""Formats that weights and inputs of GEMMs are quantised to, and how the inputs' scales are found."""

from __future__ import annotations

from enum import StrEnum

from kraken_sim.program.ops import DType


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
    def weight_bytes(self) -> float:
        """Bytes of a weight with its share of the scales; one scale a tensor or a row counts nothing.

        A definition: fp32 for 128 x 128 weights (DeepSeek-V3), one byte for 16 weights (NVFP4).
        """
        if self is Quantization.FP8_BLOCK:
            return 1.0 + 4.0 / (128 * 128)
        return 0.5 + 1.0 / 16 if self is Quantization.NVFP4 else 1.0


class ActivationScheme(StrEnum):
    """How the scales of GEMMs' inputs are found: the `activation_scheme` of Hugging Face and vLLM, per tensor apart.

    static: one a tensor, known beforehand; dynamic: one a token, from its largest element; dynamic_tensor: one a
    tensor, from its largest element, which a kernel of its own finds first. Formats with scales by block are dynamic.
    """

    STATIC = "static"
    DYNAMIC = "dynamic"
    DYNAMIC_TENSOR = "dynamic_tensor"

    __hash__ = str.__hash__  # faster than Enum's
