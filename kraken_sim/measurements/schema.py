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

from pydantic import Field, ValidationError

from kraken_sim.errors import SHOWN, InputError, Problem
from kraken_sim.files.bounded import MEASUREMENT_FILE, reading
from kraken_sim.files.model import FileModel
from kraken_sim.files.problems import words_of
from kraken_sim.files.strict_json import parse_json
from kraken_sim.measurements.lines import MAX_LINE_BYTES, RECORD, Line, StoredRecords, kind_of_type, lines_of
from kraken_sim.measurements.records.record import NoteRecord, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

SCHEMA_VERSION: Final = 1
"""Version of the format of measurement files; a definition. A file of another version is refused."""

DEFAULT_CONDITION: Final = "nccl-default"
CPU_CONDITION: Final = "gloo"
MOST_HELD: Final = 20_000
"""Records up to which they are held in memory, and the most of a type that a fit takes: three times the longest file of
ours, some 40 MB."""

_STOP_AFTER: Final = 10_000
"""Problems after which nothing more is read; a limit of ours: nobody reads on, and they take time."""


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

AGAIN: Final = "-again"
"""Behind the name of a condition: the same in another process, for what differs from process to process."""


def condition_named(name: str) -> Condition:
    """The condition of a name, `AGAIN` behind it or not; a KeyError where there is none."""
    return CONDITIONS[name.removesuffix(AGAIN)]


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
    device_ids: tuple[str, ...] = ()
    """A hash of each card's UUID: equal for the same card, and nothing else."""
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

RecordType = TypeVar("RecordType", bound=FileModel)


@dataclass(frozen=True, slots=True)
class MeasurementFile:
    """A whole file; `truncated` says that its last line was half written and left out."""

    source: str
    header: Header
    records: Sequence[Record]
    truncated: bool = False

    def select(self, record_type: type[RecordType]) -> list[RecordType]:
        """The records of one type, in file order."""
        return list(self.each(record_type))

    def sample(self, record_type: type[RecordType]) -> list[RecordType]:
        """The same for a fit or a comparison: of more than `MOST_HELD` so many, drawn alike from all of them."""
        return list(self.each(record_type, MOST_HELD))

    def drawn_from(self) -> dict[str, int]:
        """The kinds of record of which `sample` draws, and how many records there are of each."""
        counts = self.records.counts() if isinstance(self.records, StoredRecords) else {}
        return {kind: count for kind, count in counts.items() if count > MOST_HELD}

    def each(self, record_type: type[RecordType], most: int | None = None) -> Iterator[RecordType]:
        """The records of one type one after the other, in file order; of a long file none stays in memory."""
        records: Iterable[Record] = self.records
        if isinstance(self.records, StoredRecords):
            records = self.records.of_kind(kind_of_type(record_type), most)
        return (record for record in records if isinstance(record, record_type))

    @property
    def notes(self) -> list[NoteRecord]:
        """What was skipped or failed."""
        return self.select(NoteRecord)


def read_measurements(path: Path) -> MeasurementFile:
    """Read and check a measurement file, line by line; the records of a long one stay in the file.

    Warns (`MeasurementWarning`) when the last line is half written, which a killed run leaves behind.

    Raises:
        InputError: the file can't be read, has no header, another schema version, lines that are no records or that
            repeat a key; lists all of them, of very many the first and how many more.
    """
    source = str(path)
    with reading(path, MEASUREMENT_FILE, source=source) as file:
        lines = lines_of(file)
        first = next(lines, None)
        if first is None:
            raise InputError.single("line 1", "the file is empty; the first line must be a header", source=source)
        header = _header(first, source)
        found = _Reading(path)
        for line in lines:
            found.add(line)
            if found.num_problems >= _STOP_AFTER:
                break
    if found.num_problems:
        raise InputError(found.problems, source, omitted=found.num_problems - len(found.problems))
    if found.truncated:
        warnings.warn(f"{source}: the last line is half written and was left out", MeasurementWarning, stacklevel=2)
    return MeasurementFile(source, header, found.records(), found.truncated)


def _header(line: Line, source: str) -> Header:
    data = None if line.is_too_long else _json(line)
    if not isinstance(data, dict) or data.get("kind") != "header":
        example = '{"kind": "header", "schema_version": 1, ...}'
        message = "no header; is this a measurement file?"
        raise InputError.single("line 1", message, line.text()[:60], example, source=source)
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        message = f"this version reads schema {SCHEMA_VERSION} only; measure again or use the matching version"
        raise InputError.single("line 1.schema_version", message, version, str(SCHEMA_VERSION), source=source)
    try:
        return Header.model_validate(data)
    except ValidationError as error:
        raise InputError(_problems(1, error), source) from None


class _Reading:
    """What has been read so far: records, held or where they are, and what is wrong."""

    def __init__(self, path: Path) -> None:
        self.problems: list[Problem] = []
        self.num_problems = 0
        self.truncated = False
        self._held: list[Record] = []
        self._stored = StoredRecords(path)
        self._line_of: dict[int, int] = {}

    def add(self, line: Line) -> None:
        """Reads one more line."""
        if line.is_too_long:
            self._problem(Problem(f"line {line.number}", f"is longer than {MAX_LINE_BYTES} bytes"))
            return
        try:
            record = RECORD.validate_json(line.data)
        except ValidationError:
            self._add_wrong(line)
            return
        # Of a million keys their hashes are kept: that two of 64 bits are equal by chance does not happen.
        first = self._line_of.setdefault(hash(record.key), line.number)
        if first != line.number:
            message = f"repeats the case of line {first}"
            self._problem(Problem(f"line {line.number}", message, record.key))
        self._stored.add(line.offset, record.kind)
        if len(self._stored) <= MOST_HELD:
            self._held.append(record)
        else:
            self._held.clear()

    def _add_wrong(self, line: Line) -> None:
        data = _json(line)
        if data is None and not line.ended:
            self.truncated = True
        elif data is None:
            self._problem(Problem(f"line {line.number}", "no JSON", line.text()[:60]))
        else:
            try:
                RECORD.validate_python(data)
            except ValidationError as error:
                for problem in _problems(line.number, error):
                    self._problem(problem)
            else:
                self._problem(Problem(f"line {line.number}", "no JSON that every reader takes", line.text()[:60]))

    def _problem(self, problem: Problem) -> None:
        self.num_problems += 1
        if len(self.problems) < SHOWN:
            self.problems.append(problem)

    def records(self) -> Sequence[Record]:
        """All records."""
        return tuple(self._held) if len(self._stored) <= MOST_HELD else self._stored


def _json(line: Line) -> Any:
    """The content of a line; None where it is no JSON that a measurement could be."""
    try:
        return parse_json(line.text())
    except ValueError:
        return None


def _problems(number: int, error: ValidationError) -> list[Problem]:
    found = []
    for detail in error.errors(include_url=False):
        place = ".".join(str(part) for part in detail["loc"])
        shown = None if detail["type"] == "missing" else str(detail.get("input"))[:60]
        found.append(Problem(f"line {number}.{place}" if place else f"line {number}", words_of(detail), shown))
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
