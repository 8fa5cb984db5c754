"""Where results go: tables to standard output, JSON and HTML to files, notes to standard error."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.cli.streams import put, say, writing
from kraken_sim.errors import InputError
from kraken_sim.files.ours import check_replaceable, signed_json, signed_page, signed_yaml
from kraken_sim.files.printable import printable
from kraken_sim.files.whole import write_whole

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

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


TARGETS: Final = ("json", "html", "out")
"""Options that name a file to write."""


def check_targets(args: argparse.Namespace) -> None:
    """What a command is to write replaces nothing that somebody would miss; before anything is worked out.

    Raises:
        InputError: see `check_replaceable`.
    """
    for name in TARGETS:
        path = getattr(args, name, None)
        # A sweep says of its own file whose it is.
        if path not in (None, "-") and (args.command, name) != ("sweep", "out"):
            check_replaceable(Path(path), f"--{name}", force=args.force)


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


def as_json(data: Any) -> str:
    """The text of a JSON file."""
    return json.dumps(data, indent=2) + "\n"


def write_outputs(
    args: argparse.Namespace,
    data: Callable[[], Any],
    report: Callable[[], RenderableType],
    page: Callable[[], Page],
) -> None:
    """A report to the terminal, and JSON and HTML where they were asked for; each is made only if it is."""
    if args.json != "-":
        print_report(report())
    if args.json is not None:
        write_json(args, data())
    if args.html is not None:
        write_page(args, page())
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


def write_profile(target: Path, text: str, *, force: bool) -> None:
    """Checks a profile's text by reading it, then writes it whole.

    Raises:
        InputError: the text is no right profile, or as of `write_file`.
    """
    from kraken_sim.files.strict_yaml import parse_yaml
    from kraken_sim.profiles.schema import parse_profile

    parse_profile(parse_yaml(text, str(target)))
    write_file(target, signed_yaml(text), "--out", force=force)
