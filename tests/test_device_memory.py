"""What a device must hold, asked as a user asks: every part grows with what it is made of, by exactly that much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim import simulate

if TYPE_CHECKING:
    from kraken_sim.models.memory import DeviceMemory

NARROW = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 4096,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 16,
    "intermediate_size": 64,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
}
"""Attention and FFN are narrower than the stream."""
BATCH, TOKENS, ITEM = 2, 512, 2
ROWS = BATCH * TOKENS * ITEM
"""Bytes of one column of all tokens."""


def memory(architecture: str = "standard", model: dict[str, Any] | None = None, **changes: Any) -> DeviceMemory:
    asked = {
        "hardware": "h100-sxm-x8",
        "model": NARROW | (model or {}),
        "architecture": {"kind": architecture, **changes.pop("fields", {})},
        "num_devices": 2,
        "batch_size": BATCH,
        "context_length": TOKENS,
    }
    return simulate(asked | changes).memory


def activations(architecture: str = "standard", **changes: Any) -> int:
    return memory(architecture, **changes).activation_bytes


@pytest.mark.parametrize("architecture", ["standard", "parallel"])
@pytest.mark.parametrize("num_devices", [1, 2])
def test_the_stream_its_norm_and_a_block_s_output_are_alive_at_once(architecture: str, num_devices: int) -> None:
    wide, narrow = (
        activations(architecture, model={"hidden_size": width}, num_devices=num_devices) for width in (8192, 4096)
    )
    assert wide - narrow == 3 * (8192 - 4096) * ROWS


@pytest.mark.parametrize(("ways", "num_devices"), [(2, 2), (4, 2), (8, 2), (2, 4)])
def test_a_kraken_keeps_three_streams_a_sub_layer_and_the_sum_with_the_copy_it_was_sent_from(
    ways: int, num_devices: int
) -> None:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 64}
    wide, narrow = (
        activations("kraken", fields={"ways": ways, "hidden_size": width, **heads}, num_devices=num_devices)
        for width in (1024, 512)
    )
    local, group = max(1, ways // num_devices), max(1, num_devices // ways)
    # Queries, keys, values and attended values of a sub-layer are as wide as its stream, shared by its group.
    assert wide - narrow == (3 * local + 2 + 4 / group) * (1024 - 512) * ROWS


def test_the_wider_of_attention_and_ffn_counts_and_a_gated_ffn_is_twice_as_wide() -> None:
    wide_ffn = [activations(model={"intermediate_size": width}) for width in (8192, 4096)]
    assert wide_ffn[0] - wide_ffn[1] == 2 * (8192 - 4096) // 2 * ROWS  # gate and up, on one of two devices
    plain = [activations(model={"model_type": "gpt2", "intermediate_size": width}) for width in (8192, 4096)]
    assert plain[0] - plain[1] == (8192 - 4096) // 2 * ROWS
    # Queries and attended values, keys and values: twice the query heads and twice the key/value heads.
    more_heads = [activations(model={"num_attention_heads": heads}) for heads in (128, 64)]
    assert more_heads[0] - more_heads[1] == 2 * (128 - 64) * 16 // 2 * ROWS
    more_kv = [activations(model={"num_attention_heads": 64, "num_key_value_heads": heads}) for heads in (64, 8)]
    assert more_kv[0] - more_kv[1] == 2 * (64 - 8) * 16 // 2 * ROWS


def test_the_logits_are_those_of_one_token_a_sequence_and_a_shard_of_the_vocabulary() -> None:
    large, small = (activations(model={"vocab_size": size}) for size in (65536, 1024))
    assert large - small == BATCH * (65536 - 1024) // 2 * ITEM


def test_a_step_of_decoding_caches_its_own_token_and_computes_one_row_a_sequence() -> None:
    prefill, decode = memory(), memory(phase="decode")
    a_token = 2 * 2 * 8 // 2 * 16 * ITEM * BATCH  # keys and values, layers, half of the heads
    assert prefill.kv_cache_bytes == TOKENS * a_token
    assert decode.kv_cache_bytes == (TOKENS + 1) * a_token
    logits = BATCH * 1024 // 2 * ITEM
    assert (prefill.activation_bytes - logits) == TOKENS * (decode.activation_bytes - logits)


def test_key_and_value_heads_that_run_out_are_held_by_every_device() -> None:
    caches = [memory(model={"num_key_value_heads": 2}, num_devices=n).kv_cache_bytes for n in (1, 2, 4, 8)]
    assert caches[1] * 2 == caches[0]
    assert caches[3] == caches[2] == caches[1]
