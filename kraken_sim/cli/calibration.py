"""The commands that read measurements or datasheets: calibrate, validate, profiles new."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from kraken_sim.cli.commands import print_report, write_json, write_text
from kraken_sim.errors import InputError

if TYPE_CHECKING:
    import argparse

    from kraken_sim.measurements.schema import MeasurementFile


def calibrate(args: argparse.Namespace) -> None:
    """Fits a profile, writes it, and prints the errors on the records that no fit saw."""
    from kraken_sim.calibration.fit_profile import calibrate as fit
    from kraken_sim.calibration.profile_file import calibrated_yaml
    from kraken_sim.profiles.carry_over import complete_text
    from kraken_sim.profiles.load import load_profile
    from kraken_sim.report.calibration import calibration_report

    out = _profile_target(args.out)
    base = load_profile(args.base)
    result = fit(measurement_file(args.measurements), base, args.name or out.stem)
    _write_profile(out, calibrated_yaml(result, complete_text(args.base)))
    print_report(calibration_report(result))
    sys.stderr.write(f"profile: {out}\n")


def validate(args: argparse.Namespace) -> None:
    """Predicts the measured passes of a file and reports the errors."""
    from kraken_sim.report.validation import validation_html, validation_report
    from kraken_sim.validate.passes import validate_passes

    result = validate_passes(measurement_file(args.measurements), args.hardware)
    if args.json != "-":
        print_report(validation_report(result))
    if args.json is not None:
        write_json(args.json, result.as_dict())
    if args.html is not None:
        write_text(args.html, validation_html(result))
        sys.stderr.write(f"report: {args.html}\n")


def new_profile(args: argparse.Namespace) -> None:
    """Writes a profile for a GPU that nobody measured."""
    from kraken_sim.profiles.carry_over import profile_from_datasheet

    out = _profile_target(args.out)
    carried = profile_from_datasheet(Path(args.datasheet), out.stem)
    _write_profile(out, carried.text)
    sys.stdout.write(f"{out}: constants carried over from {', '.join(carried.sources)}\n")


def measurement_file(path: str) -> MeasurementFile:
    """A measurement file; what is odd about it but spoils nothing goes to standard error."""
    from kraken_sim.measurements.schema import MeasurementWarning, read_measurements

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MeasurementWarning)
        measurements = read_measurements(Path(path))
    for warning in caught:
        sys.stderr.write(f"warning: {warning.message}\n")
    return measurements


def _profile_target(path: str) -> Path:
    target = Path(path)
    if target.suffix not in (".yaml", ".yml"):
        raise InputError.single("--out", "must be a .yaml file", path, f"{target.stem or 'my-machine'}.yaml")
    return target


def _write_profile(target: Path, text: str) -> None:
    """Checks a profile's text by reading it, then writes it whole."""
    from kraken_sim.files.strict_yaml import parse_yaml
    from kraken_sim.profiles.schema import parse_profile
    from kraken_sim.profiles.write import write_atomically

    parse_profile(parse_yaml(text, str(target)))
    write_atomically(target, text)
