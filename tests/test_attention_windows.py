"""Attention within a window of tokens: no key outside of it costs anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kraken_sim import simulate
from kraken_sim.costs.attention import attention_cost
from kraken_sim.costs.attention_shape import attended_pairs, attention_flops, prefill_work, tiling_of
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import Attention, DType

PROFILE = load_profile("h200-sxm-x2")
TILING = tiling_of("hopper", 128)
PREFILL = Attention(1, 8192, 8192, 32, 8, 128, causal=True, dtype=DType.BFLOAT16)
DECODE = Attention(16, 1, 8192, 32, 8, 128, causal=True, dtype=DType.BFLOAT16)


def seconds(op: Attention) -> float:
    return attention_cost(op, PROFILE.device, PROFILE.attention).busy_s


@pytest.mark.parametrize(("q_len", "kv_len"), [(1, 7), (5, 5), (4, 9), (3, 3)])
@pytest.mark.parametrize("window", [1, 2, 4, 6, 9, 20])
def test_pairs_within_a_window_are_those_counted_one_by_one(q_len: int, kv_len: int, window: int) -> None:
    op = replace(PREFILL, q_len=q_len, kv_len=kv_len, window=window)
    positions = range(kv_len - q_len, kv_len)
    assert attended_pairs(op) == sum(min(position + 1, window) for position in positions)


def test_a_decode_step_within_a_window_is_one_of_a_cache_as_long_as_the_window() -> None:
    assert seconds(replace(DECODE, window=1024)) == seconds(replace(DECODE, kv_len=1024))
    assert attention_flops(replace(DECODE, window=1024)) == attention_flops(replace(DECODE, kv_len=1024))


@pytest.mark.parametrize("op", [PREFILL, DECODE, replace(PREFILL, q_len=512)])
def test_a_window_that_holds_all_keys_changes_nothing(op: Attention) -> None:
    assert seconds(replace(op, window=8192)) == seconds(op)


@pytest.mark.parametrize("op", [PREFILL, DECODE, replace(PREFILL, q_len=512)])
def test_a_shorter_window_never_takes_longer(op: Attention) -> None:
    times = [seconds(replace(op, window=window)) for window in (256, 1024, 4096, 8192)]
    assert times == sorted(times)
    assert times[0] < times[-1]


def test_tiles_of_keys_outside_of_the_window_are_skipped() -> None:
    # Each of the 64 query tiles sees its own key tile and, of a window of 256 + 1, the two before it.
    work = prefill_work(replace(PREFILL, window=257), TILING, 132)
    assert work.steps / PREFILL.num_heads == 64 * 3 - 3
    assert work.longest == 3


def test_the_prediction_of_a_windowed_model_is_the_same_folded_and_whole() -> None:
    model = {
        "model_type": "gemma3_text",
        "num_hidden_layers": 13,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
    }
    question = {"hardware": "h200-sxm-x2", "model": model, "context_length": 8192, "dtype": "bfloat16"}
    folded, whole = simulate(question), simulate(question, exact=True)
    assert folded.latency_s == pytest.approx(whole.latency_s, rel=1e-9)
