"""The command line, one module a verb.

A verb's module has `add_arguments(parser)`, which says what may be given and sets `handler`, the function that does
what was asked. Only the module of the verb that is used is loaded, and its handler imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

from kraken_sim.cli.parser import Parser

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

VERBS: Final[Mapping[str, str]] = {
    "run": "predict one scenario",
    "compare": "standard, parallel and Kraken side by side",
    "paper": "the Kraken paper's latency experiment, predicted against reported",
    "calibrate": "fit a profile to the microbenchmarks of a measurement file",
    "validate": "predictions against the whole passes of a measurement file",
    "collective": "a collective over a range of sizes, in nccl-tests' columns",
    "sweep": "every point of a scenario whose fields may be lists, to Parquet",
    "profiles": "the machines that ship, and files of your own",
    "explore": "find the best design, and how sure that is",
    "procure": "which machines meet an SLA, how many, and what they cost",
    "schema": "JSON schema of a scenario, a profile, a datasheet or a request",
}
"""Modules of this package, in the order of `--help`, each with its line there."""


def build_parser(verbs: Collection[str] = tuple(VERBS)) -> Parser:
    """Every command, and the options of `verbs`; a test freezes them, because others script against them."""
    parser = Parser(
        prog="kraken-sim",
        description="Predict how fast standard, parallel and Kraken Transformers answer on several GPUs, and why.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for verb, text in VERBS.items():
        command = commands.add_parser(verb, help=text)
        if verb in verbs:
            import_module(f"{__name__}.{verb}").add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 bad input, 3 infeasible."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = build_parser(arguments)
    args = parser.parse_args(arguments)
    if args.version:
        from importlib.metadata import version

        sys.stdout.write(f"kraken-sim {version('kraken_sim')}\n")
        return 0
    if args.command is None:
        parser.print_help()
        return 2
    from kraken_sim.errors import KrakenSimError

    try:
        args.handler(args)
    except KrakenSimError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
    return 0
