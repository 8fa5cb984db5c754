"""`kraken-sim compare`: the architectures, and kernel sets, on one scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kraken_sim.cli.inputs import architectures_named
from kraken_sim.cli.output import write_outputs
from kraken_sim.cli.parser import add_architectures, add_outputs
from kraken_sim.cli.question import asked_scenario
from kraken_sim.cli.settings import add_question

if TYPE_CHECKING:
    import argparse

    from rich.console import RenderableType

    from kraken_sim.cli.parser import Parser
    from kraken_sim.report.page import Page


def add_arguments(parser: Parser) -> None:
    """What may be given."""
    what = "a scenario's file, a name, or - for standard input; its architecture is replaced in turn"
    add_question(parser, without=("--kernels",), file=what)
    parser.add_argument(
        "--kernels", metavar="SETS", help="kernel sets to compare, such as pytorch,serving; default: the scenario's"
    )
    add_architectures(parser)
    add_outputs(parser)
    parser.set_defaults(handler=_compare)


def _compare(args: argparse.Namespace) -> None:
    """Predicts a scenario as each architecture, with each kernel set."""
    from kraken_sim.explore.architectures import rivals_of
    from kraken_sim.predict.api import compare as predictions_of
    from kraken_sim.predict.api import kernel_set_named
    from kraken_sim.predict.host_bound import host_bound_data

    names = [] if args.kernels is None else args.kernels.split(",")
    kernels = [kernel_set_named(name.strip(), "--kernels") for name in names]
    named = () if args.architectures == "all" else architectures_named(args.architectures)
    scenario = asked_scenario(args)
    predictions = predictions_of(scenario, kernels=kernels, architectures=named)
    rivals = rivals_of(predictions)

    def report() -> RenderableType:
        from kraken_sim.report.comparison import comparison_report

        return comparison_report(predictions, rivals)

    def page() -> Page:
        from kraken_sim.report.html import prediction_page

        return prediction_page(predictions, rivals, asked=scenario.architecture.kind)

    def data() -> list[dict[str, Any]]:
        speedups = zip(predictions.speedups_percent, predictions.kernels_speedups_percent, rivals, strict=True)
        return [
            {
                **prediction.as_dict(),
                **host_bound_data(prediction),
                "speedup_percent": speedup,
                "kernels_speedup_percent": by_kernels,
                **rival.beside_time(),
            }
            for prediction, (speedup, by_kernels, rival) in zip(predictions, speedups, strict=True)
        ]

    def rows() -> list[dict[str, Any]]:
        found = []
        for record, rival in zip(predictions.records, rivals, strict=True):
            low, high = (100.0 * end for end in rival.interval)
            found.append(record | {"speedup_interval_percent.low": low, "speedup_interval_percent.high": high})
        return found

    write_outputs(args, data, report, page, rows)
