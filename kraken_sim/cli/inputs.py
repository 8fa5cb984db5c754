"""What verbs read: files by path, or by the name of one that ships."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from kraken_sim.cli.output import note
from kraken_sim.errors import InputError
from kraken_sim.files.shipped import shipped_path as shipped_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.scenario.spec import Scenario


def named_scenario(name_or_path: str) -> Scenario:
    """A scenario's file, or one that ships, by its name.

    Raises:
        InputError: there is none, or it is wrong.
    """
    from kraken_sim.scenario.spec import load_scenario

    return load_scenario(shipped_path(name_or_path, "SCENARIO"))


def measurement_file(path: str) -> MeasurementFile:
    """A measurement file; what is odd about it but spoils nothing goes to standard error."""
    from kraken_sim.measurements.schema import read_measurements

    with measurement_warnings():
        return read_measurements(Path(path))


@contextlib.contextmanager
def measurement_warnings() -> Iterator[None]:
    """Around what reads a measurement file: what is odd about it goes to standard error."""
    from kraken_sim.measurements.schema import MeasurementWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MeasurementWarning)
        yield
    for warning in caught:
        note(f"warning: {warning.message}")


def architectures_named(names: str | None) -> tuple[str, ...]:
    """The architectures of `--architectures`; nothing where it is not given.

    Raises:
        InputError: one is not known.
    """
    from kraken_sim.architectures.registry import kinds, kinds_named

    if names is None:
        return ()
    return kinds() if names == "all" else kinds_named([name.strip() for name in names.split(",")], "--architectures")


def check_processes(args: argparse.Namespace) -> None:
    """Refuse a number of processes that is none.

    Raises:
        InputError: as said.
    """
    if args.jobs is not None and args.jobs < 1:
        raise InputError.single("--jobs", "must be at least 1", args.jobs)
