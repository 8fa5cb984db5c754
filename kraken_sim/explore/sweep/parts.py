"""One chunk's results in a file: trusted only with the seal of the sweep and chunk they are of."""

from __future__ import annotations

import hashlib
from typing import Final

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
