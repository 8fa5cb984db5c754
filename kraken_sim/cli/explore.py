"""`kraken-sim explore`: questions about designs, each answered with how sure the answer is."""

from __future__ import annotations

import sys
from itertools import product
from typing import TYPE_CHECKING, Any

from kraken_sim.cli.commands import named_scenario, print_report, shipped_path, write_json, write_text
from kraken_sim.errors import InputError, Problem
from kraken_sim.models.config import ArchitectureKind

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rich.console import RenderableType

    from kraken_sim.scenario.spec import Scenario


def explore(args: argparse.Namespace) -> None:
    """Answers the question that `args.verb` names."""
    {"channels": _channels, "degree": _degree, "interconnect": _interconnect, "design": _design}[args.verb](args)


def _channels(args: argparse.Namespace) -> None:
    from kraken_sim.explore.channels import best_channels
    from kraken_sim.report.explore import channels_html, channels_report, measured_html, measured_report

    if args.measured is not None:
        from kraken_sim.cli.calibration import measurement_file
        from kraken_sim.explore.channels_measured import compare_channels

        _check_measured(args)
        hardware = args.hardware[0] if args.hardware else None
        result = compare_channels(measurement_file(args.measured), hardware)
        write_outputs(args, result.as_dict(), lambda: measured_report(result), lambda: measured_html(result))
        return
    answers = [best_channels(scenario) for scenario in _scenarios(args, ArchitectureKind.KRAKEN)]
    rows = [answer.as_dict() for answer in answers]
    write_outputs(args, rows, lambda: channels_report(answers), lambda: channels_html(answers))


def _degree(args: argparse.Namespace) -> None:
    from kraken_sim.explore.degree import best_degree
    from kraken_sim.report.explore_machine import degree_html, degree_report

    answers = [best_degree(scenario) for scenario in _scenarios(args, ArchitectureKind.STANDARD)]
    rows = [answer.as_dict() for answer in answers]
    write_outputs(args, rows, lambda: degree_report(answers), lambda: degree_html(answers))


def _interconnect(args: argparse.Namespace) -> None:
    from kraken_sim.explore.interconnect import worthwhile_bandwidth
    from kraken_sim.report.explore_machine import interconnect_html, interconnect_report

    scenarios = _scenarios(args, ArchitectureKind.KRAKEN)
    answers = [worthwhile_bandwidth(scenario, args.worth / 100.0) for scenario in scenarios]
    rows = [answer.as_dict() for answer in answers]
    write_outputs(args, rows, lambda: interconnect_report(answers), lambda: interconnect_html(answers))


def _design(args: argparse.Namespace) -> None:
    from kraken_sim.explore.design.request import load_design_request
    from kraken_sim.explore.design.search import search_designs
    from kraken_sim.report.design import design_html, design_report

    request = load_design_request(shipped_path(args.request, "REQUEST"))
    if args.max_evaluations is not None:
        if args.max_evaluations < 1:
            raise InputError.single("--max-evaluations", "must be at least 1", args.max_evaluations, "2000")
        request = request.model_copy(update={"max_evaluations": args.max_evaluations})
    result = search_designs(request, _progress if sys.stderr.isatty() else None)
    write_outputs(args, result.as_dict(), lambda: design_report(result), lambda: design_html(result))


def _progress(count: int) -> None:
    """One line that counts designs, on a terminal."""
    if count % 50 == 0:
        sys.stderr.write(f"\r{count} designs")
        sys.stderr.flush()


def write_outputs(
    args: argparse.Namespace, data: Any, report: Callable[[], RenderableType], page: Callable[[], str]
) -> None:
    """A report to the terminal, and JSON and HTML where they were asked for."""
    if args.json != "-":
        print_report(report())
    if args.json is not None:
        write_json(args.json, data)
    if args.html is not None:
        write_text(args.html, page(), "--html")
        sys.stderr.write(f"report: {args.html}\n")


def _scenarios(args: argparse.Namespace, kind: ArchitectureKind) -> list[Scenario]:
    """The file's scenario, or one from options alone, for every machine, model and context length named.

    Raises:
        InputError: neither the file nor the options say what is needed, or anything of it is wrong.
    """
    base: dict[str, Any] = {"name": "explore", "architecture": {"kind": kind.value}}
    if args.scenario is not None:
        base = named_scenario(args.scenario).model_dump(mode="json", exclude_none=True)
    else:
        _check_options(args)
    if args.num_devices is not None:
        base["num_devices"] = args.num_devices
    return [
        _one_scenario(base, hardware, model, tokens)
        for hardware, model, tokens in product(
            args.hardware or [None], args.model or [None], args.context_length or [None]
        )
    ]


def _check_measured(args: argparse.Namespace) -> None:
    """Measured passes say themselves what was asked; only the profile may be chosen."""
    message = "does not go with --measured, whose passes say it"
    given = {"SCENARIO": args.scenario, "--model": args.model, "--context-length": args.context_length}
    given["--num-devices"] = args.num_devices
    problems = [Problem(name, message) for name, value in given.items() if value is not None]
    if args.hardware is not None and len(args.hardware) > 1:
        problems.append(Problem("--hardware", "one profile for --measured", " ".join(args.hardware), args.hardware[0]))
    if problems:
        raise InputError(problems)


def _check_options(args: argparse.Namespace) -> None:
    """Without a file the options must say it all."""
    examples = {"hardware": "h200-sxm-x2", "model": "6.7B", "context_length": "2048"}
    message = "is required without a SCENARIO"
    missing = [
        Problem(f"--{name.replace('_', '-')}", message, example=example)
        for name, example in examples.items()
        if getattr(args, name) is None
    ]
    if missing:
        raise InputError(missing)


def _one_scenario(
    base: dict[str, Any], hardware: str | None, model: str | None, context_length: int | None
) -> Scenario:
    from kraken_sim.scenario.spec import scenario_from

    data = dict(base)
    if hardware is not None:
        data["hardware"] = hardware
    if model is not None:
        # Widths of the file's Kraken belong to the file's model.
        data["architecture"] = {"kind": base["architecture"]["kind"]}
        data["model"] = {"config" if model.endswith(".json") else "preset": model}
    if context_length is not None:
        data["context_length"] = context_length
    return scenario_from(data)
