"""One chunk's results in a file: written whole, and trusted only with the seal of the sweep and chunk they are of."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_SEAL_BYTES: Final = hashlib.sha256().digest_size


def sealed(data: bytes, sweep: str, chunk: int) -> bytes:
    """The data behind a digest of itself, of its sweep's fingerprint and of its chunk's number."""
    return _seal(data, sweep, chunk) + data


def unsealed(content: bytes, sweep: str, chunk: int) -> bytes | None:
    """The data of `sealed`; None where it was cut or changed, or is another chunk's or another sweep's."""
    data = content[_SEAL_BYTES:]
    return data if content[:_SEAL_BYTES] == _seal(data, sweep, chunk) else None


def _seal(data: bytes, sweep: str, chunk: int) -> bytes:
    return hashlib.sha256(f"{sweep}/{chunk}/{len(data)}/".encode() + data).digest()


def write_whole(path: Path, data: bytes) -> None:
    """All of a file or none of it, on the disk when this returns.

    Raises:
        OSError: it can't be written; nothing is left behind.
    """
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_bytes(data)
        sync(temporary)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    move_into_place(temporary, path)


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
