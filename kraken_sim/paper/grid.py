"""The file of a grid: models x context lengths x devices under one set-up, and named alternatives to it.

    extends: paper_grid.yaml        # optional: the grid whose keys hold where this file has none
    hardware: a100-sxm4-40gb-x8
    models: [{preset: 1.3B}, {preset: 65B, layers_fraction: 0.25}]
    context_lengths: [128, 2048]
    num_devices: [4, 8]
    runtime: {launch: eager, ...}   # as in a scenario
    assumptions:                    # each changes one thing of the set-up, or of another assumption
      - {name: blocking, description: ..., runtime: {overlap: false}}
    interconnects:                  # what-ifs: the same machine with other links between its GPUs
      - {name: NVLink 4, link: nvlink, count: 18, bandwidth: 25 GB/s}

A key given replaces the extended grid's whole: a list replaces a list.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    Field,
    StrictStr,
    ValidationError,
    model_validator,
)

from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.files.bounded import real_path
from kraken_sim.files.model import Count, FileModel, Name, NotEmpty, quantity
from kraken_sim.files.problems import fields_error, problems_of
from kraken_sim.files.shipped import data_dir
from kraken_sim.files.strict_yaml import YamlDocument, read_yaml
from kraken_sim.models.presets import preset_fields
from kraken_sim.profiles.load import profile_path
from kraken_sim.program.ops import ComputeDType, DType
from kraken_sim.scenario.spec import ArchitectureSpec, RuntimeSpec, with_absolute_paths
from kraken_sim.units import Dimension

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STANDARD, PARALLEL, KRAKEN = KINDS = ("standard", "parallel", "kraken")
"""The architectures that the paper compares, by name: its question is about these three."""

GemmShape = Annotated[str, Field(pattern=r"^\d+x\d+x\d+$")]
LaunchSeconds = Annotated[float, quantity(Dimension.TIME), Field(ge=0.0)]
BytesPerS = Annotated[float, quantity(Dimension.BANDWIDTH), Field(gt=0.0)]


class OverlapModel(StrEnum):
    """How a collective beside compute is timed."""

    SIMULATED = "simulated"
    """The two share SMs, HBM and launches."""
    IDEAL = "ideal"
    """max(compute, communication), as tools that add kernels up have it."""


class NcclLatency(StrEnum):
    """Whose latencies NCCL's calls have."""

    BACK_TO_BACK = "back_to_back"
    """As calibrated: nccl-tests."""
    EAGER = "eager"
    """As an eager profile of a DGX A100 saw them."""


class Widths(StrEnum):
    """Which width a Kraken sub-layer gets."""

    BUDGET = "budget"
    """The aligned one nearest to the parameter budget's."""
    NARROWEST = "narrowest"
    """The smallest multiple of 64 within 5 % of the budget's."""
    WIDEST = "widest"
    """The largest multiple of 64 within 5 % of the budget's."""


class GridModel(FileModel):
    """One model of the grid, perhaps with part of its layers only, or with Kraken widths of its own."""

    preset: StrictStr = Field(examples=["6.7B"])
    layers_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    kraken_hidden_size: dict[int, Count] = Field(
        default_factory=dict, description="Width of a sub-layer by number of devices.", examples=[{4: 2560}]
    )


class Reported(FileModel):
    """What the publication says about the grid, in per cent."""

    min_speedup_percent: float
    max_speedup_percent: float
    geomean_speedup_percent: float
    source: Name


class LaunchCostsSpec(FileModel):
    """Launch costs of another host than the profile's; see `LaunchCosts` for what each one is."""

    eager_kernel_s: LaunchSeconds | None = Field(default=None, examples=["3.8 us"])
    eager_collective_s: LaunchSeconds | None = Field(default=None, examples=["10 us"])
    eager_event_s: LaunchSeconds | None = Field(default=None, examples=["3.8 us"])
    eager_kernel_gap_s: LaunchSeconds | None = Field(default=None, examples=["1.6 us"])
    source: StrictStr = Field(min_length=1, max_length=2000)

    def values(self) -> dict[str, float]:
        """The costs given, by the name of their field."""
        return self.model_dump(exclude_none=True, exclude={"source"})


class _SetupSpec(FileModel):
    """What a grid says about the set-up, and an assumption changes."""

    runtime: RuntimeSpec = Field(default_factory=RuntimeSpec)
    launch_costs: LaunchCostsSpec | None = None
    nccl_latency: NcclLatency = NcclLatency.BACK_TO_BACK
    overlap_model: OverlapModel = OverlapModel.SIMULATED
    kraken_widths: Widths = Widths.BUDGET
    gemm_factors: dict[GemmShape, Annotated[float, Field(gt=0.0)]] = Field(
        default_factory=dict, description="How many times as long GEMMs of some shapes take as the model says."
    )


@dataclass(frozen=True, slots=True)
class Setup:
    """A whole set-up, as one run of the grid has it; `launch_costs` None leaves the profile's."""

    runtime: RuntimeSpec
    launch_costs: LaunchCostsSpec | None
    nccl_latency: NcclLatency
    overlap_model: OverlapModel
    kraken_widths: Widths
    gemm_factors: Mapping[str, float]


class Assumption(_SetupSpec):
    """A named alternative: the main set-up, or that of the assumption `change_of`, with what this one gives.

    Of `runtime` the keys given replace those of the set-up it changes, `collective` as a whole.
    """

    name: Name
    description: Name
    change_of: StrictStr | None = Field(default=None, examples=["nccl"])

    def applied_to(self, base: Setup) -> Setup:
        """The base with this assumption's change."""
        given = {field.name: getattr(self, field.name) for field in fields(Setup)}
        kept = {name: getattr(base, name) for name in given if name not in self.model_fields_set}
        runtime = {**base.runtime.model_dump(exclude_unset=True), **self.runtime.model_dump(exclude_unset=True)}
        return Setup(**{**given, **kept, "runtime": RuntimeSpec.model_validate(runtime)})


class LinkClass(StrEnum):
    """What joins the GPUs of an interconnect."""

    NVLINK = "nvlink"
    """Each GPU's links go to one NVSwitch."""
    PCIE = "pcie"
    """No NVLink: PCIe up to the hosts, as the machine has it."""


class InterconnectSpec(FileModel):
    """Other links between the machine's GPUs; bandwidth is one link's, in one direction."""

    name: Name
    link: LinkClass = Field(examples=["nvlink"])
    bandwidth: BytesPerS = Field(examples=["25 GB/s"])
    count: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    gen: Annotated[int, Field(strict=True, ge=3, le=6)] | None = Field(default=None, examples=[4])

    @model_validator(mode="after")
    def _has_what_its_link_needs(self) -> Self:
        if self.link is LinkClass.PCIE and self.gen is None:
            raise fields_error("a pcie link needs its generation", "gen")
        if self.link is LinkClass.NVLINK and self.gen is not None:
            raise fields_error("is for pcie only", "gen")
        return self

    @property
    def device_bytes_per_s(self) -> float:
        """What one GPU can send, nominally."""
        return self.count * self.bandwidth


class Grid(_SetupSpec):
    """Models x context lengths x numbers of devices, each as standard, parallel and Kraken, and as `architectures`."""

    name: Name
    hardware: Name
    models: Annotated[tuple[GridModel, ...], NotEmpty] = Field(examples=["[{preset: 6.7B}]"])
    context_lengths: Annotated[tuple[Count, ...], NotEmpty] = Field(examples=["[128, 2048]"])
    num_devices: Annotated[tuple[Count, ...], NotEmpty] = Field(examples=["[4, 8]"])
    batch_size: Count = 1
    dtype: ComputeDType = DType.FLOAT16
    architectures: tuple[ArchitectureSpec, ...] = Field(
        default=(), description="Others beside these three, under the main set-up.", examples=["[{kind: ladder}]"]
    )
    reported: Reported | None = None
    assumptions: tuple[Assumption, ...] = ()
    interconnects: tuple[InterconnectSpec, ...] = ()

    @model_validator(mode="after")
    def _names_are_clear(self) -> Self:
        seen: set[str] = set()
        for index, assumption in enumerate(self.assumptions):
            if assumption.name in seen:
                raise fields_error(f"{assumption.name!r} names two assumptions", f"assumptions.{index}.name")
            if assumption.change_of is not None and assumption.change_of not in seen:
                known = ", ".join(seen) or "none"
                guess = closest(assumption.change_of, list(seen))
                hint = f"; did you mean {guess!r}?" if guess else ""
                message = f"{assumption.change_of!r} is no assumption above this one (known: {known}){hint}"
                raise fields_error(message, f"assumptions.{index}.change_of")
            seen.add(assumption.name)
        return self

    @property
    def setup(self) -> Setup:
        """The main set-up."""
        return Setup(**{field.name: getattr(self, field.name) for field in fields(Setup)})

    def setups(self) -> Iterator[tuple[Assumption, Setup]]:
        """Every assumption with the whole set-up that it stands for, in the file's order."""
        done: dict[str | None, Setup] = {None: self.setup}
        for assumption in self.assumptions:
            done[assumption.name] = assumption.applied_to(done[assumption.change_of])
            yield assumption, done[assumption.name]


def load_grid(name_or_path: str | None = None) -> Grid:
    """A grid's file, or one that ships by its name; by default the paper's.

    Raises:
        InputError: The file is missing or wrong, with every problem.
    """
    path = _grid_path(name_or_path or "paper_grid")
    document = _read(path)
    try:
        grid = Grid.model_validate(_with_absolute_wirings(document.data, path.parent))
    except ValidationError as error:
        raise document.error(problems_of(error, Grid)) from None
    if problems := list(_unknown_names(grid)):
        raise document.error(problems)
    return grid


def _with_absolute_wirings(data: object, folder: Path) -> object:
    """The same data with the files of `architectures` from the grid's folder."""
    if not isinstance(data, dict) or not isinstance(data.get("architectures"), list):
        return data
    found = [with_absolute_paths({"architecture": item}, folder)["architecture"] for item in data["architectures"]]
    return {**data, "architectures": found}


def _grid_path(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if os.path.exists(path) or path.name != name_or_path or path.suffix:
        return path
    shipped = {file.stem: file for file in data_dir("scenarios").glob("paper_grid*.yaml")}
    if name_or_path not in shipped:
        message = f"there is no such file, and no grid of this name ships; known are {', '.join(sorted(shipped))}"
        raise InputError.single("--grid", message, name_or_path, suggestion=closest(name_or_path, list(shipped)))
    return shipped[name_or_path]


def _read(path: Path, extended_by: tuple[Path, ...] = ()) -> YamlDocument:
    """The file's content, with that of the grids it extends below it."""
    document = read_yaml(path)
    if not isinstance(document.data, dict) or "extends" not in document.data:
        return document
    own: dict[str, Any] = dict(document.data)
    name = own.pop("extends")
    if not isinstance(name, str):
        raise document.error([Problem("extends", "must be the name of a grid's file", example="paper_grid.yaml")])
    base = next((file for file in (path.parent / name, data_dir("scenarios") / name) if os.path.isfile(file)), None)
    if base is None or real_path(base) in (*extended_by, real_path(path)):
        message = "there is no such grid beside this file and none of this name ships"
        if base is not None:
            message = "grids extend each other in a circle"
        raise document.error([Problem("extends", message, name, "paper_grid.yaml")])
    inherited = _read(base, (*extended_by, real_path(path))).data
    try:
        Grid.model_validate(inherited)
    except ValidationError as error:
        raise InputError(problems_of(error, Grid), str(base)) from None
    assert isinstance(inherited, dict)  # it is a valid grid
    return YamlDocument({**inherited, **own}, document.lines, document.source)


def _unknown_names(grid: Grid) -> Iterator[Problem]:
    """Machines and models that do not exist."""
    for index, model in enumerate(grid.models):
        try:
            preset_fields(model.preset, at=f"models.{index}.preset")
        except InputError as error:
            yield from error.problems
    try:
        profile_path(grid.hardware)
    except InputError as error:
        yield from error.problems
