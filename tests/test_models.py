"""Presets, parameter counts and bytes on a device."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layout_support import kraken_of, layout_of

from kraken_sim.architectures.kraken import kraken_layout
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.models.config import TransformerConfig
from kraken_sim.models.counts import device_parameter_counts, parameter_count, parameter_counts
from kraken_sim.models.layout import Block
from kraken_sim.models.memory import (
    DeviceMemory,
    StoredAs,
    TokenLoad,
    activation_bytes_per_device,
    check_memory,
    device_memory,
    kv_cache_bytes_per_device,
    weight_bytes_per_device,
)
from kraken_sim.models.presets import PRESETS, preset
from kraken_sim.program.ops import DType

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture
def small() -> TransformerConfig:
    return TransformerConfig(
        num_hidden_layers=3,
        hidden_size=24,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        intermediate_size=40,
        vocab_size=100,
        max_position_embeddings=16,
    )


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_is_gpt_like_and_its_name_tells_its_size(name: str) -> None:
    config = preset(name)
    assert config.intermediate_size == 4 * config.hidden_size
    assert config.head_dim * config.num_attention_heads == config.hidden_size
    assert config.position_embeddings
    assert config.tie_word_embeddings
    nominal = float(name[:-1]) * {"M": 1e6, "B": 1e9}[name[-1]]
    assert parameter_count(config) == pytest.approx(nominal, rel=0.02)


def test_presets_hold_the_paper_s_vocabulary_and_context() -> None:
    assert {(preset(name).vocab_size, preset(name).max_position_embeddings) for name in list(PRESETS)[3:]} == {
        (51_200, 2_048)
    }
    assert {(preset(name).vocab_size, preset(name).max_position_embeddings) for name in list(PRESETS)[:3]} == {
        (50_304, 1_024)
    }


def test_the_case_of_a_preset_does_not_matter_and_a_typo_is_guessed() -> None:
    assert preset("6.7b") == preset("6.7B")
    with pytest.raises(InputError, match=r"unknown preset.*did you mean '175B'"):
        preset("157B")


def test_gpt3_175b_has_174_6_billion_parameters() -> None:
    # 96 * (12 * 12288² + 13 * 12288) + (51200 + 2048 + 2) * 12288
    assert parameter_count(preset("175B")) == 174_615_846_912


def test_a_parallel_layer_has_one_norm_less_than_a_standard_one() -> None:
    config = preset("6.7B")
    saved = parameter_count(config) - parameter_count(config, layout_of("parallel", config))
    assert saved == config.num_hidden_layers * 2 * config.hidden_size


def test_kraken_parameters_are_those_of_the_paper_s_formula_plus_biases_norms_positions_and_concat() -> None:
    config = preset("6.7B")
    width, ways, layers = 3584, 2, config.num_hidden_layers
    counts = parameter_counts(config, kraken_layout(Block(width, 28, 28, 128, 2 * width), ways, 2))
    assert counts.token_embedding == config.vocab_size * width
    assert counts.position_embedding == 2048 * width
    assert counts.concat == ways * width * width
    weights = 8 * layers * ways * width**2
    biases = layers * ways * (3 + 1 + 2 + 1) * width
    assert counts.attention + counts.ffn == weights + biases
    assert counts.norms == (layers * ways * 2 + 1) * 2 * width
    assert counts.lm_head == 0


def test_counts_of_real_torch_modules_agree(small: TransformerConfig) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def block(width: int, heads: int, kv_heads: int, head_dim: int, ffn: int) -> object:
        query, key = heads * head_dim, kv_heads * head_dim
        return nn.ModuleList(
            [
                nn.LayerNorm(width),
                nn.Linear(width, query + 2 * key),
                nn.Linear(query, width),
                nn.LayerNorm(width),
                nn.Linear(width, ffn),
                nn.Linear(ffn, width),
            ]
        )

    def count(width: int, blocks: list[object], *more: object) -> int:
        tables = [nn.Embedding(100, width), nn.Embedding(16, width), nn.LayerNorm(width)]
        return sum(parameter.numel() for parameter in nn.ModuleList([*tables, *blocks, *more]).parameters())

    assert parameter_count(small) == count(24, [block(24, 4, 2, 6, 40) for _ in range(3)])
    layout = kraken_layout(Block(20, 4, 2, 5, 40), 2, 1)
    blocks = [block(20, 4, 2, 5, 40) for _ in range(3 * 2)]
    assert parameter_count(small, layout) == count(20, blocks, nn.Linear(40, 20, bias=False))


@patient
@given(
    st.sampled_from(["num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"]),
    st.sampled_from(list(PRESETS)),
    st.sampled_from(["standard", "parallel"]),
    st.integers(1, 64),
)
def test_a_larger_model_has_more_parameters(field: str, name: str, kind: str, more: int) -> None:
    config = preset(name)
    larger = replace(config, **{field: getattr(config, field) + more})
    assert parameter_count(larger, layout_of(kind, larger)) > parameter_count(config, layout_of(kind, config))


@patient
@given(st.sampled_from(list(PRESETS)), st.sampled_from(["standard", "parallel"]))
def test_one_device_stores_the_whole_model(name: str, kind: str) -> None:
    config = preset(name)
    for layout in (layout_of(kind, config), kraken_of(config, 4)):
        assert device_parameter_counts(config, layout) == parameter_counts(config, layout)


@pytest.mark.parametrize("num_devices", [1, 2, 4, 8])
def test_matrices_of_the_layers_are_split_without_rest(num_devices: int) -> None:
    config = replace(preset("6.7B"), attention_bias=False, mlp_bias=False)
    whole = parameter_counts(config)
    part = device_parameter_counts(config, layout_of("standard", config, num_devices))
    assert part.attention * num_devices == whole.attention
    assert part.ffn * num_devices == whole.ffn
    assert part.norms == whole.norms
    kraken = kraken_of(config, 4, num_devices, devices_per_sub_layer=2)
    whole = parameter_counts(config, kraken)
    part = device_parameter_counts(config, kraken)
    assert (part.attention + part.ffn + part.concat) * num_devices == whole.attention + whole.ffn + whole.concat


def test_the_lm_head_is_sharded_when_untied_and_a_bias_is_sharded_with_it() -> None:
    config = replace(preset("6.7B"), tie_word_embeddings=False, lm_head_bias=True)
    assert parameter_counts(config).lm_head == 51_200 * 4096 + 51_200
    assert device_parameter_counts(config, layout_of("standard", config, 8)).lm_head == (51_200 * 4096 + 51_200) // 8


def test_kraken_s_cache_is_ways_times_d_k_wide_where_the_standard_one_is_d() -> None:
    config, load = preset("6.7B"), TokenLoad.prefill(1, 2048)
    standard = kv_cache_bytes_per_device(config, layout_of("standard", config, 4), load, DType.FLOAT16)
    assert standard == 2 * 32 * 2048 * (4096 // 4) * 2
    assert kv_cache_bytes_per_device(config, kraken_of(config, 4, 4), load, DType.FLOAT16) == 2 * 32 * 2048 * 2560 * 2


def test_key_value_heads_are_replicated_once_they_run_out() -> None:
    config, load = replace(preset("6.7B"), num_key_value_heads=4), TokenLoad.prefill(1, 128)
    layouts = [layout_of("standard", config, n) for n in (2, 4, 8)]
    by_devices = [kv_cache_bytes_per_device(config, layout, load, DType.FLOAT16) for layout in layouts]
    assert by_devices[0] == 2 * by_devices[1] == 2 * by_devices[2]


def test_half_as_many_devices_hold_twice_the_sub_layers_and_twice_the_cache() -> None:
    config, load = preset("6.7B"), TokenLoad.prefill(1, 128)
    layouts = [kraken_of(config, 4, num_devices) for num_devices in (1, 2, 4, 8)]
    caches = [kv_cache_bytes_per_device(config, layout, load, DType.FLOAT16) for layout in layouts]
    assert caches == [8 * caches[3], 4 * caches[3], 2 * caches[3], caches[3]]


def test_decode_needs_room_for_one_more_token_and_one_row_of_activations() -> None:
    prefill, decode = TokenLoad.prefill(2, 100), TokenLoad.decode(2, 100)
    assert (prefill.num_new_tokens, prefill.kv_length) == (100, 100)
    assert (decode.num_new_tokens, decode.kv_length) == (1, 101)
    config = preset("1.3B")
    layout = layout_of("standard", config, 2)
    rows = [activation_bytes_per_device(config, layout, load, DType.FLOAT16) for load in (prefill, decode)]
    assert rows[1] < rows[0]


def test_float32_weights_take_twice_the_room_of_float16() -> None:
    config = preset("1.3B")
    layout = layout_of("standard", config, 2)
    half, single = (weight_bytes_per_device(config, layout, dtype) for dtype in (DType.FLOAT16, DType.FLOAT32))
    assert single == 2 * half
    assert weight_bytes_per_device(config, layout_of("standard", config), DType.FLOAT16) == 2 * parameter_count(config)


def test_175b_does_not_fit_eight_a100_40gb_and_the_error_names_the_capacity() -> None:
    load = TokenLoad.prefill(1, 2048)
    config = preset("175B")
    memory = device_memory(config, layout_of("standard", config, 8), load, StoredAs(DType.FLOAT16))
    with pytest.raises(InfeasibleError, match=r"limiting number: device memory 40\.00 GiB") as raised:
        check_memory(memory, 40 * 2**30)
    assert raised.value.exit_code == 3
    quarter = replace(config, num_hidden_layers=24)
    for num_devices in (4, 8):
        layout = layout_of("standard", quarter, num_devices)
        check_memory(device_memory(quarter, layout, load, StoredAs(DType.FLOAT16)), 40 * 2**30)


def test_memory_fits_up_to_the_last_byte() -> None:
    memory = DeviceMemory(100, 20, 3)
    check_memory(memory, 123)
    with pytest.raises(InfeasibleError):
        check_memory(memory, 122)
