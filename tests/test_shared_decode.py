"""Decode attention as torch runs it: one CTA a key/value head, whatever the group of query heads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kraken_sim.costs.attention import attention_cost, decode_step
from kraken_sim.costs.attention_constants import SHARED
from kraken_sim.costs.attention_shape import shared_work
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import Attention, DType

PROFILE = load_profile("h200-sxm-x2")
DEVICE, CONSTANTS = PROFILE.device, PROFILE.attention


def decode(batch: int, cached: int, heads: int, kv_heads: int, head_dim: int = 128) -> Attention:
    return Attention(batch, 1, cached, heads, kv_heads, head_dim, False, DType.BFLOAT16)


def busy_s(op: Attention) -> float:
    return attention_cost(op, DEVICE, CONSTANTS).busy_s


def test_a_group_of_query_heads_takes_as_long_as_one() -> None:
    assert decode_step(decode(16, 2048, 32, 8), DEVICE, CONSTANTS, serving=False).kernel == SHARED
    for group in (2, 4, 16, 64):
        assert busy_s(decode(16, 2048, 8 * group, 8)) == busy_s(decode(16, 2048, 8, 8))


def test_a_group_larger_than_a_tile_reads_the_cache_again() -> None:
    one, two = (shared_work(decode(4, 1000, heads, 1), 132, 2.0, 128.0) for heads in (64, 71))
    assert (one.ctas, two.ctas) == (4, 8)
    assert one.kv_bytes == two.kv_bytes
    assert (one.reread_bytes, two.reread_bytes) == (0.0, two.kv_bytes)


@pytest.mark.parametrize("cached", [512, 2048, 8192])
def test_one_key_value_head_costs_no_more_than_two(cached: int) -> None:
    for batch in (1, 4, 16, 64):
        assert busy_s(decode(batch, cached, 8, 1)) <= 1.05 * busy_s(decode(batch, cached, 8, 2))


def test_heads_of_256_take_longer_than_heads_of_128_with_the_same_cache() -> None:
    for batch, cached in ((4, 2048), (16, 2048)):
        wide, narrow = decode(batch, cached, 16, 16, 256), decode(batch, cached, 32, 32, 128)
        assert 1.2 < busy_s(wide) / busy_s(narrow) < 1.9


def test_factors_of_head_dimensions_scale_latency_and_memory_apart() -> None:
    long, short = decode(64, 8192, 32, 32, 256), decode(1, 64, 1, 1, 256)
    for name, slowed in (("memory", long), ("latency", short)):
        row = CONSTANTS.decode_dim["256"]
        rows = {**CONSTANTS.decode_dim, "256": {**row, name: 2.0 * row[name]}}
        changed = replace(CONSTANTS, decode_dim=rows)
        other = short if slowed is long else long
        assert attention_cost(slowed, DEVICE, changed).busy_s > 1.2 * busy_s(slowed)
        assert attention_cost(other, DEVICE, changed).busy_s < 1.1 * busy_s(other)
