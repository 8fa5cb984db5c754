"""Where results go: tables to standard output, JSON and HTML to files, notes to standard error."""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.cli.streams import put, say, writing
from kraken_sim.errors import InputError
from kraken_sim.files.ours import check_replaceable, signed_json, signed_page, signed_yaml
from kraken_sim.files.printable import printable
from kraken_sim.files.whole import write_whole
from kraken_sim.predict.records import csv_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from rich.console import ConsoleOptions, RenderableType

    from kraken_sim.report.page import Page

PIPE_WIDTH = 160
"""Columns of a table in a file or a pipe."""

_BLANK_LINES: Final = re.compile(r"\n{3,}")


def print_report(renderable: RenderableType) -> None:
    """Tables and text to standard output; names in them are text, whatever markup or control characters they hold."""
    from rich.console import Console
    from rich.segment import Segment

    class Plain(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(printable(text), style)

    # Files and pipes get the tables whole; a terminal gets them in its own width.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Plain(highlight=False, markup=False, emoji=False, width=width)
    with writing(), console.capture() as captured:
        console.print(renderable)
    with writing():
        sys.stdout.write(_BLANK_LINES.sub("\n\n", captured.get()).strip("\n") + "\n")


def note(text: str) -> None:
    """A line for the reader that is no result, such as which file was written."""
    say(text)


TARGETS: Final = ("json", "csv", "html", "out")
"""Options that name a file to write."""


def check_targets(args: argparse.Namespace) -> None:
    """What a command is to write replaces nothing that somebody would miss; before anything is worked out.

    Raises:
        InputError: see `check_replaceable`.
    """
    if getattr(args, "csv", None) == getattr(args, "json", None) == "-":
        raise InputError.single("--csv", "standard output is --json's already", "-", "--csv rows.csv")
    for name in TARGETS:
        path = getattr(args, name, None)
        # A sweep says of its own file whose it is, and rows of theirs when their columns are known.
        if path not in (None, "-") and (args.command, name) != ("sweep", "out"):
            check_replaceable(Path(path), f"--{name}", force=args.force, ours=True if name == "csv" else None)


def write_file(path: Path, text: str, option: str, *, force: bool) -> None:
    """A text file, whole or not at all, its folder made where missing; `option` is what asked for it.

    Raises:
        InputError: the file can't be written, or one of others is there and `force` is not given.
    """
    check_replaceable(path, option, force=force)
    try:
        write_whole(path, text.encode("utf-8", errors="backslashreplace"))
    except OSError as error:
        raise InputError.single(option, f"cannot be written: {error.strerror or error}", str(path)) from None


def write_page(args: argparse.Namespace, page: Page) -> None:
    """The HTML file of `--html`, and where pages share the library that draws, that beside it.

    Raises:
        InputError: see `write_file`.
    """
    from kraken_sim.report.render import PlotlySource, library_file, render

    path, library = Path(args.html), PlotlySource(args.plotly)
    if library is PlotlySource.SHARED:
        name, script = library_file()
        shared = path.with_name(name)
        if not shared.is_file() or shared.read_bytes() != script.encode():
            write_file(shared, script, "--plotly", force=args.force)
    write_file(path, signed_page(render(page, command=args.command_line, library=library)), "--html", force=args.force)


def write_json(args: argparse.Namespace, data: Any) -> None:
    """The JSON file of `--json`, or to standard output for `-`.

    Raises:
        InputError: see `write_file`.
    """
    text = as_json(signed_json(data))
    if args.json == "-":
        put(text)
    else:
        write_file(Path(args.json), text, "--json", force=args.force)


def write_csv(args: argparse.Namespace, parts: Iterable[bytes]) -> None:
    """The CSV file of `--csv`, or to standard output for `-`; it replaces one of the same columns.

    Args:
        args: of the verb.
        parts: the file's bytes one after the other, the first with the whole header.

    Raises:
        InputError: see `write_file`.
    """
    iterator = iter(parts)
    first = next(iterator, b"")
    if args.csv == "-":
        put(first.decode())
        for part in iterator:
            put(part.decode())
        return
    path = Path(args.csv)
    check_rows_file(args, first)
    try:
        write_whole(path, chain([first], iterator))
    except OSError as error:
        raise InputError.single("--csv", f"cannot be written: {error.strerror or error}", str(path)) from None
    say_written(args, "rows", args.csv)


def check_rows_file(args: argparse.Namespace, header: bytes) -> None:
    """What `--csv` names is no file, or holds rows with the columns of `header`, the first line.

    Raises:
        InputError: it is a file of others, and `--force` is not given.
    """
    if args.csv not in (None, "-"):
        path = Path(args.csv)
        ours = _begins_with(path, header.partition(b"\n")[0])
        check_replaceable(path, "--csv", force=args.force, ours=ours)


def _begins_with(path: Path, header: bytes) -> bool:
    with suppress(OSError, ValueError), path.open("rb") as file:
        return file.read(len(header) + 1) in (b"", header + b"\n")
    return False


def say_written(args: argparse.Namespace, what: str, where: str) -> None:
    """A line that says which file was written, unless nobody wants to know."""
    if not args.quiet:
        note(f"{what}: {where}")


def as_json(data: Any) -> str:
    """The text of a JSON file."""
    return json.dumps(data, indent=2) + "\n"


def write_outputs(
    args: argparse.Namespace,
    data: Callable[[], Any],
    report: Callable[[], RenderableType],
    page: Callable[[], Page],
    rows: Callable[[], Iterable[Mapping[str, Any]]],
) -> None:
    """A report to the terminal, and JSON, CSV and HTML where they were asked for; each is made only if it is."""
    if shows_tables(args):
        print_report(report())
    if args.json is not None:
        write_json(args, data())
    if args.csv is not None:
        write_csv(args, [csv_text(rows()).encode()])
    if args.html is not None:
        write_page(args, page())
        say_written(args, "report", args.html)


def shows_tables(args: argparse.Namespace) -> bool:
    """Whether standard output is for tables."""
    return not args.quiet and "-" not in (args.json, args.csv)


def profile_target(path: str) -> Path:
    """Where a new profile goes, checked before anything is worked out.

    Raises:
        InputError: it is no YAML file.
    """
    target = Path(path)
    if target.suffix not in (".yaml", ".yml"):
        raise InputError.single("--out", "must be a .yaml file", path, f"{target.stem or 'my-machine'}.yaml")
    return target


def write_profile(target: Path, text: str, *, force: bool) -> None:
    """Checks a profile's text by reading it, then writes it whole.

    Raises:
        InputError: the text is no right profile, or as of `write_file`.
    """
    from kraken_sim.files.strict_yaml import parse_yaml
    from kraken_sim.profiles.schema import parse_profile

    parse_profile(parse_yaml(text, str(target)))
    write_file(target, signed_yaml(text), "--out", force=force)
