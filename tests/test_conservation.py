"""What a pass computes is what the model has: every weight is used once, every key and value cached once.

Parameter counts and bytes of a device, and the kernels of a program, are written in different places; here one is held
against the other, for every architecture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim import simulate
from kraken_sim.program.ops import Attention, Copy, Elementwise, Embedding, Gemm, Norm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim import Prediction
    from kraken_sim.engine.timeline import Span

ITEM, BATCH, TOKENS, LAYERS, VOCABULARY = 2, 2, 96, 3, 4096
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": LAYERS,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 2048,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
"""Grouped keys and values, a gate, no bias: its weights are those of GEMMs, norms and the token table."""
FOUR_WAYS = {"kind": "kraken", "ways": 4, "hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 4}
CASES: list[tuple[dict[str, Any], int]] = [
    ({"kind": "standard"}, 1),
    ({"kind": "standard"}, 4),
    ({"kind": "parallel"}, 4),
    (FOUR_WAYS, 4),
    (FOUR_WAYS, 2),
    (FOUR_WAYS, 1),
    (FOUR_WAYS, 8),
]


def predict(architecture: dict[str, Any], num_devices: int, **changes: Any) -> Prediction:
    asked = {"hardware": "h100-sxm-x8", "model": LLAMA, "batch_size": BATCH, "context_length": TOKENS}
    return simulate({**asked, "architecture": architecture, "num_devices": num_devices, **changes})


def spans(prediction: Prediction) -> Iterator[Span]:
    """The kernels of the first rank, every layer written out."""
    return (span for span in prediction.timeline.spans if span.rank == 0 and span.op is not None)


def ops(prediction: Prediction, kind: type[Any]) -> list[Any]:
    return [span.op for span in spans(prediction) if isinstance(span.op, kind)]


@pytest.mark.parametrize(("architecture", "num_devices"), CASES)
def test_every_weight_on_a_device_is_used_once_a_pass(architecture: dict[str, Any], num_devices: int) -> None:
    prediction = predict(architecture, num_devices)
    gemms = sum(gemm.n * gemm.k for gemm in ops(prediction, Gemm))
    norms = sum(norm.hidden_size for norm in ops(prediction, Norm))
    (table,) = ops(prediction, Embedding)
    weights = gemms + norms + VOCABULARY * table.hidden_size
    assert ITEM * weights == prediction.memory.weights_bytes


@pytest.mark.parametrize(("architecture", "num_devices"), CASES)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_every_new_key_and_value_is_cached_once_and_attention_sees_them_all(
    architecture: dict[str, Any], num_devices: int, phase: str
) -> None:
    prediction = predict(architecture, num_devices, phase=phase)
    cached = sum(s.op.num_bytes for s in spans(prediction) if isinstance(s.op, Copy) and s.name.startswith("kv_cache"))
    seen = sum(2 * a.batch * a.kv_len * a.num_kv_heads * a.head_dim * ITEM for a in ops(prediction, Attention))
    assert seen == prediction.memory.kv_cache_bytes
    new = TOKENS if phase == "prefill" else 1
    assert cached * (TOKENS if phase == "prefill" else TOKENS + 1) == seen * new


@pytest.mark.parametrize(("architecture", "num_devices"), CASES)
def test_queries_and_keys_are_turned_once_and_values_never(architecture: dict[str, Any], num_devices: int) -> None:
    prediction = predict(architecture, num_devices)
    ropes = [rope for rope in ops(prediction, Elementwise) if rope.function == "rope"]
    attentions = ops(prediction, Attention)
    assert len(ropes) == len(attentions)
    for rope, attention in zip(ropes, attentions, strict=True):
        heads = attention.num_heads + attention.num_kv_heads
        assert rope.num_elements == BATCH * TOKENS * heads * attention.head_dim
        assert (rope.num_inputs, rope.num_outputs) == (1, 1)


@pytest.mark.parametrize("architecture", ["standard", "parallel"])
def test_a_layer_adds_each_of_its_two_results_to_the_stream_once(architecture: str) -> None:
    """By a kernel, or by a projection that accumulates into the other's result."""
    prediction = predict({"kind": architecture}, 4)
    added = [span for span in spans(prediction) if isinstance(span.op, Elementwise) and span.op.function == "add"]
    accumulated = [span for span in spans(prediction) if isinstance(span.op, Gemm) and span.op.accumulate]
    assert len(added) + len(accumulated) == 2 * LAYERS
    assert {span.name for span in accumulated} == ({"gemm_down"} if architecture == "parallel" else set())


@pytest.mark.parametrize("num_devices", [1, 2, 4])
def test_a_device_adds_the_outputs_of_its_own_sub_layers_before_any_other_sees_them(num_devices: int) -> None:
    local = 4 // num_devices
    prediction = predict(FOUR_WAYS, num_devices)
    sent = [span for span in spans(prediction) if span.name.startswith("send.")]
    assert len(sent) == (LAYERS - 1) * (local - 1)
    concat = [span.op for span in spans(prediction) if span.name.startswith("gemm_concat")]
    assert [gemm.accumulate for gemm in concat if isinstance(gemm, Gemm)] == [False, *[True] * (local - 1)]


def test_a_gate_is_multiplied_in_and_a_plain_ffn_has_none() -> None:
    def activation(**model: Any) -> Elementwise:
        found = predict({"kind": "standard"}, 2, model=LLAMA | model)
        first: Elementwise = next(op for op in ops(found, Elementwise) if op.function in ("gelu", "silu_mul"))
        return first

    assert (activation().function, activation().num_inputs) == ("silu_mul", 2)
    plain = activation(model_type="gpt2", num_key_value_heads=16)
    assert (plain.function, plain.num_inputs) == ("gelu", 1)
    assert plain.num_elements == activation().num_elements


def test_the_head_reads_one_row_a_sequence() -> None:
    prediction = predict({"kind": "standard"}, 4)
    head = next(span.op for span in spans(prediction) if span.name == "lm_head")
    assert isinstance(head, Gemm)
    assert (head.m, head.n, head.k) == (BATCH, VOCABULARY // 4, 1024)
    final = next(span.op for span in spans(prediction) if span.name == "norm_final")
    assert isinstance(final, Norm)
    assert (final.num_tokens, final.hidden_size) == (BATCH, 1024)
