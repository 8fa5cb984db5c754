"""Families people ask for: the keys of their config.json, and what is modelled or refused of each.

Fields and values are those of the published models' config.json on Hugging Face; what is left out there, such as the
positions of a Falcon, is left out here too.
"""

from __future__ import annotations

from typing import Any

import pytest
from layout_support import layout_of, program_of

from kraken_sim.architectures.workload import Phase, Workload
from kraken_sim.errors import InputError
from kraken_sim.models.counts import parameter_count
from kraken_sim.models.families import FAMILIES
from kraken_sim.models.hf import config_from_hf
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.program.ops import Attention, DType

GEMMA: dict[str, Any] = {
    "model_type": "gemma",
    "attention_bias": False,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "max_position_embeddings": 8192,
    "num_attention_heads": 8,
    "num_hidden_layers": 18,
    "num_key_value_heads": 1,
    "vocab_size": 256000,
}
GEMMA2: dict[str, Any] = {
    "model_type": "gemma2",
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "cache_implementation": "hybrid",
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "max_position_embeddings": 8192,
    "num_attention_heads": 8,
    "num_hidden_layers": 26,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "vocab_size": 256000,
}
UNCAPPED = GEMMA2 | {"attn_logit_softcapping": None}
GEMMA3: dict[str, Any] = {
    "model_type": "gemma3_text",
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "vocab_size": 262144,
}
PHI2: dict[str, Any] = {
    "model_type": "phi",
    "hidden_act": "gelu_new",
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "partial_rotary_factor": 0.4,
    "qk_layernorm": False,
    "tie_word_embeddings": False,
    "vocab_size": 51200,
}
PHI3: dict[str, Any] = {
    "model_type": "phi3",
    "hidden_act": "silu",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
    "vocab_size": 32064,
}
PHI4 = PHI3 | {
    "hidden_size": 5120,
    "intermediate_size": 17920,
    "max_position_embeddings": 16384,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 10,
    "sliding_window": None,
    "vocab_size": 100352,
}
OPT: dict[str, Any] = {
    "model_type": "opt",
    "activation_function": "relu",
    "do_layer_norm_before": True,
    "ffn_dim": 3072,
    "hidden_size": 768,
    "max_position_embeddings": 2048,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 50272,
    "word_embed_proj_dim": 768,
}
FALCON7: dict[str, Any] = {
    "model_type": "falcon",
    "alibi": False,
    "bias": False,
    "hidden_size": 4544,
    "multi_query": True,
    "new_decoder_architecture": False,
    "num_attention_heads": 71,
    "num_hidden_layers": 32,
    "parallel_attn": True,
    "vocab_size": 65024,
}
FALCON40: dict[str, Any] = {
    "model_type": "falcon",
    "alibi": False,
    "bias": False,
    "hidden_size": 8192,
    "new_decoder_architecture": True,
    "num_attention_heads": 128,
    "num_hidden_layers": 60,
    "num_kv_heads": 8,
    "parallel_attn": True,
    "vocab_size": 65024,
}
STARCODER2: dict[str, Any] = {
    "model_type": "starcoder2",
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 3072,
    "intermediate_size": 12288,
    "max_position_embeddings": 16384,
    "mlp_type": "default",
    "norm_type": "layer_norm",
    "num_attention_heads": 24,
    "num_hidden_layers": 30,
    "num_key_value_heads": 2,
    "sliding_window": 4096,
    "use_bias": True,
    "vocab_size": 49152,
}
OLMO: dict[str, Any] = {
    "model_type": "olmo",
    "attention_bias": False,
    "clip_qkv": None,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "tie_word_embeddings": False,
    "vocab_size": 50304,
}
SMOLLM2: dict[str, Any] = {
    "model_type": "llama",
    "attention_bias": False,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
SMOLLM3: dict[str, Any] = {
    "model_type": "smollm3",
    "attention_bias": False,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "max_position_embeddings": 65536,
    "mlp_bias": False,
    "no_rope_layer_interval": 4,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 4,
    "sliding_window": None,
    "use_sliding_window": False,
    "vocab_size": 128256,
}
GRANITE: dict[str, Any] = {
    "model_type": "granite",
    "attention_bias": False,
    "attention_multiplier": 0.0078125,
    "embedding_multiplier": 12.0,
    "hidden_size": 4096,
    "intermediate_size": 12800,
    "logits_scaling": 16.0,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "residual_multiplier": 0.22,
    "tie_word_embeddings": True,
    "vocab_size": 49155,
}
CONFIGS = {
    "gemma-2b": GEMMA,
    "gemma-2-2b": UNCAPPED,
    "gemma-3-1b": GEMMA3,
    "phi-2": PHI2,
    "phi-3-mini": PHI3,
    "phi-4": PHI4,
    "opt-125m": OPT,
    "falcon-7b": FALCON7,
    "falcon-40b": FALCON40,
    "starcoder2-3b": STARCODER2,
    "olmo-7b": OLMO,
    "smollm2-135m": SMOLLM2,
    "smollm3-3b": SMOLLM3,
    "granite-3.1-8b": GRANITE,
}


@pytest.mark.parametrize(
    ("name", "kind", "parameters"),
    [
        ("gemma-2b", "standard", 2_506_172_416),
        ("gemma-2-2b", "standard", 2_614_341_888),
        ("gemma-3-1b", "standard", 999_885_952),
        ("phi-2", "parallel", 2_779_683_840),
        ("phi-3-mini", "standard", 3_821_079_552),
        ("phi-4", "standard", 14_659_507_200),
        ("opt-125m", "standard", 125_239_296),
        ("falcon-7b", "parallel", 6_921_720_704),
        # Two LayerNorms a layer, one for attention and one for the FFN beside it.
        ("falcon-40b", "standard", 41_303_293_952),
        ("starcoder2-3b", "standard", 3_030_371_328),
        ("olmo-7b", "standard", 6_888_095_744),
        ("smollm2-135m", "standard", 134_515_008),
        ("smollm3-3b", "standard", 3_075_098_624),
        ("granite-3.1-8b", "standard", 8_170_848_256),
    ],
)
def test_published_models_have_their_published_parameter_counts(name: str, kind: str, parameters: int) -> None:
    config = config_from_hf(CONFIGS[name])
    assert parameter_count(config, layout_of(kind, config)) == parameters


def test_every_family_has_a_published_model_here_or_beside() -> None:
    beside = {"gpt2", "gptj", "gpt_neox", "mistral", "qwen2", "qwen3"}  # tests/test_hf_config.py
    assert {fields["model_type"] for fields in CONFIGS.values()} | beside == set(FAMILIES)


def test_a_falcon_has_one_key_value_head_unless_it_is_of_the_newer_kind() -> None:
    assert config_from_hf(FALCON7).num_key_value_heads == 1
    assert config_from_hf(FALCON7 | {"num_kv_heads": 71}).num_key_value_heads == 1
    assert config_from_hf(FALCON7 | {"multi_query": False}).num_key_value_heads == 71
    assert config_from_hf(FALCON40).num_key_value_heads == 8


def test_flags_go_by_the_names_of_their_family() -> None:
    config = config_from_hf(STARCODER2 | {"use_bias": False})
    assert (config.attention_bias, config.mlp_bias) == (False, False)
    with pytest.raises(InputError) as raised:
        config_from_hf(FALCON7 | {"bias": "no"})
    assert [problem.path for problem in raised.value.problems] == ["bias"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (GEMMA2, "attn_logit_softcapping: no attention kernel with soft-capped logits was measured"),
        ({key: value for key, value in GEMMA2.items() if "attn" not in key}, "attn_logit_softcapping"),
        (OLMO | {"clip_qkv": 8.0}, "clip_qkv: clipping of queries, keys and values is not supported"),
        (OPT | {"do_layer_norm_before": False}, "do_layer_norm_before: norms behind the residual"),
        (OPT | {"word_embed_proj_dim": 512}, "word_embed_proj_dim: an embedding of another width"),
        (FALCON7 | {"alibi": True}, "alibi: ALiBi attention is not supported"),
        (PHI2 | {"qk_layernorm": True}, "qk_layernorm: LayerNorms of queries and keys"),
        (GEMMA3 | {"layer_types": ["chunked_attention"] * 26}, "layer_types: must be a list of full_attention"),
        (GEMMA3 | {"sliding_window": "wide"}, "sliding_window: must be a number of tokens"),
        (GEMMA3 | {"sliding_window_pattern": 0}, "sliding_window_pattern: must be a number of layers"),
        ({"model_type": "olmo2", "hidden_size": 4096}, "norms over all query heads"),
        ({"model_type": "gemma3", "text_config": GEMMA3, "vision_config": {}}, "for text alone give its text_config"),
        ({"model_type": "phi3small", "hidden_size": 4096}, "block-sparse attention is not supported"),
        ({"model_type": "phimoe", "num_local_experts": 16}, "which tokens go to which expert"),
        ({"model_type": "granitemoe", "num_local_experts": 32}, "a mixture of experts is not supported"),
    ],
)
def test_what_is_not_supported_is_refused_with_the_one_reason(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        config_from_hf(fields)
    assert len(raised.value.problems) == 1


def decode(fields: dict[str, Any], kernels: KernelSet = KernelSet.PYTORCH, *, context_length: int = 2048) -> list[Any]:
    """Name and op of every kernel of a decode step on two devices, one entry for each time that it runs."""
    config = config_from_hf(fields)
    work = Workload(1, context_length, Phase.DECODE, DType.BFLOAT16, kernels=kernels)
    program = program_of("standard", layout_of("standard", config, 2), config, work)
    return [
        (kernel.name, kernel.op)
        for segment in program.segments
        for _ in range(segment.repeat)
        for kernel in segment.kernels
    ]


def test_a_model_with_post_norms_has_four_norms_a_layer_and_those_of_outputs_follow_the_all_reduce() -> None:
    plain = [name for name, _ in decode(UNCAPPED | {"model_type": "llama", "final_logit_softcapping": None})]
    sandwiched = [name for name, _ in decode(UNCAPPED)]
    norms = [name for name in sandwiched if name.startswith("norm_")]
    assert len(norms) == 26 * 4 + 1
    assert len([name for name in plain if name.startswith("norm_")]) == 26 * 2 + 1
    first = sandwiched.index("all_reduce_attention")
    assert sandwiched[first + 1 : first + 4] == ["norm_residual_attention", "residual_attention", "norm_ffn"]


def test_a_granite_scales_each_output_unless_a_generated_norm_does() -> None:
    apart = [name for name, _ in decode(GRANITE)]
    assert sum(name.startswith("scale_residual") for name in apart) == 2 * 40
    assert [name for name in apart if name in ("scale_embedding", "scale_logits.0")] == [
        "scale_embedding",
        "scale_logits.0",
    ]
    generated = [name for name, _ in decode(GRANITE, KernelSet.SERVING)]
    assert not any(name.startswith("scale_residual") for name in generated)


def windows(fields: dict[str, Any]) -> list[int | None]:
    return [op.window for _, op in decode(fields) if isinstance(op, Attention)]


def test_each_layer_has_the_window_that_its_config_says() -> None:
    assert windows(GEMMA3) == ([512] * 5 + [None]) * 4 + [512, 512]
    assert windows(UNCAPPED) == [4096, None] * 13
    assert windows(STARCODER2) == [4096] * 30
    named = ["full_attention", "sliding_attention"] * 13
    assert windows(GEMMA3 | {"layer_types": named}) == [None, 512] * 13
    late = SMOLLM3 | {"use_sliding_window": True, "sliding_window": 1024, "max_window_layers": 30}
    assert windows(late) == [None] * 30 + [1024] * 6


def test_a_window_as_long_as_the_model_or_switched_off_is_none() -> None:
    assert config_from_hf(PHI3 | {"sliding_window": 4096}).attention_windows == ()
    assert config_from_hf(SMOLLM3 | {"sliding_window": 1024}).attention_windows == ()
    assert config_from_hf(GEMMA3 | {"layer_types": ["full_attention"] * 26}).attention_windows == ()
