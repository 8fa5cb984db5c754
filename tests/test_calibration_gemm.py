from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kraken_sim.calibration.gemm import DEFAULT_START, GemmSample, fit_gemm, gemm_periods
from kraken_sim.costs.gemm import GemmConstants, gemm_cost
from kraken_sim.errors import InputError
from kraken_sim.hardware.device import Device
from kraken_sim.profiles.gemm_transfer import carry_over_gemm
from kraken_sim.profiles.held_rate import MAX_MMA_EFFICIENCY, held_share
from kraken_sim.program.ops import DType
from validation.public_data import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kraken_sim.calibration.split import Fit

BF16 = DType.BFLOAT16
A100 = Device("a100", "ampere", 108, 1.41e9, {BF16: 312e12}, 2.039e12, 80e9, 40e6, 400.0)
H200 = Device("h200", "hopper", 132, 1.98e9, {BF16: 132 * 4096 * 1.98e9}, 4.8e12, 141e9, 50e6, 700.0)
H100 = replace(H200, name="h100", hbm_bandwidth_bytes_per_s=3.35e12)
L40S = Device("l40s", "ada", 142, 2.52e9, {BF16: 362e12}, 864e9, 48e9, 96e6, 350.0)
TRUTH = replace(
    DEFAULT_START,
    launch_s=0.7e-6,
    prologue_s=1.2e-6,
    mma_efficiency=0.7,
    hbm_efficiency=0.78,
    l2_bytes_per_clock=60.0,
    wave_quantisation=0.7,
)


def random_shapes(count: int, seed: int, odd: bool = False) -> list[GemmSample]:
    """Products from latency-bound to compute-bound; half of them replayed; with `odd`, few are aligned."""
    rng = np.random.default_rng(seed)
    m = np.exp2(rng.uniform(0, 13, count)).astype(int)
    n, k = (8 * np.exp2(rng.uniform(5, 11, count)).astype(int) for _ in range(2))
    if odd:
        n, k = n + rng.integers(0, 8, count), k + rng.integers(0, 2, count)
    return [
        GemmSample(int(m[i]), int(n[i]), int(k[i]), BF16, period_s=1.0, weights_warm=bool(i % 2)) for i in range(count)
    ]


def measured(
    samples: list[GemmSample], device: Device, truth: GemmConstants, noise: float, wild: float = 0.0
) -> list[GemmSample]:
    rng = np.random.default_rng(7)
    periods = gemm_periods(samples, device, truth) * np.exp(noise * rng.standard_normal(len(samples)))
    periods = np.where(rng.random(len(samples)) < wild, 3.0 * periods, periods)
    return [replace(sample, period_s=float(p)) for sample, p in zip(samples, periods, strict=True)]


def public_samples(public_table: Callable[[str], Path], card: str) -> list[GemmSample]:
    return [
        GemmSample(int(r["m"]), int(r["n"]), int(r["k"]), BF16, float(r["latency_ms"]) * 1e-3, weights_warm=True)
        for r in rows_of(public_table(f"gemm_bf16_{card}_trtllm.csv"))
        if int(r["n"]) >= 256 and int(r["k"]) >= 256
    ]


def error_without_correction(fit: Fit[GemmConstants, GemmSample], device: Device, gap_s: float = 1e-6) -> float:
    samples = [sample for sample, _ in fit.held_out]
    periods = gemm_periods(samples, device, replace(fit.constants, correction={}), gap_s)
    return fmean(abs(s / sample.period_s - 1.0) for s, sample in zip(periods, samples, strict=True))


@pytest.mark.parametrize("device", [A100, H200, L40S])
def test_many_products_at_once_cost_what_each_costs_alone(device: Any) -> None:
    grid = {
        f"{m}x{n}": {str(k): 0.9 + 0.001 * ((m + n + k) % 170) for k in (64, 1024, 8192)}
        for m in (1, 256, 4096)
        for n in (64, 4096)
    }
    constants = replace(TRUTH, correction=grid, float16_rate=0.9)
    device = replace(device, peak_flops={BF16: device.peak_flops[BF16], DType.FLOAT16: device.peak_flops[BF16]})
    samples = [
        replace(sample, dtype=DType.FLOAT16 if index % 3 else BF16)
        for index, sample in enumerate(random_shapes(150, seed=3, odd=True))
    ]
    together = gemm_periods(samples, device, constants, graph_node_gap_s=0.0)
    for sample, together_s in zip(samples, together, strict=True):
        alone = gemm_cost(sample.op, device, constants, weights_warm=sample.weights_warm)
        assert alone.busy_s == pytest.approx(together_s, rel=1e-12)


def test_a_fit_finds_the_model_behind_noisy_measurements_with_wild_ones_among_them() -> None:
    records = measured(random_shapes(500, seed=1), A100, TRUTH, noise=0.02, wild=0.04)
    result = fit_gemm(records, A100)
    assert np.median([abs(error) for _, error in result.held_out]) < 0.03
    unseen = random_shapes(300, seed=2)
    ratio = gemm_periods(unseen, A100, result.constants) / gemm_periods(unseen, A100, TRUTH)
    assert np.mean(np.abs(ratio - 1)) < 0.02
    assert result.constants.hbm_efficiency == pytest.approx(0.78, rel=0.06)
    assert result.constants.mma_efficiency == pytest.approx(0.7, rel=0.06)
    assert len(result.fitted) + len(result.held_out) == 500


def test_a_fit_to_both_half_formats_tells_their_rates_apart_and_one_to_a_single_format_says_that_it_cannot() -> None:
    both = replace(A100, peak_flops={BF16: 312e12, DType.FLOAT16: 312e12})
    shapes = random_shapes(300, seed=4)
    mixed = [replace(s, dtype=DType.FLOAT16) if i % 2 else s for i, s in enumerate(shapes)]
    found = fit_gemm(measured(mixed, both, replace(TRUTH, float16_rate=0.93), noise=0.01), both)
    assert found.constants.float16_rate == pytest.approx(0.93, abs=0.01)
    assert "float16_rate" not in found.kept
    alone = fit_gemm(measured(shapes[:60], both, TRUTH, noise=0.01), both)
    assert alone.constants.float16_rate == 1.0
    assert "float16" in alone.kept["float16_rate"]


def test_the_same_records_give_the_same_constants() -> None:
    records = measured(random_shapes(80, seed=5), H200, TRUTH, noise=0.03)
    first, second = fit_gemm(records, H200), fit_gemm(records, H200)
    assert first == second


def test_a_smooth_error_of_the_model_goes_into_the_correction_and_pure_noise_does_not() -> None:
    samples = random_shapes(400, seed=6)
    noisy = fit_gemm(measured(samples, H200, TRUTH, noise=0.05), H200, TRUTH)
    assert noisy.constants.correction == {}
    bend = [
        replace(s, period_s=s.period_s * float(np.exp(0.2 * np.sin(np.log2(s.m) / 2) * np.sin(np.log2(s.k) / 2))))
        for s in measured(samples, H200, TRUTH, noise=0.01)
    ]
    bent = fit_gemm(bend, H200, TRUTH)
    assert bent.constants.correction
    assert bent.residual is not None
    assert bent.residual < 0.8 * error_without_correction(bent, H200)


def test_misaligned_rows_get_their_efficiency_from_misaligned_records() -> None:
    truth = replace(TRUTH, misaligned_efficiency={"8": 0.9, "4": 0.5, "2": 0.2})
    records = measured(random_shapes(250, seed=8, odd=True), A100, truth, noise=0.01)
    fitted = fit_gemm(records, A100).constants.misaligned_efficiency
    assert fitted["2"] == pytest.approx(0.2, rel=0.15)
    aligned_only = measured(random_shapes(100, seed=9), A100, truth, noise=0.01)
    assert fit_gemm(aligned_only, A100).constants.misaligned_efficiency == DEFAULT_START.misaligned_efficiency


def test_wrong_records_are_all_named() -> None:
    records = [GemmSample(8, 256, 256, BF16, 0.5e-6, False), GemmSample(8, 256, 256, DType.FLOAT16, 1e-5, False)]
    with pytest.raises(InputError) as caught:
        fit_gemm(records, A100)
    text = str(caught.value)
    assert "at least 40" in text
    assert "one dtype" in text
    assert "gap between graph nodes" in text


def test_constants_carried_to_the_same_silicon_with_other_memory_change_nothing() -> None:
    table = {f"{m}x{n}": {"256": 1.0, "4096": 1.1} for m in (1, 64) for n in (256, 4096)}
    constants = replace(TRUTH, correction=table)
    assert carry_over_gemm(constants, H200, H100) == constants


def test_constants_carried_across_generations_follow_clock_clusters_and_l2() -> None:
    carried = carry_over_gemm(TRUTH, H200, A100)
    assert carried.mma_efficiency == held_share(0.7, H200, A100, short=True) > 0.7, "an A100 has more watts to spare"
    assert carried.l2_bytes_per_clock * A100.boost_clock_hz == pytest.approx(0.5 * 60.0 * H200.boost_clock_hz)
    assert carried.wave_quantisation > TRUTH.wave_quantisation
    assert carried.hbm_efficiency == TRUTH.hbm_efficiency
    assert carry_over_gemm(TRUTH, A100, L40S).l2_resident_share > 1.0
    assert carry_over_gemm(replace(TRUTH, mma_efficiency=0.9), H200, A100).mma_efficiency == MAX_MMA_EFFICIENCY


@pytest.mark.parametrize(
    ("card", "device", "gap_s", "bar"),
    [("h200sxm", H200, 1.0e-6, 0.06), ("a100sxm80", A100, 1.2e-6, 0.06)],
)
def test_published_products_that_the_fit_never_saw_are_within_the_bar(
    public_table: Callable[[str], Path], card: Any, device: Any, gap_s: Any, bar: Any
) -> None:
    # Every third row keeps the test short; a whole table is fitted when a profile is written.
    result = fit_gemm(public_samples(public_table, card)[::3], device, graph_node_gap_s=gap_s)
    assert result.residual is not None
    assert result.residual <= bar
    assert result.residual <= error_without_correction(result, device, gap_s)
    assert len(result.held_out) > 400
