"""JSON of others, with limits on its nesting and on the digits of its numbers, and errors in our words."""

from __future__ import annotations

import json
from typing import Any

from kraken_sim.files.bounded import MAX_DEPTH, MAX_DIGITS


def parse_json(text: str) -> Any:
    """The content of a JSON text.

    Raises:
        ValueError: it is no JSON, or beyond a limit; says what and where.
    """
    try:
        content = json.loads(text, parse_int=_integer)
    except json.JSONDecodeError as error:
        message = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise ValueError(message) from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    # Without more brackets than the limit it can't be deeper.
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(content):
        raise ValueError(_TOO_DEEP)
    return content


_TOO_DEEP = f"lists and objects inside one another go deeper than {MAX_DEPTH}"


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        message = f"a number of {len(digits)} digits; {MAX_DIGITS} are the most"
        raise ValueError(message)
    return int(digits)


def _is_deep(content: Any) -> bool:
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return any(isinstance(item, (dict, list)) for item in level)
