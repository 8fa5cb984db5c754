"""The command line, one module a verb.

A verb's module has `add_arguments(parser)`, which says what may be given and sets `handler`, the function that does
what was asked. Only the module of the verb that is used is loaded, and its handler imports what it needs when it runs.
"""

from __future__ import annotations

import os
import shlex
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

from kraken_sim.cli import process
from kraken_sim.cli.parser import Parser
from kraken_sim.cli.streams import Terminated, finish, prepare, put, say, terminable
from kraken_sim.files.garbage import collecting_seldom

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Mapping, Sequence

VERBS: Final[Mapping[str, str]] = {
    "run": "predict one scenario",
    "compare": "standard, parallel and Kraken side by side",
    "paper": "the Kraken paper's latency experiment, predicted against reported",
    "calibrate": "fit a profile to the microbenchmarks of a measurement file",
    "validate": "predictions against the whole passes of a measurement file",
    "diff-trace": "a prediction against a torch.profiler trace, kernel by kernel",
    "collective": "a collective over a range of sizes, in nccl-tests' columns",
    "sweep": "every point of a scenario whose fields may be lists, to Parquet",
    "profiles": "the machines that ship, and files of your own",
    "explore": "find the best design, and how sure that is",
    "serve": "requests over time on replicas with continuous batching: TTFT and TPOT at percentiles, goodput, energy",
    "procure": "which machines meet an SLA, how many, and what they cost",
    "schema": "JSON schema of a scenario, a profile, a datasheet or a request",
    "scenarios": "the questions that ship: list, show, copy",
    "models": "the presets: list",
    "completion": "completion of commands, options and names for bash, zsh and fish",
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
            import_module(f"{__name__}.{verb.replace('-', '_')}").add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 bad input, 3 infeasible, 130 after Ctrl-C, 143 after SIGTERM.

    Whatever ends it, what a reader sees is tables or one message, and no file is half written. Without `argv` the
    process is the command's own; see `process.own`.
    """
    if argv is None:
        process.own()
    arguments = sys.argv[1:] if argv is None else argv
    prepare()
    try:
        with terminable(), collecting_seldom():
            return _run(arguments)
    except KeyboardInterrupt as stop:
        how = "the same command starts again"
        if _goes_on(arguments):
            how = "what is done is kept, and the same command goes on"
        terminated = isinstance(stop, Terminated)
        say(f"{'terminated' if terminated else 'interrupted'}: no file is half written; {how}")
        return 143 if terminated else 130


def _goes_on(arguments: Sequence[str]) -> bool:
    """Whether a command keeps what it has done when it is stopped: sweeps, and searches that write a file."""
    if list(arguments[:2]) == ["explore", "design"]:
        return any(argument.split("=")[0] == "--out" for argument in arguments)
    return list(arguments[:1]) == ["sweep"]


def _run(arguments: Sequence[str]) -> int:
    try:
        return _answer(arguments)
    except Exception as error:
        from kraken_sim.errors import KrakenSimError

        if not isinstance(error, KrakenSimError):
            raise
        say(f"error: {error}")
        return error.exit_code


def _do(args: argparse.Namespace) -> None:
    from kraken_sim.cli.output import check_targets
    from kraken_sim.errors import InputError
    from kraken_sim.files.bounded import noting_reads

    with noting_reads():
        check_targets(args)
        try:
            args.handler(args)
        except InputError as error:
            from kraken_sim.cli.question import under_their_options

            raise under_their_options(error, args) from None


def _complete() -> None:
    """Answers a shell that asks for completions, and ends the process."""
    from argcomplete import autocomplete
    from argcomplete.completers import SuppressCompleter

    words = os.environ.get("COMP_LINE", "").split()
    autocomplete(build_parser(words[1:2]), default_completer=SuppressCompleter())


def _answer(arguments: Sequence[str]) -> int:
    parser = build_parser(arguments)
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    try:
        args = parser.parse_args(arguments)
        args.command_line = shlex.join([parser.prog, *arguments])
    except SystemExit:
        finish()
        raise
    if args.version:
        from importlib.metadata import version

        put(f"kraken-sim {version('kraken_sim')}\n")
    elif args.command is None:
        parser.print_help()
    else:
        _do(args)
    finish()
    return 0 if args.version or args.command is not None else 2
