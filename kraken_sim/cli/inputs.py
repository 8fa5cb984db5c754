"""What verbs read: files by path, or by the name of one that ships."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from kraken_sim.cli.output import note
from kraken_sim.errors import InputError, closest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.scenario.spec import Scenario


def shipped_path(name_or_path: str, argument: str) -> Path:
    """A file's path, or that of a file in `scenarios` that ships, by its name; `argument` is what errors call it.

    Raises:
        InputError: there is neither.
    """
    from kraken_sim.files.shipped import data_dir

    path = Path(name_or_path)
    if not os.path.exists(path) and path.name == name_or_path and path.suffix not in (".yaml", ".yml"):
        shipped = {file.stem: file for file in data_dir("scenarios").glob("*.yaml")}
        if name_or_path not in shipped:
            message = "there is no such file, and no scenario of this name ships"
            guess = closest(name_or_path, list(shipped))
            raise InputError.single(argument, message, name_or_path, ", ".join(sorted(shipped)[:1]), guess)
        path = shipped[name_or_path]
    return path


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
