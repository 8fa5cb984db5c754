"""Results on disk: a part for every chunk as it comes, one Parquet file at the end.

Parts lie beside the file, in `<out>.parts/`, each renamed into place when it is whole; `sweep.json` there says which
sweep they are of. A sweep that was killed, at any moment, goes on with the chunks that have no part. At the end the
parts are written one after the other, in order, into one file, which is renamed into place; only then do they go.
Neither times nor anything else of a run is stored, so an interrupted sweep ends in the same file as any other.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from kraken_sim.errors import InputError
from kraken_sim.explore.sweep.rows import result_columns
from kraken_sim.predict.columns import FLOAT, INT, TEXT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from kraken_sim.explore.sweep.plan import Plan

FINGERPRINT = "kraken_sim.sweep"
POINT = "point"
BOOL = "bool"
_REPLACES = "another --out, or delete the file"


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
        given = values if kind != TEXT else [None if value is None else str(value) for value in values]
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


@dataclass(slots=True)
class Store:
    """Where one sweep's results go; make it with `opened`."""

    out: Path
    plan: Plan

    @property
    def parts(self) -> Path:
        """The folder of the parts."""
        return self.out.with_name(self.out.name + ".parts")

    def part(self, chunk: int) -> Path:
        """The file of one chunk."""
        return self.parts / f"{chunk:07d}.arrow"

    def is_complete(self) -> bool:
        """The final file is there.

        Raises:
            InputError: there is a file, and it is not this sweep's.
        """
        if not self.out.exists():
            return False
        found = _fingerprint_of(self.out)
        if found is None:
            raise InputError.single("--out", "is a file that no sweep wrote", str(self.out), _REPLACES)
        if found != self.plan.fingerprint:
            raise InputError.single("--out", "holds the results of another sweep", str(self.out), _REPLACES)
        return True

    def missing(self) -> list[int]:
        """Chunks that have no part yet."""
        there = {path.name for path in self.parts.glob("*.arrow")}
        return [chunk for chunk in range(self.plan.num_chunks) if self.part(chunk).name not in there]

    def add(self, chunk: int, data: bytes) -> None:
        """Keep the results of one chunk; whatever happens afterwards they are not lost."""
        _write_whole(self.part(chunk), data)

    def finish(self) -> None:
        """Write the parts into the final file and remove them.

        Raises:
            InputError: the file can't be written.
        """
        temporary = self.out.with_name(self.out.name + ".tmp")
        first = decode(self.part(0).read_bytes())
        schema = first.schema.with_metadata({FINGERPRINT: self.plan.fingerprint, "name": self.plan.name})
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for tables in _batches(self.part(chunk) for chunk in range(self.plan.num_chunks)):
                writer.write_table(tables.cast(schema))
        _sync(temporary)
        temporary.replace(self.out)
        shutil.rmtree(self.parts, ignore_errors=True)


def _batches(parts: Iterable[Path], rows: int = 20_000) -> Iterator[pa.Table]:
    """The parts in order, several as one row group."""
    tables: list[pa.Table] = []
    for part in parts:
        tables.append(decode(part.read_bytes()))
        if sum(table.num_rows for table in tables) >= rows:
            yield pa.concat_tables(tables).combine_chunks()
            tables = []
    if tables:
        yield pa.concat_tables(tables).combine_chunks()


@contextlib.contextmanager
def opened(out: Path, plan: Plan) -> Iterator[Store]:
    """The place of one sweep's results, held against other processes.

    Raises:
        InputError: the place can't be written, holds another sweep, or another process is writing it.
    """
    store = Store(out, plan)
    if store.is_complete():
        yield store
        return
    label = store.parts / "sweep.json"
    try:
        if out.is_dir():
            raise InputError.single("--out", "is a folder", str(out), "results.parquet")
        store.parts.mkdir(parents=True, exist_ok=True)
        lock = (store.parts / "lock").open("w")
    except OSError as error:
        raise InputError.single("--out", f"cannot be written: {error.strerror}", str(out)) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError.single("--out", "another sweep is writing there", str(out)) from None
        if label.exists():
            if _read_label(label) != plan.fingerprint:
                message = "holds the unfinished results of another sweep (or another version, or changed profiles)"
                raise InputError.single("--out", message, str(store.parts), "another --out, or delete the folder")
        elif any(store.parts.glob("*.arrow")):
            raise InputError.single("--out", "holds parts of an unknown sweep", str(store.parts))
        else:
            _write_whole(label, json.dumps({"sweep": plan.fingerprint, "name": plan.name}).encode())
        yield store


def _read_label(label: Path) -> str | None:
    try:
        found = json.loads(label.read_text(encoding="utf-8")).get("sweep")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _fingerprint_of(path: Path) -> str | None:
    """The sweep that wrote a Parquet file; None for any other file."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    value = metadata.get(FINGERPRINT.encode())
    return None if value is None else value.decode()


def _write_whole(path: Path, data: bytes) -> None:
    """All of a file or none of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    _sync(temporary)
    temporary.replace(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
