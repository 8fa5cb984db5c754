"""The command line of `validation.measure`."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kraken_sim.errors import InputError, closest
from kraken_sim.measurements.schema import CONDITIONS
from validation.microbench.plan import SUITES

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command line, checked."""

    suite: str
    out: Path
    deadline_s: float | None
    only: str | None
    conditions: tuple[str, ...] | None


def parse(argv: Sequence[str] | None) -> Arguments:
    """Read the command line.

    Raises:
        InputError: an unknown condition, a bad regular expression, a deadline that is no positive number.
    """
    parser = argparse.ArgumentParser(
        prog="validation.measure", description="Measures this machine and writes a measurement file."
    )
    parser.add_argument("--suite", choices=SUITES, default="quick", help="what to measure")
    parser.add_argument("--out", type=Path, required=True, help="measurement file (JSON Lines), begun or continued")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="stop cleanly before this many seconds")
    parser.add_argument("--only", metavar="REGEX", help="only cases whose key matches")
    parser.add_argument("--conditions", metavar="A,B", help=f"of {', '.join(CONDITIONS)}")
    given = parser.parse_args(argv)
    conditions = _check_conditions(given.conditions) if given.conditions else None
    if given.deadline is not None and not given.deadline > 0:
        raise InputError.single("--deadline", "must be a positive number of seconds", given.deadline, "300")
    if given.only is not None:
        try:
            re.compile(given.only)
        except re.error as error:
            raise InputError.single("--only", f"no regular expression: {error}", given.only, "^gemm/") from None
    return Arguments(given.suite, given.out, given.deadline, given.only, conditions)


def _check_conditions(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in CONDITIONS:
            known = ", ".join(CONDITIONS)
            suggestion = closest(name, tuple(CONDITIONS))
            raise InputError.single("--conditions", f"unknown; known are {known}", name, suggestion=suggestion)
    return names
