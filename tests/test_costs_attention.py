from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_sim.calibration.attention_start import DEFAULT_START
from kraken_sim.costs.attention import attention_cost, serving_attention_cost
from kraken_sim.costs.attention_constants import PACKED
from kraken_sim.costs.attention_model import attention_correction_factor, by_head_dim
from kraken_sim.costs.attention_shape import attended_pairs, prefill_work, tiling_of
from kraken_sim.errors import InputError
from kraken_sim.hardware.device import Device
from kraken_sim.program.ops import Attention, DType


def device(name: str, generation: str, sms: int, peak: float, hbm: float, l2: float) -> Device:
    flops = {DType.FLOAT16: peak, DType.BFLOAT16: peak, DType.FLOAT32: peak / 8}
    return Device(name, generation, sms, 1.7e9, flops, hbm, 80e9, l2, 400.0)


H200 = device("H200", "hopper", 132, 989.4e12, 4.8e12, 50e6)
A100 = device("A100", "ampere", 108, 312e12, 2.039e12, 40e6)
L40S = device("L40S", "ada", 142, 362e12, 0.864e12, 96e6)
DEVICES = [H200, A100, L40S]
CONSTANTS = DEFAULT_START


def prefill(batch: int, length: int, heads: int, head_dim: int = 128, causal: bool = True) -> Attention:
    return Attention(batch, length, length, heads, heads, head_dim, causal, DType.FLOAT16)


def decode(batch: int, cached: int, heads: int, kv_heads: int | None = None, head_dim: int = 128) -> Attention:
    return Attention(batch, 1, cached, heads, kv_heads or heads, head_dim, True, DType.FLOAT16)


ops = st.builds(
    lambda batch, q, more, kv_heads, group, dim, causal: Attention(
        batch, q, q + more, kv_heads * group, kv_heads, dim, causal, DType.FLOAT16
    ),
    st.integers(1, 64),
    st.integers(1, 5000),
    st.sampled_from([0, 0, 1, 100, 4000]),
    st.integers(1, 16),
    st.sampled_from([1, 1, 2, 4, 7, 8, 40]),
    st.sampled_from([16, 64, 80, 96, 112, 128, 192, 256]),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(op=ops, where=st.sampled_from(DEVICES))
def test_every_cost_is_finite_and_positive_and_its_launch_shape_makes_sense(op: Attention, where: Device) -> None:
    for cost in (attention_cost(op, where, CONSTANTS), serving_attention_cost(op, where, CONSTANTS)):
        assert 0.0 < cost.busy_s < math.inf
        assert 0.0 <= cost.fixed_s <= cost.busy_s
        assert 0.0 <= cost.compute_s < math.inf
        assert 0.0 <= cost.memory_s < math.inf
        assert 1 <= cost.ctas <= cost.tiles
        assert cost.ctas_per_sm >= 1
        assert cost.flops > 0.0
        assert cost.hbm_bytes > 0.0


@settings(max_examples=150, deadline=None)
@given(op=ops, where=st.sampled_from(DEVICES))
def test_no_kernel_beats_the_peak_arithmetic_rate(op: Attention, where: Device) -> None:
    cost = attention_cost(op, where, CONSTANTS)
    assert cost.flops / cost.busy_s <= where.peak_flops[op.dtype]


@settings(max_examples=150, deadline=None)
@given(
    batch=st.integers(1, 256),
    cached=st.integers(2, 60_000),
    kv_heads=st.integers(1, 32),
    group=st.sampled_from([1, 2, 8, 64]),
    where=st.sampled_from(DEVICES),
)
def test_a_cold_cache_never_streams_faster_than_hbm(
    batch: int, cached: int, kv_heads: int, group: int, where: Device
) -> None:
    op = decode(batch, cached, kv_heads * group, kv_heads)
    cost = attention_cost(op, where, CONSTANTS)
    cache_bytes = 2 * batch * cached * kv_heads * 128 * 2
    assert cache_bytes / cost.busy_s <= where.hbm_bandwidth_bytes_per_s
    assert cost.hbm_bytes == pytest.approx(cache_bytes)


@pytest.mark.parametrize("where", DEVICES, ids=lambda item: item.name)
@pytest.mark.parametrize("make", [prefill, decode], ids=["prefill", "decode"])
def test_doubling_the_length_the_batch_or_the_heads_never_takes_less_time(make: object, where: Device) -> None:
    assert callable(make)
    for batch, length, heads in [(1, 128, 4), (1, 2048, 4), (4, 512, 16), (1, 8192, 32), (16, 1024, 8)]:
        base = attention_cost(make(batch, length, heads), where, CONSTANTS).busy_s
        for bigger in [(batch, 4 * length, heads), (4 * batch, length, heads), (batch, length, 4 * heads)]:
            assert attention_cost(make(*bigger), where, CONSTANTS).busy_s >= 0.999 * base


@pytest.mark.parametrize("where", DEVICES, ids=lambda item: item.name)
@pytest.mark.parametrize("length", [16, 100, 512, 2000, 8192])
@pytest.mark.parametrize("heads", [1, 8, 40])
def test_a_causal_mask_never_makes_a_prefill_slower(where: Device, length: int, heads: int) -> None:
    masked = attention_cost(prefill(1, length, heads), where, CONSTANTS)
    full = attention_cost(prefill(1, length, heads, causal=False), where, CONSTANTS)
    assert masked.busy_s <= full.busy_s
    assert masked.flops <= full.flops


@pytest.mark.parametrize("where", DEVICES, ids=lambda item: item.name)
def test_few_heads_leave_the_gpu_underfilled(where: Device) -> None:
    few = attention_cost(prefill(1, 2048, 4), where, CONSTANTS)
    many = attention_cost(prefill(1, 2048, 32), where, CONSTANTS)
    assert few.flops / few.busy_s < 0.6 * many.flops / many.busy_s
    assert few.ctas < where.num_sms


def test_a_long_causal_prefill_costs_about_half_of_a_full_one() -> None:
    causal = attention_cost(prefill(1, 16384, 32), A100, CONSTANTS).busy_s
    full = attention_cost(prefill(1, 16384, 32, causal=False), A100, CONSTANTS).busy_s
    assert causal / full == pytest.approx(0.5, abs=0.03)


def test_long_prefill_time_grows_with_the_square_of_the_length() -> None:
    short = attention_cost(prefill(1, 16384, 32), H200, CONSTANTS).busy_s
    long = attention_cost(prefill(1, 32768, 32), H200, CONSTANTS).busy_s
    assert long / short == pytest.approx(4.0, rel=0.03)


def test_a_large_decode_step_takes_the_time_of_streaming_its_cache() -> None:
    one = attention_cost(decode(32, 8192, 32, 8), H200, CONSTANTS)
    two = attention_cost(decode(64, 8192, 32, 8), H200, CONSTANTS)
    assert two.busy_s / one.busy_s == pytest.approx(2.0, rel=0.05)
    assert two.memory_s > 0.7 * two.busy_s


def test_grouped_heads_decode_as_fast_as_their_smaller_cache_streams() -> None:
    grouped = attention_cost(decode(64, 8192, 32, 8), A100, CONSTANTS)
    full = attention_cost(decode(64, 8192, 32), A100, CONSTANTS)
    assert full.busy_s / grouped.busy_s == pytest.approx(4.0, rel=0.15)


def test_one_sequence_is_split_over_the_sms_in_decode() -> None:
    cost = attention_cost(decode(1, 65536, 8, 1), H200, CONSTANTS)
    assert cost.ctas > H200.num_sms
    assert "split" in cost.detail


def test_hopper_prefill_is_persistent_only_where_the_constants_say_so() -> None:
    plain = attention_cost(prefill(8, 2048, 32), H200, CONSTANTS)
    persistent = attention_cost(prefill(8, 2048, 32), H200, replace(CONSTANTS, persistent=1))
    assert plain.ctas == plain.tiles == persistent.tiles == 8 * 32 * 16
    assert persistent.ctas == H200.num_sms
    assert persistent.persistent
    assert not plain.persistent


def test_a_lower_clock_slows_the_arithmetic_alone() -> None:
    long_op, short_op = prefill(1, 16384, 32), prefill(1, 16, 1)
    for op, low, high in [(long_op, 1.9, 2.0), (short_op, 1.0, 1.2)]:
        ratio = attention_cost(op, H200, CONSTANTS, 0.5).busy_s / attention_cost(op, H200, CONSTANTS).busy_s
        assert low <= ratio <= high
    step = decode(64, 8192, 32, 8)
    assert attention_cost(step, H200, CONSTANTS, 0.5) == attention_cost(step, H200, CONSTANTS)


@given(op=ops)
@settings(max_examples=60, deadline=None)
def test_a_serving_engine_adds_its_own_kernels_to_a_prefill(op: Attention) -> None:
    if op.q_len > 1:
        assert (
            serving_attention_cost(op, A100, CONSTANTS).busy_s
            > attention_cost(op, A100, CONSTANTS).busy_s + CONSTANTS.serving_prefill_s["128"]
        )


@given(
    q_len=st.integers(1, 700),
    more=st.integers(0, 700),
    generation=st.sampled_from(["hopper", "ampere", "volta"]),
    dim=st.sampled_from([64, 128, 256]),
)
@settings(max_examples=150, deadline=None)
def test_causal_tiles_are_the_ones_that_hold_an_unmasked_pair(q_len: int, more: int, generation: str, dim: int) -> None:
    op = Attention(1, q_len, q_len + more, 1, 1, dim, True, DType.FLOAT16)
    tiling = tiling_of(generation, dim)
    needed = sum(
        math.ceil(min(op.kv_len, more + min(q_len, start + tiling.q_tile)) / tiling.kv_tile)
        for start in range(0, q_len, tiling.q_tile)
    )
    assert prefill_work(op, tiling, 108).steps == needed
    assert attended_pairs(op) == sum(more + 1 + row for row in range(q_len))


def test_head_dimensions_between_known_ones_are_interpolated() -> None:
    values = {"64": 0.4, "128": 0.6}
    assert by_head_dim(values, 96) == pytest.approx(0.5)
    assert by_head_dim(values, 32) == 0.4
    assert by_head_dim(values, 256) == 0.6


def test_corrections_are_exact_at_their_knots_and_one_where_nothing_is_known() -> None:
    grid = {"packed 128": {"8": 0.9, "32": 1.2}, "packed 512": {"8": 1.0, "32": 1.1}}
    assert attention_correction_factor(grid, PACKED, 128, 32) == pytest.approx(1.2)
    assert attention_correction_factor(grid, PACKED, 256, 8) == pytest.approx(math.sqrt(0.9 * 1.0))
    assert attention_correction_factor(grid, PACKED, 1, 1) == pytest.approx(0.9)
    assert attention_correction_factor(grid, PACKED, 10**6, 10**6) == pytest.approx(1.1)
    assert attention_correction_factor(grid, "per_head", 128, 32) == 1.0


def test_wrong_sizes_are_all_named() -> None:
    with pytest.raises(InputError) as error:
        attention_cost(Attention(0, 8, -1, 8, 8, 128, True, DType.FLOAT16), A100, CONSTANTS)
    assert {problem.path for problem in error.value.problems} == {"batch", "kv_len"}
    with pytest.raises(InputError, match="multiple of num_kv_heads"):
        attention_cost(Attention(1, 8, 8, 6, 4, 128, True, DType.FLOAT16), A100, CONSTANTS)
