"""`kraken-sim explore`: questions about designs, each answered with how sure the answer is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kraken_sim.cli.inputs import architectures_named, check_processes, measurement_file
from kraken_sim.cli.output import write_outputs
from kraken_sim.cli.parser import Parser, add_architectures, add_outputs, add_selection, add_workers
from kraken_sim.cli.progress import progress_of
from kraken_sim.cli.question import asked_request, asked_scenarios, selected
from kraken_sim.cli.settings import SETTINGS, add_question, add_request
from kraken_sim.errors import InputError, Problem

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from kraken_sim.explore.architectures import ArchitectureAnswer
    from kraken_sim.explore.channels import ChannelAnswer
    from kraken_sim.explore.degree import DegreeAnswer
    from kraken_sim.explore.interconnect import InterconnectAnswer
    from kraken_sim.explore.selection import RowChoice
    from kraken_sim.report.page import Page
    from kraken_sim.scenario.spec import Scenario

    Answer = ArchitectureAnswer | ChannelAnswer | DegreeAnswer | InterconnectAnswer


def add_arguments(parser: Parser) -> None:
    """A verb of its own for each question."""
    verbs = parser.add_subparsers(dest="verb", metavar="QUESTION", required=True, parser_class=Parser)
    channels = verbs.add_parser("channels", help="how many NCCL channels for an AllReduce beside the attention")
    channels.add_argument(
        "--measured", metavar="FILE", help="passes of validation.measure: predicted and measured best"
    )
    degree = verbs.add_parser("degree", help="over how many GPUs to spread a model, and wired how")
    add_architectures(degree)
    wirings = verbs.add_parser("architecture", help="which architecture is fastest, why, and at what cost")
    add_architectures(wirings)
    interconnect = verbs.add_parser("interconnect", help="below which bandwidth between GPUs Kraken is worth it")
    interconnect.add_argument(
        "--worth", metavar="PERCENT", type=float, default=10.0, help="the speed-up asked of Kraken (default: 10)"
    )
    design = verbs.add_parser("design", help="the best shapes, wirings and channels for a parameter budget")
    add_request(design, "base, search, constraints, objectives")
    design.add_argument("--max-evaluations", metavar="N", type=int, help="try no more designs than this one by one")
    kept = "write the designs evaluated as Parquet; an unfinished search of that name is gone on with"
    add_workers(design, kept, "1")
    add_outputs(design)
    add_selection(design)
    for verb in (channels, degree, wirings, interconnect):
        add_question(verb, several=("--hardware", "--model", "--context-length", "--batch-size"))
        add_outputs(verb)
        add_selection(verb)
    channels.set_defaults(handler=_explore_channels)
    degree.set_defaults(handler=_explore_degree)
    wirings.set_defaults(handler=_explore_architecture)
    interconnect.set_defaults(handler=_explore_interconnect)
    design.set_defaults(handler=_explore_design)


def _explore_channels(args: argparse.Namespace) -> None:
    """How many channels NCCL should get."""
    from kraken_sim.architectures.registry import overlapping
    from kraken_sim.explore.channels import best_channels
    from kraken_sim.report.explore import channels_report

    chosen = selected(args)
    if args.measured is not None:
        _explore_measured_channels(args, chosen)
        return
    answers = [best_channels(scenario) for scenario in _each(args, _scenarios(args, overlapping()[0]))]

    def page() -> Page:
        from kraken_sim.report.explore_html import channels_page

        return channels_page(answers)

    def report() -> RenderableType:
        if chosen.is_whole:
            return channels_report(answers)
        return channels_report(answers, [chosen.of_records(answer.records) for answer in answers])

    write_outputs(args, lambda: [answer.as_dict() for answer in answers], report, page, lambda: _rows(answers, chosen))


def _explore_measured_channels(args: argparse.Namespace, chosen: RowChoice) -> None:
    """The same for the passes of a measurement file, beside the measured best."""
    from kraken_sim.explore.channels_measured import compare_channels
    from kraken_sim.predict.records import flat_row
    from kraken_sim.report.explore import measured_report

    _check_measured(args)
    hardware = args.hardware[0] if args.hardware else None
    result = compare_channels(measurement_file(args.measured), hardware)

    def page() -> Page:
        from kraken_sim.report.explore_html import measured_channels_page

        return measured_channels_page(result)

    cases = [flat_row(row) for row in result.as_dict()["rows"]]
    rows = chosen.of_records(cases)
    write_outputs(
        args, result.as_dict, lambda: measured_report(result, rows), page, lambda: [cases[row] for row in rows]
    )


def _explore_degree(args: argparse.Namespace) -> None:
    """Over how many GPUs to spread a model, as which architecture."""
    from kraken_sim.architectures.registry import BASELINE
    from kraken_sim.explore.degree import best_degree
    from kraken_sim.report.explore_machine import degree_report

    chosen = selected(args)
    named = architectures_named(args.architectures)
    answers = [best_degree(scenario, architectures=named) for scenario in _each(args, _scenarios(args, BASELINE))]

    def page() -> Page:
        from kraken_sim.report.explore_machine_html import degree_page

        return degree_page(answers)

    def report() -> RenderableType:
        return degree_report(answers, [chosen.of_records(answer.records) for answer in answers])

    write_outputs(args, lambda: [answer.as_dict() for answer in answers], report, page, lambda: _rows(answers, chosen))


def _explore_architecture(args: argparse.Namespace) -> None:
    """Which architecture, of all that fit or of those named."""
    from kraken_sim.architectures.registry import BASELINE
    from kraken_sim.explore.architectures import best_architecture
    from kraken_sim.report.architectures import architectures_report

    chosen = selected(args)
    named = () if args.architectures == "all" else architectures_named(args.architectures)
    answers = [best_architecture(scenario, architectures=named) for scenario in _each(args, _scenarios(args, BASELINE))]

    def page() -> Page:
        from kraken_sim.report.architectures_html import architectures_page

        return architectures_page(answers)

    def report() -> RenderableType:
        return architectures_report(answers, [chosen.of_records(answer.records) for answer in answers])

    write_outputs(args, lambda: [answer.as_dict() for answer in answers], report, page, lambda: _rows(answers, chosen))


def _explore_interconnect(args: argparse.Namespace) -> None:
    """Below which bandwidth Kraken is worth it."""
    from kraken_sim.explore.interconnect import worthwhile_bandwidth
    from kraken_sim.report.explore_machine import interconnect_report

    chosen = selected(args)
    scenarios = _scenarios(args, "kraken")
    answers = [worthwhile_bandwidth(scenario, args.worth / 100.0) for scenario in _each(args, scenarios)]

    def page() -> Page:
        from kraken_sim.report.explore_machine_html import interconnect_page

        return interconnect_page(answers)

    def report() -> RenderableType:
        return interconnect_report(answers, [chosen.of_records(answer.records) for answer in answers])

    write_outputs(args, lambda: [answer.as_dict() for answer in answers], report, page, lambda: _rows(answers, chosen))


def _explore_design(args: argparse.Namespace) -> None:
    """The best designs of a request."""
    from kraken_sim.explore.design.request import load_design_request
    from kraken_sim.explore.design.search import search_to_file
    from kraken_sim.report.design import design_report

    chosen = selected(args)
    check_processes(args)
    request = load_design_request(asked_request(args))
    if args.max_evaluations is not None:
        if args.max_evaluations < 1:
            raise InputError.single("--max-evaluations", "must be at least 1", args.max_evaluations, "2000")
        request = request.model_copy(update={"max_evaluations": args.max_evaluations})
    out, jobs = None if args.out is None else Path(args.out), 1 if args.jobs is None else args.jobs
    with progress_of("designs", quiet=args.quiet) as show:

        def progress(done: int, total: int) -> None:
            show(done, total, 0)

        result = search_to_file(request, out, jobs=jobs, cluster=args.cluster, progress=progress, force=args.force)

    def page() -> Page:
        from kraken_sim.report.design_html import design_page

        return design_page(result)

    def report() -> RenderableType:
        if chosen.is_whole:
            return design_report(result)
        return design_report(result, [result.evaluated[row] for row in chosen.of_records(result.records)])

    def rows() -> list[dict[str, Any]]:
        return [result.records[row] for row in chosen.of_records(result.records)]

    write_outputs(args, result.as_dict, report, page, rows)


def _rows(answers: Sequence[Answer], chosen: RowChoice) -> Iterator[dict[str, Any]]:
    """The rows of all answers, each with its question."""
    from kraken_sim.report.explore import model_name

    for answer in answers:
        scenario, records = answer.scenario, answer.records
        asked = {
            "hardware": scenario.hardware,
            "model": model_name(scenario),
            "batch_size": scenario.batch_size,
            "context_length": scenario.context_length,
        }
        for row in chosen.of_records(records):
            yield asked | records[row]


def _each(args: argparse.Namespace, scenarios: Sequence[Scenario]) -> Iterator[Scenario]:
    """One after the other; where that takes long, says now and then how many are answered."""
    from kraken_sim.cli.progress import ProgressLines

    lines = ProgressLines("questions", quiet=args.quiet)
    for done, scenario in enumerate(scenarios):
        lines(done, len(scenarios))
        yield scenario


def _scenarios(args: argparse.Namespace, kind: str) -> list[Scenario]:
    """The file's scenario, or one from options alone, for every machine, model and length named.

    Raises:
        InputError: neither the file nor the options say what is needed, or anything of it is wrong.
    """
    return asked_scenarios(args, {"name": "explore", "architecture": {"kind": kind}})


def _check_measured(args: argparse.Namespace) -> None:
    """Measured passes say themselves what was asked; only the profile may be chosen."""
    message = "does not go with --measured, whose passes say it"
    given = {"SCENARIO": args.scenario, "--set": args.changes or None}
    given |= {setting.option: getattr(args, setting.name) for setting in SETTINGS if setting.name != "hardware"}
    problems = [Problem(name, message) for name, value in given.items() if value is not None]
    if args.hardware is not None and len(args.hardware) > 1:
        problems.append(Problem("--hardware", "one profile for --measured", " ".join(args.hardware), args.hardware[0]))
    if problems:
        raise InputError(problems)
