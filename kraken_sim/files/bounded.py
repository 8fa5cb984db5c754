"""What is read is bounded before it is parsed: regular files only, no larger than any of their kind has reason to be.

Everything that opens a file of somebody else's opens it here. A folder, a device, a pipe (which would wait for a
writer), a loop of links, a name that no file can have and a file beyond the limit of its kind are errors.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Limit:
    """How large one kind of file may be: above what people write and below what hurts."""

    kind: str
    max_mib: int

    @property
    def max_bytes(self) -> int:
        """The same in bytes."""
        return self.max_mib << 20


YAML_FILE: Final = Limit("a YAML file", 4)
"""A limit of ours: a hundred times the longest profile."""
CONFIG_FILE: Final = Limit("a model's config", 4)
"""A limit of ours: a hundred times the longest config.json."""
CASES_FILE: Final = Limit("a CSV file of cases", 64)
"""A limit of ours: some million cases."""
TIMES_FILE: Final = Limit("a file of collectives' times", 64)
"""A limit of ours: some hundred thousand lines of nccl-tests."""
MEASUREMENT_FILE: Final = Limit("a measurement file", 4096)
"""A limit of ours: some ten million records, which are read one after the other."""

TRACE_FILE: Final = Limit("a trace", 4096)
"""A limit of ours, of the file and of what is packed in it: some ten million events, read one after the other."""

MAX_DIGITS: Final = 100
"""Digits of a whole number in a file: a limit of ours; none that means anything has so many, and Python's own limit
is an error in other words."""

MAX_DEPTH: Final = 64
"""Lists and mappings inside one another: a limit of ours, several times what any file of ours has."""

_REASONS: Final = {
    errno.ENOENT: "there is no file of this name",
    errno.ELOOP: "a loop of symbolic links",
    errno.ENAMETOOLONG: "no file can have so long a name",
    errno.EISDIR: "it is a folder",
}
_SHOWN: Final = 100
"""Characters of a path that an error shows."""
_READ: Final[ContextVar[set[tuple[int, int]] | None]] = ContextVar("read", default=None)
"""Device and inode of every file that was read since `noting_reads` began."""


@contextlib.contextmanager
def reading(
    path: str | Path, limit: Limit, field: str = "", example: str | None = None, source: str | None = None
) -> Iterator[BinaryIO]:
    """A regular file to read from, not larger than its kind may be.

    Args:
        path: the file.
        limit: its kind.
        field: what errors call the place that names it.
        example: what errors give as an example of a right one.
        source: what errors say they are in.

    Raises:
        InputError: there is no such file, or it can't be opened or read, is no regular file or too large.
    """
    try:
        file = _opened(path, limit)
    except _UnreadableError as error:
        raise InputError.single(field, f"cannot read {_shown(path)}: {error}", example=example, source=source) from None
    with file:
        try:
            yield file
        except OSError as error:
            message = f"cannot read {_shown(path)}: {_reason(error)}"
            raise InputError.single(field, message, example=example, source=source) from None


class _UnreadableError(Exception):
    """Why a file is not read."""


def _opened(path: str | Path, limit: Limit) -> BinaryIO:
    if not isinstance(path, (str, os.PathLike)):
        raise _UnreadableError("it is no path of a file")
    try:
        # Looked at before it is opened, since opening a device can do something; opened without waiting for a writer,
        # since it may have become a pipe in between.
        _check(os.stat(path), limit)
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        try:
            status = os.fstat(file.fileno())
            _check(status, limit)
        except _UnreadableError:
            file.close()
            raise
    except OSError as error:
        raise _UnreadableError(_reason(error)) from None
    except ValueError:
        raise _UnreadableError("no file can have such a name") from None
    note_read(status)
    return file


@contextlib.contextmanager
def noting_reads() -> Iterator[None]:
    """Within, `was_read` knows which files were read."""
    token = _READ.set(set())
    try:
        yield
    finally:
        _READ.reset(token)


def note_read(status: os.stat_result) -> None:
    """A file is part of the answer, also where what it holds was known before."""
    read = _READ.get()
    if read is not None:
        read.add((status.st_dev, status.st_ino))


def was_read(path: Path) -> bool:
    """Whether a file was read since `noting_reads` began, under this name or another one.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    return (status.st_dev, status.st_ino) in (_READ.get() or ())


def read_bytes(path: str | Path, limit: Limit, field: str = "", example: str | None = None) -> bytes:
    """All bytes of a file; see `reading`."""
    with reading(path, limit, field, example) as file:
        data = file.read(limit.max_bytes + 1) or b""  # None where reading would wait, as of some files of the kernel's
    if len(data) > limit.max_bytes:  # it has grown, or does not tell its size
        raise InputError.single(field, f"cannot read {_shown(path)}: {_too_large(limit)}", example=example)
    return data


def read_text(
    path: str | Path, limit: Limit, field: str = "", example: str | None = None, encoding: str = "utf-8"
) -> str:
    """All text of a file, however its lines end; see `reading`.

    Raises:
        InputError: as of `reading`, or it is no UTF-8 text.
    """
    try:
        text = read_bytes(path, limit, field, example).decode(encoding)
    except UnicodeDecodeError as error:
        message = f"cannot read {_shown(path)}: byte {error.start + 1} is no UTF-8 text"
        raise InputError.single(field, message, example=example) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check(status: os.stat_result, limit: Limit) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _UnreadableError(_REASONS[errno.EISDIR])
    if not stat.S_ISREG(status.st_mode):
        raise _UnreadableError("it is no regular file, but a device, a pipe or a socket")
    if status.st_size > limit.max_bytes:
        raise _UnreadableError(_too_large(limit))


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, error.strerror or type(error).__name__)


def _too_large(limit: Limit) -> str:
    return f"it is larger than {limit.max_mib} MiB, the most of {limit.kind}"


def _shown(path: object) -> str:
    if not isinstance(path, (str, os.PathLike)):
        return "null" if path is None else f"a {type(path).__name__}"
    text = str(path)
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")


def real_path(path: str | Path) -> Path:
    """The path without links; where they run in a loop, or no file can have such a name, as it is."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return Path(path)
