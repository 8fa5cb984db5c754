"""`kraken-sim diff-trace`: a measured trace against a prediction, kernel by kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kraken_sim.cli.inputs import measurement_warnings, named_scenario
from kraken_sim.cli.output import write_outputs
from kraken_sim.cli.parser import add_outputs
from kraken_sim.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from kraken_sim.cli.parser import Parser
    from kraken_sim.report.page import Page
    from kraken_sim.traces.comparison import Predicted, TraceComparison
    from kraken_sim.traces.device_trace import DeviceTrace

ALL_RANKS = "all"
_ENDINGS = (".json", ".json.gz")
_MOST_FILES = 4096
"""Traces in a folder; a limit of ours, as many as a machine may have GPUs."""


def add_arguments(parser: Parser) -> None:
    """What may be given."""
    parser.add_argument(
        "ours",
        metavar="OURS",
        help="a scenario (file or name), a trace of `run --trace`, or the question of a measured pass, FILE.jsonl#KEY",
    )
    parser.add_argument(
        "theirs",
        metavar="THEIRS",
        nargs="+",
        help="torch.profiler traces, one a process (files, .gz or not, or folders of them), or FILE.jsonl#KEY",
    )
    parser.add_argument("--rank", metavar="RANK", default=ALL_RANKS, help="a rank; default: all, the slowest in detail")
    parser.add_argument("--step", metavar="NUMBER", type=int, help="a step of the trace (default: a typical one)")
    add_outputs(parser)
    parser.set_defaults(handler=_diff_trace)


def _diff_trace(args: argparse.Namespace) -> None:
    """Lines up a trace with a prediction and says what the difference consists of."""
    from kraken_sim.traces.comparison import compare_traces

    rank = _rank(args.rank)
    theirs = [trace for text in args.theirs for trace in _theirs(text, rank)]
    if not theirs:
        raise InputError.single("--rank", "none of the traces is of this rank", rank)
    comparison: TraceComparison = compare_traces(_ours(args.ours), theirs, rank=rank, step=args.step)

    def report() -> Any:
        from kraken_sim.report.diff_trace import diff_trace_report

        return diff_trace_report(comparison)

    def page() -> Page:
        from kraken_sim.report.diff_trace_html import diff_trace_page

        return diff_trace_page(comparison)

    write_outputs(args, comparison.as_dict, report, page, lambda: comparison.as_dict()["nodes"])


def _rank(text: str) -> int | None:
    if text == ALL_RANKS:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise InputError.single("--rank", "must be a number or all", text, "0")
    return int(text)


def _ours(text: str) -> Predicted:
    from kraken_sim.predict.api import simulate
    from kraken_sim.traces.comparison import predicted, predicted_trace
    from kraken_sim.traces.device_trace import read_trace
    from kraken_sim.traces.measured import is_measured, measured_question

    if is_measured(text):
        with measurement_warnings():
            return predicted(simulate(measured_question(text, "OURS")))
    if os.path.isdir(text):
        text = str(next(_files(text, "OURS")))
    if text.endswith(_ENDINGS):
        return predicted_trace(read_trace(Path(text), "OURS"))
    return predicted(simulate(named_scenario(text)))


def _theirs(text: str, rank: int | None) -> Iterator[DeviceTrace]:
    """The traces that an argument names; of a folder's those that may be of a rank, as they are long."""
    from kraken_sim.traces.device_trace import rank_of_file, read_trace
    from kraken_sim.traces.measured import is_measured, measured_trace

    if is_measured(text):
        with measurement_warnings():
            yield measured_trace(text, "THEIRS")
    elif os.path.isdir(text):
        for file in _files(text, "THEIRS"):
            if rank is None or rank_of_file(file) in (None, rank):
                yield read_trace(file)
    else:
        yield read_trace(Path(text))


def _files(folder: str, argument: str) -> Iterator[Path]:
    """The traces in a folder, in order of their names."""
    try:
        found = sorted(entry.path for entry in os.scandir(folder) if entry.name.endswith(_ENDINGS))
    except OSError as error:
        raise InputError.single(argument, f"cannot be read: {error.strerror}", folder) from None
    if not found:
        raise InputError.single(argument, f"holds no trace ({' or '.join(_ENDINGS)})", folder)
    if len(found) > _MOST_FILES:
        raise InputError.single(argument, f"holds {len(found):,} traces, more than {_MOST_FILES:,}", folder)
    yield from map(Path, found)
