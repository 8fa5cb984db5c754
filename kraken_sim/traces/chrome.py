"""Chrome traces read as a stream: the events one by one, and what stands beside them, whatever their number.

A trace is an object with a list `traceEvents`, or such a list alone, plain or gzipped. What is held is one piece of
the text and one event; a file that is cut short, or no JSON from some place on, gives what comes before that place.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InputError
from kraken_sim.files.bounded import TRACE_FILE, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

_CHUNK_BYTES: Final = 1 << 20
"""Read at once; a choice of ours: pieces of a megabyte are fast and small."""
_MOST_CHARACTERS: Final = 1 << 23
"""Longest event, or value beside the events; a limit of ours, a thousand times what a profiler writes."""
_KEPT: Final = ("deviceProperties", "distributedInfo", "kraken_sim", "validation")
_GZIP: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 31
"""What zlib calls data with gzip's header; a definition (zlib.h, inflateInit2)."""
_SPACE: Final = re.compile(r"[ \t\r\n]*")


class CutError(Exception):
    """The text ends, or is no JSON from here on."""


@dataclass(slots=True)
class ChromeFile:
    """One file; `events` may be asked for once, and the rest is known when they have been.

    `beside` holds what stands beside the events and means something here; `cut` says in words where and why the file
    could not be read on, None where it was read whole.
    """

    path: str | Path
    argument: str
    beside: dict[str, Any] = field(default_factory=dict)
    num_events: int = 0
    cut: str | None = None

    def events(self) -> Iterator[dict[str, Any]]:
        """Every event that is an object.

        Raises:
            InputError: the file can't be read, is no trace at all, or too large.
        """
        with reading(self.path, TRACE_FILE, self.argument) as file:
            text = _Text(file, self)
            try:
                yield from self._document(text)
            except CutError as error:
                self.cut = str(error)

    def problem(self, message: str) -> InputError:
        """An error of this file."""
        return InputError.single(self.argument, message, str(self.path), "out/rank0.pt.trace.json.gz")

    def _document(self, text: _Text) -> Iterator[dict[str, Any]]:
        first = text.peek()
        if first == "[":
            yield from self._list(text)
        elif first == "{":
            text.at += 1
            yield from self._members(text)
        else:
            raise self.problem("is no trace: neither a JSON object with traceEvents nor a list of events")

    def _members(self, text: _Text) -> Iterator[dict[str, Any]]:
        while text.peek() != "}":
            key = text.value()
            if not isinstance(key, str) or text.peek() != ":":
                raise text.cut("is no JSON")
            text.at += 1
            if key == "traceEvents" and text.peek() == "[":
                yield from self._list(text)
            else:
                value = text.value()
                if key in _KEPT:
                    self.beside[key] = value
            if text.peek() == ",":
                text.at += 1

    def _list(self, text: _Text) -> Iterator[dict[str, Any]]:
        text.at += 1
        while text.peek() != "]":
            event = text.value()
            self.num_events += 1
            if isinstance(event, dict):
                yield event
            if text.peek() == ",":
                text.at += 1
        text.at += 1


class _Text:
    """The text of a file, a piece at a time, and the JSON values in it one after the other."""

    def __init__(self, file: BinaryIO, owner: ChromeFile) -> None:
        self._owner = owner
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        # Names of kernels may hold characters that strict JSON has escaped.
        self._json = json.JSONDecoder(strict=False)
        magic = file.read(2)
        file.seek(0)
        self._file = _Unpacked(file) if magic == _GZIP else file
        self._read = 0
        self.buffer, self.at, self.ended = "", 0, False

    def cut(self, message: str) -> CutError:
        return CutError(f"{message} from about byte {self._read - len(self.buffer) + self.at:,} on")

    def more(self) -> None:
        """Reads a piece, and drops what was used."""
        piece = self._file.read(_CHUNK_BYTES)
        self._read += len(piece)
        if self._read > TRACE_FILE.max_bytes:
            raise self._owner.problem(f"holds more than {TRACE_FILE.max_mib} MiB, the most of {TRACE_FILE.kind}")
        self.ended = not piece
        self.buffer = self.buffer[self.at :] + self._decoder.decode(piece, final=self.ended)
        self.at = 0

    def peek(self) -> str:
        """The next character that is no space."""
        while True:
            self.at = _end_of_space(self.buffer, self.at)
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if self.ended:
                raise self.cut("ends in the middle:") if self._read else self._owner.problem("is empty")
            self.more()

    def value(self) -> Any:
        """The next JSON value."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self.buffer, self.at)
                # A number may go on in the next piece.
                if end < len(self.buffer) or self.ended:
                    self.at = end
                    return value
            except (json.JSONDecodeError, ValueError):
                if self.ended:
                    raise self.cut("ends in the middle, or is no JSON") from None
            except RecursionError:
                raise self.cut("holds lists in lists in lists") from None
            if len(self.buffer) - self.at > _MOST_CHARACTERS:
                raise self.cut("is no JSON, or holds too long an event,")
            self.more()


class _Unpacked:
    """A gzipped file, unpacked as far as it goes; gzip's own gives nothing of a piece that is cut."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._packed, self._ended = b"", False
        self._unpack = zlib.decompressobj(_GZIP_WINDOW)

    def read(self, most: int) -> bytes:
        """Some bytes, at most so many; none at the end.

        Raises:
            CutError: the compressed data end in the middle, or are damaged.
        """
        while True:
            if self._unpack.eof:  # another may follow, as of files that were joined
                self._packed = self._unpack.unused_data or self._file.read(_CHUNK_BYTES)
                if not self._packed:
                    return b""
                self._unpack = zlib.decompressobj(_GZIP_WINDOW)
            if not self._packed and not self._ended:
                self._packed = self._file.read(_CHUNK_BYTES)
                self._ended = not self._packed
            try:
                piece = self._unpack.decompress(self._packed, most)
            except zlib.error:
                raise CutError("is damaged: its compressed data can't be unpacked to the end") from None
            self._packed = self._unpack.unconsumed_tail
            if piece:
                return piece
            if self._ended and not self._unpack.eof:
                raise CutError("ends in the middle: its compressed data were cut")


def _end_of_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def number(value: object) -> float | None:
    """A finite number of a trace, which some profilers write as text; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: object, otherwise: int = -1) -> int:
    """A whole number of a trace that fits 63 bits; `otherwise` where it is none."""
    found = number(value)
    return int(found) if found is not None and abs(found) < 1 << 62 else otherwise
