"""The command line. Handlers import what they need, so that `--help` imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Parser(argparse.ArgumentParser):
    """argparse with suggestions for misspelt choices, and exit code 2."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice: " in message:
            from kraken_sim.errors import closest

            word = message.split("invalid choice: '")[-1].split("'")[0]
            choices = [part.strip(" ')") for part in message.split("choose from ")[-1].split(",")]
            if (guess := closest(word, choices)) is not None:
                message += f"; did you mean {guess!r}?"
        super().error(message)


def build_parser() -> argparse.ArgumentParser:
    """Every command and option; a test freezes them, because others script against them."""
    parser = _Parser(
        prog="kraken-sim",
        description="Predict how fast standard, parallel and Kraken Transformers answer on several GPUs, and why.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser("run", help="predict one scenario")
    run.add_argument("scenario", metavar="SCENARIO", help="a scenario's file, or the name of one that ships")
    run.add_argument("--trace", metavar="DIR", help="write torch.profiler traces, one file a rank")
    run.add_argument("--exact", action="store_true", help="simulate every rank and layer, fold nothing")
    _add_outputs(run)

    compare = commands.add_parser("compare", help="standard, parallel and Kraken side by side")
    compare.add_argument("scenario", metavar="SCENARIO", help="a scenario; its architecture is replaced in turn")
    _add_outputs(compare)

    paper = commands.add_parser("paper", help="the Kraken paper's latency experiment, predicted against reported")
    what_ifs = "paper_grid_h100, paper_grid_interconnects, ..."
    paper.add_argument(
        "--grid", metavar="FILE", help=f"a grid's file, or one that ships: {what_ifs} (default: the paper's)"
    )
    _add_outputs(paper)

    _add_measured(commands)
    _add_collective(commands)
    _add_sweep(commands)

    profiles = commands.add_parser("profiles", help="the machines that ship, and files of your own")
    verbs = profiles.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    verbs.add_parser("list", help="every machine that ships")
    show = verbs.add_parser("show", help="one machine, each number with its source")
    show.add_argument("profile", metavar="PROFILE", help="a profile's name, or its file")
    show.add_argument("--html", metavar="FILE", help="draw the machine: nodes, links, the best ring")
    check = verbs.add_parser("check", help="all problems of a profile's file at once")
    check.add_argument("profile", metavar="PROFILE", help="a profile's name, or its file")

    new = verbs.add_parser("new", help="a profile from a datasheet alone, constants carried over from the nearest GPU")
    new.add_argument("--from", metavar="DATASHEET", required=True, dest="datasheet", help="name, device and topology")
    new.add_argument("--out", metavar="FILE", required=True, help="the profile to write")

    _add_explore(commands)
    _add_procure(commands)

    schema = commands.add_parser("schema", help="JSON schema of a scenario, a profile, a datasheet or a request")
    kinds = ("scenario", "profile", "machine", "design", "purchase")
    schema.add_argument("kind", choices=kinds, nargs="?", default="scenario")
    return parser


def _add_measured(commands: argparse._SubParsersAction[_Parser]) -> None:
    """The commands that read measurements."""
    calibrate = commands.add_parser("calibrate", help="fit a profile to the microbenchmarks of a measurement file")
    calibrate.add_argument("measurements", metavar="MEASUREMENTS", help="a file of validation.measure")
    calibrate.add_argument("--base", metavar="PROFILE", required=True, help="where datasheet and topology come from")
    calibrate.add_argument("--out", metavar="FILE", required=True, help="the profile to write")
    calibrate.add_argument("--name", metavar="NAME", help="the profile's name (default: that of the file)")

    validate = commands.add_parser("validate", help="predictions against the whole passes of a measurement file")
    validate.add_argument("measurements", metavar="MEASUREMENTS", help="a file of validation.measure")
    validate.add_argument("--hardware", metavar="PROFILE", help="a profile (default: the one of the measured machine)")
    _add_outputs(validate)


def _add_collective(commands: argparse._SubParsersAction[_Parser]) -> None:
    """nccl-tests' table for one collective."""
    what = "a collective over a range of sizes, in nccl-tests' columns"
    collective = commands.add_parser("collective", help=what)
    ops = "all_reduce, all_gather, reduce_scatter, all_to_all or broadcast"
    collective.add_argument("op", metavar="OP", help=ops)
    collective.add_argument("--hardware", metavar="PROFILE", required=True, help="a profile's name, or its file")
    collective.add_argument("--num-devices", metavar="N", type=int, help="how many of its GPUs (default: all)")
    collective.add_argument("-b", "--begin", metavar="SIZE", help="smallest size, such as 8, 1K or 32M (default: 8)")
    collective.add_argument("-e", "--end", metavar="SIZE", help="largest size (default: 512M)")
    collective.add_argument("-f", "--factor", metavar="F", type=float, help="from one size to the next (default: 2)")
    collective.add_argument("-i", "--step", metavar="SIZE", help="from one size to the next, instead of a factor")
    collective.add_argument("-d", "--dtype", metavar="TYPE", default="float", help="half, float, bfloat16, ...")
    collective.add_argument("--library", metavar="L", help="nccl (default) or custom")
    collective.add_argument("--algorithm", metavar="A", help="ring, tree, nvls, one_shot, two_shot, multimem, ...")
    collective.add_argument("--protocol", metavar="P", help="ll, ll128 or simple")
    collective.add_argument("--channels", metavar="N", type=int, help="NCCL_MAX_NCHANNELS")
    collective.add_argument("--transport", metavar="T", help="auto, p2p or shm")
    collective.add_argument("--nccl-version", metavar="2.N", help="whose choice of algorithms (default: the profile's)")
    collective.add_argument("--selection", metavar="RULE", help="custom kernels: fastest, vllm, tensorrt_llm_legacy")
    collective.add_argument("--against", metavar="FILE", help="nccl-tests' output or a CSV, to compare with")
    collective.add_argument("--where", metavar="COLUMN=VALUE", action="append", default=[], help="rows of that CSV")
    _add_outputs(collective)


def _add_sweep(commands: argparse._SubParsersAction[_Parser]) -> None:
    """Many points at once."""
    sweep = commands.add_parser("sweep", help="every point of a scenario whose fields may be lists, to Parquet")
    sweep.add_argument("scenario", metavar="SCENARIO", help="a scenario's file, or the name of one that ships")
    kept = "Parquet file, an unfinished one is gone on with (default: the scenario's file name, .parquet)"
    sweep.add_argument("--out", metavar="FILE", help=kept)
    sweep.add_argument("--jobs", metavar="N", type=int, help="processes (default: as many as cores)")
    sweep.add_argument("--cluster", metavar="URL", help="run on dask://host:port or ray://host:port instead")
    sweep.add_argument("--yes", action="store_true", help="run however many points there are")


def _add_explore(commands: argparse._SubParsersAction[_Parser]) -> None:
    """Questions about designs, one command each."""
    explore = commands.add_parser("explore", help="find the best design, and how sure that is")
    verbs = explore.add_subparsers(dest="verb", metavar="QUESTION", required=True, parser_class=_Parser)
    channels = verbs.add_parser("channels", help="how many NCCL channels for an AllReduce beside the attention")
    channels.add_argument(
        "--measured", metavar="FILE", help="passes of validation.measure: predicted and measured best"
    )
    degree = verbs.add_parser("degree", help="over how many GPUs to spread a model, and wired how")
    interconnect = verbs.add_parser("interconnect", help="below which bandwidth between GPUs Kraken is worth it")
    interconnect.add_argument(
        "--worth", metavar="PERCENT", type=float, default=10.0, help="the speed-up asked of Kraken (default: 10)"
    )
    design = verbs.add_parser("design", help="the best shapes, wirings and channels for a parameter budget")
    design.add_argument("request", metavar="REQUEST", help="base, search, constraints, objectives: a file, or a name")
    design.add_argument("--max-evaluations", metavar="N", type=int, help="simulate no more designs than this")
    _add_outputs(design)
    for verb in (channels, degree, interconnect):
        verb.add_argument("scenario", metavar="SCENARIO", nargs="?", help="a scenario that the options below change")
        verb.add_argument("--hardware", metavar="PROFILE", nargs="+", help="machines: profiles' names or files")
        verb.add_argument("--model", metavar="MODEL", nargs="+", help="presets, or paths of config.json")
        verb.add_argument("--context-length", metavar="TOKENS", type=int, nargs="+", help="tokens of a prompt")
        verb.add_argument("--num-devices", metavar="N", type=int, help="devices used (degree: the most)")
        _add_outputs(verb)


def _add_procure(commands: argparse._SubParsersAction[_Parser]) -> None:
    """Buying machines."""
    procure = commands.add_parser("procure", help="which machines meet an SLA, how many, and what they cost")
    procure.add_argument("request", metavar="REQUEST", help="workloads, SLA and priced candidates: a file, or a name")
    _add_outputs(procure)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - for standard output, no tables")
    parser.add_argument("--html", metavar="FILE", help="write a report that opens in any browser")


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

    from kraken_sim.cli import commands
    from kraken_sim.errors import KrakenSimError

    try:
        handler = getattr(commands, f"{args.command}_command")
        handler(args)
    except KrakenSimError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return 0
