"""Traces of requests, read as their authors publish them.

- CSV with `arrival_s,prompt_tokens,output_tokens`: seconds from any start.
- CSV of Azure's LLM inference traces (github.com/Azure/AzurePublicDataset): `TIMESTAMP,ContextTokens,GeneratedTokens`,
  timestamps as `2023-11-16 18:15:46.6805900`.
- JSON lines of Mooncake's traces (github.com/kvcache-ai/Mooncake): `timestamp` in milliseconds, `input_length`,
  `output_length`; hashes of blocks are not used.

An answer of no token, which the public traces have, counts as one of one token.
"""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kraken_sim.errors import InputError
from kraken_sim.files.bounded import Limit, read_text
from kraken_sim.files.digits import plain_count, plain_number
from kraken_sim.files.strict_json import parse_json
from kraken_sim.serving.arrivals import Requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

REQUESTS_FILE: Final = Limit("a trace of requests", 256)
"""A limit of ours: some million requests."""

LONGEST: Final = 1 << 24
"""Most tokens of a prompt or an answer; a limit of ours, far above any model's, where only a slip goes."""

EXAMPLE: Final = "arrival_s,prompt_tokens,output_tokens"

_OWN: Final = ("arrival_s", "prompt_tokens", "output_tokens")
_AZURE: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_MOONCAKE: Final = ("timestamp", "input_length", "output_length")


def read_trace_file(path: str | Path, most: int | None = None) -> Requests:
    """The requests of a trace, in its order; the first arrives at zero.

    Args:
        path: the file.
        most: requests to read at most.

    Raises:
        InputError: the file cannot be read, is none of the formats, is not in the order of arrival, or has a length
            that cannot be; with the line.
    """
    text = read_text(path, REQUESTS_FILE, "traffic.trace", EXAMPLE)
    rows = _json_rows(text) if text.lstrip().startswith("{") else _csv_rows(text)
    arrivals: list[float] = []
    prompts: list[int] = []
    outputs: list[int] = []
    for line, (arrival_s, prompt, output) in rows:
        if arrivals and arrival_s < arrivals[-1]:
            raise _error(line, "requests must be in the order of arrival", f"{arrival_s:g} s after {arrivals[-1]:g} s")
        arrivals.append(arrival_s)
        prompts.append(prompt)
        outputs.append(output)
        if len(arrivals) == most:
            break
    if not arrivals:
        raise InputError.single("traffic.trace", "has no requests", str(path), EXAMPLE)
    times = np.array(arrivals)
    return Requests(times - times[0], np.array(prompts), np.array(outputs))


def _error(line: int, message: str, value: object = None) -> InputError:
    return InputError.single("traffic.trace", f"line {line}: {message}", value, EXAMPLE)


TraceRow = tuple[int, tuple[float, int, int]]


def _csv_rows(text: str) -> Iterator[TraceRow]:
    reader = csv.reader(text.splitlines())
    header = [name.strip() for name in next(reader, [])]
    arrival: Callable[[str, int], float]
    if set(_OWN) <= set(header):
        names, arrival, least = _OWN, _seconds, 1
    elif set(_AZURE) <= set(header):
        names, arrival, least = _AZURE, _timestamp, 0
    else:
        known = f"columns must be {', '.join(_OWN)}, or Azure's {', '.join(_AZURE)}"
        raise _error(1, known, ", ".join(header)[:100])
    for name in names:
        if header.count(name) > 1:
            raise _error(1, f"the column {name} stands there twice")
    columns = [header.index(name) for name in names]
    for line, cells in enumerate(_lines_of(reader), start=2):
        if not cells:
            continue
        if len(cells) <= max(columns):
            raise _error(line, f"has {len(cells)} cells, where the header has {len(header)}")
        when, prompt, output = (cells[column] for column in columns)
        yield line, (arrival(when, line), _tokens(prompt, line, names[1], 1), _tokens(output, line, names[2], least))


def _lines_of(reader: Iterable[list[str]]) -> Iterator[list[str]]:
    """The rows of a CSV file; a cell beyond what csv takes is an error of ours."""
    try:
        yield from reader
    except csv.Error as error:
        raise InputError.single("traffic.trace", f"is no CSV: {error}", example=EXAMPLE) from None


def _json_rows(text: str) -> Iterator[TraceRow]:
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        try:
            found: Any = parse_json(content)
        except (ValueError, RecursionError, json.JSONDecodeError) as error:
            raise _error(line, f"is no JSON: {error}") from None
        if not isinstance(found, dict) or not set(_MOONCAKE) <= set(found):
            raise _error(line, f"must have {', '.join(_MOONCAKE)}")
        when, prompt, output = (found[name] for name in _MOONCAKE)
        yield line, (
            1e-3 * _seconds(when, line), _tokens(prompt, line, _MOONCAKE[1], 1), _tokens(output, line, _MOONCAKE[2], 0)
        )  # fmt: skip


def _seconds(value: object, line: int) -> float:
    found = plain_number(str(value).strip())
    if found is None or not 0.0 <= found < float("inf"):
        raise _error(line, "the arrival must be a number of at least 0", str(value)[:60])
    return found


def _timestamp(value: str, line: int) -> float:
    """Seconds of `2023-11-16 18:15:46.6805900`, whose seven decimals Python's own reader does not take."""
    whole, _, fraction = value.strip().partition(".")
    try:
        at = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
        return at + (float(f"0.{fraction.split('+')[0].rstrip('Z')}") if fraction else 0.0)
    except ValueError:
        raise _error(line, "the timestamp must be like 2023-11-16 18:15:46.6805900", value[:60]) from None


def _tokens(value: object, line: int, name: str, least: int) -> int:
    found = plain_count(str(value).strip())
    if found is None or not least <= found <= LONGEST:
        raise _error(line, f"{name} must be a whole number from {least} to {LONGEST:,}", str(value)[:60])
    return max(1, found)
