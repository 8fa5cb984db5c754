"""Scenarios: the contract's shape, helpful errors, and the checks that concern several fields."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from kraken_sim.costs.collectives.policy import CollectivePolicy, Library, Selection, Transport
from kraken_sim.errors import InputError, KrakenSimError
from kraken_sim.models.config import ArchitectureKind
from kraken_sim.models.kraken_width import KrakenShape
from kraken_sim.models.presets import preset
from kraken_sim.program.ops import DType
from kraken_sim.scenario import (
    Launch,
    Phase,
    ResolvedModel,
    Scenario,
    load_scenario,
    memory_of,
    resolve_model,
    scenario_from,
    scenario_json_schema,
    token_load_of,
    with_architecture,
)
from kraken_sim.scenario_errors import problems_of

SCENARIOS = Path(__file__).parent.parent / "scenarios"
# Grids, designs and purchases have an underscore in their names, scenarios have none.
SINGLE = [path for path in sorted(SCENARIOS.glob("*.yaml")) if "_" not in path.stem]
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

CONTRACT: dict[str, Any] = {
    "name": "kraken-6.7b-on-two-h200",
    "hardware": "h200-sxm-x2",
    "model": {"preset": "6.7B", "num_hidden_layers": 32},
    "architecture": {"kind": "kraken", "ways": 2, "hidden_size": 3584, "num_attention_heads": 28},
    "num_devices": 2,
    "phase": "prefill",
    "batch_size": 1,
    "context_length": 2048,
    "dtype": "float16",
    "runtime": {
        "launch": "graph",
        "overlap": True,
        "collective": {"library": "nccl", "channels": None, "transport": "auto"},
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    """The contract's scenario with some top-level keys replaced; None removes one."""
    data = copy.deepcopy(CONTRACT) | changes
    return {key: value for key, value in data.items() if value is not None}


def resolved(**changes: Any) -> ResolvedModel:
    return resolve_model(scenario_from(changed(**changes)))


def problems(data: object, machine_devices: int | None = None) -> dict[str, str]:
    """The text of every problem of a scenario, by path."""
    with pytest.raises(InputError) as raised:
        resolve_model(scenario_from(data), machine_devices)
    found: dict[str, str] = {}
    for problem in raised.value.problems:
        found[problem.path] = f"{found.get(problem.path, '')}{problem}\n"
    return found


def test_the_contract_s_scenario_is_read_as_written() -> None:
    scenario = Scenario.model_validate(CONTRACT)
    assert scenario.phase is Phase.PREFILL
    assert scenario.dtype is DType.FLOAT16
    assert scenario.runtime.launch is Launch.GRAPH
    assert scenario.runtime.collective.policy() == CollectivePolicy()
    model = resolve_model(scenario, machine_devices=2)
    shape = KrakenShape(2, 3584, 28, 28, 128, 7168)
    assert model == ResolvedModel(preset("6.7B"), shape, ArchitectureKind.KRAKEN, 2)


def test_defaults_are_the_contract_s() -> None:
    least = {"hardware": "h200-sxm-x2", "model": {"preset": "6.7B"}, "context_length": 2048}
    scenario = scenario_from(least)
    assert scenario.architecture.kind is ArchitectureKind.STANDARD
    assert (scenario.batch_size, scenario.dtype, scenario.phase) == (1, DType.FLOAT16, Phase.PREFILL)
    assert (scenario.runtime.launch, scenario.runtime.overlap) == (Launch.GRAPH, True)
    assert resolve_model(scenario, machine_devices=8).num_devices == 8
    assert problems(least).keys() == {"num_devices"}


def test_kraken_s_ways_and_width_default_to_the_devices_and_the_budget() -> None:
    shape = resolved(architecture={"kind": "kraken"}).kraken
    assert shape == KrakenShape(2, 3584, 28, 28, 128, 7168)
    assert resolved(architecture={"kind": "standard"}).kraken is None


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
    for kind in (ArchitectureKind.STANDARD, ArchitectureKind.PARALLEL, ArchitectureKind.KRAKEN):
        model = resolve_model(with_architecture(scenario, kind), machine_devices=8)
        assert (model.kraken is not None) == (kind is ArchitectureKind.KRAKEN)
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
    assert (load.batch_size, load.num_new_tokens, load.kv_length) == (3, 1, 2049)


def test_kraken_needs_more_memory_than_standard_for_its_cache() -> None:
    scenario = scenario_from(changed(batch_size=8))
    caches = []
    for kind in (ArchitectureKind.STANDARD, ArchitectureKind.KRAKEN):
        variant = with_architecture(scenario, kind)
        caches.append(memory_of(variant, resolve_model(variant)).kv_cache_bytes)
    assert caches[1] / caches[0] == 2 * 3584 / 4096


# Several devices


@pytest.mark.parametrize(("ways", "num_devices"), [(2, 2), (4, 2), (8, 2), (2, 4), (2, 1), (1, 4)])
def test_more_or_fewer_ways_than_devices_fit_when_one_is_a_multiple_of_the_other(ways: int, num_devices: int) -> None:
    model = resolved(architecture={"kind": "kraken", "ways": ways}, num_devices=num_devices)
    assert model.kraken is not None
    assert model.kraken.ways == ways
    assert model.kraken.num_attention_heads % max(1, num_devices // ways) == 0


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


# Errors of single fields


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"contextlength": 5}, "contextlength", "unknown field.*did you mean 'context_length'"),
        ({"model": {"prset": "6.7B"}}, "model.prset", "did you mean 'preset'"),
        (
            {"runtime": {"collective": {"chanels": 2}}},
            "runtime.collective.chanels",
            "did you mean 'channels'",
        ),
        ({"architecture": {"kind": "krakn"}}, "architecture.kind", "one of standard.*did you mean 'kraken'"),
        ({"architecture": {"kind": "ladder"}}, "architecture.kind", "ladder is not available"),
        ({"architecture": {"kind": "standard", "ways": 2}}, "architecture.ways", "for kind kraken only"),
        ({"model": {"preset": "7B"}}, "model.preset", "unknown preset; known are 125M"),
        ({"model": {"preset": "6.7B", "config": "x"}}, "model.config", "not both"),
        ({"model": {"preset": "6.7B", "model_type": "llama"}}, "model.model_type", "already says the family"),
        ({"model": {}}, "model", "give a preset"),
        ({"model": {"hidden_size": 512}}, "model.num_hidden_layers", "required"),
        ({"model": "6.7B"}, "model", "must be a mapping.*for example {preset: 6.7B}"),
        ({"hardware": ""}, "hardware", "must not be empty"),
        ({"hardware": 5}, "hardware", "must be text"),
        ({"batch_size": "2"}, "batch_size", "whole number"),
        ({"batch_size": 2.0}, "batch_size", "whole number"),
        ({"batch_size": 10**40}, "batch_size", "at most"),
        ({"num_devices": 0}, "num_devices", "at least 1"),
        ({"num_devices": True}, "num_devices", "whole number"),
        ({"dtype": "fp16"}, "dtype", "must be one of float16"),
        ({"phase": "prefil"}, "phase", "did you mean 'prefill'"),
        ({"runtime": {"overlap": "yes"}}, "runtime.overlap", "true or false"),
        (
            {"runtime": {"collective": {"algorithm": "one_shot"}}},
            "runtime.collective.algorithm",
            "library: custom",
        ),
        ({"runtime": {"collective": {"channels": 0}}}, "runtime.collective.channels", "at least 1"),
    ],
)
def test_a_wrong_field_is_named_with_what_would_be_right(changes: dict[str, Any], path: str, words: str) -> None:
    data = changed(**changes)
    assert path in problems(data)
    with pytest.raises(InputError, match=words):
        resolve_model(scenario_from(data))


def test_all_wrong_fields_are_reported_at_once() -> None:
    found = problems({"hardware": 3, "model": {"hidden_size": -1}, "batch_size": 0, "phase": "x", "extra": 1})
    assert {"hardware", "model.hidden_size", "batch_size", "phase", "extra", "context_length"} <= found.keys()


@pytest.mark.parametrize("data", [None, 3, "text", [], [CONTRACT]])
def test_data_of_another_shape_is_an_input_error(data: object) -> None:
    with pytest.raises(InputError, match="must be a mapping"):
        scenario_from(data)


def test_model_validate_says_what_is_wrong_too() -> None:
    with pytest.raises(ValidationError, match="ways: is for kind kraken only"):
        Scenario.model_validate(changed(architecture={"kind": "standard", "ways": 2}))


def test_errors_of_a_file_carry_its_name_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("hardware: h200-sxm-x2\nmodel:\n  preset: 6.7B\n  hiden_size: 4\ncontext_length: 128\n")
    with pytest.raises(InputError, match=r"mine\.yaml") as raised:
        load_scenario(path)
    assert "model.hiden_size: line 4" in str(raised.value)


def test_the_schema_describes_every_field_and_forbids_others() -> None:
    schema = scenario_json_schema()
    assert schema["required"] == ["hardware", "model", "context_length"]
    parts = [schema, *schema["$defs"].values()]
    for part in parts:
        if part["type"] == "object":
            assert part["additionalProperties"] is False
            assert all("description" in field or "$ref" in field for field in part["properties"].values())
    assert json.loads(json.dumps(schema)) == schema


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")
    phase: Phase = Phase.PREFILL


class Box(BaseModel):
    items: list[Item] = []
    by_name: dict[str, Item] | None = None


def test_problems_are_located_inside_lists_and_mappings() -> None:
    with pytest.raises(ValidationError) as raised:
        Box.model_validate({"items": [{}, {"phse": 1}], "by_name": {"a": {"phase": "decod"}}})
    texts = [str(problem) for problem in problems_of(raised.value, Box)]
    assert texts == [
        "items.1.phse: unknown field; known are phase; did you mean 'phase'?",
        "by_name.a.phase: must be one of prefill, decode (got 'decod'); did you mean 'decode'?",
    ]


# Anything at all

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 64),
    st.sampled_from([2, 3, 4, 8, 28, 128, 2048, 3584]),
    st.floats(),
    st.sampled_from(["", "6.7B", "kraken", "standard", "llama", "x" * 200, "/nowhere", "nccl", "one_shot", "decode"]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["preset", "kind", "ways", "collective", "a"]), inner, max_size=2)
    ),
    max_leaves=3,
)
PATHS = st.sampled_from(
    [
        *((key,) for key in CONTRACT),
        *(("model", key) for key in ("preset", "config", "model_type", "hidden_size", "head_dim")),
        *(("model", key) for key in ("num_attention_heads", "num_key_value_heads", "intermediate_size")),
        *(("architecture", key) for key in ("kind", "ways", "hidden_size", "num_attention_heads")),
        ("architecture", "num_key_value_heads"),
        *(("runtime", key) for key in ("launch", "overlap", "collective", "other")),
        *(("runtime", "collective", key) for key in ("library", "channels", "algorithm", "protocol")),
    ]
)


def mutate(changes: list[tuple[tuple[str, ...], object]]) -> dict[str, Any]:
    """The contract's scenario with values put at paths; a path through something else is skipped."""
    data = copy.deepcopy(CONTRACT)
    for path, value in changes:
        target: object = data
        for part in path[:-1]:
            target = target.get(part) if isinstance(target, dict) else None
        if isinstance(target, dict):
            target[path[-1]] = value
    return data


@patient
@given(st.lists(st.tuples(PATHS, ANYTHING), min_size=1, max_size=4), st.sampled_from([None, 1, 2, 8]))
def test_a_mutated_scenario_resolves_or_is_one_of_our_errors(
    changes: list[tuple[tuple[str, ...], object]], machine_devices: int | None
) -> None:
    try:
        scenario = scenario_from(mutate(changes))
        model = resolve_model(scenario, machine_devices)
    except KrakenSimError:
        return
    assert memory_of(scenario, model).total_bytes > 0


@patient
@given(ANYTHING)
def test_any_data_is_a_scenario_or_one_of_our_errors(data: object) -> None:
    with pytest.raises(InputError):
        scenario_from(data)


@patient
@given(
    st.sampled_from(["125M", "1.3B", "6.7B", "13B", "175B"]),
    st.sampled_from(["standard", "parallel", "kraken"]),
    st.integers(1, 16),
    st.integers(1, 16),
    st.sampled_from([1, 2, 4, 8]),
)
def test_what_resolves_can_be_spread_over_the_devices(
    name: str, kind: str, num_devices: int, ways: int, group: int
) -> None:
    heads = preset(name).num_attention_heads
    architecture = {"kind": kind} | ({"ways": ways} if kind == "kraken" else {})
    model = {"preset": name, "num_key_value_heads": max(1, heads // group)}
    data = changed(model=model, architecture=architecture, num_devices=num_devices, context_length=128)
    try:
        found = resolve_model(scenario_from(data))
    except KrakenSimError:
        return
    sharing = num_devices if found.kraken is None else max(1, num_devices // ways)
    shape = found.config if found.kraken is None else found.kraken
    assert shape.num_attention_heads % sharing == 0
    assert shape.intermediate_size % sharing == 0
    assert shape.num_key_value_heads % sharing == 0 or sharing % shape.num_key_value_heads == 0
    if found.kraken is not None:
        assert ways % num_devices == 0 or num_devices % ways == 0
