"""Hugging Face configs of dense decoders: exact shapes, and clear errors for everything else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layout_support import layout_of

from kraken_sim.errors import InputError
from kraken_sim.models.counts import parameter_count
from kraken_sim.models.hf import SYNONYMS, closest_divisor, config_from_fields, config_from_hf

if TYPE_CHECKING:
    from pathlib import Path

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

GPT2: dict[str, Any] = {
    "model_type": "gpt2",
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_positions": 1024,
    "n_ctx": 1024,
    "n_inner": None,
    "vocab_size": 50257,
}
GPTJ: dict[str, Any] = {
    "model_type": "gptj",
    "n_embd": 4096,
    "n_layer": 28,
    "n_head": 16,
    "n_positions": 2048,
    "rotary_dim": 64,
    "vocab_size": 50400,
    "tie_word_embeddings": False,
}
PYTHIA: dict[str, Any] = {
    "model_type": "gpt_neox",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 16384,
    "max_position_embeddings": 2048,
    "vocab_size": 50432,
    "use_parallel_residual": True,
    "tie_word_embeddings": False,
}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
LLAMA3 = LLAMA | {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256}
MISTRAL = LLAMA3 | {"model_type": "mistral", "vocab_size": 32000, "sliding_window": None}
QWEN2: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "max_position_embeddings": 131072,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "head_dim": 128,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "sliding_window": None,
    "vocab_size": 151936,
    "attention_bias": False,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        (GPT2, 124_439_808),
        (GPT2 | {"n_embd": 1600, "n_layer": 48, "n_head": 25}, 1_557_611_200),
        (PYTHIA, 6_857_302_016),
        (LLAMA, 6_738_415_616),
        (LLAMA3, 8_030_261_248),
        (MISTRAL, 7_241_732_096),
        (QWEN2, 7_615_616_512),
        (QWEN3, 596_049_920),
    ],
    ids=[
        "gpt2",
        "gpt2-xl",
        "pythia-6.9b",
        "llama-2-7b",
        "llama-3-8b",
        "mistral-7b",
        "qwen2-7b",
        "qwen3-0.6b",
    ],
)
def test_published_models_have_their_published_parameter_counts(fields: dict[str, Any], parameters: int) -> None:
    assert parameter_count(config_from_hf(fields)) == parameters


def test_gpt_j_is_parallel_and_has_6_050_882_784_parameters() -> None:
    config = config_from_hf(GPTJ)
    assert parameter_count(config, layout_of("parallel", config)) == 6_050_882_784


def test_families_say_what_a_config_does_not() -> None:
    gpt2, gptj, qwen2, qwen3 = (config_from_hf(fields) for fields in (GPT2, GPTJ, QWEN2, QWEN3))
    assert gpt2.position_embeddings
    assert not gptj.position_embeddings
    assert gpt2.intermediate_size == 3072
    assert qwen2.attention_bias
    assert qwen2.attention_output_bias is False
    assert qwen2.gated_ffn
    assert not qwen2.norm_bias
    assert qwen3.head_dim == 128
    assert qwen3.qk_norm
    assert config_from_hf(LLAMA).num_key_value_heads == 32
    assert config_from_hf(LLAMA | {"attention_bias": True}).attention_bias


def test_synonyms_name_the_same_field() -> None:
    plain = config_from_hf(GPT2)
    for name, others in SYNONYMS.items():
        held = [other for other in (name, *others) if GPT2.get(other) is not None]
        for other in (name, *others) if held else ():
            renamed = {key: value for key, value in GPT2.items() if key not in (name, *others)}
            assert config_from_hf(renamed | {other: GPT2[held[0]]}) == plain


def test_a_file_and_its_folder_read_the_same_and_the_name_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA | {"_name_or_path": "meta-llama/Llama-2-7b-hf"}))
    config = config_from_hf(path)
    assert config == config_from_hf(str(tmp_path))
    assert config.name == "meta-llama/Llama-2-7b-hf"


@pytest.mark.parametrize("content", ["", "{", "[1]", "3", "\xff", '{"model_type": NaN}', "[" * 100_000])
def test_a_file_that_is_no_config_is_an_input_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"config\.json|model_type"):
        config_from_hf(path)


def test_a_missing_file_says_that_nothing_is_downloaded(tmp_path: Path) -> None:
    for name in ("none.json", "x" * 5000):
        with pytest.raises(InputError, match=r"cannot read.*nothing is downloaded"):
            config_from_hf(tmp_path / name)


def test_all_problems_are_reported_at_once() -> None:
    fields = GPT2 | {
        "n_embd": -1,
        "n_layer": "12",
        "n_ctx": 2048,
        "vocab_size": None,
        "tie_word_embeddings": "no",
    }
    with pytest.raises(InputError) as raised:
        config_from_hf(fields)
    paths = {problem.path for problem in raised.value.problems}
    assert paths == {"n_embd", "n_layer", "max_position_embeddings", "vocab_size", "tie_word_embeddings"}
    assert "n_positions = 1024, n_ctx = 2048" in str(raised.value)


def test_missing_fields_are_all_named_with_their_synonyms() -> None:
    with pytest.raises(InputError) as raised:
        config_from_hf({"model_type": "llama", "hidden_sise": 4096})
    text = str(raised.value)
    for name in (
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
    ):
        assert f"{name}: is missing" in text
    assert "'hidden_sise', which is no field of a model" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_attention_heads": 33}, "does not divide by 33 heads"),
        ({"num_key_value_heads": 5}, "does not divide by num_key_value_heads 5.*for example 4"),
        ({"num_hidden_layers": True}, "whole number"),
        ({"num_hidden_layers": 10**30}, "whole number from 1 to"),
        ({"model_type": None}, "supported model types: gpt2, gptj"),
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"model_type": "mixtral"}, "a mixture of experts is not supported: which tokens.*supported model types: gpt2"),
        ({"model_type": "deepseek_v3"}, "latent attention"),
        ({"model_type": "t5"}, "encoder-decoder"),
        ({"model_type": "mamba"}, "state-space"),
        ({"model_type": "qwen2_vl"}, "multimodal"),
        ({"model_type": ["llama"]}, "must be one of"),
        ({"num_local_experts": 8}, "mixtures of experts"),
        ({"kv_lora_rank": 512}, "MLA"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"vision_config": {"depth": 2}}, "vision"),
        ({"sliding_window": 0}, "sliding_window: must be a number of tokens"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_what_is_not_supported_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        config_from_hf(LLAMA | change)


@pytest.mark.parametrize(
    "change",
    [
        {"sliding_window": 1 << 20},
        {"sliding_window": 1024, "use_sliding_window": False},
        {"sliding_window": 1024, "layer_types": ["full_attention"] * 32},
        {"num_experts": 0},
        {"rope_scaling": {"type": "linear"}},
    ],
)
def test_features_that_are_switched_off_do_not_matter(change: dict[str, Any]) -> None:
    assert config_from_hf(LLAMA | change) == config_from_hf(LLAMA)


def test_derived_sizes_follow_overrides_and_given_ones_stay() -> None:
    wider = config_from_fields(GPT2, overrides={"hidden_size": 1536})
    assert (wider.head_dim, wider.intermediate_size) == (128, 4 * 1536)
    llama = config_from_fields(LLAMA, overrides={"num_attention_heads": 64})
    assert (llama.head_dim, llama.num_key_value_heads, llama.intermediate_size) == (64, 64, 11008)


def test_a_replaced_field_is_reported_where_the_user_wrote_it() -> None:
    with pytest.raises(InputError) as raised:
        config_from_fields(LLAMA, overrides={"num_key_value_heads": 5}, at="model.config")
    assert [problem.path for problem in raised.value.problems] == ["model.num_key_value_heads"]


@patient
@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_the_closest_divisor_divides(number: int, wanted: int) -> None:
    divisor = closest_divisor(number, wanted)
    assert number % divisor == 0
    if number % wanted == 0:
        assert divisor == wanted


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text("abn0.- ", max_size=8),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers(), max_size=2),
)
KEYS = st.sampled_from(
    sorted(
        {
            *LLAMA,
            *GPT2,
            *QWEN2,
            "num_experts",
            "kv_lora_rank",
            "layer_types",
            "quantization_config",
            "head_dim",
        }
    )
)


@patient
@given(st.sampled_from([GPT2, LLAMA, QWEN2, QWEN3]), st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_config_is_a_shape_or_an_input_error(fields: dict[str, Any], change: dict[str, Any]) -> None:
    try:
        config = config_from_hf(fields | change)
    except InputError:
        return
    assert config.num_attention_heads % config.num_key_value_heads == 0
    assert parameter_count(config) > 0
