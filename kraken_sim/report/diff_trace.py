"""A measured step beside the predicted one, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from kraken_sim.report.page import TextTable
from kraken_sim.report.text import SLOWER
from kraken_sim.traces.comparison import SHOWN_NODES
from kraken_sim.traces.diff import communication
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from kraken_sim.traces.comparison import TraceComparison
    from kraken_sim.traces.diff import DiffRow, StepDiff

_KERNELS_SHOWN = 72
"""Characters of the names of kernels in a table."""


def diff_trace_report(comparison: TraceComparison) -> RenderableType:
    """The whole answer for a terminal."""
    sentences = diff_trace_sentences(comparison)
    warnings = [Text(f"warning: {warning}", style="yellow") for warning in comparison.warnings]
    tables = [table.rich() for table in diff_trace_tables(comparison)]
    return Group(Text(sentences[0], style="bold"), *map(Text, sentences[1:]), *warnings, *tables)


def diff_trace_sentences(comparison: TraceComparison) -> list[str]:
    """What was compared, and the main result, in words; the first is the headline."""
    diff, picked = comparison.diff, comparison.picked
    found = [
        f"{comparison.ours.name}: predicted {format_seconds(diff.ours_s)}, measured {format_seconds(diff.theirs_s)} "
        f"from the first kernel to the last ({step_error_percent(comparison):+.1f} %)"
    ]
    where = comparison.device_name or "an unnamed device"
    steps = f"1 of {len(picked.steps)}, {len(picked.alike)} alike" if len(picked.steps) > 1 else "the only one"
    step = f"step {picked.step.number} ({steps}; {picked.how})"
    found.append(f"{comparison.source}, {where}, rank {comparison.rank}, {step}")
    parts = sum(len(pair.theirs.nodes) - 1 for pair in diff.pairs if pair.theirs)
    counts = f"{len(diff.matched)} matched, {len(diff.missing)} missing, {len(diff.surplus)} surplus"
    found.append(f"kernels: {counts}; {parts} more are part of another (fills, partial results)")
    if any(communication(diff.pairs, which)["exposed"] for which in (0, 1)):
        sides = []
        for which, name in enumerate(("predicted", "measured")):
            times = communication(diff.pairs, which)
            exposed, hidden = format_seconds(times["exposed"]), format_seconds(times["hidden"])
            sides.append(f"{name} {exposed} exposed and {hidden} hidden")
        found.append(f"communication: {', '.join(sides)}")
    if comparison.ours.slowdown > SLOWER:
        found.append(
            f"the prediction is of a card under load, {comparison.ours.slowdown:.3f} times slower than at its boost "
            "clock; one step alone under a profiler may run faster"
        )
    if comparison.period_s is not None:
        text = format_seconds(comparison.period_s)
        found.append(f"without the profiler such a step took {text}; a profiler adds some 0.3 us a kernel")
    return found


def step_error_percent(comparison: TraceComparison) -> float:
    """How much longer the predicted step takes than the measured one, in per cent."""
    diff = comparison.diff
    return 100.0 * (diff.ours_s / diff.theirs_s - 1.0) if diff.theirs_s > 0.0 else 0.0


def diff_trace_tables(comparison: TraceComparison) -> list[TextTable]:
    """The terms of the difference, classes, nodes, and ranks where there are several."""
    diff = comparison.diff
    terms = [(term.name, term.text, _us(term.seconds, signed=True)) for term in diff.terms()]
    terms.append(("together", "measured minus predicted", _us(diff.theirs_s - diff.ours_s, signed=True)))
    tables = [
        TextTable("What the difference consists of", ("term", "what", "us"), terms, 2),
        _with_gaps(_rows("Time by class of kernel", "class", diff.by_class()), diff),
        _rows(f"The {SHOWN_NODES} nodes with the largest difference", "node", diff.by_node()[:SHOWN_NODES]),
    ]
    if len(comparison.ranks) > 1:
        tables.append(_ranks(comparison))
    return tables


def _rows(title: str, what: str, rows: Sequence[DiffRow]) -> TextTable:
    cells = [
        (
            row.name,
            f"{row.num_ours}",
            f"{row.num_theirs}",
            _us(row.ours_s),
            _us(row.theirs_s),
            _us(row.difference_s, signed=True),
            _cut(row.kernels),
        )
        for row in rows
    ]
    columns = (what, "predicted", "measured", "predicted us", "measured us", "difference", "measured kernels")
    return TextTable(title, columns, cells)


def _with_gaps(table: TextTable, diff: StepDiff) -> TextTable:
    """The same with a last line for what no kernel took, so that the lines add up."""
    ours_s, theirs_s = diff.gaps_s
    cells = (_us(ours_s), _us(theirs_s), _us(theirs_s - ours_s, signed=True))
    return table._replace(rows=[*table.rows, ("gaps", "", "", *cells, "")])


def _ranks(comparison: TraceComparison) -> TextTable:
    cells = [
        (
            f"{rank.rank}",
            _us(rank.step_s),
            _us(rank.exposed_communication_s),
            _us(rank.hidden_communication_s),
            "" if rank.waiting_s is None else _us(rank.waiting_s),
        )
        for rank in comparison.ranks
    ]
    return TextTable("Ranks, us", ("rank", "step", "exposed", "hidden", "waiting in collectives"), cells)


def _us(seconds: float, *, signed: bool = False) -> str:
    return f"{round(seconds * 1e6, 1) + 0.0:{'+' if signed else ''},.1f}"


def _cut(text: str) -> str:
    return text if len(text) <= _KERNELS_SHOWN else text[: _KERNELS_SHOWN - 3] + "..."
