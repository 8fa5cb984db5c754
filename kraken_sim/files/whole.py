"""What is written appears whole or not at all: beside its place first, on the disk, then renamed into place."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def write_whole(path: Path, data: bytes | Iterable[bytes], temporary: Path | None = None) -> None:
    """All of a file or none of it, on the disk when this returns; its folder is made where it is missing.

    What is there and no regular file, such as `/dev/null`, is written to and not replaced.

    Args:
        path: the file; where it is a link, what that leads to.
        data: its bytes, or parts of them one after the other.
        temporary: what to call it until it is whole; default: a name beside it that nobody has.

    Raises:
        OSError: it can't be written; nothing is left behind, and a file that was there is as it was.
    """
    try:
        if is_special(path):
            # A pipe that nobody reads is an error, and nothing to wait for.
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC)
            os.set_blocking(descriptor, True)
            with os.fdopen(descriptor, "wb") as file:
                file.writelines([data] if isinstance(data, bytes) else data)
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{secrets.token_hex(8)}.tmp") if temporary is None else temporary
        try:
            _write(beside, data, exclusive=temporary is None)
            with contextlib.suppress(FileNotFoundError):
                beside.chmod(stat.S_IMODE(target.stat().st_mode))
            move_into_place(beside, target)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
    except ValueError:
        raise OSError(None, "no file can have such a name") from None


def move_into_place(temporary: Path, path: Path) -> None:
    """Rename a whole file to its name, so that the name is on the disk too."""
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file or a folder written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes | Iterable[bytes], *, exclusive: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if exclusive else os.O_TRUNC)
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        file.writelines([data] if isinstance(data, bytes) else data)
        file.flush()
        os.fsync(file.fileno())


def is_special(path: Path) -> bool:
    """A device or a pipe, or a name of one of this process's own files."""
    if str(path).startswith(("/dev/", "/proc/")):
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
