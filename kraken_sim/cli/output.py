"""Where results go: tables to standard output, JSON and HTML to files, notes to standard error."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kraken_sim.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rich.console import RenderableType

PIPE_WIDTH = 160
"""Columns of a table in a file or a pipe."""


def print_report(renderable: RenderableType) -> None:
    """Tables and text to standard output."""
    from rich.console import Console

    # Files and pipes get the tables whole; a terminal gets them in its own width.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(highlight=False, width=width).print(renderable)


def note(text: str) -> None:
    """A line for the reader that is no result, such as which file was written."""
    sys.stderr.write(f"{text}\n")


def write_text(path: str, text: str, option: str) -> None:
    """A whole text file, its folder made where missing; `option` is what asked for it.

    Raises:
        InputError: the file can't be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError.single(option, f"cannot be written: {error.strerror}", path) from None


def write_json(path: str, data: Any) -> None:
    """JSON to a file, or to standard output for `-`."""
    text = json.dumps(data, indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        write_text(path, text, "--json")


def write_outputs(
    args: argparse.Namespace,
    data: Callable[[], Any],
    report: Callable[[], RenderableType],
    page: Callable[[], str],
) -> None:
    """A report to the terminal, and JSON and HTML where they were asked for; each is made only if it is."""
    if args.json != "-":
        print_report(report())
    if args.json is not None:
        write_json(args.json, data())
    if args.html is not None:
        write_text(args.html, page(), "--html")
        note(f"report: {args.html}")


def profile_target(path: str) -> Path:
    """Where a new profile goes, checked before anything is worked out.

    Raises:
        InputError: it is no YAML file.
    """
    target = Path(path)
    if target.suffix not in (".yaml", ".yml"):
        raise InputError.single("--out", "must be a .yaml file", path, f"{target.stem or 'my-machine'}.yaml")
    return target


def write_profile(target: Path, text: str) -> None:
    """Checks a profile's text by reading it, then writes it whole.

    Raises:
        InputError: the text is no right profile, or the file can't be written.
    """
    from kraken_sim.files.strict_yaml import parse_yaml
    from kraken_sim.profiles.schema import parse_profile
    from kraken_sim.profiles.write import write_atomically

    parse_profile(parse_yaml(text, str(target)))
    write_atomically(target, text)
