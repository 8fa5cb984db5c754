"""Python's search for garbage, put off while much is built that stays."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

COLLECT_AFTER: Final = 200_000
"""New objects after which Python looks for garbage, a choice of ours, some 40 MB: at its own 700 a cold `run` spends a
tenth of its time looking through modules that it has just loaded, and overlapped points together a third."""


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Within, Python looks for garbage after `COLLECT_AFTER` new objects, or as seldom as it did before."""
    before = gc.get_threshold()
    if before[0]:  # 0: never
        gc.set_threshold(max(COLLECT_AFTER, before[0]), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
