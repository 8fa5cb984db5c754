"""How far a long command is, as a line on standard error now and then."""

from __future__ import annotations

import time
from typing import Final

from kraken_sim.cli.output import note

LINE_EVERY_S: Final = 10.0
"""A line takes a reader's eye and a place in a log: none where all is done within this time; a choice of ours."""


class ProgressLines:
    """Says so many of so many, how fast and how long the rest takes; with `last` also when all is done."""

    def __init__(self, what: str, *, last: bool = False) -> None:
        self._what, self._last = what, last
        self._began = self._said = time.monotonic()

    def __call__(self, done: int, total: int, found: int = 0) -> None:
        """Says it where the last line is old enough; `found` of them were done before."""
        now = time.monotonic()
        if now - self._said < LINE_EVERY_S and not (self._last and done >= total):
            return
        self._said = now
        rate = max(1e-9, (done - found) / max(1e-9, now - self._began))
        note(f"{done:,} of {total:,} {self._what}, {rate:,.0f} a second, {(total - done) / rate:,.0f} s left")
