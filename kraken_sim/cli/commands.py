"""What each command does: read, predict, print, write."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kraken_sim.errors import InputError, closest

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rich.console import RenderableType

    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.scenario.spec import Scenario


PIPE_WIDTH = 160


def print_report(renderable: RenderableType) -> None:
    """Tables and text to standard output."""
    from rich.console import Console

    # Files and pipes get the tables whole; a terminal gets them in its own width.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(highlight=False, width=width).print(renderable)


def write_text(path: str, text: str, option: str = "--json") -> None:
    """A whole text file, its folder made where missing; `option` is what asked for it."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError.single(option, f"cannot be written: {error.strerror}", path) from None


def write_json(path: str, data: Any) -> None:
    """JSON to a file, or to standard output for `-`."""
    text = json.dumps(data, indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        write_text(path, text)


def _write_html(path: str, predictions: Sequence[Prediction]) -> None:
    from kraken_sim.report.html import write_html

    try:
        write_html(predictions, Path(path))
    except OSError as error:
        raise InputError.single("--html", f"cannot be written: {error.strerror}", path) from None
    sys.stderr.write(f"report: {path}\n")


def named_scenario(name_or_path: str) -> Scenario:
    """A scenario's file, or one that ships, by its name.

    Raises:
        InputError: there is none, or it is wrong; of a sweep, that it is one.
    """
    from kraken_sim.scenario.spec import load_scenario

    path = shipped_path(name_or_path, "SCENARIO")
    try:
        return load_scenario(path)
    except InputError as error:
        if (points := _points_of_a_sweep(path)) is not None:
            message = (
                f"is a sweep of {points:,} points, not one scenario; run kraken-sim sweep {name_or_path} --out FILE"
            )
            raise InputError.single("SCENARIO", message, name_or_path) from None
        raise error from None


def _points_of_a_sweep(path: Path) -> int | None:
    """How many points a sweep's file has; None where it is none, or wrong."""
    from kraken_sim.explore.sweep.plan import load_plan

    try:
        plan = load_plan(path)
    except InputError:
        return None
    return plan.num_points if plan.paths else None


def shipped_path(name_or_path: str, argument: str) -> Path:
    """A file's path, or that of a file in `scenarios` that ships, by its name; `argument` is what errors call it.

    Raises:
        InputError: there is neither.
    """
    from kraken_sim.files.shipped import data_dir

    path = Path(name_or_path)
    if not path.exists() and path.name == name_or_path and path.suffix not in (".yaml", ".yml"):
        shipped = {file.stem: file for file in data_dir("scenarios").glob("*.yaml")}
        if name_or_path not in shipped:
            message = "there is no such file, and no scenario of this name ships"
            guess = closest(name_or_path, list(shipped))
            raise InputError.single(argument, message, name_or_path, ", ".join(sorted(shipped)[:1]), guess)
        path = shipped[name_or_path]
    return path


def run_command(args: argparse.Namespace) -> None:
    """`kraken-sim run`: one scenario."""
    from kraken_sim.predict.api import simulate
    from kraken_sim.predict.explain import explain_overlap, overlaps

    prediction = simulate(named_scenario(args.scenario), exact=args.exact)
    advice = explain_overlap(prediction) if overlaps(prediction) else None
    if args.json != "-":
        from kraken_sim.report.text import prediction_report

        print_report(prediction_report(prediction, advice))
    if args.json is not None:
        explained = {} if advice is None else {"overlap": advice.as_dict()}
        write_json(args.json, {**prediction.as_dict(), **explained})
    if args.html is not None:
        _write_html(args.html, [prediction])
    if args.trace is not None:
        from kraken_sim.report.trace import write_traces

        try:
            files = write_traces(prediction, Path(args.trace))
        except OSError as error:
            raise InputError.single("--trace", f"cannot be written: {error.strerror}", args.trace) from None
        sys.stderr.write(f"traces: {', '.join(str(file) for file in files)}\n")


def compare_command(args: argparse.Namespace) -> None:
    """`kraken-sim compare`: the three architectures on one scenario."""
    from kraken_sim.predict.api import compare

    predictions = compare(named_scenario(args.scenario))
    if args.json != "-":
        from kraken_sim.report.text import comparison_report

        print_report(comparison_report(predictions))
    if args.json is not None:
        base = predictions[0].latency_s
        results = [
            {**prediction.as_dict(), "speedup_percent": 100.0 * (base / prediction.latency_s - 1.0)}
            for prediction in predictions
        ]
        write_json(args.json, results)
    if args.html is not None:
        _write_html(args.html, predictions)


def paper_command(args: argparse.Namespace) -> None:
    """`kraken-sim paper`: the paper's latency experiment."""
    from kraken_sim.paper.experiment import load_grid, run_grid

    result = run_grid(load_grid(args.grid))
    if args.json != "-":
        from kraken_sim.report.paper import paper_report

        print_report(paper_report(result))
    if args.json is not None:
        write_json(args.json, result.as_dict())
    if args.html is not None:
        from kraken_sim.report.paper_html import paper_html

        write_text(args.html, paper_html(result))
        sys.stderr.write(f"report: {args.html}\n")


def calibrate_command(args: argparse.Namespace) -> None:
    """`kraken-sim calibrate`: a profile fitted to measurements."""
    from kraken_sim.cli.calibration import calibrate

    calibrate(args)


def validate_command(args: argparse.Namespace) -> None:
    """`kraken-sim validate`: predictions against measured passes."""
    from kraken_sim.cli.calibration import validate

    validate(args)


def collective_command(args: argparse.Namespace) -> None:
    """`kraken-sim collective`: nccl-tests' table, predicted."""
    from kraken_sim.cli.collective import collective

    collective(args)


def sweep_command(args: argparse.Namespace) -> None:
    """`kraken-sim sweep`: every point of a scenario with lists."""
    from kraken_sim.cli.sweep import sweep

    sweep(args)


def explore_command(args: argparse.Namespace) -> None:
    """`kraken-sim explore`: questions about designs."""
    from kraken_sim.cli.explore import explore

    explore(args)


def procure_command(args: argparse.Namespace) -> None:
    """`kraken-sim procure`: which machines to buy."""
    from kraken_sim.cli.procure import procure

    procure(args)


def profiles_command(args: argparse.Namespace) -> None:
    """`kraken-sim profiles list|show|check|new`."""
    from kraken_sim.profiles.load import check_profile, load_profile
    from kraken_sim.report.profiles import profile_text, profiles_table

    if args.verb == "list":
        print_report(profiles_table())
    elif args.verb == "show":
        profile = load_profile(args.profile)
        if args.html is None:
            print_report(profile_text(profile))
        else:
            from kraken_sim.report.topology import topology_html

            write_text(args.html, topology_html(profile))
            sys.stderr.write(f"drawing: {args.html}\n")
    elif args.verb == "new":
        from kraken_sim.cli.calibration import new_profile

        new_profile(args)
    else:
        problems = check_profile(args.profile)
        if problems:
            raise InputError(problems, source=args.profile)
        sys.stdout.write(f"{args.profile}: no problems\n")


def schema_command(args: argparse.Namespace) -> None:
    """`kraken-sim schema`: JSON schema of the files people write."""
    if args.kind == "profile":
        from kraken_sim.profiles.schema import profile_json_schema

        write_json("-", profile_json_schema())
    elif args.kind == "machine":
        from kraken_sim.profiles.datasheet import datasheet_json_schema

        write_json("-", datasheet_json_schema())
    elif args.kind in ("design", "purchase"):
        from kraken_sim.explore.design.request import DesignRequest
        from kraken_sim.explore.procure.request import ProcureRequest

        model = DesignRequest if args.kind == "design" else ProcureRequest
        write_json("-", model.model_json_schema())
    else:
        from kraken_sim.scenario.spec import scenario_json_schema

        write_json("-", scenario_json_schema())
