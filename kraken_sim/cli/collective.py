"""`kraken-sim collective`: nccl-tests' table, predicted, and beside a measured one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from kraken_sim.cli.output import print_report, say_written, shows_tables, write_csv, write_json, write_page
from kraken_sim.cli.parser import add_outputs
from kraken_sim.cli.streams import put
from kraken_sim.errors import InputError
from kraken_sim.predict.records import csv_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from kraken_sim.cli.parser import Parser
    from kraken_sim.measurements.nccl_tests import MeasuredCollective
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.standalone.collective_table import CollectiveTable
    from kraken_sim.standalone.one_op import CollectiveOpSpec
    from kraken_sim.standalone.same_question import Comparable

DEFAULT_BEGIN, DEFAULT_END, DEFAULT_FACTOR = "8", "512M", 2.0
"""The range of sizes without options: from 8 bytes, doubling, as in nccl-tests' examples."""

MOST_MEASURED = 10_000
"""Measurements that a table compares, which takes half a millisecond each; a limit of ours."""

DEFAULT_DTYPE = "float"
"""The type of elements without an option, as in nccl-tests."""


def add_arguments(parser: Parser) -> None:
    """What may be given; the collectives and the algorithms are those of the tables."""
    from kraken_sim.costs.collectives.algorithms import algorithm_names
    from kraken_sim.program.ops import CollectiveKind

    *most, last = CollectiveKind
    parser.add_argument("op", metavar="OP", help=f"{', '.join(most)} or {last}")
    parser.add_argument("--hardware", metavar="PROFILE", required=True, help="a profile's name, or its file")
    parser.add_argument("--num-devices", metavar="N", type=int, help="how many of its GPUs (default: all)")
    parser.add_argument("-b", "--begin", metavar="SIZE", help="smallest size, such as 8, 1K or 32M (default: 8)")
    parser.add_argument("-e", "--end", metavar="SIZE", help="largest size (default: 512M)")
    parser.add_argument("-f", "--factor", metavar="F", type=float, help="from one size to the next (default: 2)")
    parser.add_argument("-i", "--step", metavar="SIZE", help="from one size to the next, instead of a factor")
    parser.add_argument("-d", "--dtype", metavar="TYPE", help="half, float (default), bfloat16, ...")
    parser.add_argument("--library", metavar="L", help="nccl (default) or custom")
    parser.add_argument("--algorithm", metavar="A", help=", ".join(algorithm_names()))
    parser.add_argument("--protocol", metavar="P", help="ll, ll128 or simple")
    parser.add_argument("--channels", metavar="N", type=int, help="NCCL_MAX_NCHANNELS")
    parser.add_argument("--transport", metavar="T", help="auto, p2p or shm")
    parser.add_argument("--nccl-version", metavar="2.N", help="whose choice of algorithms (default: the profile's)")
    parser.add_argument("--selection", metavar="RULE", help="custom kernels: fastest, vllm, tensorrt_llm_legacy")
    against = "nccl-tests' output or a CSV, to compare with; several files may be"
    parser.add_argument("--against", metavar="FILE", nargs="+", action="extend", help=against)
    parser.add_argument("--where", metavar="COLUMN=VALUE", action="append", default=[], help="rows of that CSV")
    add_outputs(parser)
    parser.set_defaults(handler=_collective)


def _collective(args: argparse.Namespace) -> None:
    """Predict a collective at every size, print it as nccl-tests does, and write what is asked for."""
    from kraken_sim.costs.collectives.kinds import collective_kind
    from kraken_sim.profiles.load import load_profile
    from kraken_sim.standalone.collective_table import sweep_collective
    from kraken_sim.standalone.one_op import collective_spec
    from kraken_sim.standalone.sizes import element_type, parse_size

    kind = collective_kind(args.op)
    dtype = element_type(args.dtype or DEFAULT_DTYPE)
    profile = load_profile(args.hardware)
    num_devices = len(profile.topology.gpus) if args.num_devices is None else args.num_devices
    fields = {
        name: value
        for name in ("library", "channels", "transport", "algorithm", "protocol", "selection")
        if (value := getattr(args, name)) is not None
    }
    if args.nccl_version is not None:
        fields["version"] = args.nccl_version
    if args.where and args.against is None:
        raise InputError.single("--where", "chooses rows of --against, which is missing", args.where[0])
    try:
        spec = collective_spec({"op": kind.value, "bytes": 1, "num_devices": num_devices, **fields})
        profile.topology.group(spec.num_devices)
        begin, end = parse_size(args.begin or DEFAULT_BEGIN, "-b"), parse_size(args.end or DEFAULT_END, "-e")
        if args.against is None:
            table = sweep_collective(profile, spec, _sizes(args, begin, end), dtype)
        else:
            found = _measured(args, spec, profile, dtype if args.dtype else None)
            rows = _between(found.rows, args, begin, end)
            table = sweep_collective(profile, spec, [], dtype, rows, found.warnings)
    except InputError as error:
        raise _as_options(error) from None
    if shows_tables(args):
        _show(table)
    if args.json is not None:
        write_json(args, table.as_dict())
    if args.csv is not None:
        write_csv(args, [csv_text(table.as_dict()["rows"]).encode()])
    if args.html is not None:
        from kraken_sim.report.collective_html import collective_page

        write_page(args, collective_page(table))
        say_written(args, "report", args.html)


def _show(table: CollectiveTable) -> None:
    """nccl-tests' columns, for files and pipes always; a narrower terminal gets what it has room for."""
    from kraken_sim.report.collective import NCCL_TESTS_WIDTH, collective_grid, collective_sentences, collective_text

    if not sys.stdout.isatty() or get_terminal_size().columns >= NCCL_TESTS_WIDTH:
        put(collective_text(table))
        return
    from rich.console import Group

    print_report(Group(collective_grid(table).rich(), *collective_sentences(table)))


def _sizes(args: argparse.Namespace, begin: int, end: int) -> list[int]:
    from kraken_sim.standalone.sizes import parse_size, sizes_between

    step = None if args.step is None else parse_size(args.step, "-i")
    factor = DEFAULT_FACTOR if args.factor is None and step is None else args.factor
    return sizes_between(begin, end, factor, step)


def _measured(
    args: argparse.Namespace, spec: CollectiveOpSpec, profile: HardwareProfile, dtype: str | None
) -> Comparable:
    """What the files measured that answers the question."""
    from kraken_sim.measurements.nccl_tests import read_runs
    from kraken_sim.standalone.same_question import comparable

    where = dict(_condition(text) for text in args.where)
    runs = [run for path in args.against for run in read_runs(Path(path), spec.op, spec.num_devices, where)]
    return comparable(runs, spec, profile, dtype)


def _between(
    rows: Sequence[MeasuredCollective], args: argparse.Namespace, begin: int, end: int
) -> list[MeasuredCollective]:
    """The rows between -b and -e where these are given."""
    low = begin if args.begin is not None else 0
    high = end if args.end is not None else float("inf")
    chosen = [row for row in rows if low <= row.size_bytes <= high]
    if not chosen:
        files = ", ".join(args.against)
        raise InputError.single("--against", f"has no size between {low} and {high} bytes", files, "-b 8 -e 1G")
    if len(chosen) > MOST_MEASURED:
        message = f"has {len(chosen):,} measurements; {MOST_MEASURED:,} are the most"
        raise InputError.single("--against", message, ", ".join(args.against), "-b 1M -e 1G, or --where COLUMN=VALUE")
    return chosen


def _condition(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise InputError.single("--where", "must be COLUMN=VALUE", text, "--where system=h100_sxm")
    return name.strip(), value.strip()


def _as_options(error: InputError) -> InputError:
    """Problems of a policy under the names of the options that make it."""
    problems = []
    for problem in error.problems:
        path, example = problem.path, problem.example
        for prefix in ("runtime.collective.", "op."):
            path = path.removeprefix(prefix)
        if path == "version":
            path, example = "--nccl-version", "--nccl-version 2.27"
        if path in ("algorithm", "protocol", "channels", "transport", "library", "selection", "num_devices"):
            path = "--" + path.replace("_", "-")
            example = example and ", ".join(_as_option(part.strip()) for part in example.split(","))
        problems.append(replace(problem, path=path, example=example))
    return InputError(problems, error.source if error.source != "op" else None)


def _as_option(setting: str) -> str:
    """`algorithm: ring` as `--algorithm ring`."""
    name, sign, value = setting.removeprefix("or ").partition(": ")
    option = "nccl-version" if name == "version" else name
    value = value.strip('"')
    return f"--{option} {value}" if sign and name.isidentifier() else setting
