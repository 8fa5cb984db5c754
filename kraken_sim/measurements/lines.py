"""Lines of a measurement file: one after the other, and records of a long file read again where they are asked for."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, overload

from pydantic import ConfigDict, TypeAdapter, ValidationError

from kraken_sim.errors import InputError
from kraken_sim.files.bounded import MEASUREMENT_FILE, reading
from kraken_sim.measurements.records.record import Record

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from kraken_sim.files.model import FileModel

MAX_LINE_BYTES: Final = 1 << 20
"""A limit of ours: a hundred times the longest line of any measurement."""

_SEED: Final = 0
"""So that the same file gives the same records; a choice of ours."""

RECORD: Final[TypeAdapter[Record]] = TypeAdapter(Record, config=ConfigDict(defer_build=True))


class Line(NamedTuple):
    """One line that is not empty: its number from 1, where it begins, its text, whether its end of line is there."""

    number: int
    offset: int
    data: bytes
    ended: bool

    @property
    def is_too_long(self) -> bool:
        """Only its beginning was read."""
        return len(self.data) > MAX_LINE_BYTES

    def text(self) -> str:
        """Its text; bytes that are no UTF-8 are replaced."""
        return self.data.decode(errors="replace")


def lines_of(file: BinaryIO) -> Iterator[Line]:
    """The lines of a file, without those that are blank."""
    number = offset = 0
    while data := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        start, offset = offset, offset + len(data)
        rest = data
        while not rest.endswith(b"\n") and (rest := file.readline(MAX_LINE_BYTES)):
            offset += len(rest)
        if data.strip():
            yield Line(number, start, data, rest.endswith(b"\n"))


class StoredRecords(Sequence[Record]):
    """Checked records that stay in their file: each is read again when it is asked for.

    Of a record in memory are only its place and its kind: a dozen bytes instead of two thousand.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets = array("Q")
        self._kinds = bytearray()
        self._names: list[str] = []

    def add(self, offset: int, kind: str) -> None:
        """One more record, the one whose line begins at `offset`."""
        if kind not in self._names:
            self._names.append(kind)
        self._offsets.append(offset)
        self._kinds.append(self._names.index(kind))

    def counts(self) -> dict[str, int]:
        """How many records there are of each kind."""
        return {name: self._kinds.count(number) for number, name in enumerate(self._names)}

    def of_kind(self, kind: str, most: int | None = None) -> Iterator[Record]:
        """The records of one kind, in the file's order; of more than `most` so many, drawn alike from all of them."""
        if kind not in self._names:
            return iter(())
        wanted = self._names.index(kind)
        offsets = array("Q", (at for at, found in zip(self._offsets, self._kinds, strict=True) if found == wanted))
        if most is not None and len(offsets) > most:
            offsets = array("Q", sorted(random.Random(_SEED).sample(offsets, most)))
        return self._read(offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[Record]:
        return self._read(self._offsets)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return list(self._read(self._offsets[index]))
        return next(self._read([self._offsets[index]]))

    def _read(self, offsets: Sequence[int]) -> Iterator[Record]:
        with reading(self._path, MEASUREMENT_FILE) as file:
            for offset in offsets:
                file.seek(offset)
                try:
                    yield RECORD.validate_json(file.readline(MAX_LINE_BYTES))
                except ValidationError:
                    message = "has changed while it was read"
                    raise InputError.single("", message, str(self._path)) from None


def kind_of_type(record_type: type[FileModel]) -> str:
    """The kind that all records of a type have."""
    return str(record_type.model_fields["kind"].default)
