"""Whether anybody is at a cluster's address, asked before a client is, whose patience and errors are its own."""

from __future__ import annotations

import socket
import threading
from typing import Final

CONNECT_S: Final = 2.0
"""Seconds that a host has to take a connection, its name being looked up; a choice of ours."""

GREET_S: Final = 5.0
"""Seconds that a Dask scheduler has to say its first word, which it says unasked; it may be busy. A choice of ours."""

_LONGEST_GREETING: Final = 1 << 20
"""Bytes of that word, whose length it begins with; a limit of ours, it has some sixty."""


def unreachable(place: str, *, greets: bool) -> str | None:
    """Why there is no cluster at `host:port`; None where there may be one.

    Args:
        place: the address; a host of colons stands in brackets.
        greets: whether a scheduler there speaks first, as Dask's does (distributed/comm/core.py, `on_connection`).
    """
    found: list[str | None] = []
    # Names are looked up without a limit of time, so in a thread that nobody waits for.
    thread = threading.Thread(target=lambda: found.append(_tried(place, greets=greets)), daemon=True)
    thread.start()
    thread.join(CONNECT_S + (GREET_S if greets else 0.0) + 1.0)
    return found[0] if found else "its name is not found"


def _tried(place: str, *, greets: bool) -> str | None:
    host, _, port = place.rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), CONNECT_S)
    except TimeoutError:
        return f"no answer within {CONNECT_S:.0f} s"
    except (OSError, UnicodeError) as error:
        return getattr(error, "strerror", None) or "no host can have such a name"
    with connection:
        if not greets:
            return None
        connection.settimeout(GREET_S)
        try:
            length = connection.recv(8, socket.MSG_WAITALL)
        except OSError:
            length = b""
    if len(length) < 8 or not 0 < int.from_bytes(length, "little") < _LONGEST_GREETING:
        return "what answers is no Dask scheduler"
    return None
