"""What a command of `validation` ends with, whatever ends it: an exit code, and one message for people."""

from __future__ import annotations

import errno
import math
from typing import TYPE_CHECKING

from kraken_sim.errors import InputError, KrakenSimError, Problem
from validation.progress import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

_OF_THE_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
)
"""Errors of writing (errno(3)); any other one is a bug of ours."""


def exit_code(work: Callable[[], int | None], out: Path, kept: str) -> int:
    """Does the work: 0 or what it returns, 2 where the input is wrong or nothing can be written, 130 after Ctrl-C.

    Args:
        work: what was asked.
        out: the file or folder that it writes.
        kept: what becomes of the work that is done already, in words.

    Raises:
        OSError: one that says nothing of a disk.
    """
    try:
        return work() or 0
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        found: KrakenSimError = InputError.single("--out", f"cannot be written: {error.strerror}; {kept}", str(out))
    except KrakenSimError as error:
        found = error
    except KeyboardInterrupt:
        say(f"interrupted: {kept}")
        return 130
    say(f"error: {found}")
    return found.exit_code


def check_positive(given: argparse.Namespace, *options: str) -> None:
    """Numbers that a command line may give, if it gives them.

    Raises:
        InputError: some are zero, negative, endless or no numbers.
    """
    values = {option: getattr(given, option.lstrip("-").replace("-", "_")) for option in options}
    problems = [
        Problem(option, "must be a positive number", value)
        for option, value in values.items()
        if value is not None and not 0 < value < math.inf
    ]
    if problems:
        raise InputError(problems)
