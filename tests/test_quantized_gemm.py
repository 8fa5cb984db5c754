"""Products of quantised operands: what they move, how fast they are, and where their constants come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim import predict_op
from kraken_sim.calibration.fit_profile import calibrate
from kraken_sim.calibration.gemm import GemmSample, fit_gemm, gemm_periods, gemm_shape
from kraken_sim.calibration.split import split
from kraken_sim.costs.gemm import gemm_cost, serving_quantize_s
from kraken_sim.errors import InputError
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.profiles.load import check_profile, load_profile, profile_path
from kraken_sim.profiles.write import with_sections
from kraken_sim.program.formats import DType, Quantization
from kraken_sim.program.ops import Gemm
from validation.public_data import public_data_folder
from validation.public_tables import CARDS, OVER_A_BASE, gemm_samples

if TYPE_CHECKING:
    from validation.public_tables import Card

MEASUREMENTS = Path(__file__).parent.parent / "validation" / "measurements"
BF16, FP8, NVFP4 = DType.BFLOAT16, Quantization.FP8, Quantization.NVFP4
H200, B200 = load_profile("h200-sxm-x8"), load_profile("b200-sxm-x8")


def gemm_s(m: int, n: int, k: int, quantization: Quantization | None, hardware: str = "h200-sxm-x8") -> float:
    spec = {"op": "gemm", "m": m, "n": n, "k": k, "dtype": "bfloat16", "weights": "cold", "quantization": quantization}
    return predict_op(hardware, spec)


@pytest.mark.parametrize(
    ("quantization", "byte"), [(FP8, 1.0), (Quantization.FP8_BLOCK, 1 + 4 / 128**2), (NVFP4, 0.5625)]
)
def test_quantised_weights_take_their_bytes_of_memory_bandwidth(quantization: Quantization, byte: float) -> None:
    cost = gemm_cost(Gemm(1, 8192, 8192, BF16, quantization=quantization), B200.device, B200.gemm)
    plain = gemm_cost(Gemm(1, 8192, 8192, BF16), B200.device, B200.gemm)
    assert cost.hbm_bytes / 8192**2 == pytest.approx(byte, rel=1e-3)
    assert plain.hbm_bytes / 8192**2 == pytest.approx(2.0, rel=1e-3)


def test_the_output_of_a_quantised_product_is_as_wide_as_ever() -> None:
    thin, wide = (gemm_cost(Gemm(8192, n, 64, BF16, quantization=FP8), H200.device, H200.gemm) for n in (4096, 8192))
    weights, outputs = 4096 * 64, 2 * 8192 * 4096
    assert wide.hbm_bytes - thin.hbm_bytes == pytest.approx(weights + H200.gemm.activation_hbm_share * outputs)


@given(st.sampled_from((512, 1024, 2048, 8192)), st.sampled_from((2048, 4096, 14_336)), st.sampled_from((4096, 8192)))
def test_from_some_hundred_rows_on_fp8_is_faster_but_not_twice_as_fast(m: int, n: int, k: int) -> None:
    for hardware in ("h100-sxm-x8", "h200-sxm-x8", "l40s-x8"):
        gain = gemm_s(m, n, k, None, hardware) / gemm_s(m, n, k, FP8, hardware)
        assert 1.0 < gain < 2.3


@given(st.integers(1, 64), st.sampled_from((2048, 4096, 14_336)), st.sampled_from((4096, 8192)))
def test_at_few_rows_fp8_saves_bytes_and_no_start(m: int, n: int, k: int) -> None:
    """A product that streams its weights takes half of them, and as long to start."""
    plain_s, fp8_s = gemm_s(m, n, k, None), gemm_s(m, n, k, FP8)
    saved_s = n * k / H200.device.hbm_bandwidth_bytes_per_s
    assert fp8_s > plain_s - 3.0 * saved_s
    assert fp8_s < 1.1 * plain_s


def test_a_format_without_constants_of_its_own_has_those_of_the_nearest() -> None:
    assert H200.gemm_of(None) == ("gemm", H200.gemm)
    assert H200.gemm_of(FP8) == ("gemm_fp8", H200.gemm_fp8)
    assert H200.gemm_of(NVFP4) == ("gemm_fp8", H200.gemm_fp8)
    assert replace(H200, gemm_fp8=None).gemm_of(NVFP4) == ("gemm", H200.gemm)


def test_a_block_given_as_null_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "h200-sxm-x8.yaml"
    text = profile_path("h200-sxm-x8").read_text(encoding="utf-8")
    path.write_text(with_sections(text, {"gemm_fp8": "gemm_fp8: null\n"}), encoding="utf-8")
    assert load_profile(path).gemm_of(FP8)[0] == "gemm"


def test_a_datasheet_gets_the_formats_that_its_card_computes_in() -> None:
    rack = load_profile("gb200-nvl72")
    assert rack.gemm_of(NVFP4)[0] == "gemm_nvfp4"
    assert rack.provenance["gemm_nvfp4.mma_efficiency"].residual == 0.1  # from B200, a near relative
    pcie, a100 = load_profile("a100-pcie-80gb-x4"), load_profile("h100-pcie-x4")
    assert (pcie.gemm_fp8, a100.gemm_nvfp4) == (None, None)
    assert a100.gemm_fp8 is not None


@pytest.mark.parametrize(("hardware", "quantization"), [("a100-sxm4-80gb-x8", "fp8"), ("h200-sxm-x2", "nvfp4")])
def test_a_card_without_the_format_says_so(hardware: str, quantization: str) -> None:
    with pytest.raises(InputError, match="no arithmetic rate"):
        gemm_s(16, 4096, 4096, Quantization(quantization), hardware)


def test_what_serving_engines_time_has_the_quantisation_in_it() -> None:
    spec = {"op": "gemm", "m": 128, "n": 4096, "k": 4096, "dtype": "bfloat16", "quantization": "fp8"}
    bare_s, timed_s = (predict_op(H200, spec | {"serving": serving}) for serving in (False, True))
    constants = H200.gemm_fp8
    assert constants is not None
    added_s = constants.serving_quantize_s + 128 * 4096 * 3 / constants.serving_quantize_bytes_per_s
    assert timed_s - bare_s == pytest.approx(added_s)
    op = Gemm(128, 4096, 4096, BF16, quantization=FP8)
    assert serving_quantize_s(op, constants) == pytest.approx(added_s)


def test_a_fit_tells_the_quantisation_in_its_rows_from_the_product() -> None:
    truth = replace(H200.gemm, correction={}, serving_quantize_s=9e-6, serving_quantize_bytes_per_s=1.5e12)
    generator = np.random.default_rng(3)
    shapes = {tuple(int(2**x) * 16 for x in generator.uniform((-4, 4, 4), (8, 10, 10))) for _ in range(500)}
    samples = [
        GemmSample(max(1, m), n, k, BF16, 1.0, weights_warm=True, quantization=FP8, composite=True)
        for m, n, k in sorted(shapes)
    ]
    periods_s = gemm_periods(samples, H200.device, truth, 1e-6)
    samples = [replace(s, period_s=float(p)) for s, p in zip(samples, periods_s, strict=True)]
    fit = fit_gemm(samples, H200.device, H200.gemm, graph_node_gap_s=1e-6)
    assert fit.residual is not None
    assert fit.residual < 0.01
    assert fit.constants.serving_quantize_s == pytest.approx(9e-6, rel=0.05)
    assert fit.constants.launch_s == H200.gemm.launch_s


@pytest.mark.parametrize(
    "card", [card for card in (*CARDS, *OVER_A_BASE) if card.profile != "a100-sxm4-80gb-x8"], ids=lambda c: c.profile
)
@pytest.mark.parametrize(("quantization", "most"), [(FP8, 0.065), (Quantization.FP8_BLOCK, 0.08), (NVFP4, 0.05)])
def test_published_products_on_shapes_that_no_fit_has_seen(card: Card, quantization: Quantization, most: float) -> None:
    """B200's nvfp4 rows: 4.1 %, the most of it in products of 2 to 16 rows over a K of 51,200 and more."""
    samples = gemm_samples(public_data_folder(), card, quantization)
    if not samples:
        pytest.skip(f"needs the published {quantization} table of {card.name}")
    profile = load_profile(card.profile)
    held = split(samples, gemm_shape)[1]
    constants = profile.gemm_of(quantization)[1]
    periods_s = gemm_periods(held, profile.device, constants, profile.launch.graph_node_gap_s)
    errors = [abs(float(p) / s.period_s - 1.0) for p, s in zip(periods_s, held, strict=True)]
    assert float(np.mean(errors)) < most


def test_a_rate_of_a_format_that_the_generation_has_not_is_doubtful(tmp_path: Path) -> None:
    path = tmp_path / "ampere.yaml"
    device = "{kind: datasheet, source: x, peak_flops: {float16: 312 TFLOP/s, float8_e4m3fn: 624 TFLOP/s}}"
    path.write_text(f"description: x\nbase: a100-sxm4-80gb-x8\ndevice: {device}\n", encoding="utf-8")
    (problem,) = check_profile(path)
    assert problem.path == "device.peak_flops.float8_e4m3fn"
    assert "ampere" in problem.message


def test_a_calibration_fits_the_formats_that_a_file_has() -> None:
    """Torch's products on an H200, from a base that has TensorRT-LLM's and none with a scale a row."""
    file = read_measurements(MEASUREMENTS / "h200-sxm-x1-fp8-microbench.jsonl")
    found = calibrate(file, replace(H200, gemm_fp8_rows=None))
    assert {"gemm_fp8", "gemm_fp8_rows", "gemm_fp8_block"} <= set(found.blocks)
    assert "gemm" not in found.blocks
    rows = found.profile.gemm_fp8_rows
    assert rows is not None
    assert (rows.only_tile_rows, rows.only_tile_cols) == (128, 128)
    residual = found.profile.provenance["gemm_fp8_rows.mma_efficiency"].residual
    assert residual is not None
    assert residual < 0.08
