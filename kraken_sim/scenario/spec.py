"""Questions as they are read: of a file, of plain data, by a name that ships; every problem of one at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from kraken_sim.architectures.architecture import DeviceCount, Size
from kraken_sim.architectures.form import ArchitectureSpec, KindName
from kraken_sim.architectures.registry import architecture
from kraken_sim.architectures.workload import Phase
from kraken_sim.errors import InputError, problems_with
from kraken_sim.files.problems import form_of, problems_of
from kraken_sim.files.shipped import shipped_path
from kraken_sim.files.strict_yaml import read_yaml
from kraken_sim.profiles.load import is_path, load_profile
from kraken_sim.scenario.collective import CollectiveSpec
from kraken_sim.scenario.fields import Launch, RuntimeSpec, Scenario, SequencesSpec
from kraken_sim.scenario.host import host_from_folder
from kraken_sim.scenario.model import ModelSpec, config_of
from kraken_sim.scenario.resolve import problems_of_model, problems_without_machine, resolve_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from kraken_sim.errors import Problem
    from kraken_sim.files.strict_yaml import YamlDocument
    from kraken_sim.program.kernel_sets import KernelSet

__all__ = [
    "ArchitectureSpec",
    "CollectiveSpec",
    "DeviceCount",
    "KindName",
    "Launch",
    "ModelSpec",
    "Phase",
    "RuntimeSpec",
    "Scenario",
    "ScenarioSource",
    "SequencesSpec",
    "Size",
    "load_scenario",
    "scenario_from",
    "scenario_json_schema",
    "section_fields",
    "with_absolute_paths",
    "with_architecture",
    "with_kernels",
]


def scenario_from(data: object, source: str | None = None, *, known_machine: bool = False) -> Scenario:
    """A scenario from plain data, as YAML or JSON gives it.

    Args:
        data: a mapping of the shape of `Scenario`.
        source: what errors call the data, such as a file's name.
        known_machine: whether the machine comes from elsewhere, so that errors say nothing of `hardware`.

    Raises:
        InputError: every wrong, missing or unknown field, with its dotted path; and beside these what is wrong with the
            machine's name or file and with the model.
    """
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        problems = problems_of(error, Scenario)
    raise InputError([*problems, *_other_problems(data, problems, known_machine=known_machine)], source)


def _other_problems(data: object, problems: Sequence[Problem], *, known_machine: bool) -> Iterator[Problem]:
    """What is wrong with the machine, the model and the wiring of data whose fields have problems elsewhere."""
    sections = {problem.path.partition(".")[0] for problem in problems}
    if not isinstance(data, dict) or "" in sections:
        return
    hardware, model = data.get("hardware"), data.get("model")
    machine_devices = None
    if isinstance(hardware, str) and "hardware" not in sections and not known_machine:
        wrong = problems_with(lambda: load_profile(hardware), within="hardware")
        yield from wrong
        machine_devices = None if wrong else len(load_profile(hardware).topology.gpus)
    if isinstance(model, dict | ModelSpec) and "model" not in sections:
        right = {name: value for name, value in data.items() if name in Scenario.model_fields.keys() - sections}
        try:
            rest = Scenario.model_validate({"hardware": "unknown", "context_length": 1, **right})
        except ValidationError:
            yield from problems_with(lambda: config_of(ModelSpec.model_validate(model)))
        else:
            yield from _problems_of_rest(rest, sections, machine_devices)


def _problems_of_rest(rest: Scenario, wrong: AbstractSet[str], machine_devices: int | None) -> list[Problem]:
    """What is wrong with the right fields of a scenario, whatever the wrong ones should have been."""
    if "architecture" in wrong:
        return problems_of_model(rest)
    if machine_devices is None or wrong & {"num_devices", "placement"}:
        return problems_without_machine(rest)
    return problems_with(lambda: resolve_model(rest, machine_devices))


ScenarioSource = Scenario | Mapping[str, object] | str | Path
"""A question: a scenario, a mapping of its shape, the path of a file or the name of one that ships."""


def as_scenario(question: ScenarioSource, *, known_machine: bool = False) -> Scenario:
    """The question itself, or the one that a mapping or a file of its shape asks.

    Raises:
        InputError: see `scenario_from` and `load_scenario`.
    """
    if isinstance(question, str | Path):
        return load_scenario(question)
    return question if isinstance(question, Scenario) else scenario_from(question, known_machine=known_machine)


def load_scenario(source: str | Path | YamlDocument | Mapping[str, object]) -> Scenario:
    """Reads a scenario; paths in a file are relative to its folder (`with_absolute_paths`).

    Args:
        source: the path of a file, the name of one that ships, what was read of one, or a mapping of its shape.

    Raises:
        InputError: the file cannot be read or is not strict YAML, or any field is wrong; with line numbers.
    """
    if isinstance(source, Mapping):
        return scenario_from(source)
    path = shipped_path(source, "scenario") if isinstance(source, str) else source
    document = read_yaml(path)
    try:
        data = document.data
        return scenario_from(with_absolute_paths(data, document.folder) if isinstance(data, dict) else data)
    except InputError as error:
        raise document.error(error.problems) from None


def scenario_json_schema() -> dict[str, Any]:
    """The JSON schema of a scenario file."""
    return Scenario.model_json_schema()


def section_fields(section: type[BaseModel] = Scenario) -> dict[str, Any]:
    """The names of a scenario's fields; those of a section as a mapping, those of a plain field as an empty one."""
    found: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        inner = form_of(field)
        found[name] = section_fields(inner) if inner else {}
    return found


def with_architecture(scenario: Scenario, kind: str) -> Scenario:
    """The same question for another wiring; its own fields are kept if the scenario has them."""
    if scenario.architecture.kind == kind:
        return scenario
    return scenario.model_copy(update={"architecture": architecture(kind).own()})


def with_kernels(scenario: Scenario, kernels: KernelSet) -> Scenario:
    """The same question with another kernel set."""
    return scenario.model_copy(update={"runtime": scenario.runtime.model_copy(update={"kernels": kernels})})


def with_absolute_paths(data: Mapping[str, Any], folder: str | Path | None) -> dict[str, Any]:
    """The same data with its paths from `folder`, if any.

    They are `model.config`, `architecture.path`, `runtime.host`, and `hardware` if it is one.
    """
    resolved = dict(data)
    hardware, model = data.get("hardware"), data.get("model")
    if folder is None:
        return resolved
    if isinstance(hardware, str) and is_path(hardware):
        resolved["hardware"] = str(Path(folder) / hardware)
    if isinstance(model, dict) and isinstance(model.get("config"), str):
        resolved["model"] = {**model, "config": str(Path(folder) / model["config"])}
    wiring = data.get("architecture")
    if isinstance(wiring, dict) and isinstance(wiring.get("path"), str):
        resolved["architecture"] = {**wiring, "path": str(Path(folder) / wiring["path"])}
    runtime = data.get("runtime")
    if isinstance(runtime, dict) and "host" in runtime:
        resolved["runtime"] = {**runtime, "host": host_from_folder(runtime["host"], Path(folder))}
    return resolved
