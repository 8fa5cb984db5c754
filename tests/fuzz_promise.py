"""The promise that fuzzers hold us to: an answer that can be one, or an error in our words; soon, and nothing else."""

from __future__ import annotations

import contextlib
import io
import math
import re
import signal
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final

from kraken_sim import InfeasibleError, InputError, KrakenSimError
from kraken_sim.measurements.schema import MeasurementWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CPU_LIMIT_S: Final = 10.0
"""Of the processor's time, so that a busy machine changes nothing: five times the two seconds that are promised."""

LONGEST_ERROR: Final = 20_000
"""Characters; some twenty problems, none of which repeats a file."""

NOT_OURS: Final = re.compile(
    r"pydantic|Traceback|errors\.pydantic|<class|NoneType|object at 0x|object is not|Input should|validation error|"
    r"Value error|unexpected keyword|positional argument|has no attribute|codec can't|surrogates not allowed|"
    r"could not convert|invalid literal|Exceeds the limit|\[Errno|embedded null",
)
"""Words of Python and of libraries, which mean nothing to who wrote the file."""


class TooSlowError(Exception):
    """A question that took longer than the limit."""


@contextlib.contextmanager
def limited(seconds: float = CPU_LIMIT_S) -> Iterator[None]:
    """Ends what runs longer than some seconds of the processor's time."""

    def stop(*_: object) -> None:
        raise TooSlowError(f"more than {seconds:g} s of CPU")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def kept(question: Callable[[], object]) -> object:
    """The answer, or None where there was an error of ours; anything else that happens is a broken promise."""
    with warnings.catch_warnings(), limited():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", MeasurementWarning)
        try:
            answer = question()
        except KrakenSimError as error:
            check_error(error)
            return None
    return answer


def check_error(error: KrakenSimError) -> None:
    """Whether an error is one of ours through and through."""
    assert isinstance(error, InputError | InfeasibleError), f"{type(error).__name__}: {error}"
    check_words(str(error))
    if isinstance(error, InputError):
        assert error.problems
        for problem in error.problems:
            assert isinstance(problem.path, str)
            assert problem.message.strip(), problem
    else:
        assert error.limit


def check_words(text: str) -> None:
    """Whether a message is in our words, and of a length that one reads."""
    assert text.strip()
    assert len(text) <= LONGEST_ERROR, f"{len(text)} characters: {text[:500]}"
    found = NOT_OURS.search(text)
    assert found is None, f"{found.group()!r} in {text[:2000]}" if found else ""


def check_time(seconds: float) -> None:
    """Whether a time can be one."""
    assert isinstance(seconds, float)
    assert math.isfinite(seconds), seconds
    assert seconds > 0.0, seconds


def check_json(value: Any, path: str = "") -> None:
    """Whether an answer for JSON has numbers that are numbers."""
    if isinstance(value, dict):
        for key, item in value.items():
            check_json(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_json(item, f"{path}[{index}]")
    elif isinstance(value, float):
        assert math.isfinite(value), f"{path} is {value}"


def run_command(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Runs a command line in this process; its exit code and what it wrote."""
    from kraken_sim.cli import main

    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    stdin = sys.stdin
    sys.stdin = io.StringIO("")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(list(arguments))
            except SystemExit as leave:
                code = leave.code if isinstance(leave.code, int) else 1
    finally:
        sys.stdin = stdin
    return code, _said(out), _said(err)


def _said(stream: io.TextIOWrapper) -> str:
    with contextlib.suppress(ValueError):  # closed: what a broken pipe leaves
        stream.flush()
        raw = stream.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue().decode()
    return ""
