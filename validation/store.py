"""The measurement file while it is being written: resuming, repairing, appending."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import TYPE_CHECKING

from kraken_sim.errors import InputError, Problem
from kraken_sim.files.whole import write_whole
from kraken_sim.measurements.records.record import NoteRecord, Record
from kraken_sim.measurements.schema import IDENTITY, Header, MeasurementWarning, read_measurements, to_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def resume(path: Path, header: Header, *, retry_failed: bool = True) -> list[Record]:
    """Make `path` ready to be appended to, and return the records that it already holds.

    A missing or empty file, or one whose only line is a half-written header, is begun with `header`. A
    half-written last line is cut off. Notes about failures are dropped if `retry_failed`, so that those cases
    run again.

    Raises:
        InputError: the file is no measurement file, has problems, or is of another machine.
    """
    if path.exists() and not path.is_file():
        message = "is no regular file, as one is that can be gone on with"
        raise InputError.single("--out", message, str(path), "measured.jsonl")
    if not _has_header_line(path):
        _replace(path, to_text([header]))
        return []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MeasurementWarning)
        found = read_measurements(path)
    for warning in caught:
        warnings.warn(str(warning.message), MeasurementWarning, stacklevel=2)
    _check_identity(found.header, header, str(path))
    kept = [record for record in found.records if not (retry_failed and _is_failure(record))]
    text = to_text([found.header, *kept])
    if found.truncated or len(kept) < len(found.records) or not _ends_with_newline(path):
        _replace(path, text)
    return kept


def append(path: Path, records: Iterable[Record]) -> None:
    """Add whole lines and hand them to the operating system, so that a killed process loses none.

    Raises:
        InputError: the file can't be written; what it holds is kept.
    """
    with _writing(path), path.open("ab") as file:
        file.write(to_text(records).encode())
        file.flush()
        os.fsync(file.fileno())


def _has_header_line(path: Path) -> bool:
    if not path.exists():
        return False
    content = path.read_bytes().strip()
    if content.startswith(b'{"kind":"header"') and b"\n" not in content and not content.endswith(b"}"):
        warnings.warn(f"{path}: begins anew, its header is half written", MeasurementWarning, stacklevel=3)
        return False
    return bool(content)


def _is_failure(record: Record) -> bool:
    return isinstance(record, NoteRecord) and record.status == "failed"


def _check_identity(found: Header, here: Header, source: str) -> None:
    problems = [
        Problem(
            f"header.{name}",
            f"the file was measured on another machine or stack ({getattr(found, name)!r}); "
            "give another --out, or remove the file",
            getattr(here, name),
        )
        for name in IDENTITY
        if getattr(found, name) != getattr(here, name)
    ]
    if problems:
        raise InputError(problems, source)
    if found.driver != here.driver:
        message = f"{source}: begun under driver {found.driver}, goes on under {here.driver}"
        warnings.warn(message, MeasurementWarning, stacklevel=3)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _replace(path: Path, text: str) -> None:
    with _writing(path):
        write_whole(path, text.encode())


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Says what keeps a measurement from being written, and that what is measured is kept."""
    try:
        yield
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}; what is measured is kept, the same command goes on"
        raise InputError.single("--out", message, str(path)) from None
