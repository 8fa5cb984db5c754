"""`kraken-sim paper`: the Kraken paper's latency experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.cli.output import write_outputs
from kraken_sim.cli.parser import add_outputs

if TYPE_CHECKING:
    import argparse

    from kraken_sim.cli.parser import Parser
    from kraken_sim.report.page import Page


def add_arguments(parser: Parser) -> None:
    """What may be given."""
    what_ifs = "paper_grid_h100, paper_grid_interconnects, ..."
    grid = f"a grid's file, or one that ships: {what_ifs} (default: the paper's)"
    parser.add_argument("--grid", metavar="FILE", help=grid)
    add_outputs(parser)
    parser.set_defaults(handler=_paper)


def _paper(args: argparse.Namespace) -> None:
    """Predicts every cell of a grid."""
    from kraken_sim.paper.experiment import load_grid, run_grid
    from kraken_sim.paper.summary import grid_dict
    from kraken_sim.report.paper import paper_report

    result = run_grid(load_grid(args.grid))

    def page() -> Page:
        from kraken_sim.report.paper_html import paper_page

        return paper_page(result)

    write_outputs(
        args,
        lambda: grid_dict(result),
        lambda: paper_report(result),
        page,
        lambda: [cell.as_dict() for cell in result.cells],
    )
