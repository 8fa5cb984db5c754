"""`kraken-sim run`: one scenario."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kraken_sim.cli.output import say_written, write_outputs
from kraken_sim.cli.parser import add_outputs
from kraken_sim.cli.question import asked_scenario
from kraken_sim.cli.settings import add_question
from kraken_sim.errors import InputError
from kraken_sim.files.ours import check_replaceable

if TYPE_CHECKING:
    import argparse

    from rich.console import RenderableType

    from kraken_sim.cli.parser import Parser
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.report.page import Page


def add_arguments(parser: Parser) -> None:
    """What may be given."""
    add_question(parser)
    parser.add_argument("--trace", metavar="DIR", help="write torch.profiler traces, one file a rank")
    parser.add_argument("--exact", action="store_true", help="simulate every rank and layer, fold nothing")
    add_outputs(parser)
    parser.set_defaults(handler=_run)


def _run(args: argparse.Namespace) -> None:
    """Predicts a scenario, and explains its overlap where it has one."""
    from kraken_sim.predict.api import simulate
    from kraken_sim.predict.explain import explain_overlap, overlaps
    from kraken_sim.predict.host_bound import host_bound_data

    prediction = simulate(asked_scenario(args), exact=args.exact)
    advice = explain_overlap(prediction) if overlaps(prediction) else None

    def report() -> RenderableType:
        from kraken_sim.report.text import prediction_report

        return prediction_report(prediction, advice)

    def page() -> Page:
        from kraken_sim.report.html import prediction_page

        return prediction_page([prediction], advice=advice)

    def rows() -> list[dict[str, Any]]:
        return prediction.records

    explained = {} if advice is None else {"overlap": advice.as_dict()}
    write_outputs(
        args, lambda: {**prediction.as_dict(), **host_bound_data(prediction), **explained}, report, page, rows
    )
    if args.trace is not None:
        _write_traces(prediction, args)


def _write_traces(prediction: Prediction, args: argparse.Namespace) -> None:
    from kraken_sim.report.trace import trace_files, write_traces

    folder = Path(args.trace)
    for path in trace_files(prediction, folder):
        check_replaceable(path, "--trace", force=args.force)
    try:
        files = write_traces(prediction, folder)
    except OSError as error:
        raise InputError.single("--trace", f"cannot be written: {error.strerror}", str(folder)) from None
    say_written(args, "traces", ", ".join(str(file) for file in files))
