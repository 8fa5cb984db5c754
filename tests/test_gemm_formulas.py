"""The parts of the GEMM model, each against what its formula says by itself."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_costs_gemm import CONSTANTS, HALF, PERSISTENT_GPU, PLAIN_GPU

from kraken_sim.costs.gemm import gemm_cost
from kraken_sim.costs.gemm_correction import gemm_correction_factor
from kraken_sim.costs.gemm_model import (
    REFERENCE_TILE_ELEMENTS,
    Demand,
    busy_s,
    compute_s,
    gemv_s,
    max_split,
    rates,
    split_cost_s,
)
from kraken_sim.costs.gemm_shapes import MAX_SPLIT, MIN_K_PER_SPLIT, Tile, persistent_grid
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.formats import Quantization
from kraken_sim.program.many import POINT
from kraken_sim.program.ops import DType, Gemm

if TYPE_CHECKING:
    from kraken_sim.hardware.device import Device

REFERENCE_TILE = Tile(128, 256, 1)
PEAK = PLAIN_GPU.peak_flops[HALF]
SMS = PLAIN_GPU.num_sms


def demand(m: int, n: int, k: int, *, warm: bool = False, accumulate: bool = False) -> Demand:
    return Demand(m, n, k, 2, 2, 2, int(accumulate), 0, float(warm), 0.0, 1.0, 1.0)


def work_s(tiles: int, *, k: int = 4096, split: int = 1, tile: Tile = REFERENCE_TILE, **changes: Any) -> float:
    """Seconds on the SMs without the prologue, at a nanosecond an element of k."""
    c, d = replace(CONSTANTS, prologue_s=0.0, **changes), demand(128, 256, k)
    found = compute_s(d, tile, tiles, split, 1e-9, rates(d, PLAIN_GPU, PEAK, c, POINT), c, POINT)
    return float(found)


class TestWaves:
    def test_a_tile_of_the_reference_size_takes_its_time_its_k_and_the_filling_of_its_pipeline(self) -> None:
        assert REFERENCE_TILE.rows * REFERENCE_TILE.cols == REFERENCE_TILE_ELEMENTS
        assert work_s(SMS) == pytest.approx(CONSTANTS.tile_s + (4096 + CONSTANTS.k_fill) * 1e-9)

    def test_a_quarter_of_the_tile_keeps_the_fixed_share_of_its_time(self) -> None:
        fixed = CONSTANTS.tile_fixed_share
        quarter = work_s(SMS, tile=Tile(64, 128, 2))
        assert work_s(SMS) - quarter == pytest.approx(CONSTANTS.tile_s * (1 - fixed) * 0.75)

    def test_whole_waves_count_once_each(self) -> None:
        assert work_s(3 * SMS) == pytest.approx(3 * work_s(SMS))

    @pytest.mark.parametrize("quantisation", [0.0, 0.4, 1.0])
    def test_a_partial_wave_costs_a_whole_one_or_its_share_or_something_between(self, quantisation: float) -> None:
        one, half_more = (work_s(tiles, wave_quantisation=quantisation) for tiles in (SMS, SMS + SMS // 2))
        assert half_more / one == pytest.approx(quantisation * 2.0 + (1.0 - quantisation) * 1.5)

    def test_less_than_a_wave_takes_as_long_as_one_whatever_the_quantisation(self) -> None:
        for quantisation in (0.0, 1.0):
            assert work_s(1, wave_quantisation=quantisation) == pytest.approx(work_s(SMS))


class TestSplit:
    def test_a_split_divides_k_but_not_the_filling_of_the_pipeline(self) -> None:
        whole, split = work_s(1), work_s(1, split=4)
        assert whole - split == pytest.approx(0.75 * 4096 * 1e-9)

    @given(st.integers(1, 400), st.integers(1, 60_000))
    def test_every_part_keeps_its_least_k_and_all_fit_one_wave(self, tiles: int, k: int) -> None:
        split = max_split(demand(128, 256, k), REFERENCE_TILE, tiles, SMS, CONSTANTS, POINT)
        assert 1 <= split <= MAX_SPLIT
        if split > 1:
            assert k // split >= MIN_K_PER_SPLIT
            assert tiles * split <= SMS

    def test_one_tile_and_a_long_k_split_as_often_as_is_allowed(self) -> None:
        assert max_split(demand(128, 256, 10**6), REFERENCE_TILE, 1, SMS, CONSTANTS, POINT) == MAX_SPLIT
        assert max_split(demand(128, 256, 5 * MIN_K_PER_SPLIT), REFERENCE_TILE, 1, SMS, CONSTANTS, POINT) == 5

    def test_a_library_that_never_splits_takes_time_in_proportion_to_k(self) -> None:
        whole = replace(CONSTANTS, most_split=1)
        assert max_split(demand(128, 256, 10**6), REFERENCE_TILE, 1, SMS, whole, POINT) == 1
        b200 = load_profile("b200-sxm-x8")
        assert b200.gemm_nvfp4 is not None
        ops = [Gemm(8, 1024, k, DType.BFLOAT16, quantization=Quantization.NVFP4) for k in (16_384, 65_536)]
        short_s, long_s = (gemm_cost(op, b200.device, b200.gemm_nvfp4).busy_s for op in ops)
        assert long_s / short_s > 3.0, "published: 37 and 128 us"

    def test_partial_sums_are_in_single_precision(self) -> None:
        d = demand(512, 1024, 4096)
        r = rates(d, PLAIN_GPU, PEAK, CONSTANTS, POINT)
        two, six = (split_cost_s(d, split, r, CONSTANTS) for split in (2, 6))
        assert (six - two) * r.split_bytes_per_s == pytest.approx(4 * 512 * 1024 * 4)
        assert two - CONSTANTS.split_s == pytest.approx(2 * 512 * 1024 * 4 / r.split_bytes_per_s)


class TestMemory:
    def test_cold_weights_pass_hbm_once_and_activations_by_their_share(self) -> None:
        c, activations = CONSTANTS, 512 * (4096 + 1024)
        found = rates(demand(512, 1024, 4096), PLAIN_GPU, PEAK, c, POINT)
        assert found.hbm_bytes == pytest.approx(2 * (1024 * 4096 + c.activation_hbm_share * activations))
        assert found.memory_s == pytest.approx(
            c.hbm_latency_s + found.hbm_bytes / (PLAIN_GPU.hbm_bandwidth_bytes_per_s * c.hbm_efficiency)
        )

    def test_a_product_that_is_added_to_its_output_reads_it_too(self) -> None:
        plain, added = (
            rates(demand(512, 1024, 4096, accumulate=accumulate), PLAIN_GPU, PEAK, CONSTANTS, POINT).hbm_bytes
            for accumulate in (False, True)
        )
        assert added - plain == pytest.approx(2 * CONSTANTS.activation_hbm_share * 512 * 1024)

    def test_weights_in_l2_cost_no_hbm_and_no_latency_of_it(self) -> None:
        c = replace(CONSTANTS, activation_hbm_share=0.0)
        found = rates(demand(16, 256, 256, warm=True), PLAIN_GPU, PEAK, c, POINT)
        assert found.warm == pytest.approx(1.0, abs=1e-3)
        assert found.memory_s < 1e-3 * c.hbm_latency_s

    @given(st.floats(1e-7, 1e-3), st.floats(1e-7, 1e-3), st.floats(1.0, 20.0))
    def test_overlapped_sides_take_at_least_the_longer_and_at_most_their_sum(
        self, compute: float, memory: float, exponent: float
    ) -> None:
        c = replace(CONSTANTS, overlap_exponent=exponent)
        found = busy_s(compute, memory, c, POINT) - c.launch_s
        assert max(compute, memory) * (1 - 1e-9) <= found <= (compute + memory) * (1 + 1e-9)
        norm = (compute**exponent + memory**exponent) ** (1.0 / exponent)
        assert found == pytest.approx(norm, rel=1e-6, abs=1e-15)

    def test_a_vector_streams_its_weights_and_reduces_along_k(self) -> None:
        c = CONSTANTS
        for n, k in ((4096, 1024), (1024, 4096)):
            d = demand(1, n, k)
            found = gemv_s(d, rates(d, PLAIN_GPU, PEAK, c, POINT), PLAIN_GPU, c)
            stream_s = 2 * n * k / (PLAIN_GPU.hbm_bandwidth_bytes_per_s * c.gemv_hbm_efficiency)
            assert found == pytest.approx(c.gemv_launch_s + stream_s + k * c.gemv_k_element_s)


class TestCost:
    @pytest.mark.parametrize("device", [PLAIN_GPU, PERSISTENT_GPU])
    @pytest.mark.parametrize(("m", "n", "k"), [(8192, 8192, 8192), (16, 8192, 8192)])
    def test_no_correction_takes_a_kernel_below_the_slower_of_arithmetic_and_hbm(
        self, device: Device, m: int, n: int, k: int
    ) -> None:
        tiny = {f"{a}x{b}": {str(c): 1e-3 for c in (1, 10**6)} for a in (1, 10**6) for b in (1, 10**6)}
        cost = gemm_cost(Gemm(m, n, k, HALF), device, replace(CONSTANTS, correction=tiny))
        arithmetic_s = 2 * m * n * k / device.peak_flops[HALF]
        assert cost.busy_s == pytest.approx(max(arithmetic_s, cost.hbm_bytes / device.hbm_bandwidth_bytes_per_s))

    def test_a_correction_scales_every_part_of_a_kernel_alike(self) -> None:
        factors = {f"{a}x{b}": {str(c): 1.5 for c in (1, 10**6)} for a in (1, 10**6) for b in (1, 10**6)}
        op = Gemm(512, 4096, 4096, HALF)
        plain, slower = (gemm_cost(op, PLAIN_GPU, replace(CONSTANTS, correction=c)) for c in ({}, factors))
        for part in ("busy_s", "fixed_s", "compute_s", "memory_s"):
            assert getattr(slower, part) == pytest.approx(1.5 * getattr(plain, part))

    @pytest.mark.parametrize("device", [PLAIN_GPU, PERSISTENT_GPU])
    def test_without_memory_a_kernel_is_its_start_and_its_arithmetic(self, device: Device) -> None:
        fast = replace(device, hbm_bandwidth_bytes_per_s=1e18)
        constants = replace(CONSTANTS, hbm_latency_s=0.0)
        for m, n, k in ((4096, 4096, 1024), (8192, 8192, 512)):
            cost = gemm_cost(Gemm(m, n, k, HALF), fast, constants)
            assert re.search(r"split-K 1[,;]", cost.detail)
            assert cost.fixed_s + cost.compute_s == pytest.approx(cost.busy_s, rel=1e-6)

    @given(st.integers(1, 60_000), st.integers(1, 60_000))
    def test_dynamic_tiles_cover_the_output(self, m: int, n: int) -> None:
        grid = persistent_grid(m, n, 132)
        if grid.dynamic:
            assert grid.tiles * 25_000 >= m * n
            assert grid.tiles > 2 * grid.ctas


def test_a_correction_follows_each_of_its_three_axes() -> None:
    # 2^(a + 2 b + 4 c) on the corners of a cube in log2 m, n and k, so that each axis has a factor of its own.
    knots = (1, 16)
    grid = {
        f"{m}x{n}": {str(k): 2.0 ** ((m > 1) + 2 * (n > 1) + 4 * (k > 1)) for k in knots} for m in knots for n in knots
    }
    constants = replace(CONSTANTS, correction=grid)
    for m, n, k in ((4, 1, 1), (1, 4, 1), (1, 1, 4), (2, 8, 4), (16, 16, 16), (64, 64, 64)):
        shares = [min(1.0, (size.bit_length() - 1) / 4) for size in (m, n, k)]
        expected = 2.0 ** (shares[0] + 2 * shares[1] + 4 * shares[2])
        assert gemm_correction_factor(constants, m, n, k) == pytest.approx(expected)
