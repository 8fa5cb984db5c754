"""`kraken-sim compare`: the three architectures on one scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kraken_sim.cli.inputs import named_scenario
from kraken_sim.cli.output import write_outputs
from kraken_sim.cli.parser import add_outputs

if TYPE_CHECKING:
    import argparse

    from rich.console import RenderableType

    from kraken_sim.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """What may be given."""
    parser.add_argument("scenario", metavar="SCENARIO", help="a scenario; its architecture is replaced in turn")
    add_outputs(parser)
    parser.set_defaults(handler=_compare)


def _compare(args: argparse.Namespace) -> None:
    """Predicts a scenario as each architecture."""
    from kraken_sim.predict.api import compare as predictions_of

    predictions = predictions_of(named_scenario(args.scenario))

    def report() -> RenderableType:
        from kraken_sim.report.text import comparison_report

        return comparison_report(predictions)

    def page() -> str:
        from kraken_sim.report.html import render_html

        return render_html(predictions)

    def data() -> list[dict[str, Any]]:
        speedups = predictions.speedups_percent
        return [
            {**prediction.as_dict(), "speedup_percent": speedup}
            for prediction, speedup in zip(predictions, speedups, strict=True)
        ]

    write_outputs(args, data, report, page)
