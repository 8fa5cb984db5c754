"""`kraken-sim validate`: predictions against measured passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.cli.inputs import measurement_file
from kraken_sim.cli.output import write_outputs
from kraken_sim.cli.parser import add_outputs

if TYPE_CHECKING:
    import argparse

    from kraken_sim.cli.parser import Parser
    from kraken_sim.report.page import Page


def add_arguments(parser: Parser) -> None:
    """What may be given."""
    parser.add_argument("measurements", metavar="MEASUREMENTS", help="a file of validation.measure")
    parser.add_argument("--hardware", metavar="PROFILE", help="a profile (default: the one of the measured machine)")
    parser.add_argument(
        "--host", metavar="FILE", help="a file of --suite host, or YAML, of the host that ran the passes"
    )
    add_outputs(parser)
    parser.set_defaults(handler=_validate)


def _validate(args: argparse.Namespace) -> None:
    """Predicts the measured passes of a file and reports the errors."""
    from kraken_sim.cli.progress import ProgressLines
    from kraken_sim.report.validation import validation_report
    from kraken_sim.scenario.host import HostSpec
    from kraken_sim.validate.passes import validate_passes

    host = None if args.host is None else HostSpec(file=args.host)
    measurements = measurement_file(args.measurements)
    result = validate_passes(measurements, args.hardware, host, ProgressLines("passes", quiet=args.quiet))

    def page() -> Page:
        from kraken_sim.report.validation_html import validation_page

        return validation_page(result)

    write_outputs(args, result.as_dict, lambda: validation_report(result), page, lambda: result.as_dict()["passes"])
