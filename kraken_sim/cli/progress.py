"""How far a long command is: a bar on a terminal, else a line on standard error now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Final

from kraken_sim.cli.output import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINE_EVERY_S: Final = 10.0
"""A line takes a reader's eye and a place in a log: none where all is done within this time; a choice of ours."""


class ProgressLines:
    """Says so many of so many, how fast and how long the rest takes.

    With `last` also when all is done; if `quiet` nothing.
    """

    def __init__(self, what: str, *, last: bool = False, quiet: bool = False) -> None:
        self._what, self._last, self._quiet = what, last, quiet
        self._began = self._said = time.monotonic()

    def __call__(self, done: int, total: int, found: int = 0) -> None:
        """Says it where the last line is old enough; `found` of them were done before."""
        now = time.monotonic()
        if self._quiet:
            return
        if now - self._said < LINE_EVERY_S and not (self._last and done >= total):
            return
        self._said = now
        if done <= found:
            note(f"{done:,} of {total:,} {self._what}")
            return
        rate = max(1e-9, (done - found) / max(1e-9, now - self._began))
        note(f"{done:,} of {total:,} {self._what}, {rate:,.0f} a second, {(total - done) / rate:,.0f} s left")


@contextlib.contextmanager
def progress_of(what: str, *, quiet: bool, last: bool = False) -> Iterator[Callable[[int, int, int], None]]:
    """What to call with how many are done, how many there are and how many were done before; shows rate and time left.

    Without a terminal, lines say so; with `last` also that all is done. If `quiet`, nothing is shown.
    """
    if quiet:
        yield lambda done, total, found: None  # noqa: ARG005
        return
    if not sys.stderr.isatty():
        yield ProgressLines(what, last=last)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=not last) as bar:
        task = bar.add_task(what, total=None, rate="")

        def show(done: int, total: int, found: int) -> None:
            rate = (done - found) / max(1e-9, time.monotonic() - began)
            bar.update(task, completed=done, total=total, rate=f"{rate:,.0f} {what}/s")

        yield show
