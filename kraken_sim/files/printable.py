"""Text that is shown and never obeyed, by a terminal or a browser."""

from __future__ import annotations

from typing import Final

_OBEYED: Final = {
    code: None
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t"
}
"""Control characters, and those that change the direction of what follows."""


def printable(text: str) -> str:
    """The text without characters that a terminal or a browser would obey instead of showing."""
    return text.translate(_OBEYED)
