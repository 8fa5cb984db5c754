"""`kraken-sim profiles list|show|check|new`: the machines that ship, and files of your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kraken_sim.cli.output import note, print_report, profile_target, write_page, write_profile
from kraken_sim.cli.parser import Parser, add_force, add_plotly
from kraken_sim.cli.streams import put
from kraken_sim.errors import InputError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: Parser) -> None:
    """A verb of its own for each thing to do."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    listing = verbs.add_parser("list", help="every machine that ships")
    listing.set_defaults(handler=_list_profiles)

    show = verbs.add_parser("show", help="one machine, each number with its source")
    show.add_argument("profile", metavar="PROFILE", help="a profile's name, or its file")
    show.add_argument("--html", metavar="FILE", help="draw the machine: nodes, links, the best ring")
    add_plotly(show)
    add_force(show)
    show.set_defaults(handler=_show_profile)

    check = verbs.add_parser("check", help="all problems of a profile's file at once")
    check.add_argument("profile", metavar="PROFILE", help="a profile's name, or its file")
    check.set_defaults(handler=_check_profile)

    new = verbs.add_parser("new", help="a profile from a datasheet alone, constants carried over from the nearest GPU")
    new.add_argument("--from", metavar="DATASHEET", required=True, dest="datasheet", help="name, device and topology")
    new.add_argument("--out", metavar="FILE", required=True, help="the profile to write")
    add_force(new)
    new.set_defaults(handler=_new_profile)


def _list_profiles(_: argparse.Namespace) -> None:
    """A table of all that ship."""
    from kraken_sim.report.profiles import profiles_table

    print_report(profiles_table().rich())


def _show_profile(args: argparse.Namespace) -> None:
    """One machine as text, or drawn."""
    from kraken_sim.profiles.load import load_profile

    profile = load_profile(args.profile)
    if args.html is None:
        from kraken_sim.report.profiles import profile_text

        print_report(profile_text(profile))
        return
    from kraken_sim.report.topology_html import topology_page

    write_page(args, topology_page(profile))
    note(f"drawing: {args.html}")


def _check_profile(args: argparse.Namespace) -> None:
    """All problems of one file, or that it has none."""
    from kraken_sim.profiles.load import check_profile as problems_of

    problems = problems_of(args.profile)
    if problems:
        raise InputError(problems, source=args.profile)
    put(f"{args.profile}: no problems\n")


def _new_profile(args: argparse.Namespace) -> None:
    """Writes a profile for a GPU that nobody measured."""
    from kraken_sim.profiles.from_datasheet import profile_from_datasheet

    out = profile_target(args.out)
    carried = profile_from_datasheet(Path(args.datasheet), out.stem)
    write_profile(out, carried.text, force=args.force)
    put(f"{out}: constants carried over from {', '.join(carried.sources)}\n")
