"""Twins with fp8 layers: they compute about what the same weights do in float32, with the kernels of their set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from layout_support import layout_of, program_of

from kraken_sim.architectures.kraken import kraken_layout
from kraken_sim.architectures.workload import Workload
from kraken_sim.errors import InputError
from kraken_sim.models.layout import whole_layer
from kraken_sim.program.formats import ActivationScheme, DType, InputFormat, Quantization
from kraken_sim.program.kernel_sets import KernelSet

torch = pytest.importorskip("torch")

import validation_worker as worker  # noqa: E402
from test_validation_models import kinds_of  # noqa: E402

from validation.models import build_model  # noqa: E402
from validation.models.kernels import record_kernels  # noqa: E402
from validation.models.quantized import (  # noqa: E402
    FP8,
    Quantizer,
    quantize_by_block,
    quantize_model,
)

pytestmark = pytest.mark.torch

LLAMA = replace(
    worker.LLAMA,
    hidden_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    intermediate_size=96,
)
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def layers_of(model: Any) -> list[Any]:
    return list(model.layers)


@pytest.mark.parametrize("scheme", ActivationScheme)
@pytest.mark.parametrize("kernels", [KernelSet.PYTORCH, KernelSet.COMPILED])
def test_fp8_layers_compute_what_they_were_made_of(scheme: ActivationScheme, kernels: KernelSet) -> None:
    model = build_model("standard", LLAMA, dtype=torch.float32)
    model.kernels = kernels
    with torch.inference_mode():
        exact = model(IDS, model.new_cache(*IDS.shape))
        quantize_model(model, Quantization.FP8, scheme)
        rough = model(IDS, model.new_cache(*IDS.shape))
    assert torch.nn.functional.cosine_similarity(exact, rough).item() > 0.99
    assert not torch.equal(exact, rough)
    assert layers_of(model)[0].attention.qkv.weight.dtype is FP8


@pytest.mark.parametrize(
    ("kernels", "scheme", "quantised_apart"),
    [
        (KernelSet.PYTORCH, ActivationScheme.STATIC, 4),
        (KernelSet.FUSED, ActivationScheme.DYNAMIC, 4),
        (KernelSet.COMPILED, ActivationScheme.STATIC, 1),
        (KernelSet.COMPILED, ActivationScheme.DYNAMIC, 1),
        (KernelSet.COMPILED, ActivationScheme.DYNAMIC_TENSOR, 4),
    ],
)
def test_only_what_the_set_cannot_fuse_is_quantised_apart(
    kernels: KernelSet, scheme: ActivationScheme, quantised_apart: int
) -> None:
    counts = []
    for quantised in (False, True):
        model = build_model("standard", replace(LLAMA, num_hidden_layers=1), dtype=torch.float32)
        model.kernels = kernels
        if quantised:
            quantize_model(model, Quantization.FP8, scheme)
        with torch.inference_mode():
            seen = record_kernels(lambda model=model: model(IDS, model.new_cache(*IDS.shape)))  # type: ignore[misc]
        counts.append((len(seen), seen.count("quantize"), seen.count("gemm")))
    (plain, none, gemms), (more, apart, scaled_gemms) = counts
    assert (none, apart) == (0, quantised_apart)
    assert more - plain == quantised_apart
    assert scaled_gemms == gemms


@pytest.mark.parametrize("scheme", ActivationScheme)
def test_quantised_inputs_are_close_to_what_they_stand_for(scheme: ActivationScheme) -> None:
    x = torch.randn(5, 256, generator=torch.Generator().manual_seed(0))
    data, scale = Quantizer(scheme, torch.tensor(1.0 / 64))(x)
    assert scale.shape == ((5, 1) if scheme is ActivationScheme.DYNAMIC else ())
    torch.testing.assert_close(data.float() * scale, x, rtol=1 / 16, atol=1e-3)


def test_blocks_have_scales_of_their_own() -> None:
    x = torch.cat([torch.full((3, 128), 1e-4), torch.full((3, 128), 1e3)], dim=1)
    data, scale = quantize_by_block(x)
    assert scale.shape == (3, 2)
    torch.testing.assert_close(data.float() * scale.repeat_interleave(128, dim=1), x, rtol=1e-2, atol=0)


@pytest.mark.parametrize(("architecture", "ways"), [("standard", 1), ("parallel", 1), ("kraken", 2)])
@pytest.mark.parametrize("scheme", [ActivationScheme.STATIC, ActivationScheme.DYNAMIC])
@pytest.mark.parametrize("kernels", [KernelSet.PYTORCH, KernelSet.FUSED, KernelSet.COMPILED])
def test_fp8_models_of_every_architecture_launch_the_kernels_of_their_program(
    architecture: str, ways: int, scheme: ActivationScheme, kernels: KernelSet
) -> None:
    model = build_model(architecture, LLAMA, num_ways=ways, dtype=torch.float32)
    model.kernels = kernels
    with torch.inference_mode():
        exact = model(IDS, model.new_cache(*IDS.shape))
        quantize_model(model, Quantization.FP8, scheme)
        cache = model.new_cache(*IDS.shape)
        rough = model(IDS, cache)
        seen = record_kernels(lambda: model(IDS, cache))
    assert torch.nn.functional.cosine_similarity(exact, rough).item() > 0.99
    kraken = architecture == "kraken"
    layout = kraken_layout(whole_layer(LLAMA), ways, 1) if kraken else layout_of(architecture, LLAMA, 1)
    inputs = InputFormat(Quantization.FP8, scheme)
    work = Workload(1, context_length=IDS.shape[1], dtype=DType.FLOAT32, kernels=kernels, inputs=inputs)
    assert seen == kinds_of(tuple(program_of(architecture, layout, LLAMA, work).kernels()), LLAMA)


@pytest.mark.parametrize("scheme", [ActivationScheme.STATIC, ActivationScheme.DYNAMIC])
def test_a_kraken_s_ways_quantise_each_for_itself(scheme: ActivationScheme) -> None:
    """What a way's layers are put into fp8 from is its own weights: a way alone computes what it did among others."""
    both: Any = build_model("kraken", LLAMA, num_ways=2, dtype=torch.float32)
    quantize_model(both, Quantization.FP8, scheme)
    first, second = (layer.attention.qkv for layer in both.layers[0].ways())
    assert first.weight.dtype is second.weight.dtype is FP8
    assert not torch.equal(first.weight.float(), second.weight.float())


def test_formats_that_cannot_be_had_are_refused() -> None:
    with pytest.raises(InputError, match="fp8 alone"):
        quantize_model(build_model("standard", LLAMA), Quantization.NVFP4, None)
