from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim.costs.gemm import GemmConstants, gemm_cost
from kraken_sim.costs.gemm_correction import gemm_correction_factor
from kraken_sim.costs.gemm_shapes import persistent_grid, row_alignment_bytes
from kraken_sim.errors import InputError
from kraken_sim.hardware.device import Device
from kraken_sim.program.ops import DType, Gemm

HALF = DType.FLOAT16
PLAIN_GPU = Device("plain", "ampere", 108, 1.41e9, {HALF: 312e12, DType.FLOAT32: 19.5e12}, 2.039e12, 80e9, 40e6, 400.0)
PERSISTENT_GPU = Device("persistent", "hopper", 132, 1.98e9, {HALF: 1070e12}, 4.8e12, 141e9, 50e6, 700.0)
CONSTANTS = GemmConstants(
    launch_s=0.5e-6,
    prologue_s=1e-6,
    tile_s=1e-6,
    tile_fixed_share=0.5,
    k_fill=60.0,
    mma_efficiency=0.85,
    l2_bytes_per_clock=45.0,
    wave_quantisation=0.8,
    hbm_efficiency=0.82,
    hbm_latency_s=1.5e-6,
    activation_hbm_share=0.6,
    overlap_exponent=4.0,
    split_s=1.5e-6,
    split_bytes_per_clock=12.0,
    throttle_depth=0.1,
    throttle_onset_s=2e-3,
    gemv_launch_s=2e-6,
    gemv_hbm_efficiency=0.8,
    gemv_l2_efficiency=1.2,
    gemv_k_element_s=0.1e-9,
    l2_resident_share=0.65,
    l2_resident_softness=0.05,
    replay_copies=5,
    misaligned_efficiency={"8": 0.75, "4": 0.6, "2": 0.3},
)
GPUS = st.sampled_from([PLAIN_GPU, PERSISTENT_GPU])
SIZES = st.integers(1, 40000)
ALIGNED = st.integers(1, 2000).map(lambda count: 8 * count)


def busy(m: int, n: int, k: int, device: Device = PLAIN_GPU, **changes: Any) -> float:
    return gemm_cost(Gemm(m, n, k, HALF), device, replace(CONSTANTS, **changes)).busy_s


@given(GPUS, SIZES, SIZES, SIZES, st.booleans(), st.floats(0.3, 1.0))
def test_no_product_is_faster_than_the_roofline_of_boost_clock_and_hbm(
    device: Device, m: int, n: int, k: int, warm: bool, clock_ratio: float
) -> None:
    op = Gemm(m, n, k, HALF)
    cost = gemm_cost(op, device, CONSTANTS, clock_ratio, weights_warm=warm)
    assert cost.busy_s >= op.flops / device.peak_flops[HALF]
    assert cost.busy_s * device.hbm_bandwidth_bytes_per_s >= cost.hbm_bytes * (1 - 1e-12)
    if not warm:
        assert cost.hbm_bytes >= 2.0 * n * k
    assert 0.0 < cost.fixed_s < cost.busy_s
    assert cost.flops == 2.0 * m * n * k


@given(GPUS, ALIGNED, ALIGNED, ALIGNED, st.sampled_from("mnk"))
def test_twice_the_work_is_never_faster_than_tile_choice_permits(
    device: Device, m: int, n: int, k: int, axis: str
) -> None:
    single = gemm_cost(Gemm(m, n, k, HALF), device, CONSTANTS).busy_s
    sizes: dict[str, Any] = {"m": m, "n": n, "k": k}
    sizes[axis] *= 2
    double = gemm_cost(Gemm(**sizes, dtype=HALF), device, CONSTANTS).busy_s
    assert double >= 0.97 * single
    assert double <= 2.3 * single


@given(GPUS, SIZES, SIZES, SIZES)
def test_launch_shape_covers_the_output_and_fits_the_device(device: Device, m: int, n: int, k: int) -> None:
    cost = gemm_cost(Gemm(m, n, k, HALF), device, CONSTANTS)
    assert cost.ctas >= 1
    assert cost.ctas_per_sm >= 1
    assert cost.tiles >= cost.ctas
    if device.generation == "hopper" and "matrix-vector" not in cost.detail and "fetched" not in cost.detail:
        assert cost.persistent
        assert cost.ctas <= device.num_sms
        assert cost.ctas_per_sm == 1
    else:
        assert not cost.persistent
        assert cost.tiles == cost.ctas


@pytest.mark.parametrize(
    ("m", "n", "ctas", "dynamic"),
    [
        (512, 10752, 132, False),
        (512, 5376, 128, False),
        (512, 3584, 128, False),
        (512, 7168, 112, False),
        (1024, 3584, 112, False),
        (128, 7168, 128, False),
        (128, 10752, 128, False),
        (128, 4096, 128, False),
        (256, 2304, 128, False),
        (128, 1792, 96, False),
        (128, 3584, 104, False),
        (2048, 3584, 132, False),
        (2048, 5376, 132, True),
        (2048, 10752, 132, True),
        (512, 21504, 132, True),
    ],
)
def test_grids_on_hopper_are_those_that_a_profiler_shows(m: int, n: int, ctas: int, dynamic: bool) -> None:
    grid = persistent_grid(m, n, 132)
    assert (grid.ctas, grid.dynamic) == (ctas, dynamic)
    assert grid.tiles >= grid.ctas


def test_one_tile_more_than_the_sms_hold_costs_a_whole_wave_on_a_plain_grid() -> None:
    columns = 108 * 256
    only_whole_waves: dict[str, Any] = {"wave_quantisation": 1.0, "tile_s": 0.05e-6, "l2_bytes_per_clock": 30.0}
    full = busy(128, columns, 8192, **only_whole_waves)
    # Smaller tiles fill the second wave better, which softens the step but does not remove it.
    assert busy(128, columns + 256, 8192, **only_whole_waves) > 1.2 * full
    smooth = only_whole_waves | {"wave_quantisation": 0.0}
    assert busy(128, columns + 256, 8192, **smooth) < 1.05 * busy(128, columns, 8192, **smooth)


def test_few_rows_take_the_time_to_read_the_weights() -> None:
    weights_s = 2 * 16384 * 16384 / (4.8e12 * 0.82)
    times = [busy(m, 16384, 16384, PERSISTENT_GPU) for m in (2, 8, 16)]
    assert all(weights_s < time < 1.15 * weights_s for time in times)


def test_many_rows_take_the_time_of_the_tensor_cores() -> None:
    op = Gemm(8192, 8192, 8192, HALF)
    cost = gemm_cost(op, PLAIN_GPU, CONSTANTS)
    assert cost.compute_s > cost.memory_s
    assert 0.6 < op.flops / cost.busy_s / 312e12 < 0.85


def test_float16_is_slower_where_the_tensor_cores_limit_and_as_fast_where_memory_does() -> None:
    gpu = replace(PERSISTENT_GPU, peak_flops={HALF: 1070e12, DType.BFLOAT16: 1070e12})
    hot = replace(CONSTANTS, float16_rate=0.9)

    def ratio(m: int) -> float:
        float16_s, bfloat16_s = (
            gemm_cost(Gemm(m, 4096, 4096, dtype), gpu, hot).busy_s for dtype in (HALF, DType.BFLOAT16)
        )
        return float16_s / bfloat16_s

    assert ratio(8192) == pytest.approx(1.0 / 0.9, rel=0.02)
    assert ratio(1) == pytest.approx(1.0, abs=1e-3)
    assert ratio(16) == pytest.approx(1.0, abs=1e-3)


def test_a_small_output_with_a_long_inner_dimension_is_split_along_k() -> None:
    cost = gemm_cost(Gemm(64, 256, 16384, HALF), PLAIN_GPU, CONSTANTS)
    assert "split-K 1," not in cost.detail
    assert cost.ctas > 4
    assert cost.busy_s < busy(64, 256, 16384, split_s=1.0)


def test_a_replayed_benchmark_finds_small_weights_in_l2_and_large_ones_in_hbm() -> None:
    small, large = Gemm(8, 1024, 1024, HALF), Gemm(8, 16384, 16384, HALF)
    for op, relation in ((small, 0.9), (large, 1.0)):
        cold = gemm_cost(op, PLAIN_GPU, CONSTANTS)
        warm = gemm_cost(op, PLAIN_GPU, CONSTANTS, weights_warm=True)
        assert warm.busy_s <= relation * cold.busy_s
        assert warm.hbm_bytes <= cold.hbm_bytes
    assert gemm_cost(large, PLAIN_GPU, CONSTANTS, weights_warm=True).hbm_bytes > 0.99 * 2 * 16384 * 16384


def test_a_lower_clock_slows_arithmetic_and_leaves_streaming_of_weights_alone() -> None:
    bound_by_compute, bound_by_memory = Gemm(4096, 4096, 4096, HALF), Gemm(8, 16384, 16384, HALF)
    slow = gemm_cost(bound_by_compute, PERSISTENT_GPU, CONSTANTS, 0.7).busy_s
    fast = gemm_cost(bound_by_compute, PERSISTENT_GPU, CONSTANTS).busy_s
    assert slow > 1.2 * fast
    slow = gemm_cost(bound_by_memory, PERSISTENT_GPU, CONSTANTS, 0.7).busy_s
    assert slow < 1.01 * gemm_cost(bound_by_memory, PERSISTENT_GPU, CONSTANTS).busy_s


def test_accumulating_reads_the_output_too() -> None:
    plain = gemm_cost(Gemm(4096, 4096, 64, HALF), PLAIN_GPU, CONSTANTS)
    accumulating = gemm_cost(Gemm(4096, 4096, 64, HALF, accumulate=True), PLAIN_GPU, CONSTANTS)
    assert accumulating.hbm_bytes - plain.hbm_bytes == pytest.approx(0.6 * 2 * 4096 * 4096)
    assert accumulating.busy_s > plain.busy_s


@pytest.mark.parametrize(
    ("n", "k", "dtype", "expected"),
    [
        (4096, 4096, HALF, 16),
        (4100, 4096, HALF, 8),
        (4096, 4098, HALF, 4),
        (4097, 4096, HALF, 2),
        (4097, 4096, DType.FLOAT32, 4),
    ],
)
def test_rows_are_aligned_to_the_power_of_two_in_both_their_lengths(
    n: int, k: int, dtype: DType, expected: int
) -> None:
    assert row_alignment_bytes(n, k, dtype, dtype) == expected


def test_odd_sizes_are_slower_than_the_next_aligned_ones() -> None:
    for n, k in ((4095, 4096), (4096, 4095), (4094, 4096), (4092, 4096)):
        assert busy(2048, n, k) > 1.15 * busy(2048, 4096, 4096)


def test_single_precision_takes_its_own_rate_and_twice_the_bytes() -> None:
    cost = gemm_cost(Gemm(4096, 4096, 4096, DType.FLOAT32), PLAIN_GPU, CONSTANTS)
    assert cost.busy_s > 2 * 4096**3 / 19.5e12
    few = gemm_cost(Gemm(8, 8192, 8192, DType.FLOAT32), PLAIN_GPU, CONSTANTS)
    assert few.hbm_bytes > 4.0 * 8192 * 8192


def test_correction_is_exact_at_knots_geometric_between_and_constant_outside() -> None:
    table = {
        "64x256": {"256": 1.0, "1024": 1.2},
        "64x1024": {"256": 1.1, "1024": 1.0},
        "1024x256": {"256": 0.9, "1024": 1.0},
        "1024x1024": {"256": 1.0, "1024": 0.8},
    }
    constants = replace(CONSTANTS, correction=table)
    assert gemm_correction_factor(constants, 64, 256, 1024) == pytest.approx(1.2)
    assert gemm_correction_factor(constants, 1024, 1024, 1024) == pytest.approx(0.8)
    assert gemm_correction_factor(constants, 64, 256, 512) == pytest.approx(1.2**0.5)
    assert gemm_correction_factor(constants, 256, 256, 256) == pytest.approx(0.9**0.5)
    assert gemm_correction_factor(constants, 1, 8, 8) == pytest.approx(1.0)
    assert gemm_correction_factor(constants, 10**6, 10**6, 10**6) == pytest.approx(0.8)
    op = Gemm(64, 256, 1024, HALF)
    plain, corrected = (gemm_cost(op, PLAIN_GPU, c) for c in (CONSTANTS, constants))
    assert corrected.busy_s == pytest.approx(1.2 * plain.busy_s)
    assert corrected.fixed_s == pytest.approx(1.2 * plain.fixed_s)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"1x256": {"256": 1.0, "512": 1.0}}, "two knots"),
        ({"1x256": {"256": 1.0, "512": 1.0}, "8x512": {"256": 1.0, "512": 1.0}}, "every combination"),
    ],
)
def test_an_incomplete_correction_grid_is_refused(table: dict[str, dict[str, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gemm_correction_factor(replace(CONSTANTS, correction=table), 8, 256, 256)


def test_every_wrong_argument_is_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        gemm_cost(Gemm(0, -4, 8, DType.BFLOAT16), PLAIN_GPU, CONSTANTS, clock_ratio=1.5)
    paths = [problem.path for problem in caught.value.problems]
    assert paths == ["gemm.m", "gemm.n", "clock_ratio", "gemm.dtype"]
    assert "float16" in str(caught.value)
