"""`kraken-sim models list`: the presets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.cli.output import print_report
from kraken_sim.cli.parser import Parser

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: Parser) -> None:
    """A verb of its own for each thing to do."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    listing = verbs.add_parser("list", help="every preset, and the families whose config.json loads")
    listing.set_defaults(handler=_list_models)


def _list_models(_: argparse.Namespace) -> None:
    """A table of the presets, and the families."""
    from rich.console import Group
    from rich.text import Text

    from kraken_sim.report.shipped import families_sentence, models_table

    print_report(Group(models_table().rich(), Text(families_sentence())))
