"""Results on disk: a part for every chunk as it comes, one Parquet file at the end.

Parts lie beside the file, in `<out>.parts/`, each renamed into place when it is whole and sealed with a digest;
`sweep.json` there says which sweep they are of. A sweep that was killed, at any moment, goes on with the chunks that
have no part, or one that is not as it was written. At the end the
parts are written one after the other, in order, into one file, which is renamed into place; only then do they go.
Neither times nor anything else of a run is stored, so an interrupted sweep ends in the same file as any other.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from kraken_sim.errors import InputError
from kraken_sim.explore.sweep.parts import content_of, sealed, unsealed
from kraken_sim.explore.sweep.rows import result_columns
from kraken_sim.files.ours import check_replaceable
from kraken_sim.files.whole import move_into_place, sync, write_whole
from kraken_sim.predict.columns import FLOAT, INT, TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from kraken_sim.explore.sweep.plan import Plan

FINGERPRINT = "kraken_sim.sweep"
POINT = "point"
BOOL = "bool"
LOCK = "lock"
"""The file that a running sweep holds locked."""
ROW_GROUP = 20_000
"""Rows that are written at once, at least: a limit of ours, some MB of memory."""
_CONVERTED: Final[Mapping[str, Callable[[Any], Any]]] = {TEXT: str, FLOAT: float}
"""What becomes of values before Arrow takes them, which refuses whole numbers that a float only comes near."""
_REPLACES = "another --out, or --force to replace the file"


def columns_of(plan: Plan) -> list[tuple[str, str]]:
    """Names and types of a result's columns: the point's number, the swept fields, the results."""
    swept = [(path, _type_of(plan.column_values(path))) for path in plan.paths]
    return [(POINT, INT), *swept, *result_columns()]


def _type_of(values: Iterable[Any]) -> str:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int} and kinds:
        return INT
    if kinds <= {int, float} and kinds:
        return FLOAT
    return BOOL if kinds == {bool} else TEXT


def table_of(first: int, rows: Sequence[Sequence[Any]], columns: Sequence[tuple[str, str]]) -> pa.Table:
    """Rows, numbered from `first`, as an Arrow table."""
    by_column = [list(range(first, first + len(rows))), *(list(column) for column in zip(*rows, strict=True))]
    arrays = []
    for values, (_, kind) in zip(by_column, columns, strict=True):
        given = values if (to := _CONVERTED.get(kind)) is None else [None if v is None else to(v) for v in values]
        arrays.append(pa.array(given, type=getattr(pa, kind if kind != BOOL else "bool_")()))
    return pa.Table.from_arrays(arrays, names=[name for name, _ in columns])


def encode(table: pa.Table) -> bytes:
    """A table as the bytes of an Arrow file."""
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def decode(data: bytes) -> pa.Table:
    """The table of `encode`."""
    return pa.ipc.open_file(pa.BufferReader(data)).read_all()


class Kept(Protocol):
    """Whose results a store holds: a sweep's or a search's."""

    @property
    def what(self) -> str:
        """Which of both."""

    @property
    def name(self) -> str:
        """What its file calls it."""

    @property
    def fingerprint(self) -> str:
        """The same for the same results, and for no others."""

    @property
    def num_chunks(self) -> int:
        """Parts that its results come in; 0 where that is not known before."""


@dataclass(slots=True)
class Store:
    """Where one sweep's results go; make it with `opened`. `force` replaces a file that is not this sweep's."""

    out: Path
    plan: Kept
    force: bool = False

    @property
    def parts(self) -> Path:
        """The folder of the parts."""
        return self.out.with_name(self.out.name + ".parts")

    def part(self, chunk: int) -> Path:
        """The file of one chunk."""
        return self.parts / f"{chunk:07d}.part"

    @property
    def label(self) -> Path:
        """The file that says which sweep the parts are of."""
        return self.parts / "sweep.json"

    def is_complete(self) -> bool:
        """The final file is there.

        Raises:
            InputError: there is a file, and it is not this sweep's and not to be replaced.
        """
        if not os.path.exists(self.out):
            return False
        if not self.out.is_file():
            message = "is a folder" if self.out.is_dir() else "is no regular file, but a device or a pipe"
            raise InputError.single("--out", message, str(self.out), "results.parquet")
        try:
            self._check_finished()
        except InputError:
            if not self.force:
                raise
            check_replaceable(self.out, "--out", force=True)
            return False
        return True

    def _check_finished(self) -> None:
        found = _fingerprint_of(self.out)
        if found is None:
            raise InputError.single("--out", f"is a file that no {self.plan.what} wrote", str(self.out), _REPLACES)
        if found != self.plan.fingerprint:
            message = f"holds the results of another {self.plan.what} (or another version, or changed files)"
            raise InputError.single("--out", message, str(self.out), _REPLACES)
        read_results(self.out)

    def missing(self) -> list[int]:
        """Chunks that have no part yet, or a damaged one."""
        return [chunk for chunk in range(self.plan.num_chunks) if self.read(chunk) is None]

    def read(self, chunk: int) -> bytes | None:
        """The results of one chunk; None where there are none, or not as they were written."""
        content = content_of(self.part(chunk))
        return None if content is None else unsealed(content, self.plan.fingerprint, chunk)

    def add(self, chunk: int, data: bytes) -> None:
        """Keep the results of one chunk; whatever happens afterwards they are not lost.

        Raises:
            InputError: they can't be written.
        """
        with self.writing():
            part = self.part(chunk)
            write_whole(part, sealed(data, self.plan.fingerprint, chunk), part.with_suffix(".tmp"))

    def finish(self) -> bool:
        """Write the parts into the final file and remove them; False where a part turned out to be damaged.

        Raises:
            InputError: the file can't be written.
        """
        return self.write(self._tables())

    def write(self, tables: Iterator[pa.Table | None]) -> bool:
        """Write tables into the final file, and remove the parts; False where one is None.

        Raises:
            InputError: the file can't be written.
        """
        temporary = self.parts / "whole.tmp"
        with self.writing():
            first = next(tables)
            if first is None:
                return False
            schema = first.schema.with_metadata({FINGERPRINT: self.plan.fingerprint, "name": self.plan.name})
            with pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer:
                for table in (first, *tables):
                    if table is None:
                        return False
                    writer.write_table(table.cast(schema))
            sync(temporary)
            move_into_place(temporary, self.out)
            self._remove_parts()
        return True

    def _tables(self) -> Iterator[pa.Table | None]:
        """The parts in order, several as one row group; None for a damaged one."""
        tables: list[pa.Table] = []
        for chunk in range(self.plan.num_chunks):
            data = self.read(chunk)
            if data is None:
                yield None
                return
            tables.append(decode(data))
            if sum(table.num_rows for table in tables) >= ROW_GROUP:
                yield pa.concat_tables(tables).combine_chunks()
                tables = []
        if tables:
            yield pa.concat_tables(tables).combine_chunks()

    def _remove_parts(self) -> None:
        """Remove what this class wrote, and nothing else."""
        for path in (*self.parts.glob("*.part"), *self.parts.glob("*.tmp"), self.label, self.parts / LOCK):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody keeps a file of their own there
            self.parts.rmdir()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Say what keeps a file from being written, and that what is done is kept."""
        try:
            yield
        except OSError as error:
            message = f"cannot be written: {error.strerror or error}; what is done is kept, the same command goes on"
            raise InputError.single("--out", message, str(self.out)) from None


@contextlib.contextmanager
def opened(out: Path, plan: Kept, *, force: bool = False) -> Iterator[Store]:
    """The place of one sweep's results, held against other processes; `force` replaces a finished file of others.

    Raises:
        InputError: the place can't be written, holds another sweep, or another process is writing it.
    """
    store = Store(out, plan, force)
    if store.is_complete():
        yield store
        return
    try:
        store.parts.mkdir(parents=True, exist_ok=True)
        _check_parts(store)
        # Nothing is cut off of a file that somebody has linked there.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        lock = os.fdopen(os.open(store.parts / LOCK, flags, 0o666), "w")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no file can have such a name"
        raise InputError.single("--out", f"cannot be written: {reason}", str(out)[:100]) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError.single("--out", f"another {plan.what} is writing there", str(out)) from None
        _check_parts(store)  # which another process may have filled until it gave the lock back
        if _read_label(store.label) != plan.fingerprint:
            with store.writing():
                label = json.dumps({"sweep": plan.fingerprint, "name": plan.name}).encode()
                write_whole(store.label, label, store.label.with_suffix(".tmp"))
        yield store


def _check_parts(store: Store) -> None:
    """The folder of the parts is this sweep's, or nothing is in it that anybody would miss.

    Raises:
        InputError: it has results of another sweep, nobody knows whose they are, or what has their names is no file.
    """
    ours = (LOCK, store.label.name)
    with os.scandir(store.parts) as entries:
        names = [entry for entry in entries if entry.name in ours or entry.name.endswith((".part", ".tmp"))]
        strange = [entry.name for entry in names if not entry.is_file(follow_symlinks=False)]
    if strange:
        message = f"is a folder with {min(strange)!r}, which is no regular file and of no {store.plan.what}"
        raise InputError.single("--out", message, str(store.parts), "another --out, or move the folder")
    is_ours = _read_label(store.label) == store.plan.fingerprint
    others = {path.name for path in store.parts.iterdir()} - {
        LOCK,
        store.label.name,
        store.label.with_suffix(".tmp").name,
    }
    if is_ours or not others:
        return
    if not store.label.exists():
        message = f"is a folder that no {store.plan.what} made"
        raise InputError.single("--out", message, str(store.parts), "another --out, or move the folder")
    what = f"another {store.plan.what}"
    message = f"holds the unfinished results of {what} (or another version, or changed files)"
    raise InputError.single("--out", message, str(store.parts), "another --out, or delete the folder")


def _read_label(label: Path) -> str | None:
    try:
        found = json.loads(content_of(label) or b"").get("sweep")
    except (ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def read_results(path: Path) -> pa.Table:
    """The table of a finished sweep, its checksums compared.

    Raises:
        InputError: it can't be read, or has changed since it was written.
    """
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        message = f"is damaged ({str(error).splitlines()[0][:100]})"
        raise InputError.single("--out", message, str(path), _REPLACES) from None


def _fingerprint_of(path: Path) -> str | None:
    """The sweep that wrote a Parquet file; None for any other file."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    value = metadata.get(FINGERPRINT.encode())
    return None if value is None else value.decode()
