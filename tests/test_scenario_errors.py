"""Scenarios that are wrong: every problem is named, and nothing but our own errors comes out."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError
from scenario_support import CONTRACT, changed, problems

from kraken_sim import simulate
from kraken_sim.errors import InputError, KrakenSimError
from kraken_sim.files.problems import problems_of
from kraken_sim.models.presets import preset
from kraken_sim.profiles.load import load_profile
from kraken_sim.scenario.resolve import memory_of, resolve_model
from kraken_sim.scenario.spec import Phase, Scenario, load_scenario, scenario_from, scenario_json_schema

if TYPE_CHECKING:
    from pathlib import Path

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


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
        ({"architecture": {"kind": "standard", "ways": 2}}, "architecture.ways", "kraken or sub_layer_file only"),
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


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        # a field, the machine's name and the model's
        ({"batch_size": 0, "hardware": "h200-sxm-x3", "model": {"preset": "7B"}}, "batch_size hardware model.preset"),
        ({"hardware": "h200-sxm-x3", "model": {"preset": "7B"}}, "hardware model.preset"),
        ({"hardware": "none.yaml", "model": {"preset": "7B"}, "dtpe": "float16"}, "hardware model.preset dtpe"),
        (
            {"hardware": "a100-sxm4-80gb-x8", "quantization": "fp8", "model": {"preset": "7B"}},
            "quantization model.preset",
        ),
        ({"hardware": "h200-sxm-x3", "context_length": 5000}, "hardware context_length"),
        ({"hardware": "h200-sxm-x3", "runtime": {"host": "none.jsonl"}}, "hardware runtime.host"),
        (
            {"hardware": "a100-sxm4-80gb-x8", "quantization": "fp8", "kv_cache_dtype": "float8"},
            "quantization kv_cache_dtype",
        ),
        # what a number of devices does not divide, whatever else is wrong
        ({"hardware": "h200-sxm-x3", "num_devices": 7, "architecture": None}, "hardware num_devices num_devices"),
        ({"dtype": "fp16", "num_devices": 7, "architecture": None}, "dtype num_devices num_devices num_devices"),
        ({"batch_size": 0, "num_devices": 4, "placement": "0,1,2"}, "batch_size num_devices placement"),
        ({"num_devices": 2, "placement": "0,9", "context_length": 5000}, "placement context_length"),
        # what is wrong on any number of them
        (
            {"hardware": "h200-sxm-x3", "num_devices": None, "architecture": {"kind": "kraken", "hidden_size": 77}},
            "hardware architecture.hidden_size",
        ),
        (
            {"dtype": "fp16", "context_length": 5000, "architecture": {"kind": "krakn"}},
            "dtype context_length architecture.kind",
        ),
        # no follow-up errors
        ({"num_devices": 7, "architecture": {"kind": "krakn"}}, "architecture.kind"),
        ({"num_devices": "7", "placement": "0,1", "architecture": None}, "num_devices"),
        ({"context_length": "much", "prefix_length": 5}, "context_length"),
        ({"hardware": "h200-sxm-x3", "num_devices": None, "architecture": None}, "hardware"),
        ({"hardware": 3, "model": {"preset": 7}}, "hardware model.preset"),
        ({"model": {}, "batch_size": 0}, "model batch_size"),
        ({"num_devices": 0}, "num_devices"),
    ],
)
def test_problems_of_machine_model_and_fields_are_told_together(changes: dict[str, Any], paths: str) -> None:
    with pytest.raises(InputError) as raised:
        simulate(changed(**changes))
    assert {problem.path for problem in raised.value.problems} == set(paths.split())
    assert len(raised.value.problems) == len(paths.split())


def test_a_machine_that_is_given_needs_no_name_that_is_known() -> None:
    with pytest.raises(InputError) as raised:
        simulate(changed(hardware="mine", batch_size=0), profile=load_profile("h200-sxm-x2"))
    assert [problem.path for problem in raised.value.problems] == ["batch_size"]


def test_problems_of_a_machines_file_are_told_under_its_field_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "machine.yaml"
    path.write_text("name: machine\n")
    with pytest.raises(InputError) as raised:
        simulate(changed(hardware=str(path), model={"preset": "7B"}))
    first, *_, last = raised.value.problems
    assert first.path.startswith("hardware.")
    assert "machine.yaml" in first.message
    assert last.path == "model.preset"


@pytest.mark.parametrize("data", [None, 3, "text", [], [CONTRACT]])
def test_data_of_another_shape_is_an_input_error(data: object) -> None:
    with pytest.raises(InputError, match="must be a mapping"):
        scenario_from(data)


def test_model_validate_says_what_is_wrong_too() -> None:
    with pytest.raises(ValidationError, match="ways: is for kind kraken or sub_layer_file only"):
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
        "by_name.a.phase: must be one of prefill, decode, generate (got 'decod'); did you mean 'decode'?",
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
    sharing = max(1, num_devices // ways) if kind == "kraken" else num_devices
    shape = found.layout.block
    assert shape.num_attention_heads % sharing == 0
    assert shape.intermediate_size % sharing == 0
    assert shape.num_key_value_heads % sharing == 0 or sharing % shape.num_key_value_heads == 0
    if kind == "kraken":
        assert ways % num_devices == 0 or num_devices % ways == 0
