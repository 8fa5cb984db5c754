"""A search for designs as its file has it: a base scenario, what to vary, constraints, objectives, prices."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from itertools import product
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from kraken_sim.architectures.registry import BASELINE, architecture, kinds, searched
from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.explore.design.shape import Design, default_ffn_expansion, divides, widths_for_budget
from kraken_sim.files.model import FileModel, NotEmpty
from kraken_sim.models.counts import parameter_count
from kraken_sim.models.kraken_width import SUPPORTED_HEAD_DIMS
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.formats import Quantization
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.scenario.request_file import (
    Amount,
    Duration,
    IsoDate,
    MemorySize,
    RequestSource,
    Source,
    absolute_architecture,
    absolute_hardware,
    absolute_model,
    raise_if_any,
    read_request,
)
from kraken_sim.scenario.resolve import resolve_model
from kraken_sim.scenario.spec import DeviceCount, KindName, Phase, Scenario, Size, with_architecture
from kraken_sim.serving.request import SchedulerSpec
from kraken_sim.serving.sla import SlaSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kraken_sim.files.strict_yaml import YamlDocument
    from kraken_sim.models.config import TransformerConfig

Channels = Annotated[int, Field(strict=True, ge=1, le=64)]


class Objective(StrEnum):
    """What a search looks for; the last four describe the model and stand in for its quality, or size a purchase."""

    TTFT = "ttft"
    TPOT = "tpot"
    GOODPUT = "goodput"
    ENERGY = "energy"
    COST = "cost"
    MEMORY = "memory"
    GPUS = "gpus"
    PARAMETERS = "parameters"
    WIDTH = "width"
    DEPTH = "depth"


class SearchMethod(StrEnum):
    """How a space is searched: every design simulated, those whose bounds leave a chance, or some that Optuna picks."""

    ALL = "all"
    BOUNDS = "bounds"
    OPTUNA = "optuna"


MOST_DESIGNS: Final = 200_000
"""Combinations that a search lists before it tries or samples them, or solves for widths; a limit of ours."""

MOST_BOUNDED: Final = 20_000_000
"""Combinations of given widths that are searched by bounds; a limit of ours, some minutes of one core."""

MAXIMISED: Final = frozenset({Objective.GOODPUT, Objective.PARAMETERS, Objective.WIDTH, Objective.DEPTH})
"""The others are minimised."""


class SearchSpec(FileModel):
    """What to vary: a list for each; what is absent stays as in the base scenario."""

    hardware: Annotated[tuple[str, ...], NotEmpty] | None = Field(default=None, examples=["[h200-sxm-x2]"])
    num_devices: Annotated[tuple[DeviceCount, ...], NotEmpty] | None = Field(default=None, examples=["[2, 4, 8]"])
    kind: Annotated[tuple[KindName, ...], NotEmpty] | None = Field(default=None, examples=["[standard, kraken]"])
    ways: Annotated[tuple[DeviceCount, ...], NotEmpty] | None = Field(
        default=None, description="Kraken: sub-layers a layer; default: the devices.", examples=["[2, 4]"]
    )
    num_hidden_layers: Annotated[tuple[Size, ...], NotEmpty] | None = Field(default=None, examples=["[24, 32]"])
    hidden_size: Annotated[tuple[Size, ...], NotEmpty] | None = Field(
        default=None,
        description="Widths (of a Kraken's sub-layer); default: from the budget.",
        examples=["[3072, 3584]"],
    )
    head_dim: Annotated[tuple[Size, ...], NotEmpty] | None = Field(default=None, examples=["[64, 128]"])
    num_key_value_groups: Annotated[tuple[Size, ...], NotEmpty] | None = Field(
        default=None, description="Query heads a key/value head.", examples=["[1, 4, 8]"]
    )
    ffn_expansion: Annotated[tuple[Annotated[float, Field(gt=0.0, le=64.0)], ...], NotEmpty] | None = Field(
        default=None, description="Width of the FFN over hidden_size.", examples=["[2, 3, 4]"]
    )
    channels: Annotated[tuple[Channels | None, ...], NotEmpty] | None = Field(
        default=None, description="NCCL's most channels; null is its own choice.", examples=["[null, 4, 8]"]
    )
    quantization: Annotated[tuple[Quantization | None, ...], NotEmpty] | None = Field(
        default=None, description="Of weights and inputs of the layers' GEMMs.", examples=["[null, fp8]"]
    )
    kernels: Annotated[tuple[KernelSet, ...], NotEmpty] | None = Field(
        default=None, description="Which kernels an engine runs for a layer.", examples=["[pytorch, serving]"]
    )


class ConstraintSpec(FileModel):
    """What a design must keep."""

    budget_tolerance: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.05, description="How far the parameters may be from the budget, as a fraction.", examples=[0.05]
    )
    min_parameters: Amount | None = Field(default=None, examples=[6.0e9])
    max_parameters: Amount | None = Field(default=None, examples=[7.0e9])
    min_hidden_size: Size | None = Field(default=None, examples=[2560])
    min_num_hidden_layers: Size | None = Field(default=None, examples=[24])
    max_memory: MemorySize | None = Field(default=None, description="Of one device.", examples=['"40 GB"'])
    max_latency: Duration | None = Field(default=None, description="TTFT, or TPOT in decode.", examples=['"30 ms"'])


class RentSpec(FileModel):
    """Rent of a whole machine, with where the number is from, and when."""

    per_hour: Amount = Field(examples=[40.0])
    source: Source = Field(examples=["quote 1234 of our supplier"])
    date: IsoDate = Field(examples=["2026-01-31"])


class DesignRequest(FileModel):
    """One search."""

    name: str = Field(default="design", min_length=1, max_length=100)
    base: Scenario = Field(description="Machine, model and workload that stay unless varied.")
    budget: Amount | None = Field(
        default=None, description="Parameters; default: those of the base model as a standard one.", examples=[6.7e9]
    )
    search: SearchSpec = Field(default_factory=SearchSpec)
    constraints: ConstraintSpec = Field(default_factory=ConstraintSpec)
    objectives: Annotated[tuple[Objective, ...], NotEmpty] = Field(
        default=(Objective.TTFT, Objective.WIDTH), examples=["[ttft, width]"]
    )
    currency: str | None = Field(default=None, description="Of the prices.", examples=["EUR"])
    prices: dict[str, RentSpec] = Field(default_factory=dict, description="Rent by machine, for objective cost.")
    sla: SlaSpec | None = Field(
        default=None, description="Limits that count for objective goodput.", examples=["{ttft: 1 s, tpot: 50 ms}"]
    )
    scheduler: SchedulerSpec = Field(
        default_factory=SchedulerSpec,
        description="How a replica batches, for goodput.",
        examples=[{"max_num_seqs": 256}],
    )
    method: SearchMethod | None = Field(
        default=None,
        description="How to search: all, bounds or optuna; default: all up to max_evaluations designs, of more bounds "
        "where every objective has one (single steps, all but goodput), else optuna.",
        examples=["bounds"],
    )
    max_evaluations: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = Field(
        default=2000, description="Designs to simulate one by one; see method.", examples=[2000]
    )


def load_design_request(source: RequestSource | YamlDocument) -> DesignRequest:
    """Reads a search; paths of profiles and configs are relative to the file's folder.

    Args:
        source: the path of a file, the name of one that ships, what was read of one, or a mapping of its shape.

    Raises:
        InputError: every problem of the file at once, with line numbers.
    """
    return read_request(source, DesignRequest, _with_absolute_paths, design_problems)


def _with_absolute_paths(request: DesignRequest, folder: Path) -> DesignRequest:
    base, search = request.base, request.search
    changes = {
        "hardware": absolute_hardware(base.hardware, folder),
        "model": absolute_model(base.model, folder),
        "architecture": absolute_architecture(base.architecture, folder),
    }
    if search.hardware is not None:
        machines = tuple(absolute_hardware(hardware, folder) for hardware in search.hardware)
        search = search.model_copy(update={"hardware": machines})
    return request.model_copy(update={"base": base.model_copy(update=changes), "search": search})


def check_design_request(request: DesignRequest) -> None:
    """The checks that concern several fields, for searches built in Python.

    Raises:
        InputError: every problem at once.
    """
    raise_if_any(design_problems(request))


def design_problems(request: DesignRequest) -> Iterator[Problem]:
    """What is wrong with a search beyond single fields: names, dimensions no kernel has, contradictions."""
    for position, hardware in enumerate(request.search.hardware or (request.base.hardware,)):
        path = "base.hardware" if request.search.hardware is None else f"search.hardware.{position}"
        try:
            load_profile(hardware)
        except InputError as error:
            yield from (Problem(path, p.message, p.value, p.example, p.suggestion) for p in error.problems)
    try:
        base_config(request)
    except InputError as error:
        yield from (Problem(f"base.{p.path}", p.message, p.value, p.example, p.suggestion) for p in error.problems)
    for position, kind in enumerate(request.search.kind or ()):
        if kind not in kinds():
            message, meant = f"must be one of {', '.join(kinds())}", closest(kind, kinds())
            yield Problem(f"search.kind.{position}", message, kind, kinds()[-1], meant)
    for position, head_dim in enumerate(request.search.head_dim or ()):
        if head_dim not in SUPPORTED_HEAD_DIMS:
            listed = ", ".join(map(str, SUPPORTED_HEAD_DIMS))
            yield Problem(f"search.head_dim.{position}", f"attention kernels have {listed}", head_dim, "128")
    yield from _size_problems(request)
    yield from _contradictions(request)
    yield from _objective_problems(request)


def _size_problems(request: DesignRequest) -> Iterator[Problem]:
    """A space that cannot even be listed."""
    given = (getattr(request.search, name) for name in type(request.search).model_fields)
    size = 1
    for values in given:
        size *= len(values) if values is not None else 1
    by_bounds = request.search.hidden_size is not None and may_use_bounds(request)
    most = MOST_BOUNDED if by_bounds else MOST_DESIGNS
    if size > most:
        advice = "" if by_bounds else f", {MOST_BOUNDED:,} where search.hidden_size is given and bounds do"
        yield Problem("search", f"spans {size:.3g} combinations; {most:,} are the most that can be listed{advice}")


def has_bounds(request: DesignRequest) -> bool:
    """Whether all that is minimised has a bound: of single steps all but goodput."""
    single = request.base.phase is not Phase.GENERATE and request.base.sequences is None
    return single and Objective.GOODPUT not in request.objectives


def may_use_bounds(request: DesignRequest) -> bool:
    """Whether a large space of the request is searched by bounds."""
    return has_bounds(request) and request.method in (None, SearchMethod.BOUNDS)


def _contradictions(request: DesignRequest) -> Iterator[Problem]:
    limits, search = request.constraints, request.search
    low, high = limits.min_parameters, limits.max_parameters
    if low is not None and high is not None and low > high:
        yield Problem("constraints.min_parameters", f"is above max_parameters, {high:g}", low)
    if request.budget is not None:
        tolerance = limits.budget_tolerance
        if low is not None and request.budget * (1.0 + tolerance) < low:
            yield Problem("budget", f"is below constraints.min_parameters, {low:g}", request.budget)
        if high is not None and request.budget * (1.0 - tolerance) > high:
            yield Problem("budget", f"is above constraints.max_parameters, {high:g}", request.budget)
    for path, least, values in (
        ("min_hidden_size", limits.min_hidden_size, search.hidden_size),
        ("min_num_hidden_layers", limits.min_num_hidden_layers, search.num_hidden_layers),
    ):
        if least is not None and values is not None and max(values) < least:
            yield Problem(
                f"constraints.{path}", f"nothing in the search is that large; its most is {max(values)}", least
            )


def _sla_problems(sla: SlaSpec) -> Iterator[Problem]:
    try:
        sla.resolve()
    except InputError as error:
        yield from error.problems


def _objective_problems(request: DesignRequest) -> Iterator[Problem]:
    if request.method is SearchMethod.BOUNDS and not has_bounds(request):
        message = "whole answers and goodput have no bounds"
        yield Problem("method", message, request.method.value, SearchMethod.OPTUNA.value)
    decode, whole = request.base.phase is Phase.DECODE, request.base.phase is Phase.GENERATE
    wrong = Objective.TTFT if decode else Objective.TPOT
    if Objective.GOODPUT in request.objectives:
        position = request.objectives.index(Objective.GOODPUT)
        if not whole:
            message = f"base.phase is {request.base.phase.value}; requests need whole answers"
            yield Problem(f"objectives.{position}", message, "goodput", "base: {phase: generate, output_length: 256}")
        if request.sla is None:
            yield Problem("sla", "is required for objective goodput", example="{ttft: 1 s, tpot: 50 ms}")
        else:
            yield from _sla_problems(request.sla)
    if wrong in request.objectives and not whole:
        position = request.objectives.index(wrong)
        message = f"base.phase is {request.base.phase.value}, which answers the other"
        yield Problem(f"objectives.{position}", message, wrong.value, "tpot" if decode else "ttft")
    if Objective.COST in request.objectives:
        for hardware in request.search.hardware or (request.base.hardware,):
            if hardware not in request.prices:
                example = "{per_hour: 40.0, source: quote 1234, date: 2026-01-31}"
                yield Problem(f"prices.{hardware}", "is required for objective cost", example=example)
        if request.currency is None:
            yield Problem("currency", "is required with prices", example="EUR")


def base_config(request: DesignRequest) -> TransformerConfig:
    """The base model's shapes.

    Raises:
        InputError: the model is wrong.
    """
    # As a standard Transformer on one device nothing but the model itself can be wrong.
    alone = with_architecture(request.base, BASELINE).model_copy(update={"num_devices": 1})
    return resolve_model(alone).config


def budget_of(request: DesignRequest, config: TransformerConfig) -> int:
    """Parameters to spend."""
    return round(request.budget) if request.budget is not None else parameter_count(config)


def run_axes(request: DesignRequest) -> tuple[Sequence[int | None], Sequence[Quantization | None], Sequence[KernelSet]]:
    """How a design may run, whatever its shape: channels, number formats, kernel sets."""
    search, base = request.search, request.base
    channels = search.channels or (base.runtime.collective.channels,)
    return channels, search.quantization or (base.quantization,), search.kernels or (base.runtime.kernels,)


def designs(request: DesignRequest) -> Iterator[Design]:
    """Every design of the space, each once."""
    config, search = base_config(request), request.search
    budget = budget_of(request, config)
    seen: set[Design] = set()
    for hardware in search.hardware or (request.base.hardware,):
        available = len(load_profile(hardware).topology.gpus)
        counts = search.num_devices or (request.base.num_devices or available,)
        for num_devices, kind in product(counts, search.kind or searched()):
            record = architecture(kind)
            if num_devices > available or record.degenerate(record.own(), num_devices):
                continue
            for design in _shapes(request, config, budget, hardware, num_devices, kind):
                if design not in seen:
                    seen.add(design)
                    yield design


def _shapes(
    request: DesignRequest,
    config: TransformerConfig,
    budget: int,
    hardware: str,
    num_devices: int,
    kind: str,
) -> Iterator[Design]:
    search, record = request.search, architecture(kind)
    own_dim = config.head_dim if config.head_dim in SUPPORTED_HEAD_DIMS else 128
    for ways, layers, head_dim, groups, expansion in product(
        (1,) if record.written is None else search.ways or (num_devices,),
        search.num_hidden_layers or (config.num_hidden_layers,),
        search.head_dim or (own_dim,),
        search.num_key_value_groups or (config.num_attention_heads // config.num_key_value_heads,),
        search.ffn_expansion or (default_ffn_expansion(config, kind),),
    ):
        shape = Design(hardware, num_devices, kind, ways, layers, head_dim, head_dim, groups, float(expansion), None)
        runs = tuple(product(*run_axes(request)))
        widths = search.hidden_size or widths_for_budget(shape, config, budget)
        for width, (channels, quantization, kernels) in product(widths, runs):
            found = replace(shape, hidden_size=width, channels=channels, quantization=quantization, kernels=kernels)
            if divides(found):
                yield found
