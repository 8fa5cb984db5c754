"""Architectures side by side for a terminal: which is fastest, how sure that is, why, and what each costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from kraken_sim.explore.architectures import reason
from kraken_sim.explore.sensitivity import speedup_interval
from kraken_sim.report.architectures import accounts_table, gains_table, reasons
from kraken_sim.report.explore import percent, span_percent
from kraken_sim.report.labels import prediction_labels
from kraken_sim.report.page import TextTable
from kraken_sim.report.text import SLOWER, breakdown_table, host_lines, interval_text, load_words
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from kraken_sim.explore.architectures import Rival
    from kraken_sim.predict.api import Predictions


def comparison_report(predictions: Predictions, rivals: Sequence[Rival]) -> RenderableType:
    """The winner in words, the gains with their intervals, why, and where time and memory go.

    Args:
        predictions: of every architecture with one kernel set, then with the next.
        rivals: the same, each against the standard one with its kernel set.
    """
    sets = predictions.kernel_sets
    several = len(sets) > 1
    gains = _sets_table(predictions, rivals) if several else gains_table(rivals, "Like with like")
    costs = [] if several else [accounts_table(rivals)]
    if several or any(prediction.hidden_communication_s > 0.0 for prediction in predictions):
        costs.append(communication_table(predictions))
    waits = host_lines(predictions, prediction_labels(predictions))
    return Group(
        Text(winner(rivals), style="bold"),
        Text(_question(predictions)),
        gains.rich(),
        *([] if several else [Text(f"{text}.") for text in reasons(rivals)]),
        breakdown_table(predictions).rich(),
        *(table.rich() for table in costs),
        *([waits] if waits else []),
        Text(_clocks(predictions)),
    )


def winner(rivals: Sequence[Rival]) -> str:
    """Which answers first, by how much, and how sure that is."""
    best = min(rivals, key=lambda rival: rival.prediction.latency_s)
    scenario = best.prediction.scenario
    text = f"{scenario.name}: {best.kind} is fastest"
    of_all = "of all"
    if len({rival.prediction.scenario.runtime.kernels for rival in rivals}) > 1:
        text += f" with {scenario.runtime.kernels} kernels"
        of_all = "with them"
    text += f", {best.prediction.metric} {format_seconds(best.prediction.latency_s)}"
    text += f" (90 % interval {interval_text(best.prediction)}), the fastest {of_all} with a probability of "
    text += percent(best.probability, 0)
    return text if best.prediction is best.base else f"{text}; against {best.base.resolved.kind} {reason(best)}"


def _question(predictions: Predictions) -> str:
    scenario, resolved = predictions[0].scenario, predictions[0].resolved
    return (
        f"{resolved.num_devices} x {scenario.hardware}, {scenario.phase}, batch {scenario.batch_size}, "
        f"{scenario.context_length} tokens, {scenario.dtype}, {scenario.runtime.launch} launch, "
        f"{', '.join(predictions.kernel_sets)} kernels, {scenario.runtime.load} load"
    )


def _clocks(predictions: Predictions) -> str:
    """The state of the cards, and the clock of each where the limit of power makes them differ."""
    base = predictions[0]
    if base.profile.power is None or all(found.slowdown <= SLOWER for found in predictions):
        return load_words(base)
    named = zip(prediction_labels(predictions), predictions, strict=True)
    clocks = ", ".join(f"{label} {found.clock_hz / 1e6:.0f}" for label, found in named)
    boost_hz = base.profile.device.boost_clock_hz
    return f"load: {base.scenario.runtime.load}; the power limit holds SMs to {clocks} of {boost_hz / 1e6:.0f} MHz"


def _sets_table(predictions: Predictions, rivals: Sequence[Rival]) -> TextTable:
    """Each against the standard architecture with its kernel set, and against itself with the first set."""
    sets = predictions.kernel_sets
    against = f"against {sets[0]}"
    columns = ["architecture", "parameters", "width", predictions[0].metric, "90 % interval"]
    columns += ["speed-up", "speed-up, 90 % interval", against, f"90 %, {against}"]
    first = {rival.kind: rival.prediction for rival in reversed(rivals)}
    rows: list[list[str]] = []
    groups = []
    for label, rival in zip(prediction_labels(predictions), rivals, strict=True):
        prediction, own = rival.prediction, first[rival.kind]
        if prediction is rival.base:
            groups.append(len(rows))
        by_set = 100.0 * (own.latency_s / prediction.latency_s - 1.0)
        rows.append(
            [
                label,
                f"{prediction.num_parameters / 1e9:.2f} B",
                prediction.resolved.width,
                format_seconds(prediction.latency_s),
                interval_text(prediction),
                "" if prediction is rival.base else f"{100.0 * rival.gain:+.1f} %",
                "" if prediction is rival.base else span_percent(rival.interval),
                "" if prediction is own else f"{by_set:+.1f} %",
                "" if prediction is own else span_percent(speedup_interval(own, prediction)),
            ]
        )
    return TextTable("Architectures and kernel sets", columns, rows, groups=groups)


def communication_table(predictions: Predictions) -> TextTable:
    """What communication costs each, and the price of hiding it."""
    columns = ["architecture", "exposed", "hidden", "collectives alone", "compute slower by", "waiting"]
    columns += ["collectives slower by"]
    rows = []
    for label, prediction in zip(prediction_labels(predictions), predictions, strict=True):
        cost, hides = prediction.overlap_cost, prediction.hidden_communication_s > 0.0
        price = (cost.compute_slowdown_s, cost.waiting_s, cost.collective_slowdown_s)
        rows.append(
            [
                label,
                format_seconds(prediction.exposed_communication_s, 3),
                format_seconds(prediction.hidden_communication_s, 3),
                format_seconds(prediction.communication_alone_s, 3),
                *(format_seconds(seconds, 3) if hides else "" for seconds in price),
            ]
        )
    return TextTable("Communication, and the price of an overlap", columns, rows)
