"""Scenarios: the contract's shape, and the checks that concern several fields."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scenario_support import CONTRACT, changed, problems, resolved

from kraken_sim.architectures.kraken import kraken_layout
from kraken_sim.architectures.registry import architecture, complete_kinds
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library, Selection, Transport
from kraken_sim.errors import InputError
from kraken_sim.models.layout import Block
from kraken_sim.models.presets import preset
from kraken_sim.program.ops import DType
from kraken_sim.scenario.resolve import ResolvedModel, memory_of, resolve_model, token_load_of
from kraken_sim.scenario.spec import Launch, Phase, Scenario, load_scenario, scenario_from, with_architecture

SUB_LAYER = Block(3584, 28, 28, 128, 7168)
SCENARIOS = Path(__file__).parent.parent / "scenarios"
# Grids, designs and purchases have an underscore in their names, scenarios have none.
SINGLE = [
    path for path in sorted(SCENARIOS.glob("*.yaml")) if "_" not in path.stem and not path.stem.endswith("-sweep")
]


def test_the_contract_s_scenario_is_read_as_written() -> None:
    scenario = Scenario.model_validate(CONTRACT)
    assert scenario.phase is Phase.PREFILL
    assert scenario.dtype is DType.FLOAT16
    assert scenario.runtime.launch is Launch.GRAPH
    assert scenario.runtime.collective.policy() == CollectivePolicy()
    model = resolve_model(scenario, machine_devices=2)
    layout = kraken_layout(SUB_LAYER, ways=2, num_devices=2)
    assert model == ResolvedModel(preset("6.7B"), architecture("kraken"), layout)


def test_defaults_are_the_contract_s() -> None:
    least = {"hardware": "h200-sxm-x2", "model": {"preset": "6.7B"}, "context_length": 2048}
    scenario = scenario_from(least)
    assert scenario.architecture.kind == "standard"
    assert (scenario.batch_size, scenario.dtype, scenario.phase) == (1, DType.FLOAT16, Phase.PREFILL)
    assert (scenario.runtime.launch, scenario.runtime.overlap) == (Launch.GRAPH, True)
    assert resolve_model(scenario, machine_devices=8).num_devices == 8
    assert problems(least).keys() == {"num_devices"}


def test_kraken_s_ways_and_width_default_to_the_devices_and_the_budget() -> None:
    layout = resolved(architecture={"kind": "kraken"}).layout
    assert (layout.blocks_per_layer, layout.block) == (2, SUB_LAYER)
    assert resolved(architecture={"kind": "standard"}).own_block is None


def test_a_collective_policy_carries_every_choice() -> None:
    collective = {
        "library": "custom",
        "channels": 4,
        "transport": "p2p",
        "algorithm": "two_shot",
        "protocol": "ll128",
        "selection": "vllm",
    }
    scenario = scenario_from(changed(runtime={"collective": collective}))
    policy = scenario.runtime.collective.policy()
    assert policy == CollectivePolicy(Library.CUSTOM, 4, Transport.P2P, "two_shot", "ll128", Selection.VLLM)


@pytest.mark.parametrize("path", SINGLE, ids=lambda path: path.stem)
def test_every_shipped_scenario_resolves_in_each_architecture(path: Path) -> None:
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    for kind in complete_kinds("standard"):
        model = resolve_model(with_architecture(scenario, kind), machine_devices=8)
        assert (model.own_block is not None) == (kind in ("kraken", "parallel_track"))
        assert memory_of(with_architecture(scenario, kind), model).total_bytes > 0


def test_scenarios_ship() -> None:
    assert len(SINGLE) >= 5


# Sizes


def test_fields_of_a_preset_can_be_replaced_and_derived_ones_follow() -> None:
    config = resolved(model={"preset": "6.7b", "hidden_size": 5120, "num_attention_heads": 40}).config
    assert config == replace(
        preset("6.7B"),
        hidden_size=5120,
        num_attention_heads=40,
        num_key_value_heads=40,
        intermediate_size=4 * 5120,
    )


def test_sizes_alone_make_a_gpt_and_with_a_model_type_its_family() -> None:
    sizes = {"num_hidden_layers": 2, "hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 4}
    config = resolved(model=sizes, architecture={"kind": "standard"}).config
    assert (config.vocab_size, config.max_position_embeddings, config.intermediate_size) == (
        51_200,
        2_048,
        2_048,
    )
    llama = resolved(
        model=sizes | {"model_type": "llama", "intermediate_size": 1024}, architecture={"kind": "standard"}
    ).config
    assert llama.gated_ffn
    assert not llama.position_embeddings
    assert "model.intermediate_size" in problems(changed(model=sizes | {"model_type": "llama"}))


def test_a_hugging_face_config_is_found_beside_the_scenario(tmp_path: Path) -> None:
    fields = {
        "model_type": "gpt2",
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
        "vocab_size": 50257,
    }
    (tmp_path / "gpt2.json").write_text(json.dumps(fields))
    path = tmp_path / "scenario.yaml"
    path.write_text(
        "hardware: ./machine.yaml\nmodel: {config: gpt2.json, num_hidden_layers: 6}\n"
        "num_devices: 2\ncontext_length: 128\n"
    )
    scenario = load_scenario(path)
    assert scenario.hardware == str(tmp_path / "machine.yaml")
    config = resolve_model(scenario).config
    assert (config.hidden_size, config.num_hidden_layers) == (768, 6)
    (tmp_path / "gpt2.json").write_text(json.dumps(fields | {"n_embd": 0}))
    with pytest.raises(InputError) as raised:
        resolve_model(scenario)
    assert [problem.path for problem in raised.value.problems] == ["model.config.n_embd"]


def test_decode_loads_one_token_on_top_of_the_cache() -> None:
    load = token_load_of(scenario_from(changed(phase="decode", batch_size=3)))
    assert (load.batch_size, load.num_tokens, load.cache_tokens) == (3, 3, 3 * 2049)


def test_kraken_needs_more_memory_than_standard_for_its_cache() -> None:
    scenario = scenario_from(changed(batch_size=8))
    caches = []
    for kind in ("standard", "kraken"):
        variant = with_architecture(scenario, kind)
        caches.append(memory_of(variant, resolve_model(variant)).kv_cache_bytes)
    assert caches[1] / caches[0] == 2 * 3584 / 4096


# Several devices


@pytest.mark.parametrize(("ways", "num_devices"), [(2, 2), (4, 2), (8, 2), (2, 4), (2, 1), (1, 4)])
def test_more_or_fewer_ways_than_devices_fit_when_one_is_a_multiple_of_the_other(ways: int, num_devices: int) -> None:
    model = resolved(architecture={"kind": "kraken", "ways": ways}, num_devices=num_devices)
    assert model.layout.blocks_per_layer == ways
    assert model.layout.local * num_devices == ways * model.layout.group
    assert model.layout.block.num_attention_heads % model.layout.group == 0


def test_ways_that_fit_no_device_are_named_beside_other_problems() -> None:
    found = problems(changed(architecture={"kind": "kraken", "ways": 3}, context_length=4096))
    assert found.keys() == {"architecture.ways", "context_length"}
    assert "3 ways do not fit 2 devices" in found["architecture.ways"]
    assert "2048 learned positions" in found["context_length"]


def test_rotary_models_take_any_context() -> None:
    sizes = {"num_hidden_layers": 2, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 1024}
    model = sizes | {"model_type": "llama", "max_position_embeddings": 128}
    assert resolved(model=model, architecture={"kind": "standard"}, context_length=4096).config.hidden_size == 512


def test_heads_and_ffn_must_divide_by_the_devices() -> None:
    found = problems(changed(architecture={"kind": "standard"}, num_devices=3))
    assert "32 attention heads do not divide by the 3 devices" in found["num_devices"]
    model = {"preset": "6.7B", "num_key_value_heads": 4, "intermediate_size": 16383}
    with pytest.raises(InputError, match="an FFN of width 16383 does not divide"):
        resolved(model=model, architecture={"kind": "parallel"}, num_devices=8)


def test_key_value_heads_are_split_or_replicated_but_not_both() -> None:
    architecture = {"kind": "standard"}
    for num_devices in (2, 4, 8):
        resolved(
            model={"preset": "6.7B", "num_key_value_heads": 4},
            architecture=architecture,
            num_devices=num_devices,
        )
    found = problems(
        changed(
            model={"preset": "175B", "num_key_value_heads": 4},
            architecture=architecture,
            num_devices=6,
        )
    )
    assert "neither be split over nor replicated" in found["num_devices"]


def test_more_devices_than_the_machine_has_is_an_error() -> None:
    found = problems(changed(num_devices=4, architecture={"kind": "standard"}), machine_devices=2)
    assert "h200-sxm-x2 has 2 devices" in found["num_devices"]


@pytest.mark.parametrize(
    ("architecture", "path", "words"),
    [
        (
            {"hidden_size": 3584, "num_attention_heads": 27},
            "num_attention_heads",
            "does not divide by 27 heads.*28",
        ),
        ({"hidden_size": 3581}, "hidden_size", "no supported head dimension"),
        (
            {"hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 3},
            "num_key_value_heads",
            "28 heads.*example 4",
        ),
        (
            {"ways": 1, "hidden_size": 3584, "num_attention_heads": 7},
            "ways",
            "7 attention heads do not divide",
        ),
    ],
)
def test_a_sub_layer_must_be_whole(architecture: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        resolved(architecture={"kind": "kraken"} | architecture)
    assert f"architecture.{path}" in problems(changed(architecture={"kind": "kraken"} | architecture))
