"""From a scenario's model and architecture to shapes, with every check that concerns several fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.errors import InputError, Problem
from kraken_sim.models.config import ArchitectureKind
from kraken_sim.models.hf import SYNONYMS, closest_divisor, config_from_fields, read_hf_fields
from kraken_sim.models.kraken_width import kraken_config_for_latency
from kraken_sim.models.memory import DeviceMemory, TokenLoad, check_memory, device_memory
from kraken_sim.models.presets import preset_fields
from kraken_sim.profiles.placement import gpu_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.kraken_width import KrakenShape
    from kraken_sim.scenario.spec import ArchitectureSpec, ModelSpec, Scenario

__all__ = ["ResolvedModel", "check_context", "check_memory", "memory_of", "resolve_model", "token_load_of"]

_OVERRIDABLE = (*SYNONYMS, "attention_bias", "mlp_bias", "tie_word_embeddings")
_GPT_DEFAULTS = {"model_type": "gpt2", "vocab_size": 51_200, "max_position_embeddings": 2_048}


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """What runs: the base model, Kraken's sub-layer if it is one, and the devices.

    Guaranteed: heads, FFN and sub-layers can be spread over the devices. For Kraken, `kraken.ways` and
    `num_devices` divide one another: a device holds several sub-layers, or several devices share one.
    """

    config: TransformerConfig
    kraken: KrakenShape | None
    kind: ArchitectureKind
    num_devices: int


def resolve_model(scenario: Scenario, machine_devices: int | None = None) -> ResolvedModel:
    """The shapes a scenario asks for.

    Args:
        scenario: a valid scenario.
        machine_devices: devices of the machine: the default of `num_devices`, and the most it may be.

    Raises:
        InputError: every problem of the model, the architecture and the number of devices together.
    """
    problems = list(_device_problems(scenario, machine_devices))
    num_devices = asked_devices(scenario) or machine_devices or 1
    if scenario.architecture.kind is ArchitectureKind.KRAKEN:
        problems.extend(_ways_problems(scenario, num_devices))
    try:
        config = _config_of(scenario.model)
    except InputError as error:
        raise InputError([*problems, *error.problems]) from None
    problems.extend(_context_problems(scenario, config))
    kraken = None
    if scenario.architecture.kind is ArchitectureKind.KRAKEN:
        kraken = _kraken_of(scenario.architecture, config, num_devices, problems)
    else:
        problems.extend(_split_problems(config, num_devices, "num_devices"))
    if problems:
        raise InputError(problems)
    return ResolvedModel(config, kraken, scenario.architecture.kind, num_devices)


def check_context(scenario: Scenario, resolved: ResolvedModel) -> None:
    """Nothing, if the resolved model has a position for every token of the scenario.

    Raises:
        InputError: it has not.
    """
    if problems := list(_context_problems(scenario, resolved.config)):
        raise InputError(problems)


def token_load_of(scenario: Scenario) -> TokenLoad:
    """The tokens that the scenario's phase computes, and what is in the cache."""
    build = TokenLoad.decode if scenario.phase == "decode" else TokenLoad.prefill
    return build(scenario.batch_size, scenario.context_length)


def memory_of(scenario: Scenario, resolved: ResolvedModel) -> DeviceMemory:
    """Bytes that one device needs; `check_memory` compares them with what it has."""
    return device_memory(
        resolved.config,
        resolved.kind,
        resolved.num_devices,
        token_load_of(scenario),
        scenario.dtype,
        resolved.kraken,
    )


def _config_of(spec: ModelSpec) -> TransformerConfig:
    given = {name: value for name in _OVERRIDABLE if (value := getattr(spec, name)) is not None}
    if spec.config is not None:
        fields, _ = _read_config(spec.config)
        return config_from_fields(fields, overrides=given, at="model.config")
    if spec.preset is not None:
        return config_from_fields(preset_fields(spec.preset, at="model.preset"), overrides=given, at="model")
    family = {} if spec.model_type is None else {"model_type": spec.model_type}
    return config_from_fields({**_GPT_DEFAULTS, **family, **given}, at="model")


def _read_config(path: str) -> tuple[dict[str, object], str | None]:
    try:
        fields, name = read_hf_fields(path)
    except InputError as error:
        raise InputError(
            Problem("model.config", problem.message, example=problem.example) for problem in error.problems
        ) from None
    return dict(fields), name


def _device_problems(scenario: Scenario, machine_devices: int | None) -> Iterator[Problem]:
    wanted = asked_devices(scenario)
    if wanted is None and machine_devices is None:
        yield Problem("num_devices", "is required where the machine is not known", example="2")
    if wanted is not None and machine_devices is not None and wanted > machine_devices:
        message = f"{scenario.hardware} has {machine_devices} devices"
        yield Problem("num_devices", message, wanted, str(machine_devices))


def asked_devices(scenario: Scenario) -> int | None:
    """How many devices the scenario asks for, with its number or with its placement; None: all of the machine."""
    if scenario.num_devices is None and scenario.placement is not None:
        return len(gpu_numbers(scenario.placement))
    return scenario.num_devices


def _ways_problems(scenario: Scenario, num_devices: int) -> Iterator[Problem]:
    ways = scenario.architecture.ways or num_devices
    if ways % num_devices and num_devices % ways:
        message = f"{ways} ways do not fit {num_devices} devices: one must be a multiple of the other"
        yield Problem("architecture.ways", message, ways, str(num_devices))


def _context_problems(scenario: Scenario, config: TransformerConfig) -> Iterator[Problem]:
    limit = config.max_position_embeddings
    if config.position_embeddings and scenario.context_length > limit:
        message = f"the model has {limit} learned positions; set model.max_position_embeddings for more"
        yield Problem("context_length", message, scenario.context_length, str(limit))


def _kraken_of(
    spec: ArchitectureSpec, config: TransformerConfig, num_devices: int, problems: list[Problem]
) -> KrakenShape | None:
    """Kraken's sub-layer; None, with `problems` extended, where there is none."""
    ways = spec.ways or num_devices
    group = max(1, num_devices // ways)
    heads, kv_heads = spec.num_attention_heads, spec.num_key_value_heads
    if spec.hidden_size is not None and heads is not None and spec.hidden_size % heads:
        message = f"hidden_size {spec.hidden_size} does not divide by {heads} heads"
        example = str(closest_divisor(spec.hidden_size, heads))
        problems.append(Problem("architecture.num_attention_heads", message, heads, example))
        return None
    try:
        shape = kraken_config_for_latency(
            config,
            ways,
            hidden_size=spec.hidden_size,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            intermediate_size=spec.intermediate_size,
            devices_per_sub_layer=group,
        )
    except ValueError as error:
        example = "num_attention_heads: 28 with hidden_size: 3584"
        problems.append(Problem("architecture.hidden_size", str(error), spec.hidden_size, example))
        return None
    if shape.num_attention_heads % shape.num_key_value_heads:
        path = "architecture.num_key_value_heads"
        message = f"the {shape.num_attention_heads} heads of a sub-layer do not divide by it"
        example = str(closest_divisor(shape.num_attention_heads, shape.num_key_value_heads))
        problems.append(Problem(path, message, shape.num_key_value_heads, example))
    problems.extend(_split_problems(shape, group, "architecture.ways"))
    return shape


def _split_problems(shape: TransformerConfig | KrakenShape, num_devices: int, path: str) -> Iterator[Problem]:
    """What keeps `num_devices` devices from sharing one layer; key/value heads may be replicated instead."""
    heads, kv_heads, ffn = shape.num_attention_heads, shape.num_key_value_heads, shape.intermediate_size
    devices = f"the {num_devices} devices that share a layer"
    if heads % num_devices:
        message = f"{heads} attention heads do not divide by {devices}"
        yield Problem(path, message, example=_device_example(heads, num_devices))
    elif kv_heads % num_devices and num_devices % kv_heads:
        message = f"{kv_heads} key/value heads can neither be split over nor replicated on {devices}"
        yield Problem(path, message, example=_device_example(kv_heads, num_devices))
    if ffn % num_devices:
        message = f"an FFN of width {ffn} does not divide by {devices}"
        yield Problem(path, message, example=_device_example(ffn, num_devices))


def _device_example(number: int, num_devices: int) -> str:
    fitting = closest_divisor(number, num_devices)
    return f"{fitting} device{'s' if fitting != 1 else ''}"
