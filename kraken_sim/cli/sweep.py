"""`kraken-sim sweep`: run with a progress bar, then say what came out."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kraken_sim.cli.output import note, print_report, write_page
from kraken_sim.cli.parser import add_force, add_plotly
from kraken_sim.cli.progress import ProgressLines
from kraken_sim.cli.question import STDIN, asked_document
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
    kept = "Parquet file, an unfinished one is gone on with (default: the scenario's file name, .parquet)"
    parser.add_argument("--out", metavar="FILE", help=kept)
    parser.add_argument("--jobs", metavar="N", type=int, help="processes (default: as many as cores)")
    parser.add_argument("--cluster", metavar="URL", help="run on dask://host:port or ray://host:port instead")
    parser.add_argument("--yes", action="store_true", help="run however many points there are")
    parser.add_argument("--html", metavar="FILE", help="write a page to filter, draw, map and sort the points")
    add_plotly(parser)
    add_force(parser)
    parser.set_defaults(handler=_sweep)


def _sweep(args: argparse.Namespace) -> None:
    """Runs what is missing of a sweep and says what its file holds."""
    from kraken_sim.explore.sweep.plan import load_plan
    from kraken_sim.explore.sweep.sweep import check, run_to_file
    from kraken_sim.report.sweep import sweep_report

    if args.jobs is not None and args.jobs < 1:
        raise InputError.single("--jobs", "must be at least 1", args.jobs)
    document = asked_document(args)
    plan = load_plan(document)
    stem = plan.name if args.scenario in (None, STDIN) else Path(document.source).stem
    out = Path(f"{stem}.parquet" if args.out is None else args.out)
    check(plan, yes=args.yes)
    began = time.monotonic()
    with _progress(plan.num_points) as progress:
        done = run_to_file(plan, out, jobs=args.jobs, cluster=args.cluster, progress=progress, force=args.force)
    print_report(sweep_report(plan, done, out, time.monotonic() - began))
    if args.html is not None:
        from kraken_sim.report.sweep_html import sweep_page

        write_page(args, sweep_page(plan, out))
        note(f"report: {args.html}")


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int, int], None]]:
    """What to call with the points done so far and those done before: a bar, or a line now and then."""
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
