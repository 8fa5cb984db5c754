"""`kraken-sim procure`: which machines to buy for a load under an SLA."""

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
    add_request(parser, "workloads, SLA and priced candidates")
    add_outputs(parser)
    parser.set_defaults(handler=_procure)


def _procure(args: argparse.Namespace) -> None:
    """Ranks the candidates of a request's file."""
    from kraken_sim.cli.progress import ProgressLines
    from kraken_sim.explore.procure.candidates import procure as rank
    from kraken_sim.explore.procure.request import load_procure_request
    from kraken_sim.report.procure import procure_report

    result = rank(load_procure_request(asked_request(args)), ProgressLines("candidates", quiet=args.quiet))

    def page() -> Page:
        from kraken_sim.report.procure_html import procure_page

        return procure_page(result)

    write_outputs(args, result.as_dict, lambda: procure_report(result), page, lambda: result.records)
