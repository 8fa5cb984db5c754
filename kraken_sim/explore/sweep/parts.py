"""One chunk's results in a file: trusted only with the seal of the sweep and chunk they are of.

Others may have put anything in a part's place: a link to a device or to somebody's file, a pipe, gigabytes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES: Final = 1 << 28
"""Bytes of a file beside a sweep's that are read; a limit of ours, ten times a chunk of the most rows."""

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


def content_of(path: Path) -> bytes | None:
    """The bytes of a regular file; None for a link, a device, a pipe, a folder, one that is too large, or none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MOST_BYTES)
    except OSError:
        return None
    finally:
        os.close(descriptor)
