"""The measurement file: JSON Lines, a header and then one record a line, written as the measurement goes.

    {"kind": "header", "schema_version": 1, "device_name": ..., "num_devices": 2, ...}
    {"kind": "gemm", "m": 512, "n": 4096, "k": 1024, ..., "time_s": [1.21e-05, 1.23e-05, 1.26e-05]}

`read_measurements` is the one way in: it reports every problem of a file at once. No torch here: the
simulator reads these files where torch is not installed.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from kraken_sim.errors import InputError, Problem
from kraken_sim.files.model import FileModel
from kraken_sim.measurements.records import Case, NoteRecord, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SCHEMA_VERSION: Final = 1
"""Version of the format of measurement files; a definition. A file of another version is refused."""

DEFAULT_CONDITION: Final = "nccl-default"
CPU_CONDITION: Final = "gloo"
_MAX_PROBLEMS: Final = 50
"""Problems of a file that are shown at most; a limit of ours, for the reader."""


class MeasurementWarning(UserWarning):
    """Something about a measurement file that a person should know and that spoils nothing."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to run collectives: what it sets in the environment, and the same thing in a scenario.

    `collective` is `runtime.collective` of a scenario, None where no scenario describes it.
    """

    name: str
    description: str
    environment: Mapping[str, str] = field(default_factory=dict)
    collective: Mapping[str, str | int | None] | None = None


def _channels(count: int) -> Condition:
    return Condition(
        name=f"channels-{count}",
        description=f"NCCL with exactly {count} channel{'s' if count > 1 else ''}",
        environment={"NCCL_MIN_NCHANNELS": str(count), "NCCL_MAX_NCHANNELS": str(count)},
        collective={"library": "nccl", "channels": count, "transport": "auto"},
    )


CONDITIONS: Final[Mapping[str, Condition]] = MappingProxyType(
    {
        condition.name: condition
        for condition in (
            Condition(
                DEFAULT_CONDITION,
                "NCCL as it is",
                collective={"library": "nccl", "channels": None, "transport": "auto"},
            ),
            _channels(4),
            _channels(8),
            _channels(2),
            _channels(1),
            Condition(
                "p2p-off",
                "NCCL through host memory",
                environment={"NCCL_P2P_DISABLE": "1"},
                collective={"library": "nccl", "channels": None, "transport": "shm"},
            ),
            Condition(CPU_CONDITION, "gloo between processes on CPUs"),
        )
    }
)
"""Every named condition, most telling first."""


class Host(FileModel):
    """The computer around the devices."""

    cpu_model: str | None = None
    num_cpus: int
    memory_bytes: int | None = None
    platform: str
    python: str


class Clocks(FileModel):
    """Clocks and power of device 0 as found, before any work."""

    sm_hz: float | None = None
    sm_max_hz: float | None = None
    memory_hz: float | None = None
    memory_max_hz: float | None = None
    power_limit_w: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None


class MachineTopology(FileModel):
    """How the devices see each other: `nvidia-smi topo -m`, and which pairs can read each other's memory."""

    text: str | None = None
    link: str | None = None
    """The label of the worst pair in that text, such as NV18, PIX or SYS."""
    peer_access: tuple[tuple[bool, ...], ...] = ()


class Header(FileModel):
    """The machine and the software that were measured."""

    kind: Literal["header"] = "header"
    schema_version: Literal[1] = SCHEMA_VERSION
    started_at: str
    """UTC, ISO 8601."""
    suite: str
    device_type: Literal["cuda", "cpu"]
    device_name: str
    num_devices: int = Field(ge=1)
    compute_capability: str | None = None
    num_sms: int | None = None
    memory_bytes: int | None = None
    l2_bytes: int | None = None
    driver: str | None = None
    torch: str
    cuda: str | None = None
    nccl: str | None = None
    cudnn: str | None = None
    host: Host
    clocks: Clocks = Clocks()
    topology: MachineTopology = MachineTopology()
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables that were set and that change what NCCL or CUDA does."""
    conditions: dict[str, dict[str, Any] | None] = Field(default_factory=dict)
    """`runtime.collective` of a scenario by the name of the condition."""
    profile_stub: dict[str, Any] = Field(default_factory=dict)
    """What a hardware profile of this machine could begin with."""


IDENTITY: Final = ("device_type", "device_name", "num_devices", "torch", "cuda", "nccl")
"""Header fields that must be equal for two measurements to belong in one file."""

RecordType = TypeVar("RecordType", bound="Case")


@dataclass(frozen=True, slots=True)
class MeasurementFile:
    """A whole file; `truncated` says that its last line was half written and left out."""

    source: str
    header: Header
    records: tuple[Record, ...]
    truncated: bool = False

    def select(self, record_type: type[RecordType]) -> list[RecordType]:
        """The records of one type, in file order."""
        return [record for record in self.records if isinstance(record, record_type)]

    @property
    def notes(self) -> list[NoteRecord]:
        """What was skipped or failed."""
        return [record for record in self.records if isinstance(record, NoteRecord)]


_RECORD: Final[TypeAdapter[Record]] = TypeAdapter(Record)


def read_measurements(path: Path) -> MeasurementFile:
    """Read and check a measurement file.

    Warns (`MeasurementWarning`) when the last line is half written, which a killed run leaves behind.

    Raises:
        InputError: no such file, no header, another schema version, lines that are no records or that repeat
            a key; lists all of them.
    """
    source = str(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError.single("", f"cannot read the measurement file: {error.strerror}", source=source) from None
    lines = text.split("\n")
    last_is_open = lines[-1] != ""
    rows = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise InputError.single("line 1", "the file is empty; the first line must be a header", source=source)
    header = _header(rows[0][1], source)
    records, problems, truncated = _records(rows[1:], last_is_open)
    if problems:
        shown = problems[:_MAX_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(Problem("", f"and {len(problems) - len(shown)} more problems"))
        raise InputError(shown, source)
    if truncated:
        warnings.warn(f"{source}: the last line is half written and was left out", MeasurementWarning, stacklevel=2)
    return MeasurementFile(source, header, tuple(records), truncated)


def _header(line: str, source: str) -> Header:
    data = _json(line)
    if not isinstance(data, dict) or data.get("kind") != "header":
        example = '{"kind": "header", "schema_version": 1, ...}'
        raise InputError.single("line 1", "no header; is this a measurement file?", line[:60], example, source=source)
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        message = f"this version reads schema {SCHEMA_VERSION} only; measure again or use the matching version"
        raise InputError.single("line 1.schema_version", message, version, str(SCHEMA_VERSION), source=source)
    try:
        return Header.model_validate(data)
    except ValidationError as error:
        raise InputError(_problems(1, error), source) from None


def _records(rows: list[tuple[int, str]], last_is_open: bool) -> tuple[list[Record], list[Problem], bool]:
    records: list[Record] = []
    problems: list[Problem] = []
    first_line_of: dict[str, int] = {}
    for index, (number, line) in enumerate(rows):
        is_last = index == len(rows) - 1
        data = _json(line)
        if data is None and is_last and last_is_open:
            return records, problems, True
        if data is None:
            problems.append(Problem(f"line {number}", "no JSON", line[:60]))
            continue
        try:
            record = _RECORD.validate_python(data)
        except ValidationError as error:
            problems += _problems(number, error)
            continue
        first = first_line_of.setdefault(record.key, number)
        if first != number:
            problems.append(Problem(f"line {number}", f"repeats the case of line {first}", record.key))
        records.append(record)
    return records, problems, False


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _problems(number: int, error: ValidationError) -> list[Problem]:
    found = []
    for detail in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in detail["loc"])
        shown = str(detail.get("input"))[:60]
        found.append(Problem(f"line {number}.{place}" if place else f"line {number}", detail["msg"], shown))
    return found


def to_line(entry: Header | Record) -> str:
    """One line of the file, without its newline: compact JSON, numbers to six significant digits."""
    data: dict[str, Any] = {"kind": entry.kind}
    if isinstance(entry, Header):
        data["schema_version"] = entry.schema_version
    data |= entry.model_dump(mode="json", exclude_defaults=True)
    return json.dumps(_compact(data), separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def to_text(entries: Iterable[Header | Record]) -> str:
    """Whole lines, each with its newline."""
    return "".join(to_line(entry) + "\n" for entry in entries)


def _compact(value: Any) -> Any:
    if isinstance(value, float):
        short = float(f"{value:.6g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    if isinstance(value, dict):
        return {name: _compact(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_compact(item) for item in value]
    return value
