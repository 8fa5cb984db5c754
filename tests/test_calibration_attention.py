from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kraken_sim.calibration.attention import (
    DEFAULT_START,
    AttentionSample,
    attention_periods,
    fit_attention,
    phase_class,
)
from kraken_sim.calibration.attention_correction import correction_factors, correction_of
from kraken_sim.costs.attention import attention_cost, serving_attention_cost
from kraken_sim.costs.attention_constants import PACKED, PER_HEAD, SHARED
from kraken_sim.costs.attention_model import attention_correction_factor
from kraken_sim.errors import InputError
from kraken_sim.hardware.device import Device
from kraken_sim.program.ops import DType
from validation.public_data import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kraken_sim.calibration.split import Fit
    from kraken_sim.costs.attention_constants import AttentionConstants

GAP_S = 1e-6
BF16 = DType.BFLOAT16
H100 = Device("H100", "hopper", 132, 1.98e9, {BF16: 989.4e12}, 3.35e12, 80e9, 50e6, 700.0)
A100 = Device("A100", "ampere", 108, 1.41e9, {BF16: 312e12}, 2.039e12, 80e9, 40e6, 400.0)


SHARED_START = replace(
    DEFAULT_START,
    decode={**DEFAULT_START.decode, SHARED: DEFAULT_START.decode[PER_HEAD]},
    decode_dim={"64": {"latency": 0.8, "memory": 1.2}, "128": {"latency": 1.0, "memory": 1.0}},
)
"""The kernel that torch runs, with what a head of 64 changes."""


def _synthetic(composite: bool) -> list[AttentionSample]:
    shapes = [
        (batch, length, length, heads, kv_heads, dim)
        for batch, length, (heads, kv_heads), dim in itertools.product(
            (1, 4, 16), (64, 512, 2048), ((4, 4), (32, 32), (32, 8)), (64, 128)
        )
    ]
    shapes += [(batch, 1, 4 * length + 1, heads, kv, dim) for batch, length, _, heads, kv, dim in shapes]
    return [_measured(AttentionSample(*shape, True, BF16, 1.0, composite)) for shape in shapes]


def _measured(sample: AttentionSample) -> AttentionSample:
    price = serving_attention_cost if sample.composite else attention_cost
    return replace(sample, period_s=GAP_S + price(sample.op, H100, SHARED_START).busy_s)


@pytest.mark.parametrize("composite", [False, True])
def test_predictions_of_many_equal_the_cost_of_each(composite: bool) -> None:
    samples = _synthetic(composite)
    found = attention_periods(samples, H100, SHARED_START, GAP_S)
    assert found == pytest.approx([sample.period_s for sample in samples], rel=1e-9)


def test_corrections_of_many_equal_the_correction_of_each() -> None:
    rng = np.random.default_rng(3)
    kernels = ["packed", "per_head"] * 100
    kv_len, ctas = rng.integers(2, 100_000, 200).astype(float), rng.integers(1, 200_000, 200).astype(float)
    grid = correction_of(kernels, kv_len, ctas, rng.normal(0.0, 0.2, 200))
    expected = [
        attention_correction_factor(grid, kernel, int(length), int(count))
        for kernel, length, count in zip(kernels, kv_len, ctas, strict=True)
    ]
    assert correction_factors(grid, kernels, kv_len, ctas) == pytest.approx(expected, rel=1e-9)


def test_a_correction_learns_a_smooth_error_and_not_the_noise() -> None:
    rng = np.random.default_rng(5)
    kv_len, ctas = 2.0 ** rng.uniform(2, 14, 800), 2.0 ** rng.uniform(0, 12, 800)
    smooth = 0.2 * np.sin(np.log2(kv_len) / 3.0) + 0.02 * np.log2(ctas)
    noisy = smooth + rng.normal(0.0, 0.1, 800)
    kernels = ["packed"] * 800
    learned = np.log(correction_factors(correction_of(kernels, kv_len, ctas, noisy), kernels, kv_len, ctas))
    assert np.abs(learned - smooth).mean() < 0.04


def test_a_fit_of_bare_kernels_recovers_them_and_leaves_serving_constants_alone() -> None:
    samples = _synthetic(composite=False)
    away = replace(
        DEFAULT_START,
        launch_s=4e-6,
        prologue_s=1e-6,
        prefill={"128": {"efficiency": 0.4, "serial_ratio": 1.2}},
    )
    result = fit_attention(samples, H100, away, graph_node_gap_s=GAP_S)
    assert result.residual is not None
    assert result.residual < 0.02
    assert result.constants.serving_prefill_s == away.serving_prefill_s
    assert result.constants.serving_kv_weight == away.serving_kv_weight
    assert {"64", "128"} <= set(result.constants.prefill)
    assert result.constants.decode[PACKED] == away.decode[PACKED]
    assert result.constants.decode_dim["64"]["memory"] > 1.05 > 0.95 > result.constants.decode_dim["64"]["latency"]
    again = fit_attention(samples, H100, away, graph_node_gap_s=GAP_S)
    assert again.constants == result.constants


def test_a_fit_of_prefills_alone_keeps_the_decode_constants() -> None:
    prefills = [sample for sample in _synthetic(composite=True) if sample.q_len > 1]
    result = fit_attention(prefills, H100, DEFAULT_START, graph_node_gap_s=GAP_S)
    assert result.constants.decode == DEFAULT_START.decode
    assert result.kept.keys() == {"decode"}
    assert {phase_class(sample) for sample, _ in result.held_out} == {(0, "prefill")}


def test_a_fit_refuses_too_few_samples_and_impossible_periods() -> None:
    samples = _synthetic(composite=False)
    with pytest.raises(InputError, match="at least"):
        fit_attention(samples[:10], H100)
    with pytest.raises(InputError, match="gap"):
        fit_attention([replace(sample, period_s=5e-7) for sample in samples], H100)


def _published(public_table: Callable[[str], Path], gpu: str) -> list[AttentionSample]:
    tables = {kind: public_table(f"{kind}_attn_bf16_{gpu}_trtllm.csv") for kind in ("ctx", "gen")}
    return [_row(row, kind) for kind, path in tables.items() for row in rows_of(path)]


def _row(row: dict[str, str], kind: str) -> AttentionSample:
    batch, heads, kv_heads, dim = (
        int(row[name]) for name in ("batch_size", "num_heads", "num_key_value_heads", "head_dim")
    )
    q_len, kv_len = (int(row["isl"]),) * 2 if kind == "ctx" else (1, int(row["kv_len"]))
    return AttentionSample(
        batch, q_len, kv_len, heads, kv_heads, dim, True, BF16, float(row["latency_ms"]) * 1e-3, True
    )


def errors_by_phase(fit: Fit[AttentionConstants, AttentionSample]) -> dict[str, float]:
    return {error.name: error.mean for error in fit.class_errors("attention", phase_class)}


def test_a_fit_to_published_a100_rows_predicts_held_out_ones_within_8_percent(
    public_table: Callable[[str], Path],
) -> None:
    start = replace(DEFAULT_START, serving_packed_cache_share=0.5)
    # every sixth row keeps the test short
    result = fit_attention(_published(public_table, "a100sxm80")[::6], A100, start, graph_node_gap_s=1.2e-6)
    errors = errors_by_phase(result)
    assert errors["prefill"] < 0.05
    assert errors["decode"] < 0.08


def test_a_fit_to_published_h100_rows_predicts_held_out_ones_within_8_percent(
    public_table: Callable[[str], Path],
) -> None:
    # every ninth row keeps the test short
    result = fit_attention(_published(public_table, "h100sxm")[::9], H100, DEFAULT_START, graph_node_gap_s=GAP_S)
    errors = errors_by_phase(result)
    assert errors["prefill"] < 0.07
    assert errors["decode"] < 0.08
