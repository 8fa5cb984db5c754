"""`kraken-sim sweep`: run with a progress bar, then say what came out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from kraken_sim.cli.inputs import check_processes
from kraken_sim.cli.output import check_rows_file, print_report, say_written, write_csv, write_page
from kraken_sim.cli.parser import add_force, add_plotly, add_quiet, add_selection, add_workers
from kraken_sim.cli.progress import progress_of
from kraken_sim.cli.question import STDIN, asked_document, selected
from kraken_sim.cli.settings import SETTINGS, add_question

if TYPE_CHECKING:
    import argparse

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
    add_workers(parser, kept, "as many as cores")
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

    check_processes(args)
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
    with progress_of("points", quiet=args.quiet, last=True) as show:

        def progress(done: int, found: int) -> None:
            show(done, plan.num_points, found)

        done = run_to_file(plan, out, jobs=args.jobs, cluster=args.cluster, progress=progress, force=args.force)
    if not args.quiet and args.csv != "-":
        print_report(sweep_report(plan, done, out, time.monotonic() - began, chosen))
    if args.csv is not None:
        write_csv(args, csv_of(out, chosen))
    if args.html is not None:
        from kraken_sim.report.sweep_html import sweep_page

        write_page(args, sweep_page(plan, out))
        say_written(args, "report", args.html)
