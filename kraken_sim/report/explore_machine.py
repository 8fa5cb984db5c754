"""Answers about degree and interconnect as tables and sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

from kraken_sim.report.explore import percent, question, sureness
from kraken_sim.report.page import TextTable
from kraken_sim.units import format_bandwidth, format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from kraken_sim.explore.degree import DegreeAnswer
    from kraken_sim.explore.interconnect import InterconnectAnswer

DEGREE_TITLE = "How many GPUs, and which architecture"
INTERCONNECT_TITLE = "Which bandwidth between GPUs makes Kraken worth it"


def degree_grid(answer: DegreeAnswer) -> TextTable:
    """A row for each architecture and degree."""
    decode = answer.scenario.phase.value == "decode"
    columns = ["architecture", "GPUs", "TPOT" if decode else "TTFT", "90 % interval", "exposed", "memory a GPU"]
    unit = "token" if decode else "prompt"
    columns += ["replicas", f"{unit}s/s a machine", f"J a {unit}", "fastest: probability"]
    rows = []
    for row in answer.rows:
        interval, prediction = row.prediction.interval, row.prediction
        rows.append(
            [
                row.kind,
                str(row.num_devices),
                format_seconds(prediction.latency_s),
                f"{format_seconds(interval.low_s, 3)} to {format_seconds(interval.high_s, 3)}",
                format_seconds(prediction.exposed_communication_s, 3),
                format_bytes(prediction.memory.total_bytes, 3),
                str(row.num_replicas),
                f"{row.sequences_per_s:.1f}",
                f"{row.joules_per_sequence:.3g}{'*' if row.energy.is_assumed else ''}",
                percent(answer.decision.probability[row.name], 0),
            ]
        )
    return TextTable(f"{DEGREE_TITLE}: {question(answer.scenario)}", columns, rows, num_left=2)


def degree_sentences(answer: DegreeAnswer) -> list[str]:
    """The best by latency and by throughput, how sure they are, and what is not possible."""
    decision = answer.decision
    sentences = [f"Fastest: {sureness(decision, dict.fromkeys(decision.predictions, 1.0), answer.best)}"]
    sentences += [
        f"As {kind}: {sureness(decision, answer.latency_weights(kind), best)}"
        for kind in answer.kinds
        if (best := answer.best_of(kind)) is not None
    ]
    throughput = sureness(decision, answer.throughput_weights(), answer.best_throughput)
    sentences.append(f"Highest throughput of the whole machine, replicas always busy: {throughput}")
    sentences += [f"{name} is not possible: {reason}" for name, reason in answer.impossible.items()]
    if any(row.energy.is_assumed for row in answer.rows):
        sentences.append("* the profile has no power model: GPUs are assumed to draw their TDP, an upper bound.")
    return sentences


def degree_report(answers: Sequence[DegreeAnswer], rows: Sequence[Sequence[int]] | None = None) -> RenderableType:
    """Every architecture on every degree, and the best by latency and by throughput.

    Args:
        answers: one a question.
        rows: of each answer those that its table shows, in order; default: all.
    """
    parts: list[RenderableType] = []
    for index, answer in enumerate(answers):
        grid = degree_grid(answer)
        parts += [(grid if rows is None else grid.with_rows(rows[index])).rich(), *degree_sentences(answer)]
    return Group(*parts)


def interconnect_grid(answer: InterconnectAnswer) -> TextTable:
    """The speed-up, a row a bandwidth."""
    rows = [
        [
            f"{format_bandwidth(point.bandwidth_bytes_per_s, 3)}{' (as built)' if point.factor == 1.0 else ''}",
            format_seconds(point.standard_s),
            format_seconds(point.kraken_s),
            f"{100.0 * point.speedup:+.1f} %",
            f"{100.0 * point.interval[0]:+.0f} to {100.0 * point.interval[1]:+.0f} %",
        ]
        for point in answer.points
    ]
    title = f"{INTERCONNECT_TITLE}: {question(answer.scenario)}, {answer.num_devices} GPUs"
    return TextTable(title, ["bandwidth a GPU and direction", "standard", "Kraken", "speed-up", "90 % interval"], rows)


def interconnect_sentences(answer: InterconnectAnswer) -> list[str]:
    """Where Kraken is worth it, in words."""
    worth, crossing, own = percent(answer.worth, 0), answer.crossing, answer.own
    fastest = answer.points[-1].bandwidth_bytes_per_s
    if crossing.last_bytes_per_s is None:
        head = f"Kraken is nowhere {worth} faster than standard, not even on the slowest links tried."
    elif crossing.last_bytes_per_s >= fastest:
        head = f"Kraken is at least {worth} faster up to the fastest links tried, {format_bandwidth(fastest, 3)}."
    else:
        head = f"Kraken is at least {worth} faster up to {format_bandwidth(crossing.last_bytes_per_s, 3)} a GPU"
        sure = crossing.sure_bytes_per_s
        if sure is None or sure < 0.99 * crossing.last_bytes_per_s:
            below = "nothing" if sure is None else format_bandwidth(sure, 3)
            head += f", though without a gap only up to {below}: NCCL changes its algorithm and its channels on the way"
        head += "."
    low, high = (_ending(at.last_bytes_per_s, fastest) for at in answer.crossing_range)
    sentences = [
        f"{head} 90 % interval of that bandwidth: {low if low == high else f'{low} to {high}'}.",
        f"On the machine's own links Kraken's speed-up is {percent(own.speedup)} "
        f"(90 % interval {percent(own.interval[0])} to {percent(own.interval[1])}).",
    ]
    if answer.perturbed:
        speedups = [speedup for *_, speedup in answer.perturbed]
        sentences.append(
            f"If one block of constants errs by its residual for both alike, it is {percent(min(speedups))} to "
            f"{percent(max(speedups))}."
        )
    return sentences


def _ending(bandwidth_bytes_per_s: float | None, fastest: float) -> str:
    if bandwidth_bytes_per_s is None:
        return "none"
    text = format_bandwidth(bandwidth_bytes_per_s, 3)
    return text if bandwidth_bytes_per_s < fastest else f"{text} or more"


def interconnect_report(
    answers: Sequence[InterconnectAnswer], rows: Sequence[Sequence[int]] | None = None
) -> RenderableType:
    """The speed-up over bandwidth and where it meets the threshold; `rows` as of `degree_report`."""
    parts: list[RenderableType] = []
    for index, answer in enumerate(answers):
        grid = interconnect_grid(answer)
        parts += [(grid if rows is None else grid.with_rows(rows[index])).rich(), *interconnect_sentences(answer)]
    return Group(*parts)
