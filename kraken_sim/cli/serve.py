"""`kraken-sim serve`: requests over time on replicas with continuous batching."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.cli.output import write_outputs
from kraken_sim.cli.parser import add_outputs
from kraken_sim.cli.question import asked_request
from kraken_sim.cli.settings import add_request

if TYPE_CHECKING:
    import argparse

    from kraken_sim.cli.parser import Parser
    from kraken_sim.report.page import Page


def add_arguments(parser: Parser) -> None:
    """What may be given."""
    add_request(parser, "replicas, traffic and limits")
    add_outputs(parser)
    parser.set_defaults(handler=_serve)


def _serve(args: argparse.Namespace) -> None:
    """Simulates a service's requests."""
    from kraken_sim.cli.progress import ProgressLines
    from kraken_sim.report.serving import serve_report
    from kraken_sim.serving.answer import serve
    from kraken_sim.serving.request import load_serve_request

    lines: dict[str, ProgressLines] = {}

    def progress(what: str, done: int, total: int) -> None:
        lines.setdefault(what, ProgressLines(f"requests, {what}", quiet=args.quiet))(done, total)

    answer = serve(load_serve_request(asked_request(args)), progress)

    def page() -> Page:
        from kraken_sim.report.serving_html import serve_page

        return serve_page(answer)

    write_outputs(args, answer.as_dict, lambda: serve_report(answer), page, lambda: answer.records)
