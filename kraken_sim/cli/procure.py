"""`kraken-sim procure`: which machines to buy for a load under an SLA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.cli.commands import shipped_path
from kraken_sim.cli.explore import write_outputs

if TYPE_CHECKING:
    import argparse


def procure(args: argparse.Namespace) -> None:
    """Ranks the candidates of a request's file."""
    from kraken_sim.explore.procure.candidates import procure as rank
    from kraken_sim.explore.procure.request import load_procure_request
    from kraken_sim.report.procure import procure_html, procure_report

    result = rank(load_procure_request(shipped_path(args.request, "REQUEST")))
    write_outputs(args, result.as_dict(), lambda: procure_report(result), lambda: procure_html(result))
