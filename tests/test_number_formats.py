"""Scenarios in fp8 and nvfp4: what is quantised where, what it takes in memory, who can run it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim import simulate
from kraken_sim.architectures.registry import architectures
from kraken_sim.calibration.attention import attention_shape
from kraken_sim.calibration.attention_tables import attention_periods
from kraken_sim.calibration.split import split
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.formats import DType, Quantization
from kraken_sim.program.ops import Attention, Collective, Elementwise, Gemm, Norm
from kraken_sim.scenario.spec import Scenario
from validation.public_data import public_data_folder
from validation.public_tables import CARDS, OVER_A_BASE, float8_cache_samples

if TYPE_CHECKING:
    from kraken_sim.predict.prepared import Prepared
    from validation.public_tables import Card

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
}
PREDICTOR = Predictor()


def scenario(**changes: Any) -> Scenario:
    runtime = {"kernels": changes.pop("kernels", "compiled")}
    fields = {"hardware": "h200-sxm-x2", "model": LLAMA_8B, "num_devices": 1, "dtype": "bfloat16"}
    return Scenario.model_validate({"context_length": 2048, **fields, **changes, "runtime": runtime})


def prepared(**changes: Any) -> Prepared:
    return PREDICTOR.prepare(scenario(**changes))


def layer_ops(**changes: Any) -> list[tuple[str, Any]]:
    program = prepared(**changes).program
    layer = max(program.segments, key=lambda segment: segment.repeat)
    return [(kernel.name, kernel.op) for kernel in layer.kernels]


def latency_s(**changes: Any) -> float:
    return PREDICTOR.predict(scenario(**changes)).latency_s


def problems(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        prepared(**changes)
    return "\n".join(map(str, caught.value.problems))


@pytest.mark.parametrize(
    ("kernels", "scheme", "apart"),
    [
        ("pytorch", "static", ["quantize_attention", "quantize_out", "quantize_ffn", "quantize_down"]),
        ("fused", "dynamic", ["quantize_attention", "quantize_out", "quantize_ffn", "quantize_down"]),
        ("compiled", "static", ["quantize_out"]),
        ("compiled", "dynamic", ["quantize_out"]),
        ("serving", "static", ["quantize_out"]),
        ("serving", "dynamic", ["quantize_out", "quantize_down"]),
    ],
)
def test_a_kernel_set_quantises_apart_what_it_cannot_fuse(kernels: str, scheme: str, apart: list[str]) -> None:
    ops = layer_ops(quantization="fp8", activation_scheme=scheme, kernels=kernels)
    assert [name for name, _ in ops if name.startswith("quantize")] == apart
    written = [op.output_dtype for _, op in ops if isinstance(op, Norm | Elementwise) and op.output_dtype is not None]
    assert written == [DType.FLOAT8_E4M3] * 4


def test_one_scale_a_tensor_is_found_by_a_kernel_before() -> None:
    ops = [name for name, _ in layer_ops(quantization="fp8", activation_scheme="dynamic_tensor")]
    assert Counter(name.partition("_")[0] for name in ops)["amax"] == 4
    assert all(ops[place + 1].startswith("quantize") for place, name in enumerate(ops) if name.startswith("amax"))


@pytest.mark.parametrize("kind", [record.kind for record in architectures() if record.is_complete])
@pytest.mark.parametrize("kernels", ["pytorch", "compiled", "serving"])
def test_every_layers_product_is_quantised_and_the_head_is_not(kind: str, kernels: str) -> None:
    program = prepared(
        quantization="fp8",
        kernels=kernels,
        num_devices=2,
        architecture={"kind": kind},
        context_length=512,
        batch_size=2,
    ).program
    products = [kernel for segment in program.segments for kernel in segment.kernels if isinstance(kernel.op, Gemm)]
    for kernel in products:
        assert isinstance(kernel.op, Gemm)
        assert kernel.op.quantization is (None if kernel.name == "lm_head" else Quantization.FP8)
    assert any(kernel.name == "lm_head" for kernel in products)


def test_an_all_reduce_that_takes_in_a_norm_quantises_static_fp8_and_no_scale_a_token() -> None:
    changes = {"quantization": "fp8", "kernels": "serving_fused", "num_devices": 2, "context_length": 128}
    static = layer_ops(activation_scheme="static", **changes)
    dynamic = layer_ops(activation_scheme="dynamic", **changes)
    reduces = [op for _, op in static if isinstance(op, Collective)]
    assert [op.norm.output_dtype for op in reduces if op.norm is not None] == [DType.FLOAT8_E4M3] * 2
    assert [name for name, _ in static if name.startswith("quantize")] == ["quantize_out"]
    assert Counter(name.partition("_")[0] for name, _ in dynamic)["quantize"] == 4


def test_torchs_product_with_a_scale_a_row_is_a_kernel_of_its_own() -> None:
    def by_row(kernels: str) -> set[bool]:
        ops = layer_ops(quantization="fp8", activation_scheme="dynamic", kernels=kernels)
        return {op.by_row for _, op in ops if isinstance(op, Gemm)}

    assert by_row("compiled") == {True}
    assert by_row("serving") == {False}


def test_fp8_weights_take_half_the_memory_but_for_embedding_and_head() -> None:
    plain, fp8, block = (prepared(quantization=q).memory for q in (None, "fp8", "fp8_block"))
    kept = 2 * 2 * 128_256 * 4096
    assert fp8.weights_bytes - kept == pytest.approx((plain.weights_bytes - kept) / 2, rel=1e-3)
    assert 1.0 < block.weights_bytes / fp8.weights_bytes < 1.001
    assert fp8.kv_cache_bytes == plain.kv_cache_bytes


def test_nvfp4_weights_take_four_and_a_half_bits() -> None:
    plain, fp4 = (prepared(quantization=q, hardware="b200-sxm-x8").memory for q in (None, "nvfp4"))
    kept = 2 * 2 * 128_256 * 4096
    assert (fp4.weights_bytes - kept) / (plain.weights_bytes - kept) == pytest.approx(4.5 / 16, rel=1e-2)


def test_a_model_that_does_not_fit_in_16_bits_may_in_fp8() -> None:
    changes = {"model": LLAMA_8B | {"num_hidden_layers": 340}, "context_length": 128}
    with pytest.raises(InfeasibleError):
        prepared(**changes)
    assert prepared(quantization="fp8", **changes).memory.total_bytes < 141e9


def test_an_fp8_cache_takes_half_the_memory_and_half_the_bytes_of_a_decode_step() -> None:
    changes = {"kernels": "serving", "phase": "decode", "batch_size": 32, "context_length": 8192}
    plain, fp8 = (prepared(kv_cache_dtype=name, **changes) for name in ("auto", "float8"))
    assert fp8.memory.kv_cache_bytes * 2 == plain.memory.kv_cache_bytes
    bytes_read = [
        one.pricing.kernel(op).hbm_bytes
        for one in (plain, fp8)
        for _, op in layer_ops_of(one)
        if isinstance(op, Attention)
    ]
    assert bytes_read[1] == pytest.approx(bytes_read[0] / 2)
    assert fp8.run().duration_s < plain.run().duration_s


@pytest.mark.parametrize(("kernels", "name"), [("serving", "kv_cache"), ("serving_fused", "rope_kv_write")])
def test_keys_and_values_go_into_an_fp8_cache_as_fp8_and_queries_keep_their_format(kernels: str, name: str) -> None:
    plain, fp8 = (
        dict(layer_ops_of(prepared(kv_cache_dtype=cache, kernels=kernels, context_length=2048, num_devices=1)))[name]
        for cache in ("auto", "float8")
    )
    keys_and_values = 2 * 2048 * LLAMA_8B["num_key_value_heads"] * 128
    read = written = 2 * keys_and_values
    if kernels == "serving":
        assert (plain.num_bytes, fp8.moved_bytes) == (read, read + written / 2)
    else:
        assert plain.moved_bytes - fp8.moved_bytes == written / 2
        assert fp8.moved_bytes - fp8.written_bytes == plain.moved_bytes - plain.written_bytes


def layer_ops_of(one: Prepared) -> list[tuple[str, Any]]:
    layer = max(one.program.segments, key=lambda segment: segment.repeat)
    return [(kernel.name, kernel.op) for kernel in layer.kernels]


@pytest.mark.parametrize("hardware", ["h200-sxm-x2", "h100-sxm-x8", "l40s-x8"])
@pytest.mark.parametrize("work", [("prefill", 1, 2048), ("prefill", 1, 512), ("decode", 1, 2048), ("decode", 16, 2048)])
def test_a_pass_in_fp8_with_known_scales_is_faster_but_not_twice(hardware: str, work: tuple[str, int, int]) -> None:
    phase, batch_size, context_length = work
    changes: dict[str, Any] = {"phase": phase, "batch_size": batch_size, "context_length": context_length}
    changes |= {"hardware": hardware}
    plain_s = latency_s(**changes)
    fp8_s = latency_s(quantization="fp8", activation_scheme="static", **changes)
    assert 1.05 < plain_s / fp8_s < 2.0


def test_scales_a_token_cost_a_decode_step_of_torch_what_fp8_gains() -> None:
    """Measured: torch's product with a scale a row has one tile, 128 x 128, which few tokens do not fill."""
    work = {"phase": "decode", "batch_size": 1}
    plain_s, static_s, dynamic_s, served_s = (
        latency_s(quantization=q, activation_scheme=scheme, kernels=kernels, **work)
        for q, scheme, kernels in (
            (None, "dynamic", "compiled"),
            ("fp8", "static", "compiled"),
            ("fp8", "dynamic", "compiled"),
            ("fp8", "dynamic", "serving"),
        )
    )
    assert static_s < served_s < dynamic_s
    assert dynamic_s > 0.9 * plain_s


def test_the_interval_knows_the_formats_residual() -> None:
    def width(quantization: str | None, hardware: str) -> float:
        predicted = simulate(scenario(quantization=quantization, hardware=hardware))
        return predicted.interval.high_s / predicted.latency_s

    assert width("fp8_block", "l40s-x8") < width(None, "l40s-x8")  # 5.5 and 8.4 % off
    assert any(path.startswith("gemm_fp8_block.") for path in simulate(scenario(quantization="fp8_block")).provenance)
    assert not any(path.startswith("gemm_") for path in simulate(scenario()).provenance)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quantization": "fp8", "hardware": "a100-sxm4-80gb-x8"}, "ampere.*quantization: null"),
        ({"quantization": "nvfp4"}, "hopper.*quantization: fp8"),
        ({"quantization": "fp8", "dtype": "float32"}, "16 bits"),
        ({"kv_cache_dtype": "float8"}, "serving, serving_fused do.*kernels: serving"),
        ({"kv_cache_dtype": "float8", "hardware": "a100-sxm4-80gb-x8", "kernels": "serving"}, "kv_cache_dtype: auto"),
    ],
)
def test_what_a_card_or_a_kernel_set_cannot_run_is_named_with_what_works(changes: dict[str, Any], said: str) -> None:
    assert re.search(said, problems(**changes), re.DOTALL)


@pytest.mark.parametrize("quantization", [None, "fp8_block"])
def test_only_fp8_has_a_scheme(quantization: str | None) -> None:
    with pytest.raises(ValueError, match="activation_scheme"):
        scenario(quantization=quantization, activation_scheme="static")


def test_a_machine_whose_file_lacks_the_rate_is_asked_for_it() -> None:
    profile = load_profile("h200-sxm-x2")
    peaks = {dtype: rate for dtype, rate in profile.device.peak_flops.items() if dtype.num_bytes > 1}
    without = replace(profile, device=replace(profile.device, peak_flops=peaks))
    with pytest.raises(InputError, match=r"no device\.peak_flops\.float8_e4m3fn"):
        Predictor(without).prepare(scenario(quantization="fp8"))


@pytest.mark.parametrize(
    "card", [c for c in (*CARDS, *OVER_A_BASE) if c.profile != "a100-sxm4-80gb-x8"], ids=lambda card: card.profile
)
def test_published_decode_steps_over_an_fp8_cache(card: Card) -> None:
    samples = float8_cache_samples(public_data_folder(), card)
    if not samples:
        pytest.skip(f"needs the published table of decode steps over an fp8 cache of {card.name}")
    profile = load_profile(card.profile)
    assert profile.attention_float8 is not None
    held = split(samples, attention_shape)[1]
    periods_s = attention_periods(held, profile.device, profile.attention_float8, profile.launch.graph_node_gap_s)
    errors = [abs(float(p) / s.period_s - 1.0) for p, s in zip(periods_s, held, strict=True)]
    assert sum(errors) / len(errors) < (0.19 if profile.device.generation == "ada" else 0.12)
