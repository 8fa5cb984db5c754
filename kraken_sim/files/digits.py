"""Numbers in tables of others, in plain digits; Python's own readers take underscores and the digits of all scripts."""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = re.compile(r"[+-]?(?:(?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:[eE][+-]?[0-9]+)?|inf|nan)")
_WHOLE: Final = re.compile(r"[0-9]{1,20}")


def plain_number(text: str) -> float | None:
    """The number that a text is, `inf` and `nan` among them; None where it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


def plain_count(text: str) -> int | None:
    """The whole number that a text of up to twenty digits is; None where it is none."""
    return int(text) if _WHOLE.fullmatch(text) else None
