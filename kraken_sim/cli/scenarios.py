"""`kraken-sim scenarios list|show|copy|check`: the questions that ship, and files of your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kraken_sim.cli.completers import complete
from kraken_sim.cli.inputs import shipped_path
from kraken_sim.cli.output import note, print_report, write_file
from kraken_sim.cli.parser import Parser, add_force
from kraken_sim.cli.question import asked_scenario
from kraken_sim.cli.settings import add_set
from kraken_sim.cli.streams import put
from kraken_sim.files.ours import check_replaceable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


def add_arguments(parser: Parser) -> None:
    """A verb of its own for each thing to do."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    listing = verbs.add_parser("list", help="every question that ships, and the command that answers it")
    listing.set_defaults(handler=_list_scenarios)

    show = verbs.add_parser("show", help="the file of one")
    complete(show.add_argument("name", metavar="NAME", help="one that ships, or a file"), "scenarios")
    show.set_defaults(handler=_show_scenario)

    copy = verbs.add_parser("copy", help="one to change, with the files it builds on")
    complete(copy.add_argument("name", metavar="NAME", help="one that ships"), "scenarios")
    copy.add_argument("folder", metavar="FOLDER", nargs="?", default=".", help="where to (default: here)")
    add_force(copy)
    copy.set_defaults(handler=_copy_scenario)

    check = verbs.add_parser("check", help="all problems of a scenario at once, without an answer")
    what = "a scenario's file, the name of one that ships, or - for standard input"
    complete(check.add_argument("scenario", metavar="SCENARIO", help=what), "scenarios")
    add_set(check)
    check.set_defaults(handler=_check_scenario)


def _list_scenarios(_: argparse.Namespace) -> None:
    """A table of all that ship."""
    from kraken_sim.report.shipped import scenarios_table

    print_report(scenarios_table().rich())


def _show_scenario(args: argparse.Namespace) -> None:
    """The text of one."""
    from kraken_sim.files.bounded import YAML_FILE, read_text

    put(read_text(shipped_path(args.name, "NAME"), YAML_FILE))


def _copy_scenario(args: argparse.Namespace) -> None:
    """Writes one, and what it extends, into a folder; all or none."""
    from kraken_sim.files.bounded import YAML_FILE, read_text

    files = {Path(args.folder) / file.name: file for file in _with_bases(shipped_path(args.name, "NAME"))}
    for target in files:
        check_replaceable(target, "FOLDER", force=args.force)
    for target, file in files.items():
        write_file(target, read_text(file, YAML_FILE), "FOLDER", force=args.force)
        note(f"scenario: {target}")


def _with_bases(file: Path) -> Iterator[Path]:
    """A file and those that it extends."""
    from kraken_sim.files.strict_yaml import read_yaml

    yield file
    data = read_yaml(file).data
    base = data.get("extends") if isinstance(data, dict) else None
    if isinstance(base, str):
        yield from _with_bases(file.parent / base)


def _check_scenario(args: argparse.Namespace) -> None:
    """All problems of one scenario, that it does not fit its machine, or that it has none."""
    from kraken_sim.predict.pipeline import Predictor

    Predictor().prepare(asked_scenario(args))
    put(f"{args.scenario}: no problems\n")
