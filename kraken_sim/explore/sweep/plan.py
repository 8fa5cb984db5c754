"""What a sweep runs: fixed fields, axes, their product, and a fingerprint that says whether two sweeps are the same."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from kraken_sim.architectures.registry import added
from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.explore.sweep.axes import Axis, read_cases, split_axes, zipped
from kraken_sim.explore.sweep.axis_rows import CountedRows, Row, column_of, row_of
from kraken_sim.files.software import digest, software
from kraken_sim.files.strict_yaml import read_yaml
from kraken_sim.models.hf import config_file
from kraken_sim.profiles.load import is_path, profile_files
from kraken_sim.scenario.spec import section_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kraken_sim.architectures.architecture import Architecture
    from kraken_sim.files.strict_yaml import YamlDocument

COMBINATIONS: Final = ("product", "zip")
CHUNK_LEAST, CHUNKS, CHUNK_OFTEN, CHUNKS_OFTEN, CHUNK_MOST = 4, 64, 4_000, 2_000, 10_000
"""Points of a chunk, which is what one task runs and what a killed sweep may have to run again: so many that there are
`CHUNKS`, at most `CHUNK_OFTEN`; of so many points that there would be more than `CHUNKS_OFTEN` files, up to
`CHUNK_MOST`, some seconds of one core at most. Points of one structure are answered together, so that many are faster.
Choices of ours."""

MOST_POINTS: Final = 100_000_000
"""Points of a sweep: a limit of ours, half a day of one core and some GB of results."""


@dataclass(frozen=True)
class Plan:
    """The points of a sweep, numbered from 0: the first axis changes slowest.

    `fixed` holds the fields of one value, `folder` is what relative paths in the scenario are relative to.
    """

    name: str
    fixed: Mapping[str, Any]
    axes: tuple[Axis, ...]
    folder: str | None = None
    document: YamlDocument | None = None
    """The file it is from, for the lines of its problems."""
    what: ClassVar[str] = "sweep"

    def located(self, error: InputError) -> InputError:
        """The same error with the lines of the file."""
        return error if self.document is None or error.source is not None else self.document.error(error.problems)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The swept fields, the columns of a result."""
        return tuple(path for axis in self.axes for path in axis.paths)

    @cached_property
    def num_points(self) -> int:
        """Points of the whole product."""
        return prod(axis.length for axis in self.axes)

    @cached_property
    def chunk_size(self) -> int:
        """Points of one chunk; depends on the plan alone, so that a resumed sweep has the same chunks."""
        wanted = max(CHUNK_LEAST, min(CHUNK_OFTEN, -(-self.num_points // CHUNKS)))
        return min(CHUNK_MOST, max(wanted, self.num_points // CHUNKS_OFTEN))

    @property
    def num_chunks(self) -> int:
        """Chunks in all."""
        return -(-self.num_points // self.chunk_size)

    def points_of(self, chunk: int) -> int:
        """How many points a chunk has."""
        return min(self.chunk_size, self.num_points - chunk * self.chunk_size)

    def values(self, number: int) -> Row:
        """The swept fields' values at one point."""
        rows: list[Row] = []
        for axis in reversed(self.axes):
            number, index = divmod(number, axis.length)
            rows.append(row_of(axis.rows, index))
        return tuple(value for row in reversed(rows) for value in row)

    def chunk(self, number: int) -> list[Row]:
        """The points of one chunk."""
        first = number * self.chunk_size
        return [self.values(point) for point in range(first, min(first + self.chunk_size, self.num_points))]

    def column_values(self, path: str) -> Iterator[Any]:
        """Every value that one field takes, perhaps several times, of ranges the ends."""
        for axis in self.axes:
            if path in axis.paths:
                yield from column_of(axis.rows, axis.paths.index(path))

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same points, software and content of files, and for no others; folders may be renamed."""
        axes = [[axis.paths, repr(rows) if isinstance(rows := axis.rows, CountedRows) else rows] for axis in self.axes]
        content = {"fixed": self.fixed, "axes": axes, "software": software(), "files": self._files()}
        content["architectures"] = [(record.kind, source_of(record)) for record in added()]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]

    def _files(self) -> dict[str, list[str]]:
        """Digests of the files that points are read from, by what the scenario calls them.

        A file that is missing or no YAML has none here; the points that need it say so.
        """
        digests = {}
        for field, files_of in _FILES.items():
            for value in self._values_of(field):
                path = value if field == "hardware" and not is_path(value) else str(Path(self.folder or "", value))
                digests[f"{field} {value}"] = [digest(file) for file in files_of(path) if os.path.isfile(file)]
        return digests

    def _values_of(self, field: str) -> list[str]:
        """Every text that a field has at some point."""
        held: Any = self.fixed
        for name in field.split("."):
            held = held.get(name) if isinstance(held, dict) else None
        return sorted({value for value in (held, *self.column_values(field)) if isinstance(value, str)})


def source_of(record: Architecture[Any, Any]) -> str:
    """A digest of the file that an architecture's program is written in, where there is one."""
    file = Path(getattr(getattr(record.program, "__code__", None), "co_filename", ""))
    return digest(file) if file.is_file() else str(file)


def machine_files(name_or_path: str) -> tuple[Path, ...]:
    """The files that a machine is read from, whether or not they are right."""
    try:
        return profile_files(name_or_path)
    except InputError:
        return (Path(name_or_path),)


def _config_files(path: str) -> tuple[Path, ...]:
    return (config_file(path),)


def _one_file(path: str) -> tuple[Path, ...]:
    return (Path(path),)


_FILES: Final[Mapping[str, Callable[[str], tuple[Path, ...]]]] = {
    "hardware": machine_files,
    "model.config": _config_files,
    "architecture.path": _one_file,
    "runtime.host": _one_file,
    "runtime.host.file": _one_file,
}
"""Fields of a scenario that name files, and the files that they are read from."""


def plan_of(data: object, folder: Path | None = None) -> Plan:
    """The plan of a scenario whose fields may be lists or ranges.

    The section `sweep` says how they combine: `combine: product` (the default) or `zip`, and `cases`, a CSV file of
    dotted paths whose lines are multiplied with the other fields.

    Raises:
        InputError: all that is wrong with the fields and their lists; values are checked when their points run.
    """
    if not isinstance(data, dict):
        raise InputError.single(
            "", "a sweep is a mapping of a scenario's fields", example="context_length: [128, 2048]"
        )
    known = section_fields()
    section = data.get("sweep")
    combine, cases = _combination(section)
    fixed, axes = split_axes({name: value for name, value in data.items() if name != "sweep"}, known)
    if combine == "zip":
        axes = zipped(axes)
    if cases is not None:
        axes.append(read_cases((folder / cases) if folder else Path(cases), known))
    _check_paths(fixed, axes)
    return Plan(str(fixed.get("name", "sweep")), fixed, tuple(axes), None if folder is None else str(folder.resolve()))


def load_plan(path: Path | YamlDocument) -> Plan:
    """The plan in a file, or in one that is open already; see `plan_of`.

    Raises:
        InputError: the file can't be read or any field is wrong, with line numbers.
    """
    document = read_yaml(path)
    try:
        return replace(plan_of(document.data, document.folder), document=document)
    except InputError as error:
        raise (document.error(error.problems) if error.source is None else error) from None


def _combination(section: object) -> tuple[str, str | None]:
    if section is None:
        return "product", None
    if not isinstance(section, dict):
        raise InputError.single("sweep", "must be a mapping", example="{combine: zip}")
    problems = [
        Problem(f"sweep.{key}", "unknown field", suggestion=closest(str(key), ["combine", "cases"]))
        for key in section
        if key not in ("combine", "cases")
    ]
    combine, cases = section.get("combine", "product"), section.get("cases")
    if combine not in COMBINATIONS:
        problems.append(Problem("sweep.combine", "must be product or zip", str(combine), "combine: zip"))
    if cases is not None and not isinstance(cases, str):
        problems.append(Problem("sweep.cases", "must be the path of a CSV file", str(cases), "cases: cases.csv"))
    if problems:
        raise InputError(problems)
    return combine, cases


def _check_paths(fixed: Mapping[str, Any], axes: list[Axis]) -> None:
    """No field twice; a field with one value gives way to a CSV column of its name."""
    paths = [path for axis in axes for path in axis.paths]
    problems = [Problem(path, "is swept twice") for path in sorted(set(paths)) if paths.count(path) > 1]
    for path in paths:
        parent, _, name = path.rpartition(".")
        holder: Any = fixed
        for part in parent.split(".") if parent else []:
            holder = holder.get(part, {}) if isinstance(holder, dict) else {}
        if isinstance(holder, dict) and name in holder:
            problems.append(Problem(path, "has a value of its own and is a column of the cases"))
    if problems:
        raise InputError(problems)
