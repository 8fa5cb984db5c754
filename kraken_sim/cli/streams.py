"""Standard output and standard error: whatever they are, and whatever is written, no traceback and no surprise.

They may be closed, full, a pipe whose reader is gone or of a narrow encoding; names in what is written may hold
characters that a terminal obeys.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn, TextIO

from kraken_sim.files.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator


def prepare() -> None:
    """Have standard output and error exist, and show as an escape what their encoding can't."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started this process
            # Its number must be taken, or else the next file that is opened gets it.
            while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
                pass
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8"))
        _take_whole(name)
        reconfigure = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _take_whole(name: str) -> None:
    """Give the process's own stream a buffer where it has none, as under PYTHONUNBUFFERED.

    Without one, what a full disk has no room for is dropped in silence. A stream that somebody put in its place is
    theirs to buffer, and to close.
    """
    stream = getattr(sys, name)
    raw = getattr(stream, "buffer", None)
    if stream is getattr(sys, f"__{name}__") and isinstance(raw, io.RawIOBase):
        setattr(sys, name, os.fdopen(os.dup(raw.fileno()), "w", encoding=stream.encoding))


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Around what writes to standard output: a reader that is gone is no error, a full disk is.

    Raises:
        InputError: standard output can't be written.
    """
    try:
        yield
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        from kraken_sim.errors import InputError

        _silence(sys.stdout)
        raise InputError.single("standard output", f"cannot be written: {error.strerror}") from None


def put(text: str) -> None:
    """Text to standard output; see `writing`."""
    with writing():
        sys.stdout.write(printable(text))


def finish() -> None:
    """Have all that was written leave this process; see `writing`."""
    with writing():
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        sys.stderr.flush()


def say(text: str) -> None:
    """A line to standard error, if anybody hears it."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def _silence(stream: TextIO) -> None:
    """What is still in the stream's buffer, and all that follows, goes nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM), which is answered as Ctrl-C is."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within, SIGTERM raises `Terminated`, so that workers end and temporary files go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_: int, __: object) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
