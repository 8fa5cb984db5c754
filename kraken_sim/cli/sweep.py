"""`kraken-sim sweep`: run with a progress bar, then say what came out."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kraken_sim.cli.output import check_rows_file, print_report, say_written, write_csv, write_page
from kraken_sim.cli.parser import add_force, add_plotly, add_quiet, add_selection
from kraken_sim.cli.progress import ProgressLines
from kraken_sim.cli.question import STDIN, asked_document, selected
from kraken_sim.cli.settings import SETTINGS, add_question
from kraken_sim.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from kraken_sim.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """What may be given."""
    what = (
        "a scenario's file, the name of one that ships, or - for standard input; several values of an option are swept"
    )
    add_question(parser, several=[setting.option for setting in SETTINGS], file=what)
    kept = (
        "Parquet file, an unfinished one is gone on with (default: the scenario's file name, .parquet); of a name in "
    )
    kept += ".csv the rows are written there, beside the Parquet file"
    parser.add_argument("--out", metavar="FILE", help=kept)
    parser.add_argument("--jobs", metavar="N", type=int, help="processes (default: as many as cores)")
    parser.add_argument("--cluster", metavar="URL", help="run on dask://host:port or ray://host:port instead")
    parser.add_argument("--yes", action="store_true", help="run however many points there are")
    parser.add_argument("--csv", metavar="FILE", help="write its rows as CSV too; - for standard output")
    parser.add_argument("--html", metavar="FILE", help="write a page to filter, draw, map and sort the points")
    add_plotly(parser)
    add_selection(parser)
    add_quiet(parser)
    add_force(parser)
    parser.set_defaults(handler=_sweep)


def _sweep(args: argparse.Namespace) -> None:
    """Runs what is missing of a sweep and says what its file holds."""
    from kraken_sim.explore.selection import column_named
    from kraken_sim.explore.sweep.plan import load_plan
    from kraken_sim.explore.sweep.store import columns_of
    from kraken_sim.explore.sweep.sweep import check, run_to_file
    from kraken_sim.explore.sweep.table import csv_of, header_of
    from kraken_sim.report.sweep import sweep_report

    if args.jobs is not None and args.jobs < 1:
        raise InputError.single("--jobs", "must be at least 1", args.jobs)
    document = asked_document(args)
    plan = load_plan(document)
    stem = plan.name if args.scenario in (None, STDIN) else Path(document.source).stem
    out = Path(f"{stem}.parquet" if args.out is None else args.out)
    if out.suffix == ".csv" and args.csv is None:
        args.csv, out = str(out), out.with_suffix(".parquet")
    chosen = selected(args)
    columns = [name for name, _ in columns_of(plan)]
    for column in chosen.columns:
        column_named(column, columns, "--where or --sort")
    check(plan, yes=args.yes)
    check_rows_file(args, header_of(columns))
    began = time.monotonic()
    with _progress(plan.num_points, quiet=args.quiet) as progress:
        done = run_to_file(plan, out, jobs=args.jobs, cluster=args.cluster, progress=progress, force=args.force)
    if not args.quiet and args.csv != "-":
        print_report(sweep_report(plan, done, out, time.monotonic() - began, chosen))
    if args.csv is not None:
        write_csv(args, csv_of(out, chosen))
    if args.html is not None:
        from kraken_sim.report.sweep_html import sweep_page

        write_page(args, sweep_page(plan, out))
        say_written(args, "report", args.html)


@contextlib.contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """What to call with the points done so far and those done before: a bar, a line now and then, or nothing."""
    if quiet:
        yield lambda done, found: None  # noqa: ARG005
        return
    if not sys.stderr.isatty():
        lines = ProgressLines("points", last=True)
        yield lambda done, found: lines(done, total, found)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("points", total=total, rate="")

        def show(done: int, found: int) -> None:
            rate = (done - found) / max(1e-9, time.monotonic() - began)
            bar.update(task, completed=done, rate=f"{rate:,.0f} points/s")

        yield show
