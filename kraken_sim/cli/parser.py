"""How the command line reads its arguments: argparse, with suggestions for misspelt choices."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NoReturn

from kraken_sim.cli.streams import put, say

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class Parser(argparse.ArgumentParser):
    """argparse that suggests the choice that was meant; a bad argument ends with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with usage and message on standard error."""
        if "invalid choice: " in message:
            from kraken_sim.errors import closest

            word = message.split("invalid choice: '")[-1].split("'")[0]
            choices = [part.strip(" ')") for part in message.split("choose from ")[-1].split(",")]
            if (guess := closest(word, choices)) is not None:
                message += f"; did you mean {guess!r}?"
        super().error(message)

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """As argparse's, but what can't be written is an error, and what was given is shown and not obeyed."""
        if message and file is sys.stdout:
            put(message)
        elif message:
            say(message.removesuffix("\n"))


def add_force(parser: Parser) -> None:
    """`--force`, for what writes files; `output.write_file` obeys it."""
    parser.add_argument("--force", action="store_true", help="replace a file that kraken-sim did not write")


def add_outputs(parser: Parser) -> None:
    """`--json`, `--csv`, `--html`, `--quiet`, `--force`, as most verbs have them; see `output.write_outputs`."""
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - for standard output, no tables")
    parser.add_argument("--csv", metavar="FILE", help="write the rows of the answer as CSV; - for standard output")
    parser.add_argument("--html", metavar="FILE", help="write a report that opens in any browser")
    add_plotly(parser)
    add_quiet(parser)
    add_force(parser)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """`--quiet`, for what prints."""
    text = "print no tables, and of what was written no line; only warnings and errors"
    parser.add_argument("-q", "--quiet", action="store_true", help=text)


def add_plotly(parser: argparse.ArgumentParser) -> None:
    """`--plotly`, for what writes HTML; `output.write_page` obeys it."""
    parser.add_argument(
        "--plotly",
        choices=("embedded", "shared"),
        default="embedded",
        help="the library that draws a page's figures, 5 MB: in each page, or once beside all pages of a folder",
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """`--where`, `--sort` and `--top`, for what has many rows; `explore.selection` reads them."""
    text = "only rows like this, in the table and in --csv, such as 'batch_size>=8'; may be repeated"
    parser.add_argument("--where", metavar="COLUMN=VALUE", action="append", default=[], help=text)
    parser.add_argument("--sort", metavar="COLUMN", help="by this column, upwards; COLUMN:desc downwards")
    parser.add_argument("--top", metavar="N", type=int, help="the first N rows")


def add_workers(parser: argparse.ArgumentParser, kept: str, jobs: str) -> None:
    """`--out`, `--jobs` and `--cluster`, for what has many points; `kept` says what is in the file."""
    parser.add_argument("--out", metavar="FILE", help=kept)
    parser.add_argument("--jobs", metavar="N", type=int, help=f"processes (default: {jobs})")
    parser.add_argument("--cluster", metavar="URL", help="run on dask://host:port or ray://host:port instead")


def add_architectures(parser: argparse.ArgumentParser) -> None:
    """The architectures to compare."""
    parser.add_argument(
        "--architectures", metavar="KINDS", help="architectures to try, such as standard,ladder, or all of them: all"
    )
