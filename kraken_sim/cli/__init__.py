"""The command line, one module a verb.

A verb's module has `add_verb(commands)`, which adds its parser and sets `handler`, the function that does what was
asked. Handlers import what they need when they run, so that `--help` imports nothing heavy.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

from kraken_sim.cli.parser import Parser
from kraken_sim.errors import KrakenSimError

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS: Final = (
    "run",
    "compare",
    "paper",
    "calibrate",
    "validate",
    "collective",
    "sweep",
    "profiles",
    "explore",
    "procure",
    "schema",
)
"""Modules of this package, in the order of `--help`."""


def build_parser() -> Parser:
    """Every command and option; a test freezes them, because others script against them."""
    parser = Parser(
        prog="kraken-sim",
        description="Predict how fast standard, parallel and Kraken Transformers answer on several GPUs, and why.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for verb in VERBS:
        import_module(f"{__name__}.{verb}").add_verb(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 bad input, 3 infeasible."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.version:
        from importlib.metadata import version

        sys.stdout.write(f"kraken-sim {version('kraken_sim')}\n")
        return 0
    if args.command is None:
        parser.print_help()
        return 2
    try:
        args.handler(args)
    except KrakenSimError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
    return 0
