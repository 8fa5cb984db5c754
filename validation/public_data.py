"""Where published tables of kernels and collectives lie; the one place that knows, for tests and commands alike.

They are not part of this repository. A folder with them is named by `--public-data`, by the environment variable
KRAKEN_SIM_PUBLIC_DATA, or lies beside the checkout; without them, tests that need them are skipped and tables of
accuracy leave their rows out. The tables are those of ai-dynamo/aiconfigurator, as CSV with comments that begin with #.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError

if TYPE_CHECKING:
    import argparse

VARIABLE: Final = "KRAKEN_SIM_PUBLIC_DATA"
BESIDE_CHECKOUT: Final = Path("shared", "reference", "public_data")
"""Looked for in the folder that holds the checkout."""

Row = dict[str, str]


def public_data_folder() -> Path:
    """The folder that the environment names, or the one beside the checkout, which need not exist.

    Raises:
        InputError: the environment names a folder that does not exist.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return Path(__file__).resolve().parents[2] / BESIDE_CHECKOUT
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise InputError.single(VARIABLE, "must name a folder that exists", named, "/data/public_tables")
    return folder


def add_public_data_option(parser: argparse.ArgumentParser) -> None:
    """`--public-data DIR`: None where it is not given, to be read with `folder_of_option`."""
    parser.add_argument(
        "--public-data",
        type=Path,
        metavar="DIR",
        help=f"folder of published tables of kernels and collectives (default: the environment's {VARIABLE}, else "
        "where they lie beside the checkout)",
    )


def folder_of_option(given: Path | None) -> Path:
    """The folder of `--public-data`, or where it is not given that of `public_data_folder`.

    Raises:
        InputError: a folder that is named does not exist.
    """
    if given is None:
        return public_data_folder()
    if not given.is_dir():
        raise InputError.single("--public-data", "must name a folder that exists", str(given), "/data/public_tables")
    return given


def rows_of(path: Path) -> list[Row]:
    """The rows of a table; lines that begin with # are comments. No rows where there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(row for row in file if not row.startswith("#")))
