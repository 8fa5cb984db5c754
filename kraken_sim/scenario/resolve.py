"""From a scenario's model and architecture to shapes, with every check that concerns several fields."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.architectures.architecture import Question
from kraken_sim.architectures.registry import architecture, architectures
from kraken_sim.architectures.workload import Phase
from kraken_sim.errors import InputError, Problem, problems_with
from kraken_sim.models.memory import DeviceMemory, RaggedLoad, StoredAs, TokenLoad, check_memory, device_memory
from kraken_sim.profiles.placement import gpu_numbers, placement_problems
from kraken_sim.program.many import same
from kraken_sim.scenario.model import config_of, stored_format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.architectures.architecture import Architecture
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Block, Layout
    from kraken_sim.models.memory import StepLoad
    from kraken_sim.program.formats import InputFormat
    from kraken_sim.scenario.fields import Scenario

__all__ = ["ResolvedModel", "as_stored", "check_context", "check_memory", "memory_of", "resolve_model", "token_load_of"]


LIKELY_DEVICES: Final = (1, 2, 4, 8)
"""GPUs of machines as they are sold; what is wrong on each of these is taken to be wrong on any. A choice of ours."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """What runs: the base model, its architecture, and what repeats on which devices.

    `stored` is what the model's checkpoint has its matrices in, where its config says so. Guaranteed: blocks, their
    heads and their FFN can be spread over the devices.
    """

    config: TransformerConfig
    architecture: Architecture[Any, Any]
    layout: Layout
    stored: InputFormat | None = None

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
        config = config_of(scenario.model)
    except InputError as error:
        raise InputError([*problems, *error.problems]) from None
    problems.extend(_context_problems(scenario, config))
    try:
        layout = record.checked_layout(Question(config, num_devices, fields))
    except InputError as error:
        raise InputError([*problems, *error.problems]) from None
    if problems:
        raise InputError(problems)
    return ResolvedModel(config, record, layout, stored_format(scenario.model))


def problems_without_machine(scenario: Scenario) -> list[Problem]:
    """What is wrong with a scenario's model and architecture, as far as it can be told without its machine.

    Where nothing says how many devices there are, that is what is wrong on every number of `LIKELY_DEVICES`.
    """
    if asked_devices(scenario) is not None:
        return problems_with(lambda: resolve_model(scenario))
    first, *others = (problems_with(partial(resolve_model, scenario, count)) for count in LIKELY_DEVICES)
    return [problem for problem in first if all(problem in found for found in others)]


def problems_of_model(scenario: Scenario) -> list[Problem]:
    """What is wrong with a scenario's model and its tokens, however it is wired."""
    return problems_with(lambda: _check_tokens(scenario, config_of(scenario.model)))


def as_stored(scenario: Scenario, resolved: ResolvedModel) -> Scenario:
    """The scenario in the number format of its model's checkpoint, where it names none itself."""
    stored = resolved.stored
    if stored is None or scenario.quantization is not None:
        return scenario
    changes = {"quantization": stored.quantization, "activation_scheme": stored.scheme}
    return scenario.model_copy(update=changes)


def check_context(scenario: Scenario, resolved: ResolvedModel) -> None:
    """Nothing, if the resolved model has a position for every token of the scenario.

    Raises:
        InputError: it has not.
    """
    _check_tokens(scenario, resolved.config)


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


def _device_problems(scenario: Scenario, machine_devices: int | None) -> Iterator[Problem]:
    wanted = asked_devices(scenario)
    if wanted is None and machine_devices is None:
        yield Problem("num_devices", "is required where the machine is not known", example="2")
    if wanted is not None and machine_devices is not None and wanted > machine_devices:
        message = f"{scenario.hardware} has {machine_devices} devices"
        yield Problem("num_devices", message, wanted, str(machine_devices))
    if wanted is not None and scenario.placement is not None:
        yield from placement_problems(scenario.placement, wanted, machine_devices, scenario.hardware)


def asked_devices(scenario: Scenario) -> int | None:
    """How many devices the scenario asks for, with its number or with its placement; None: all of the machine."""
    if scenario.num_devices is None and scenario.placement is not None:
        return len(gpu_numbers(scenario.placement))
    return scenario.num_devices


def _check_tokens(scenario: Scenario, config: TransformerConfig) -> None:
    if problems := list(_context_problems(scenario, config)):
        raise InputError(problems)


def _context_problems(scenario: Scenario, config: TransformerConfig) -> Iterator[Problem]:
    limit = config.max_position_embeddings
    if config.position_embeddings and same(scenario.context_length > limit):
        message = f"the model has {limit} learned positions; set model.max_position_embeddings for more"
        yield Problem("context_length", message, scenario.context_length, str(limit))
    elif config.position_embeddings and same(scenario.context_length + (scenario.output_length or 1) - 1 > limit):
        message = f"with the prompt that is more than the model's {limit} learned positions"
        yield Problem("output_length", message, scenario.output_length, str(limit - scenario.context_length + 1))
