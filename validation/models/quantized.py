"""GEMMs on fp8 weights and inputs, and the kernels that quantise the inputs.

A quantised linear layer says with its `Quantizer` how its input comes: with one scale a tensor that is known beforehand
(static), one a token (dynamic) or one a tensor that is found first (dynamic_tensor). The kernel set `compiled` takes
the quantisation into the RMSNorm or the SiLU-mul before it where the scheme lets it; in the others, and behind
attention in all, it is a kernel of its own. Weights have one scale a tensor, with inputs' scales a token one a row.
Nothing here is differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kraken_sim.errors import InputError
from kraken_sim.program.formats import ActivationScheme, Quantization
from kraken_sim.program.kernel_sets import KernelSet
from validation.models.fused import Fused, rms_norm_composed, silu_mul_composed

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0  # the largest e4m3 number (torch.finfo)
BLOCK = 128  # inputs of a token that share a scale in fp8_block

_STATIC_SCALE = 16.0 / FP8_MAX  # for inputs up to 16; normed ones of random models stay below
_LEAST_AMAX = 1e-12  # an input of zeros has a scale too


class Quantized(NamedTuple):
    """An input [R, k] in fp8 and its scale: [] or [R, 1], float32."""

    data: Tensor
    scale: Tensor

    @property
    def shape(self) -> torch.Size:
        """[R, k]."""
        return self.data.shape


def _to_fp8(x: Tensor, scale: Tensor) -> Tensor:
    return (x.float() / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8)


def _scale_of(amax: Tensor) -> Tensor:
    return amax.float().clamp(min=_LEAST_AMAX) / FP8_MAX


def _by_token(x: Tensor) -> tuple[Tensor, Tensor]:
    scale = _scale_of(x.abs().amax(dim=-1, keepdim=True))
    return _to_fp8(x, scale), scale


def _by_tensor(x: Tensor) -> tuple[Tensor, Tensor]:
    scale = _scale_of(x.abs().amax())
    return _to_fp8(x, scale), scale


def _by_block(x: Tensor) -> tuple[Tensor, Tensor]:
    blocks = x.unflatten(-1, (-1, BLOCK))
    scale = _scale_of(blocks.abs().amax(dim=-1, keepdim=True))
    return _to_fp8(blocks, scale).flatten(-2), scale.squeeze(-1)


def _norm_static(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    return _to_fp8(rms_norm_composed(x, weight), scale)


def _norm_by_token(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return _by_token(rms_norm_composed(x, weight))


def _add_norm_static(x: Tensor, y: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    total = x + y
    return total, _norm_static(total, weight, scale)


def _add_norm_by_token(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    total = x + y
    return total, *_norm_by_token(total, weight)


def _silu_mul_static(x: Tensor, scale: Tensor) -> Tensor:
    return _to_fp8(silu_mul_composed(x), scale)


def _silu_mul_by_token(x: Tensor) -> tuple[Tensor, Tensor]:
    return _by_token(silu_mul_composed(x))


quantize_static = Fused(_to_fp8, "quantize")
quantize_by_token = Fused(_by_token, "quantize")
quantize_by_tensor = Fused(_by_tensor, "quantize")
quantize_by_block = Fused(_by_block, "quantize")
norm_quantize_static = Fused(_norm_static, "norm")
norm_quantize_by_token = Fused(_norm_by_token, "norm")
add_norm_quantize_static = Fused(_add_norm_static, "add_norm")
add_norm_quantize_by_token = Fused(_add_norm_by_token, "add_norm")
silu_mul_quantize_static = Fused(_silu_mul_static, "silu_mul")
silu_mul_quantize_by_token = Fused(_silu_mul_by_token, "silu_mul")


@dataclass(frozen=True, slots=True)
class Quantizer:
    """How the input of a linear layer is quantised; `scale` [] float32 is used by the static scheme alone."""

    scheme: ActivationScheme
    scale: Tensor

    def fuses(self, kernels: KernelSet) -> bool:
        """Whether a kernel set quantises in the kernel before; a scale a tensor needs all of it first."""
        return kernels is KernelSet.COMPILED and self.scheme is not ActivationScheme.DYNAMIC_TENSOR

    def __call__(self, x: Tensor) -> Quantized:
        """[R, k] in a kernel of its own, in two where one scale a tensor is found first."""
        if self.scheme is ActivationScheme.STATIC:
            return Quantized(quantize_static(x, self.scale), self.scale)
        by = quantize_by_token if self.scheme is ActivationScheme.DYNAMIC else quantize_by_tensor
        return Quantized(*by(x))

    def norm(self, x: Tensor, weight: Tensor) -> Quantized:
        """The RMSNorm of x, quantised in the same kernel."""
        if self.scheme is ActivationScheme.STATIC:
            return Quantized(norm_quantize_static(x, weight, self.scale), self.scale)
        return Quantized(*norm_quantize_by_token(x, weight))

    def add_norm(self, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Quantized]:
        """The sum x + y and its RMSNorm, quantised in the same kernel."""
        if self.scheme is ActivationScheme.STATIC:
            total, data = add_norm_quantize_static(x, y, weight, self.scale)
            return total, Quantized(data, self.scale)
        total, *quantized = add_norm_quantize_by_token(x, y, weight)
        return total, Quantized(*quantized)

    def silu_mul(self, x: Tensor) -> Quantized:
        """SiLU(a) * b of x [R, 2f], quantised in the same kernel."""
        if self.scheme is ActivationScheme.STATIC:
            return Quantized(silu_mul_quantize_static(x, self.scale), self.scale)
        return Quantized(*silu_mul_quantize_by_token(x))


def scaled_mm(x: Quantized, weight: Tensor, weight_scale: Tensor, dtype: torch.dtype, bias: Tensor | None) -> Tensor:
    """y[R, n] = (x · scale) · (W[n, k] · weight scale)ᵀ + b, in torch's fast accumulation: one GEMM."""
    y: Tensor = torch._scaled_mm(
        x.data,
        weight.t(),
        scale_a=x.scale,
        scale_b=weight_scale,
        bias=bias,
        out_dtype=dtype,
        use_fast_accum=True,
    )
    return y


class QuantizedLinear(nn.Module):
    """A linear layer whose weight [n, k] is fp8; its input comes quantised."""

    def __init__(self, linear: nn.Linear, scheme: ActivationScheme) -> None:
        super().__init__()
        weight = linear.weight.detach()
        by_row = scheme is ActivationScheme.DYNAMIC
        amax = weight.abs().amax(dim=1, keepdim=True) if by_row else weight.abs().amax()
        scale = _scale_of(amax)
        self.dtype = weight.dtype
        self.register_buffer("weight", _to_fp8(weight, scale))
        self.register_buffer("weight_scale", scale.t().contiguous() if by_row else scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())
        self.register_buffer("input_scale", torch.tensor(_STATIC_SCALE, device=weight.device))
        self.scheme = scheme
        self.weight: Tensor
        self.weight_scale: Tensor
        self.bias: Tensor | None
        self.input_scale: Tensor

    @property
    def quantizer(self) -> Quantizer:
        """How its input is made."""
        return Quantizer(self.scheme, self.input_scale)

    def forward(self, x: Quantized) -> Tensor:
        """[R, k] to [R, n]."""
        return scaled_mm(x, self.weight, self.weight_scale, self.dtype, self.bias)


def quantizer_of(linear: nn.Module) -> Quantizer | None:
    """How a linear layer's input must be quantised; None where it takes it as it is."""
    return linear.quantizer if isinstance(linear, QuantizedLinear) else None


def quantized_or_plain(linear: nn.Module, x: Tensor) -> Tensor:
    """A linear layer of an input that comes as it is."""
    quantizer = quantizer_of(linear)
    y: Tensor = linear(x if quantizer is None else quantizer(x))
    return y


def quantize_model(model: nn.Module, quantization: Quantization, scheme: ActivationScheme | None) -> None:
    """Puts the matrices of attention and FFN of all layers, and of a concat projection, into fp8, where they lie.

    Raises:
        InputError: a format other than fp8, or layers of an architecture whose steps do not quantise.
    """
    if quantization is not Quantization.FP8:
        raise InputError.single("quantization", "these models have fp8 alone", str(quantization), "fp8")
    found: Any = model
    for layer in found.layers:
        for parts in getattr(layer, "sublayers", [layer]):
            if not getattr(parts, "quantizable", False):
                message = "of these models standard, parallel and kraken ones alone have fp8 layers"
                raise InputError.single("architecture", message, type(parts).__name__, "standard")
            places = ((parts.attention, "qkv"), (parts.attention, "out"), (parts.ffn, "up"), (parts.ffn, "down"))
            for owner, name in places:
                setattr(owner, name, QuantizedLinear(getattr(owner, name), scheme or ActivationScheme.DYNAMIC))
    concat: Any = getattr(model, "concat", ())
    for index, linear in enumerate(concat):
        concat[index] = QuantizedLinear(linear, scheme or ActivationScheme.DYNAMIC)
