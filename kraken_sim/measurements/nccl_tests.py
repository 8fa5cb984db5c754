"""Reads measured collectives: what nccl-tests prints, or a CSV of sizes and times.

nccl-tests' rows are found by its header; NCCL's log lines between them are read for what they say of the run, as are
nccl-tests' own comments, and mpirun's and srun's tags are taken off. A CSV needs a column for the
size and one for the time, under one of the names below, and may have more: rows of other collectives or other
numbers of GPUs are left out where columns tell, and `where` leaves out others.
"""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kraken_sim.costs.collectives.kinds import collective_kind
from kraken_sim.errors import InputError, closest
from kraken_sim.files.bounded import TIMES_FILE, read_text
from kraken_sim.files.digits import plain_count, plain_number
from kraken_sim.measurements.nccl_tests_header import RunSaid, starts_run, untagged, with_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kraken_sim.program.ops import CollectiveKind

SIZE_COLUMNS = ("message_bytes", "size_bytes", "size", "bytes", "size(b)")
TIME_COLUMNS: Mapping[str, float] = {
    "time_s": 1.0, "latency_s": 1.0, "time_ms": 1e-3, "latency_ms": 1e-3, "time_us": 1e-6, "latency_us": 1e-6,
    "time(us)": 1e-6, "time": 1e-6,
}  # fmt: skip
"""Columns that hold a time, and seconds in their unit; a definition of theirs."""

DEVICE_COLUMNS = ("num_gpus", "num_devices", "ngpus", "nranks")
OP_COLUMNS = ("op", "collective", "operation")
_LOG_LINE = re.compile(
    r"NCCL (INFO|WARN|VERSION)|^\S+:\d+:\d+ |^\[|^(WARNING|INFO|mpirun|prterun|srun|slurmstepd|Authorization)",
    re.IGNORECASE,
)
EXAMPLE = "1048576  262144  float  sum  -1  25.40  41.28  72.24  0"


@dataclass(frozen=True, slots=True)
class MeasuredCollective:
    """One measured call: `size_bytes` as nccl-tests counts, `time_s` out of place, or the only time there is.

    `count`, `type` and `redop` are nccl-tests' columns, where the file has them.
    """

    size_bytes: int
    time_s: float
    in_place_s: float | None = None
    count: int | None = None
    type: str | None = None
    redop: str | None = None


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """The rows of one run of nccl-tests, or of a CSV, what it says of itself, and the file that it is in."""

    said: RunSaid
    rows: tuple[MeasuredCollective, ...]
    source: str


def read_collectives(
    path: Path, kind: CollectiveKind, num_devices: int, where: Mapping[str, str] | None = None
) -> list[MeasuredCollective]:
    """The rows of `read_runs`, whatever the runs say of themselves; raises as it does."""
    return [row for run in read_runs(path, kind, num_devices, where) for row in run.rows]


def read_runs(
    path: Path, kind: CollectiveKind, num_devices: int, where: Mapping[str, str] | None = None
) -> list[MeasuredRun]:
    """The runs of a file in its order; of a CSV the rows for one collective on `num_devices` GPUs.

    Raises:
        InputError: The file cannot be read, a line is wrong (which one), or nothing is left.
    """
    lines = read_text(path, TIMES_FILE, "--against").splitlines()
    first = next((line for line in map(untagged, lines) if line.strip() and not _is_said(line)), "")
    source = str(path)
    if "," in first:
        rows = _read_csv(lines, kind, num_devices, where or {}, source)
        found = [MeasuredRun(RunSaid(kind), tuple(rows), source)] if rows else []
    elif where:
        raise InputError.single("--where", "needs a CSV, and this is nccl-tests' output", source)
    else:
        found = _read_table(lines, source)
    if not found:
        message = f"no measurement of {kind} on {num_devices} GPUs"
        raise InputError.single("--against", message, source, f"a line of nccl-tests such as {EXAMPLE}")
    return found


def _is_said(line: str) -> bool:
    """Whether a line is a comment of nccl-tests or of NCCL's log."""
    return line.lstrip().startswith("#") or _LOG_LINE.search(line) is not None


def _bad_line(number: int, message: str, line: str, source: str, example: str = EXAMPLE) -> InputError:
    return InputError.single(f"line {number}", message, line.strip()[:80], example, source=source)


def _read_table(lines: Sequence[str], source: str) -> list[MeasuredRun]:
    runs: list[MeasuredRun] = []
    said, rows, columns = RunSaid(), list[MeasuredCollective](), _Columns()
    for number, tagged in enumerate(lines, 1):
        line = untagged(tagged)
        if starts_run(line) and rows:
            runs.append(MeasuredRun(said, tuple(rows), source))
            said, rows = RunSaid(), []
        words = line.split()
        if not words or _is_said(line):
            said = with_line(said, line)
            columns = _Columns.of_header(line) or columns
            continue
        if not words[0].isdigit():
            raise _bad_line(number, "is neither a row of nccl-tests nor a comment", line, source)
        if words[0] == "0":
            continue
        time = columns.time(words)
        if len(words) <= time:
            raise _bad_line(number, f"ends before the time in column {time + 1}", line, source)
        row = _measurement(words[0], words[time], 1e-6, number, line, source)
        rows.append(replace(row, **columns.rest(words)))
    return [*runs, MeasuredRun(said, tuple(rows), source)] if rows else runs


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where nccl-tests' columns are, by its header; without one by how many there are."""

    names: tuple[str, ...] = ()

    @staticmethod
    def of_header(line: str) -> _Columns | None:
        words = line.strip("# \t").split()
        return _Columns(tuple(words)) if words[:2] == ["size", "count"] and "time" in words else None

    def time(self, words: Sequence[str]) -> int:
        """13 or 9 columns have a root before the time, 12 or 8 have none."""
        if self.names:
            return self.names.index("time")
        return 5 if len(words) % 4 == 1 else 4

    def rest(self, words: Sequence[str]) -> dict[str, Any]:
        """What else a row says, where it does."""
        found: dict[str, Any] = {"type": words[2], "redop": words[3] if self._has("redop") else None}
        if (count := plain_count(words[1])) is not None:
            found["count"] = count
        again = self.time(words) + 4
        if again < len(words) and (not self.names or self.names[again : again + 1] == ("time",)):
            found["in_place_s"] = _seconds(words[again])
        return found

    def _has(self, name: str) -> bool:
        return not self.names or name in self.names


def _seconds(text: str) -> float | None:
    """A time in us; None where nothing was measured, as in place of a collective that cannot be."""
    micros = plain_number(text)
    return micros * 1e-6 if micros is not None and 0.0 < micros < math.inf else None


def _measurement(size: str, time: str, unit: float, number: int, line: str, source: str) -> MeasuredCollective:
    size_bytes, found = plain_number(size), plain_number(time)
    if size_bytes is None or found is None:
        raise _bad_line(number, "size and time must be numbers", line, source)
    if not (1.0 <= size_bytes < math.inf and size_bytes.is_integer() and 0.0 < found * unit < math.inf):
        raise _bad_line(number, "needs a size of at least one byte and a time above zero", line, source)
    return MeasuredCollective(int(size_bytes), found * unit)


def _read_csv(
    lines: Sequence[str], kind: CollectiveKind, num_devices: int, where: Mapping[str, str], source: str
) -> list[MeasuredCollective]:
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    header_number, header_line = numbered[0]
    header = _cells(header_number, header_line, source)
    size, time = _column(header, SIZE_COLUMNS), _column(header, tuple(TIME_COLUMNS))
    if size is None or time is None:
        missing = "size" if size is None else "time"
        names = ", ".join(SIZE_COLUMNS if size is None else TIME_COLUMNS)
        message = f"has no column for the {missing} (one of {names})"
        raise _bad_line(header_number, message, header_line, source, "message_bytes,latency_ms")
    for name in where:
        if name not in header:
            raise InputError.single("--where", f"no column {name}", name, header[0], closest(name, header), source)
    devices, op = _column(header, DEVICE_COLUMNS), _column(header, OP_COLUMNS)
    for name in [*where, *(header[column] for column in (size, time, devices, op) if column is not None)]:
        if header.count(name) > 1:
            raise _bad_line(header_number, f"the column {name} stands there twice", header_line, source)
    found = []
    for number, line in numbered[1:]:
        cells = _cells(number, line, source)
        if len(cells) != len(header):
            raise _bad_line(number, f"has {len(cells)} cells, the header {len(header)}", line, source, header_line)
        if any(cells[header.index(name)] != value for name, value in where.items()):
            continue
        if op is not None and not _is_kind(cells[op], kind):
            continue
        if devices is not None and cells[devices] != str(num_devices):
            continue
        unit = TIME_COLUMNS[header[time].lower()]
        found.append(_measurement(cells[size], cells[time], unit, number, line, source))
    return found


def _cells(number: int, line: str, source: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line]))]
    except csv.Error as error:
        raise _bad_line(number, f"is no line of CSV: {error}", line, source) from None


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    lowered = [name.lower() for name in header]
    return next((lowered.index(name) for name in names if name in lowered), None)


def _is_kind(name: str, kind: CollectiveKind) -> bool:
    try:
        return collective_kind(name) is kind
    except InputError:
        return False
