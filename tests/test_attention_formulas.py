"""Attention's work and bytes counted by hand, and the parts of its times by themselves."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_costs_attention import A100, CONSTANTS, H200, decode, prefill

from kraken_sim.costs.attention import attention_cost, decode_rates, prefill_rates
from kraken_sim.costs.attention_constants import PACKED, PER_HEAD
from kraken_sim.costs.attention_model import attention_correction_factor, decode_times, prefill_times, spilled_s
from kraken_sim.costs.attention_shape import (
    Tiling,
    attended_pairs,
    attention_flops,
    decode_work,
    packs_group,
    prefill_work,
    tiling_of,
)
from kraken_sim.program.ops import Attention, DType

ITEM = 2
lengths = st.integers(1, 40)


def chunk(q_len: int, kv_len: int, *, heads: int = 1, causal: bool = True) -> Attention:
    return Attention(1, q_len, kv_len, heads, heads, 128, causal, DType.FLOAT16)


class TestWork:
    @given(lengths, lengths)
    def test_pairs_are_those_of_a_mask_written_out(self, q_len: int, more: int) -> None:
        kv_len = q_len + more - 1
        first = kv_len - q_len
        mask = sum(1 for q in range(q_len) for k in range(kv_len) if k <= first + q)
        assert attended_pairs(chunk(q_len, kv_len)) == mask
        assert attended_pairs(chunk(q_len, kv_len, causal=False)) == q_len * kv_len

    def test_each_pair_costs_a_product_with_the_key_and_one_with_the_value(self) -> None:
        op = Attention(3, 64, 64, 8, 2, 128, False, DType.FLOAT16)
        assert attention_flops(op) == 2 * (2 * 3 * 8 * 64 * 64 * 128)

    @given(st.integers(1, 900), st.integers(0, 900), st.sampled_from([(128, 64), (128, 128), (64, 64), (64, 128)]))
    def test_steps_are_the_tiles_that_a_causal_mask_touches(
        self, q_len: int, more: int, sizes: tuple[int, int]
    ) -> None:
        q, kv = sizes
        tiling, offset = Tiling(q, kv, 1), more
        op = chunk(q_len, q_len + more)
        # The last query of a tile, or of the whole chunk, sees the keys up to its own place.
        seen = [ceil((offset + min((tile + 1) * q, q_len)) / kv) for tile in range(ceil(q_len / q))]
        work = prefill_work(op, tiling, num_sms=1)
        assert work.steps == sum(seen)
        assert work.longest == max(seen)

    def test_a_prefill_reads_queries_keys_and_values_and_writes_as_much_as_it_has_queries(self) -> None:
        op = Attention(2, 300, 300, 8, 2, 64, True, DType.FLOAT16)
        queries, keys = 2 * 300 * 8 * 64, 2 * 300 * 2 * 64
        work = prefill_work(op, tiling_of("hopper", 64), 132)
        assert work.num_bytes == ITEM * (2 * queries + 2 * keys)
        assert work.serving_q_bytes == ITEM * 2 * queries
        assert work.serving_kv_bytes == ITEM * 2 * 2 * keys  # read and written to the cache

    def test_a_short_chunk_is_split_along_its_keys_until_it_fills_the_sms(self) -> None:
        op = chunk(128, 8192, heads=4)
        work = prefill_work(op, Tiling(128, 128, 1), 132)
        assert work.tiles == 4 * 33
        assert work.longest == ceil(64 / 33)
        whole = prefill_work(op, Tiling(128, 128, 1), 7)  # 4 tiles fill more than half of 7 SMs
        assert (whole.tiles, whole.longest) == (4, 64)
        assert whole.steps == work.steps

    def test_a_step_reads_the_cache_once_and_once_a_query_head_where_no_cta_shares_it(self) -> None:
        op = decode(batch=4, cached=1000, heads=32, kv_heads=8)
        cache = ITEM * 2 * 4 * 1000 * 8 * 128
        packed, apart = (decode_work(op, shared, 132, 2.0, 256.0) for shared in (True, False))
        assert packed.kv_bytes == apart.kv_bytes == cache
        assert packed.reread_bytes == 0.0
        assert apart.reread_bytes == cache * 4
        assert (packed.ctas, apart.ctas) == (4 * 8, 4 * 32)

    def test_a_group_of_more_heads_than_a_tile_takes_several_that_read_the_cache_again(self) -> None:
        op = decode(batch=4, cached=1000, heads=71, kv_heads=1)
        work = decode_work(op, True, 132, 1.0, 4096.0, 32)
        cache = ITEM * 2 * 4 * 1000 * 128
        assert (work.ctas, work.kv_bytes, work.reread_bytes) == (4 * 3, cache, 2 * cache)
        assert work.group_tiles == 3  # 24 heads in a tile of 32 rows

    @pytest.mark.parametrize(("heads", "serving", "packed"), [(32, True, True), (64, True, False), (64, False, True)])
    def test_only_the_kernels_of_published_tables_give_up_packing_a_large_group(
        self, heads: int, serving: bool, packed: bool
    ) -> None:
        assert packs_group(decode(batch=64, cached=4096, heads=heads, kv_heads=1), 132, 32, serving) is packed


class TestTimes:
    def test_what_l2_holds_moves_at_its_rate_and_the_rest_at_that_of_hbm(self) -> None:
        assert spilled_s(600.0, 1000.0, 1.0, 10.0) == pytest.approx(60.0)
        assert spilled_s(1600.0, 1000.0, 1.0, 10.0) == pytest.approx(600.0 + 100.0)

    def test_a_prefill_moves_from_l2_what_its_share_holds_and_the_rest_from_hbm(self) -> None:
        work = prefill_work(prefill(8, 4096, 32), tiling_of("hopper", 128), 132)
        peak_flops, l2_bytes = H200.peak_flops[DType.FLOAT16], H200.l2_capacity_bytes
        rates = [prefill_rates(replace(CONSTANTS, l2_share=share), 128) for share in (0.25, 0.75)]
        less_s, more_s = (prefill_times(work, each, H200, peak_flops).memory_s for each in rates)
        hbm_rate = H200.hbm_bandwidth_bytes_per_s * CONSTANTS.hbm_efficiency
        assert less_s - more_s == pytest.approx(0.5 * l2_bytes * (1.0 / hbm_rate - 1.0 / CONSTANTS.l2_bytes_per_s))

    def test_half_the_clock_doubles_the_arithmetic_of_a_prefill_and_nothing_else(self) -> None:
        work = prefill_work(prefill(8, 4096, 32), tiling_of("hopper", 128), 132)
        rates = prefill_rates(CONSTANTS, 128)._replace(prologue_s=0.0, cta_s=0.0, tile_s=0.0)
        full, half = (prefill_times(work, rates, H200, H200.peak_flops[DType.FLOAT16], r) for r in (1.0, 0.5))
        assert half.compute_s == pytest.approx(2.0 * full.compute_s)
        assert half.memory_s == full.memory_s

    def test_parts_of_a_split_step_are_merged_and_a_whole_one_has_nothing_to_merge(self) -> None:
        rates = decode_rates(CONSTANTS.decode[PER_HEAD])._replace(split_s=5e-6, split_step_s=1e-6)
        work = decode_work(decode(1, 16384, 8), False, 132, 4.0, 256.0)
        assert work.splits > 1
        times = decode_times(work, rates, H200, 0.0)
        assert times.core_s - times.parallel_s == pytest.approx(5e-6 + 1e-6 * work.splits**0.25)
        whole = decode_times(work._replace(splits=1.0), rates, H200, 0.0)
        assert whole.core_s == whole.parallel_s

    def test_a_step_is_never_shorter_than_any_of_its_four_limits(self) -> None:
        for kernel in (PER_HEAD, PACKED):
            rates = decode_rates(CONSTANTS.decode[kernel])
            for batch, cached in ((1, 512), (64, 512), (4, 65536), (256, 8192)):
                work = decode_work(decode(batch, cached, 32, 8), kernel == PACKED, 132, 2.0, 256.0)
                times = decode_times(work, rates, H200, 0.0)
                assert times.parallel_s >= max(times.sm_s, times.memory_s)
                assert times.memory_s >= work.kv_bytes / (H200.hbm_bandwidth_bytes_per_s * rates.hbm_efficiency) * (
                    1 - 1e-9
                )

    def test_corrections_of_a_step_are_linear_in_the_logarithms(self) -> None:
        table = {"packed 100": {"10": 1.0, "1000": 4.0}, "packed 10000": {"10": 16.0, "1000": 64.0}}
        assert attention_correction_factor(table, "packed", 100, 100) == pytest.approx(2.0)
        assert attention_correction_factor(table, "packed", 1000, 10) == pytest.approx(4.0)
        assert attention_correction_factor(table, "packed", 1000, 100) == pytest.approx(8.0)
        assert attention_correction_factor(table, "packed", 10, 10**6) == pytest.approx(4.0)  # flat outside
        assert attention_correction_factor(table, "per_head", 1000, 100) == 1.0


class TestCost:
    def test_perfect_constants_give_the_roofline_and_nothing_below_it(self) -> None:
        """Whatever a fit says, arithmetic is bounded by the datasheet's rate at the clock, and a step by its cache."""
        easy = {"efficiency": 50.0, "serial_ratio": 1e-6}
        perfect = replace(
            CONSTANTS, prefill={"128": easy}, launch_s=0.0, prologue_s=0.0, cta_s=0.0, tile_s=0.0, l2_bytes_per_s=1e18
        )
        op = prefill(8, 8192, 32)
        for clock in (1.0, 0.5):
            cost = attention_cost(op, H200, perfect, clock)
            assert cost.busy_s == pytest.approx(attention_flops(op) / (H200.peak_flops[DType.FLOAT16] * clock))
        step = decode(64, 8192, 32, 8)
        fast = {name: {**row, "hbm_efficiency": 40.0} for name, row in CONSTANTS.decode.items()}
        small = {f"{name} {length}": {"1": 1e-3, "100000": 1e-3} for name in fast for length in (1, 10**6)}
        found = attention_cost(step, H200, replace(CONSTANTS, decode=fast, decode_correction=small))
        assert found.busy_s == pytest.approx(found.hbm_bytes / H200.hbm_bandwidth_bytes_per_s)

    def test_short_causal_tiles_fill_in_beside_long_ones_until_there_are_two_waves(self) -> None:
        slots = A100.num_sms * tiling_of("ampere", 128).ctas_per_sm
        plain = replace(CONSTANTS, persistent=0)
        for tiles_a_head, heads in ((4, 32), (4, 64), (8, 64), (8, 108)):
            tiles = tiles_a_head * heads
            causal, full = (
                attention_cost(prefill(1, 128 * tiles_a_head, heads, causal=causal), A100, plain)
                for causal in (True, False)
            )
            assert causal.tiles == full.tiles == full.ctas == tiles
            assert causal.ctas == (tiles / 2 if tiles < 2 * slots else tiles)
