"""A request for a purchase as its file has it: workloads, an SLA, candidates with prices, what-ifs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from kraken_sim.errors import InputError, Problem
from kraken_sim.explore.degree import degrees
from kraken_sim.explore.procure.choices import choices
from kraken_sim.explore.procure.specs import CandidateSpec, ElectricitySpec, WorkloadSpec
from kraken_sim.files.model import FileModel, Name, NotEmpty
from kraken_sim.files.problems import fields_error
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.formats import KVCacheDType, Quantization
from kraken_sim.scenario.request_file import (
    Amount,
    RequestSource,
    absolute_architecture,
    absolute_hardware,
    absolute_model,
    raise_if_any,
    read_request,
)
from kraken_sim.scenario.resolve import resolve_model
from kraken_sim.scenario.spec import ArchitectureSpec, RuntimeSpec, Scenario
from kraken_sim.serving.request import LinkBandwidth, SchedulerSpec
from kraken_sim.serving.sla import SlaSpec
from kraken_sim.serving.traffic import BurstSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kraken_sim.files.strict_yaml import YamlDocument


SHARE_TOLERANCE = 1e-6
"""How far the shares of a mix may miss 1 by rounding."""

Rate = Annotated[float, Field(ge=1e-6, le=1e9)]
"""Requests a second: from one in twelve days to more than all of mankind asks; a limit of ours."""


class LoadSpec(FileModel):
    """How many prompts come, and how full replicas may be."""

    prompts_per_s: Rate | None = Field(
        default=None, description="Prompts alone, of all workloads together, at the busiest time.", examples=[50]
    )
    requests_per_s: Rate | None = Field(
        default=None, description="Whole answers instead, which are simulated with their output_tokens.", examples=[20]
    )
    growth: Annotated[float, Field(ge=0.0, le=1000.0)] = Field(
        default=0.0, description="Requests: how much more than these the machines are to take.", examples=[0.5]
    )
    bursts: BurstSpec | None = Field(
        default=None,
        description="Requests: times at which they come more often.",
        examples=[{"factor": 4, "duration": "10 s", "every": "2 min"}],
    )
    max_utilisation: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.8, description="Highest share of the time that a replica is busy.", examples=[0.8]
    )

    @model_validator(mode="after")
    def _prompts_or_requests(self) -> Self:
        if (self.prompts_per_s is None) == (self.requests_per_s is None):
            message = "give prompts_per_s, or requests_per_s for whole answers, one of the two"
            raise fields_error(message, "prompts_per_s")
        if self.requests_per_s is None and self.growth:
            raise fields_error("goes with requests_per_s", "growth")
        if self.requests_per_s is None and self.bursts is not None:
            raise fields_error("goes with requests_per_s", "bursts")
        return self

    @property
    def whole(self) -> bool:
        """Whether whole answers are judged."""
        return self.requests_per_s is not None

    @property
    def rate_per_s(self) -> float:
        """Prompts, or requests, a second."""
        found = self.prompts_per_s if self.requests_per_s is None else self.requests_per_s
        assert found is not None  # checked above
        return found

    @property
    def peak_per_s(self) -> float:
        """What the machines are counted for."""
        return self.rate_per_s * (1.0 + self.growth)


class WhatIfSpec(FileModel):
    """The same request with other links, another architecture or another runtime."""

    name: Name = Field(examples=["kraken"])
    bandwidth_factor: Amount | None = Field(
        default=None, description="Bandwidth between GPUs, over the machine's own.", examples=[0.5]
    )
    architecture: ArchitectureSpec | None = Field(default=None, examples=[{"kind": "kraken"}])
    runtime: RuntimeSpec | None = Field(default=None, examples=[{"launch": "graph"}])
    quantization: Quantization | None = Field(default=None, examples=["fp8"])
    kv_cache_dtype: KVCacheDType | None = Field(default=None, examples=["float8"])
    disaggregated: LinkBandwidth | None = Field(
        default=None,
        description="Requests: prompts on replicas of their own; the link of a GPU to its peer there.",
        examples=['"50 GB/s"'],
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        changes = {name: getattr(self, name) for name in type(self).model_fields if name != "name"}
        if all(value is None for value in changes.values()):
            raise fields_error(f"changes nothing; give {', '.join(changes)}", "name")
        return self


class ProcureRequest(FileModel):
    """One question about a purchase."""

    name: Name = Field(default="purchase", examples=["assistant"])
    currency: Name = Field(description="Of every price in the file.", examples=["EUR"])
    sla: SlaSpec = Field(examples=[{"preset": "mlperf-llama2-70b-interactive"}])
    load: LoadSpec = Field(examples=[{"prompts_per_s": 50}])
    workloads: Annotated[tuple[WorkloadSpec, ...], NotEmpty] = Field(
        examples=[{"name": "chat", "share": 1.0, "model": "{preset: 13B}", "prompt_tokens": 512}]
    )
    candidates: Annotated[tuple[CandidateSpec, ...], NotEmpty] = Field(
        examples=[{"name": "eight-h100", "hardware": "h100-sxm-x8", "price": "{per_hour: 40, ...}"}]
    )
    architectures: tuple[ArchitectureSpec, ...] = Field(
        default=(),
        description="Every candidate with each of these, instead of the workloads' own.",
        examples=["[{kind: standard}, {kind: ladder}]"],
    )
    electricity: ElectricitySpec | None = Field(
        default=None, examples=[{"per_kwh": 0.25, "source": "our contract", "date": "2026-01-31"}]
    )
    scheduler: SchedulerSpec = Field(
        default_factory=SchedulerSpec, description="Requests: how a replica batches.", examples=[{"max_num_seqs": 256}]
    )
    what_if: tuple[WhatIfSpec, ...] = ()

    @property
    def choices(self) -> tuple[CandidateSpec, ...]:
        """What is chosen from: every candidate with each of the architectures."""
        return choices(self.candidates, self.architectures)


def load_procure_request(source: RequestSource | YamlDocument) -> ProcureRequest:
    """Reads a request; paths of profiles and configs are relative to the file's folder.

    Args:
        source: the path of a file, the name of one that ships, what was read of one, or a mapping of its shape.

    Raises:
        InputError: every problem of the file at once, with line numbers.
    """
    return read_request(source, ProcureRequest, _with_absolute_paths, purchase_problems)


def check_request(request: ProcureRequest) -> None:
    """The checks that concern several fields, for requests built in Python.

    Raises:
        InputError: every problem at once.
    """
    raise_if_any(purchase_problems(request))


def purchase_problems(request: ProcureRequest) -> Iterator[Problem]:
    """What is wrong with a request beyond single fields."""
    total = sum(workload.share for workload in request.workloads)
    if abs(total - 1.0) > SHARE_TOLERANCE:
        yield Problem("workloads", f"shares add up to {total:.6g}, not to 1")
    for section in ("workloads", "candidates", "what_if"):
        yield from _repeated_names(request, section)
    try:
        request.sla.resolve()
    except InputError as error:
        yield from error.problems
    for index, workload in enumerate(request.workloads):
        if request.load.whole and workload.output_tokens is None:
            yield Problem(
                f"workloads.{index}.output_tokens", "is required where the load is requests_per_s", example="256"
            )
        yield from _model_problems(workload, f"workloads.{index}")
    for index, what_if in enumerate(request.what_if):
        if what_if.disaggregated is not None and not request.load.whole:
            yield Problem(f"what_if.{index}.disaggregated", "goes with load.requests_per_s")
    yield from _choice_problems(request)
    for index, candidate in enumerate(request.candidates):
        yield from _candidate_problems(candidate, f"candidates.{index}")
    bought = [f"candidates.{i}" for i, c in enumerate(request.candidates) if c.price.purchase is not None]
    if bought and request.electricity is None:
        example = "{per_kwh: 0.25, source: our contract, date: 2026-01-31}"
        yield Problem("electricity", f"is required because {', '.join(bought)} would be bought", example=example)


def _repeated_names(request: ProcureRequest, section: str) -> Iterator[Problem]:
    counts = Counter(item.name for item in getattr(request, section))
    for index, item in enumerate(getattr(request, section)):
        if counts[item.name] > 1:
            yield Problem(f"{section}.{index}.name", "the name is used more than once", item.name)


def _model_problems(workload: WorkloadSpec, path: str) -> Iterator[Problem]:
    """Faults of the model that no machine could cure: on one device nothing has to be split."""
    alone = Scenario(
        hardware="any",
        model=workload.model,
        num_devices=1,
        context_length=workload.prompt_tokens,
        dtype=workload.dtype,
    )
    try:
        resolve_model(alone)
    except InputError as error:
        for problem in error.problems:
            place = problem.path.replace("context_length", "prompt_tokens")
            yield Problem(f"{path}.{place}", problem.message, problem.value, problem.example, problem.suggestion)


def _choice_problems(request: ProcureRequest) -> Iterator[Problem]:
    """What architectures of a request have against each other, and against those of its what-ifs."""
    if not request.architectures:
        return
    names = Counter(candidate.name for candidate in request.choices)
    if any(number > 1 for number in names.values()):
        kinds = [spec.kind for spec in request.architectures]
        yield Problem("architectures", "the same one stands there twice", kinds, "[{kind: standard}, {kind: ladder}]")
    for index, candidate in enumerate(request.candidates):
        if candidate.architecture is not None:
            yield Problem(f"candidates.{index}.architecture", "architectures has those of all candidates")
    for index, what_if in enumerate(request.what_if):
        if what_if.architecture is not None:
            yield Problem(f"what_if.{index}.architecture", "architectures has it run beside the others already")


def _candidate_problems(candidate: CandidateSpec, path: str) -> Iterator[Problem]:
    try:
        profile = load_profile(candidate.hardware)
    except InputError as error:
        for problem in error.problems:
            place = f"{path}.hardware" if problem.path == "hardware" else f"{path}.hardware ({problem.path})"
            yield Problem(place, problem.message, problem.value, problem.example, problem.suggestion)
        return
    available = degrees(profile)[-1]
    for position, number in enumerate(candidate.num_devices or ()):
        if number > available:
            message = f"{candidate.hardware} has {available} devices"
            yield Problem(f"{path}.num_devices.{position}", message, number, str(available))


def _with_absolute_paths(request: ProcureRequest, folder: Path) -> ProcureRequest:
    def architecture_of(spec: ArchitectureSpec | None) -> dict[str, ArchitectureSpec | None]:
        return {"architecture": None if spec is None else absolute_architecture(spec, folder)}

    candidates = tuple(
        item.model_copy(
            update={"hardware": absolute_hardware(item.hardware, folder), **architecture_of(item.architecture)}
        )
        for item in request.candidates
    )
    workloads = tuple(
        item.model_copy(update={"model": absolute_model(item.model, folder), **architecture_of(item.architecture)})
        for item in request.workloads
    )
    what_ifs = tuple(item.model_copy(update=architecture_of(item.architecture)) for item in request.what_if)
    architectures = tuple(absolute_architecture(spec, folder) for spec in request.architectures)
    changes = {"candidates": candidates, "workloads": workloads, "what_if": what_ifs, "architectures": architectures}
    return request.model_copy(update=changes)
