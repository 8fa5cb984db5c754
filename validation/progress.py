"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from rich.progress import TaskID

_LINE_EVERY_S = 5.0


def say(message: str) -> None:
    """One line for people, on stderr."""
    print(message, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """For people: `42 s`, `3 min 20 s`."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


@dataclass(slots=True)
class Reporter:
    """Shows how far a condition is; `later_s` is the estimate for the conditions after it."""

    title: str
    total: int
    later_s: float = 0.0
    shown: bool = True
    _bar: Progress | None = None
    _task: TaskID | None = None
    _last_line_s: float = field(default=float("-inf"))
    _done: int = 0

    def __enter__(self) -> Reporter:
        if self.shown and sys.stderr.isatty():
            text = TextColumn("{task.description}")
            left = TextColumn("{task.fields[left]} left")
            console = Console(stderr=True)
            self._bar = Progress(
                text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), left, console=console, transient=True
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, left="?")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, cases: int, kind: str, left_s: float) -> None:
        """`cases` more are done, the last ones of `kind`; about `left_s` remain in this condition."""
        self._done += cases
        if not self.shown:
            return
        left = duration(left_s + self.later_s)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, description=f"{self.title} {kind}", left=left)
            return
        now = time.monotonic()
        if now - self._last_line_s >= _LINE_EVERY_S or self._done >= self.total:
            self._last_line_s = now
            say(f"{self.title}: {self._done} of {self.total} cases, now {kind}, about {left} left")
