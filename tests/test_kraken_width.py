"""Kraken's width for a parameter budget: the closed form, the authors' training runs, latency shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layout_support import kraken_of

from kraken_sim.architectures.kraken import kraken_layout
from kraken_sim.models.counts import parameter_count
from kraken_sim.models.kraken_width import (
    ALIGNMENTS,
    SUPPORTED_HEAD_DIMS,
    budget_width,
    kraken_config_for_latency,
    kraken_hidden_size,
    kraken_parameters,
)
from kraken_sim.models.layout import Block
from kraken_sim.models.presets import PRESETS, preset

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
names = st.sampled_from(list(PRESETS))


@pytest.mark.parametrize(
    ("name", "ways", "heads", "published"),
    [
        ("125M", 2, 6, 678),
        ("125M", 4, 3, 504),
        ("125M", 6, 2, 418),
        ("350M", 2, 8, 888),
        ("350M", 4, 4, 644),
        ("760M", 4, 4, 960),
    ],
)
def test_the_authors_training_widths_are_met_within_one_multiple_of_the_heads(
    name: str, ways: int, heads: int, published: int
) -> None:
    width = kraken_hidden_size(preset(name), ways, heads)
    assert width % heads == 0
    assert abs(width - published) <= heads
    assert kraken_hidden_size(preset(name), ways) == width  # heads default to the total over the ways


@pytest.mark.parametrize(
    ("name", "ways", "width", "heads"),
    [
        ("1.3B", 4, 1280, 10),
        ("6.7B", 4, 2560, 20),
        ("13B", 4, 3072, 24),
        ("65B", 4, 5120, 40),
        ("175B", 4, 7424, 58),
        ("1.3B", 8, 896, 7),
        ("6.7B", 8, 1792, 14),
        ("13B", 8, 2304, 18),
        ("65B", 8, 3584, 28),
        ("175B", 8, 5376, 42),
        ("6.7B", 2, 3584, 28),
    ],
)
def test_latency_shapes_of_the_paper_s_sizes(name: str, ways: int, width: int, heads: int) -> None:
    shape = kraken_config_for_latency(preset(name), ways)
    assert shape == Block(width, heads, heads, 128, 2 * width)


@patient
@given(names, st.integers(1, 64), st.booleans(), st.booleans(), st.booleans())
def test_the_closed_form_solves_the_budget(name: str, ways: int, gated: bool, tied: bool, learned: bool) -> None:
    config = replace(preset(name), gated_ffn=gated, tie_word_embeddings=tied, position_embeddings=learned)
    budget = parameter_count(config)
    width = budget_width(config, ways)
    assert kraken_parameters(config, ways)(width) == pytest.approx(budget, rel=1e-12)


@patient
@given(
    names,
    st.integers(1, 16),
    st.integers(1, 16),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([16, 64, 128]),
    st.lists(st.booleans(), min_size=9, max_size=9),
)
def test_the_quadratic_is_the_exact_count(
    name: str, ways: int, kv_heads: int, group: int, head_dim: int, flags: list[bool]
) -> None:
    heads = kv_heads * group
    config = replace(
        preset(name),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        gated_ffn=flags[0],
        position_embeddings=flags[1],
        attention_bias=flags[2],
        mlp_bias=flags[3],
        norm_bias=flags[4],
        tie_word_embeddings=flags[5],
        attention_output_bias=flags[6],
        qk_norm=flags[7],
        lm_head_bias=flags[8],
    )
    width = heads * head_dim
    layout = kraken_layout(Block(width, heads, kv_heads, head_dim, 2 * width), ways, 1)
    assert kraken_parameters(config, ways)(width) == pytest.approx(parameter_count(config, layout), rel=1e-12)


def test_without_embeddings_the_width_is_d_times_the_root_of_1_5_over_ways() -> None:
    deep = replace(preset("6.7B"), vocab_size=1, max_position_embeddings=1, num_hidden_layers=10_000)
    for ways in (2, 4, 8):
        width = budget_width(deep, ways, biases_and_norms=False)
        assert width == pytest.approx(4096 * (1.5 / ways) ** 0.5, rel=1e-3)


@patient
@given(names, st.integers(1, 32), st.integers(10**8, 10**12), st.integers(1, 10**9))
def test_a_larger_budget_buys_a_wider_sub_layer_and_more_ways_a_narrower_one(
    name: str, ways: int, budget: int, more: int
) -> None:
    config = preset(name)
    width = budget_width(config, ways, budget=budget)
    assert budget_width(config, ways, budget=budget + more) > width
    assert budget_width(config, ways + 1, budget=budget) < width


@patient
@given(names, st.integers(1, 32), st.integers(1, 8), st.sampled_from([1, 2, 4, 8]))
def test_latency_shapes_have_supported_heads_and_fill_gemm_tiles(
    name: str, ways: int, devices: int, group: int
) -> None:
    base = preset(name)
    config = replace(base, num_key_value_heads=max(1, base.num_attention_heads // group))
    shape = kraken_config_for_latency(config, ways, devices_per_sub_layer=devices)
    assert shape.head_dim in SUPPORTED_HEAD_DIMS
    assert shape.hidden_size % ALIGNMENTS[-1] == 0
    assert shape.hidden_size == shape.num_attention_heads * shape.head_dim
    assert shape.num_attention_heads % devices == 0
    assert shape.num_attention_heads % shape.num_key_value_heads == 0
    assert shape.intermediate_size == 2 * shape.hidden_size


@patient
@given(names, st.integers(1, 16))
def test_alignment_costs_at_most_five_percent_of_the_width_where_a_finer_one_exists(name: str, ways: int) -> None:
    config = preset(name)
    wanted = budget_width(config, ways)
    moved = abs(kraken_config_for_latency(config, ways).hidden_size - wanted)
    # Either 5 %, or half of the finest step there is, 64.
    assert moved <= max(0.05 * wanted, 32)


def test_latency_widths_stay_within_a_few_percent_of_the_budget() -> None:
    for name in ("1.3B", "6.7B", "13B", "65B", "175B"):
        for ways in (2, 4, 8):
            config = preset(name)
            count = parameter_count(config, kraken_of(config, ways))
            assert count == pytest.approx(parameter_count(config), rel=0.08)


def test_the_ratio_of_key_value_heads_is_kept_as_nearly_as_divisors_allow() -> None:
    config = replace(preset("6.7B"), num_key_value_heads=8)
    shape = kraken_config_for_latency(config, 2, hidden_size=3584, num_attention_heads=28)
    assert shape.num_key_value_heads == 7
    explicit = kraken_config_for_latency(config, 2, hidden_size=3584, num_attention_heads=28, num_key_value_heads=4)
    assert explicit.num_key_value_heads == 4


def test_a_given_width_gets_heads_and_given_heads_get_a_width() -> None:
    config = preset("6.7B")
    assert kraken_config_for_latency(config, 2, hidden_size=3520).head_dim == 160  # 128, 112, 96 do not divide
    assert kraken_config_for_latency(config, 2, num_attention_heads=28).hidden_size == 3584
    assert kraken_config_for_latency(config, 4, alignment=128).hidden_size % 128 == 0


def test_what_cannot_be_is_an_error() -> None:
    config = preset("6.7B")
    with pytest.raises(ValueError, match="no supported head dimension"):
        kraken_config_for_latency(config, 2, hidden_size=3581)
    with pytest.raises(ValueError, match="does not divide"):
        kraken_config_for_latency(config, 2, hidden_size=3584, num_attention_heads=27)
    with pytest.raises(ValueError, match="at least 1"):
        budget_width(config, 0)
    with pytest.raises(ValueError, match="too small"):
        budget_width(config, 2, budget=0)


@pytest.mark.parametrize("name", ["350M", "1.3B", "6.7B", "13B", "65B", "175B"])
@pytest.mark.parametrize("ways", [2, 4, 8])
def test_the_authors_width_is_the_multiple_of_its_heads_nearest_to_the_budget(name: str, ways: int) -> None:
    config = preset(name)
    heads = config.num_attention_heads // ways
    found, wanted = kraken_hidden_size(config, ways), budget_width(config, ways)
    assert found % heads == 0
    assert abs(found - wanted) <= heads / 2
