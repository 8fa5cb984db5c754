"""The three error families: bad input (exit 2), infeasible (exit 3), and bugs of ours (a traceback)."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


SHOWN: Final = 20
"""Problems that an error lists; of the rest it says how many. A limit of ours, for the reader."""

_LONG_INTEGER: Final = 10**18
"""From here on an integer is shown by its length; a limit of ours, for the reader."""


_LONG_TEXT: Final = 200
"""Characters of a value that an error shows; a limit of ours, for the reader."""


class KrakenSimError(Exception):
    """Base of every error this package raises on purpose; `exit_code` is what the CLI exits with."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input: where, what was found, why it is wrong, what would be right."""

    path: str
    message: str
    value: object = None
    example: str | None = None
    suggestion: str | None = None

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        if self.value is not None:
            text += f" (got {_shown(self.value)})"
        if self.suggestion is not None:
            text += f"; did you mean {self.suggestion!r}?"
        if self.example is not None:
            text += f"; for example {self.example}"
        return text


def _shown(value: object) -> str:
    """A value in an error: numbers and texts as they are, if they are short; of what only Python has, its type."""
    if isinstance(value, int) and abs(value) > _LONG_INTEGER:
        return "a very large number"
    if isinstance(value, list | tuple) and all(isinstance(item, str | int | float) for item in value):
        return f"[{_cut(', '.join(map(_shown, value[:_LONG_TEXT])))}]"
    if isinstance(value, str | int | float | PurePath):
        return _cut(repr(str(value) if isinstance(value, PurePath) else value))
    return f"a {type(value).__name__}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONG_TEXT else f"{text[: _LONG_TEXT - 3]}..."


class InputError(KrakenSimError):
    """A file or an argument is wrong; lists every problem found, not only the first.

    `omitted` is how many more there are than `problems` holds.
    """

    exit_code = 2

    def __init__(self, problems: Iterable[Problem], source: str | None = None, *, omitted: int = 0) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.source = source
        self.omitted = omitted
        super().__init__(str(self))

    @classmethod
    def single(
        cls,
        path: str,
        message: str,
        value: object = None,
        example: str | None = None,
        suggestion: str | None = None,
        source: str | None = None,
    ) -> InputError:
        """An error with one problem."""
        return cls([Problem(path, message, value, example, suggestion)], source)

    def __str__(self) -> str:
        count = len(self.problems) + self.omitted
        head = f"{count} problem{'s' if count != 1 else ''}"
        if self.source:
            head += f" in {self.source}"
        lines = [f"  - {problem}" for problem in self.problems[:SHOWN]]
        if count > len(lines):
            lines.append(f"  - and {count - len(lines):,} more")
        return "\n".join([head + ":", *lines])

    def __reduce__(self) -> tuple[object, ...]:
        """Errors come back from other processes as they were raised there."""
        return _again, (type(self), self.problems, self.source, self.omitted)


def _again(kind: type[InputError], problems: tuple[Problem, ...], source: str | None, omitted: int) -> InputError:
    return kind(problems, source, omitted=omitted)


def problems_with(attempt: Callable[[], object], within: str = "") -> list[Problem]:
    """What is wrong with what `attempt` reads or checks; nothing if it succeeds.

    Args:
        attempt: may raise an `InputError`.
        within: the field that names the file, if any, whose problems they are; their paths then start with it.
    """
    try:
        attempt()
    except InputError as error:
        return [_within(problem, within, error.source) for problem in error.problems]
    return []


def _within(problem: Problem, field: str, source: str | None) -> Problem:
    if not field or problem.path == field:
        return problem
    message = problem.message if source is None else f"{problem.message} (in {source})"
    return replace(problem, path=f"{field}.{problem.path}".rstrip("."), message=message)


class InfeasibleError(KrakenSimError):
    """The question is well formed but has no answer on this machine; `limit` names the limiting number."""

    exit_code = 3

    def __init__(self, message: str, limit: str) -> None:
        self.message = message
        self.limit = limit
        super().__init__(f"{message}; limiting number: {limit}")

    def __reduce__(self) -> tuple[object, ...]:
        """See `InputError`."""
        return type(self), (self.message, self.limit)


def one_line_of(error: InputError | InfeasibleError) -> str:
    """Why something cannot be answered, in one line."""
    if isinstance(error, InputError):
        return "; ".join(str(problem) for problem in error.problems)
    return str(error)


class SimulationError(KrakenSimError):
    """The simulation could not finish, for example because operations wait for each other."""

    exit_code = 1


def check_is(value: object, kind: type, path: str, example: str) -> None:
    """Refuses an argument of another kind than is meant.

    Raises:
        InputError: it is one.
    """
    if not isinstance(value, kind):
        message = f"must be a {kind.__name__}, and is {'null' if value is None else f'a {type(value).__name__}'}"
        raise InputError.single(path, message, example=example)


def closest(word: str, candidates: Sequence[str]) -> str | None:
    """The candidate that `word` was probably meant to be, or None."""
    lowered = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)
    return lowered[found[0]] if found else None
