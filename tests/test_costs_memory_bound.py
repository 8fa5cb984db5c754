from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_sim.calibration.memory_bound import (
    DEFAULT_START,
    MemoryBoundSample,
    fit_memory_bound,
    kind_class,
    memory_bound_periods,
)
from kraken_sim.costs.memory_bound import MemoryBoundOp, kind_of, memory_bound_cost, stream_of
from kraken_sim.errors import InputError
from kraken_sim.hardware.device import Device
from kraken_sim.program.ops import Copy, DType, Elementwise, Embedding, Norm

FP16 = DType.FLOAT16
H200 = Device("H200", "hopper", 132, 1.98e9, {FP16: 989.4e12}, 4.8e12, 141e9, 50e6, 700.0)
C = DEFAULT_START

ops = st.one_of(
    st.builds(Norm, st.integers(1, 20_000), st.integers(1, 20_000), st.just(FP16)),
    st.builds(Elementwise, st.just("gelu"), st.integers(1, 10**9), st.integers(1, 3), st.just(FP16)),
    st.builds(Copy, st.integers(1, 10**10)),
    st.builds(Embedding, st.integers(1, 20_000), st.integers(1, 20_000), st.just(FP16)),
)


@settings(max_examples=200, deadline=None)
@given(op=ops)
def test_every_cost_is_finite_positive_and_not_faster_than_hbm_delivers(op: MemoryBoundOp) -> None:
    cost = memory_bound_cost(op, H200, C)
    assert 0.0 < cost.fixed_s < cost.busy_s < math.inf
    assert cost.hbm_bytes / cost.busy_s <= H200.hbm_bandwidth_bytes_per_s
    assert cost.ctas == cost.tiles >= 1
    assert not cost.persistent


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 5000), width=st.integers(64, 16_000))
def test_more_rows_and_wider_rows_never_take_less_time(rows: int, width: int) -> None:
    base = memory_bound_cost(Norm(rows, width, FP16), H200, C).busy_s
    assert memory_bound_cost(Norm(2 * rows, width, FP16), H200, C).busy_s >= base
    assert memory_bound_cost(Norm(rows, 2 * width, FP16), H200, C).busy_s >= base


def test_a_large_copy_runs_at_the_efficiency_of_hbm() -> None:
    size = 4 * 2**30
    cost = memory_bound_cost(Copy(size), H200, C)
    assert 2 * size / cost.busy_s == pytest.approx(C.hbm_efficiency * H200.hbm_bandwidth_bytes_per_s, rel=0.02)


def test_what_the_previous_kernel_left_in_l2_is_not_read_from_hbm() -> None:
    small, large = Norm(512, 3584, FP16), Norm(8192, 8192, FP16)
    assert memory_bound_cost(small, H200, C).hbm_bytes == 0.0
    moved = 2 * 8192 * 8192 * 2
    assert memory_bound_cost(large, H200, C).hbm_bytes == pytest.approx(moved)


def test_few_rows_underfill_the_gpu() -> None:
    one, many = memory_bound_cost(Norm(1, 8192, FP16), H200, C), memory_bound_cost(Norm(132, 8192, FP16), H200, C)
    assert many.busy_s < 1.2 * one.busy_s


def test_a_layer_norm_of_512_rows_takes_about_8_us_on_h200() -> None:
    # PyTorch 2.11 in a CUDA graph
    assert memory_bound_cost(Norm(512, 3584, FP16), H200, C).busy_s == pytest.approx(7.8e-6, rel=0.1)


def test_embedding_rows_of_the_table_come_from_hbm() -> None:
    cost = memory_bound_cost(Embedding(512, 4096, FP16), H200, C)
    assert cost.hbm_bytes == 512 * 4096 * 2


def test_few_embedding_rows_are_gathered_one_after_the_other() -> None:
    kernels = dict(C.kernels) | {"embedding": dict(C.kernels["embedding"]) | {"row_s": 6e-7}}
    constants = replace(C, kernels=kernels)
    times = {rows: memory_bound_cost(Embedding(rows, 1024, FP16), H200, constants).busy_s for rows in (1, 16, 17)}
    assert times[16] - times[1] == pytest.approx(15 * 6e-7, rel=0.01)
    assert times[17] < times[16]


def test_kernels_without_constants_of_their_own_cost_what_their_kind_does() -> None:
    as_add = Elementwise("silu", 1_000_000, 1, FP16)
    assert memory_bound_cost(Elementwise("gelu", 1_000_000, 1, FP16), H200, C).busy_s == pytest.approx(
        memory_bound_cost(as_add, H200, C).busy_s
    )
    slow = dict(C.kernels["elementwise"]) | {"cta_bytes_per_s": 1e9, "hbm_efficiency": 0.3, "l2_bytes_per_s": 1e12}
    constants = replace(C, kernels=dict(C.kernels) | {"gelu": slow})
    assert memory_bound_cost(Elementwise("gelu", 1_000_000, 1, FP16), H200, constants).busy_s > 2.0 * (
        memory_bound_cost(as_add, H200, constants).busy_s
    )


def test_a_norm_that_takes_in_the_add_before_it_moves_a_tensor_less_than_both_apart() -> None:
    rows, width = 4096, 8192
    tensor = rows * width * FP16.num_bytes
    apart = (Elementwise("add", rows * width, 2, FP16), Norm(rows, width, FP16))
    together = Norm(rows, width, FP16, fused=True, adds=1, writes_sum=True)
    assert stream_of(together).num_bytes == sum(stream_of(op).num_bytes for op in apart) - tensor


def test_a_kernel_that_narrows_writes_fewer_bytes() -> None:
    assert Elementwise("quantize", 1000, 1, DType.FLOAT32, output_dtype=FP16).moved_bytes == 1000 * (4 + 2)


def test_a_norms_kernel_is_torchs_or_an_engines_and_its_functions_own() -> None:
    assert kind_of(Norm(1, 8, FP16)) == "norm"
    assert kind_of(Norm(1, 8, FP16, "rms_norm")) == "rms_norm"
    assert kind_of(Norm(1, 8, FP16, "rms_norm", fused=True)) == "fused_norm"
    assert kind_of(Norm(1, 8, FP16, fused=True)) == "fused_layer_norm"
    assert kind_of(Elementwise("rope_kv_write", 8, 1, FP16)) == "rope_kv_write"
    assert kind_of(Elementwise("silu", 8, 1, FP16)) == "elementwise"


def test_a_strided_copy_runs_in_smaller_ctas() -> None:
    whole, strided = (memory_bound_cost(Copy(2**20, strided), H200, C) for strided in (False, True))
    assert strided.ctas == 8 * whole.ctas


def test_wrong_sizes_are_all_named() -> None:
    with pytest.raises(InputError) as error:
        memory_bound_cost(Norm(0, -1, FP16), H200, C)
    assert [problem.path for problem in error.value.problems] == ["num_tokens", "hidden_size"]


def _samples(periods: bool) -> list[MemoryBoundSample]:
    shapes: list[MemoryBoundOp] = []
    for rows in (1, 32, 128, 512, 2048, 8192):
        for width in (1024, 3584, 8192):
            shapes += [Norm(rows, width, FP16), Elementwise("add", rows * width, 2, FP16)]
            shapes += [Copy(2 * rows * width), Embedding(rows, width, FP16)]
    noise = np.random.default_rng(1).normal(1.0, 0.01, len(shapes))
    return [
        MemoryBoundSample(
            op, 1e-6 + memory_bound_cost(op, H200, C).busy_s * (float(wobble) if periods else 1.0), inputs_warm=True
        )
        for op, wobble in zip(shapes, noise, strict=True)
    ]


def test_predicted_periods_are_costs_plus_the_gap() -> None:
    samples = _samples(periods=False)
    assert memory_bound_periods(samples, H200, C) == pytest.approx([sample.period_s for sample in samples])


def test_cold_inputs_take_longer_than_warm_ones() -> None:
    op = Norm(2048, 4096, FP16)
    warm, cold = (MemoryBoundSample(op, 1e-5, inputs_warm=state) for state in (True, False))
    times = memory_bound_periods([warm, cold], H200, C)
    assert times[1] > times[0]


def test_a_fit_recovers_kernels_from_noisy_measurements() -> None:
    start = DEFAULT_START
    away = {
        kind: dict(values) | {"cta_s": 2.0 * values["cta_s"], "launch_s": 0.5 * values["launch_s"]}
        for kind, values in start.kernels.items()
    }
    initial = type(start)(0.7, 3e12, 0.4, 0.6, 2.0, away)
    samples = _samples(periods=True)
    result = fit_memory_bound(samples, H200, initial)
    assert result.residual is not None
    assert result.residual < 0.02
    assert len(result.fitted) + len(result.held_out) == len(samples)
    assert {kind_class(sample) for sample, _ in result.held_out} <= {
        (0, kind) for kind in ("norm", "elementwise", "copy", "embedding")
    }
    assert fit_memory_bound(samples, H200, initial).constants == result.constants


def test_a_fit_refuses_too_few_samples_and_impossible_periods() -> None:
    with pytest.raises(InputError, match="at least"):
        fit_memory_bound(_samples(periods=True)[:5], H200)
    broken = [MemoryBoundSample(sample.op, 5e-7, inputs_warm=True) for sample in _samples(periods=True)]
    with pytest.raises(InputError, match="gap"):
        fit_memory_bound(broken, H200)


def test_no_efficiency_of_a_fit_moves_bytes_faster_than_the_datasheet_says() -> None:
    kernels = {name: {**row, "cta_bytes_per_s": 1e15, "hbm_efficiency": 50.0} for name, row in C.kernels.items()}
    perfect = replace(C, hbm_efficiency=50.0, kernels=kernels)
    for op in (Copy(2**30), Norm(65536, 8192, FP16), Elementwise("add", 2**29, 2, FP16)):
        cost = memory_bound_cost(op, H200, perfect)
        floor_s = cost.hbm_bytes / H200.hbm_bandwidth_bytes_per_s
        assert cost.busy_s == pytest.approx(cost.fixed_s + floor_s)


@pytest.mark.parametrize(("num_inputs", "num_outputs"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_every_operand_of_a_pointwise_kernel_is_moved_once(num_inputs: int, num_outputs: int) -> None:
    op = Elementwise("fused", 2**30, num_inputs, FP16, num_outputs)
    assert memory_bound_cost(op, H200, C).hbm_bytes == pytest.approx((num_inputs + num_outputs) * 2**30 * 2)


def test_a_norm_computes_more_for_an_element_than_an_addition_does() -> None:
    norm, add = Norm(512, 4096, FP16), Elementwise("add", 512 * 4096, 2, FP16)
    assert memory_bound_cost(norm, H200, C).flops > memory_bound_cost(add, H200, C).flops == 512 * 4096
    assert memory_bound_cost(Copy(4096), H200, C).flops == 0.0


@pytest.mark.parametrize("num_tokens", [1, 16, 2048])
def test_a_lookup_without_learned_positions_is_the_gather_alone(num_tokens: int) -> None:
    both, gather = (memory_bound_cost(Embedding(num_tokens, 4096, FP16, added), H200, C) for added in (True, False))
    assert C.kernels["elementwise"]["launch_s"] <= gather.fixed_s <= gather.busy_s < both.busy_s
    assert gather.hbm_bytes <= both.hbm_bytes
