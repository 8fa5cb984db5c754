"""From a scenario's model and architecture to shapes, with every check that concerns several fields."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kraken_sim.architectures.architecture import Question
from kraken_sim.architectures.registry import architecture, architectures
from kraken_sim.architectures.workload import Phase
from kraken_sim.errors import InputError, Problem
from kraken_sim.models.hf import SYNONYMS, config_from_fields, read_hf_fields
from kraken_sim.models.memory import DeviceMemory, RaggedLoad, StoredAs, TokenLoad, check_memory, device_memory
from kraken_sim.models.presets import preset_fields
from kraken_sim.profiles.placement import gpu_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.architectures.architecture import Architecture
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Block, Layout
    from kraken_sim.models.memory import StepLoad
    from kraken_sim.scenario.spec import ModelSpec, Scenario

__all__ = ["ResolvedModel", "check_context", "check_memory", "memory_of", "resolve_model", "token_load_of"]

_OVERRIDABLE = (*SYNONYMS, "attention_bias", "mlp_bias", "tie_word_embeddings")
_GPT_DEFAULTS = {"model_type": "gpt2", "vocab_size": 51_200, "max_position_embeddings": 2_048}
"""What a model given by its sizes alone is: GPT-like, with the vocabulary and the inputs of the paper's models (arXiv
2408.07802, section 4)."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """What runs: the base model, its architecture, and what repeats on which devices.

    Guaranteed: blocks, their heads and their FFN can be spread over the devices.
    """

    config: TransformerConfig
    architecture: Architecture[Any, Any]
    layout: Layout

    @property
    def kind(self) -> str:
        """The architecture's name; of one that a file describes, the file's."""
        record = self.architecture
        return record.kind if record.name is None else str(record.name(self.layout))

    @property
    def num_devices(self) -> int:
        """Devices that one pass runs on."""
        return self.layout.num_devices

    @property
    def width(self) -> str:
        """The width of the stream, with the number of blocks side by side where their shape is their own."""
        block, layout = self.own_block, self.layout
        return str(layout.block.hidden_size) if block is None else f"{layout.blocks_per_layer} x {block.hidden_size}"

    @property
    def report(self) -> dict[str, int] | None:
        """What answers say of the layout under the architecture's name; None where there is nothing to say."""
        report = self.architecture.report
        return None if report is None else dict(report(self.layout))

    def reports(self) -> dict[str, dict[str, int] | None]:
        """That by the name of every architecture that has something to say; None of all but this one."""
        names = [record.kind for record in architectures() if record.report is not None]
        return {name: self.report if name == self.architecture.kind else None for name in names}

    @property
    def own_block(self) -> Block | None:
        """The block whose shape is the architecture's own; None where it is the model's layer."""
        return None if self.architecture.written is None else self.layout.block


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
    fields = scenario.architecture
    record = architecture(fields.kind)
    problems.extend(record.fits(fields, num_devices))
    try:
        config = _config_of(scenario.model)
    except InputError as error:
        raise InputError([*problems, *error.problems]) from None
    problems.extend(_context_problems(scenario, config))
    try:
        layout = record.checked_layout(Question(config, num_devices, fields))
    except InputError as error:
        raise InputError([*problems, *error.problems]) from None
    if problems:
        raise InputError(problems)
    return ResolvedModel(config, record, layout)


def check_context(scenario: Scenario, resolved: ResolvedModel) -> None:
    """Nothing, if the resolved model has a position for every token of the scenario.

    Raises:
        InputError: it has not.
    """
    if problems := list(_context_problems(scenario, resolved.config)):
        raise InputError(problems)


def token_load_of(scenario: Scenario) -> StepLoad:
    """The tokens that the scenario's phase computes, and what is in the cache; at the end of a generation's answer."""
    if groups := ragged_groups(scenario):
        return RaggedLoad(groups)
    batch_size, context, prefix = scenario.batch_size, scenario.context_length, scenario.prefix_length
    if scenario.phase is Phase.DECODE:
        return replace(TokenLoad.decode(batch_size, context), prefix_length=prefix)
    new = context - prefix
    if scenario.runtime.max_num_batched_tokens is not None:
        new = min(new, max(1, scenario.runtime.max_num_batched_tokens // batch_size))
    # The last token of an answer needs no keys and values.
    return TokenLoad(batch_size, new, context + (scenario.output_length or 1) - 1, prefix)


def ragged_groups(scenario: Scenario) -> tuple[TokenLoad, ...]:
    """The sequences of a step that are not alike; nothing where all are."""
    return tuple(
        TokenLoad(group.num_sequences, group.num_new_tokens, group.num_cached_tokens + group.num_new_tokens)
        for group in scenario.sequences or ()
    )


def memory_of(scenario: Scenario, resolved: ResolvedModel) -> DeviceMemory:
    """Bytes that one device needs; `check_memory` compares them with what it has."""
    formats = StoredAs(scenario.dtype, scenario.quantization, scenario.kv_cache_dtype.dtype)
    return device_memory(resolved.config, resolved.layout, token_load_of(scenario), formats)


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


def _context_problems(scenario: Scenario, config: TransformerConfig) -> Iterator[Problem]:
    limit = config.max_position_embeddings
    if config.position_embeddings and scenario.context_length > limit:
        message = f"the model has {limit} learned positions; set model.max_position_embeddings for more"
        yield Problem("context_length", message, scenario.context_length, str(limit))
    elif config.position_embeddings and scenario.context_length + (scenario.output_length or 1) - 1 > limit:
        message = f"with the prompt that is more than the model's {limit} learned positions"
        yield Problem("output_length", message, scenario.output_length, str(limit - scenario.context_length + 1))
