"""`kraken-sim calibrate`: a profile fitted to measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.cli.inputs import measurement_file
from kraken_sim.cli.output import note, print_report, profile_target, write_profile
from kraken_sim.cli.parser import add_force

if TYPE_CHECKING:
    import argparse

    from kraken_sim.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """What may be given."""
    parser.add_argument("measurements", metavar="MEASUREMENTS", help="a file of validation.measure")
    parser.add_argument("--base", metavar="PROFILE", required=True, help="where datasheet and topology come from")
    parser.add_argument("--out", metavar="FILE", required=True, help="the profile to write")
    parser.add_argument("--name", metavar="NAME", help="the profile's name (default: that of the file)")
    add_force(parser)
    parser.add_argument(
        "--write-dry-run",
        action="store_true",
        help="write the profile of a dry run, of a file of CPUs",
    )
    parser.set_defaults(handler=_calibrate)


def _calibrate(args: argparse.Namespace) -> None:
    """Fits a profile, writes it, and prints the errors on the records that no fit saw."""
    from kraken_sim.calibration.fit_profile import calibrate as fit
    from kraken_sim.calibration.profile_file import calibrated_yaml
    from kraken_sim.profiles.from_datasheet import complete_text
    from kraken_sim.profiles.load import load_profile
    from kraken_sim.report.calibration import calibration_report

    out = profile_target(args.out)
    base = load_profile(args.base)
    result = fit(measurement_file(args.measurements), base, args.name or out.stem)
    written = args.write_dry_run or not result.dry_run
    if written:
        write_profile(out, calibrated_yaml(result, complete_text(args.base)), force=args.force)
    print_report(calibration_report(result))
    note(f"profile: {out}" if written else f"dry run: {out} is not written, --write-dry-run writes it")
