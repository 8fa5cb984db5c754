"""Predictions as tables for a terminal, built with rich."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kraken_sim.engine.timeline import SpanKind
from kraken_sim.predict.explain import overlap_sentences
from kraken_sim.predict.generation import Generation
from kraken_sim.predict.host_bound import host_bound
from kraken_sim.program.kernel_sets import RULES
from kraken_sim.report.labels import prediction_labels
from kraken_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from kraken_sim.predict.api import Predictions
    from kraken_sim.predict.explain import OverlapAdvice
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.scenario.resolve import ResolvedModel

TOP_KERNELS = 12
"""Kernels that are listed, longest first."""

SLOWER = 1.005
"""Slowdown by load from which it is worth words; below it is noise."""


@dataclass(frozen=True, slots=True)
class KernelRow:
    """All launches of one kernel in a step."""

    name: str
    count: int
    total_s: float
    alone_s: float
    kind: SpanKind
    overlapped: bool
    detail: str


def kernel_rows(prediction: Prediction) -> list[KernelRow]:
    """Kernels of rank 0 by name, the costliest first."""
    groups = defaultdict(list)
    timeline = prediction.timeline
    for span in timeline.simulated:
        if span.rank == 0 and span.kind is not SpanKind.WAIT:
            groups[span.name, span.stream, span.detail].append(span)
    rows = []
    for (name, stream, detail), spans in groups.items():
        weights = [timeline.weight(span) for span in spans]
        total = sum(span.duration_s * weight for span, weight in zip(spans, weights, strict=True))
        alone = sum(span.alone_s * weight for span, weight in zip(spans, weights, strict=True))
        rows.append(KernelRow(name, sum(weights), total, alone, spans[0].kind, stream != 0, detail))
    return sorted(rows, key=lambda row: -row.total_s)


def prediction_report(prediction: Prediction, advice: OverlapAdvice | None = None) -> RenderableType:
    """The whole answer to one scenario: latency, where it goes, the costliest kernels, sources."""
    words = overlap_sentences(advice) if advice is not None else []
    return Group(
        headline(prediction),
        breakdown_table([prediction]),
        communication_lines(prediction) + load_words(prediction),
        *([lines] if (lines := host_lines([prediction])) else []),
        *words,
        *([""] if words else []),
        kernel_table(prediction),
        provenance_lines(prediction),
    )


def headline(prediction: Prediction) -> Text:
    """One line with the latency and one with what was asked."""
    scenario, resolved = prediction.scenario, prediction.resolved
    text = Text()
    text.append(f"{scenario.name}: {metric_of(prediction)} {format_seconds(prediction.latency_s)}", style="bold")
    low, high = format_seconds(prediction.interval.low_s, 3), format_seconds(prediction.interval.high_s, 3)
    text.append(f" ({100 * prediction.interval.level:.0f} % interval {low} to {high})\n")
    if isinstance(prediction, Generation):
        text.append(generation_line(prediction) + "\n")
    text.append(
        f"{resolved.kind}, {prediction.num_parameters / 1e9:.2f} B parameters, "
        f"{resolved.num_devices} x {scenario.hardware}, batch {scenario.batch_size}, "
        f"{scenario.context_length} tokens, {scenario.dtype}, {scenario.runtime.launch} launch, "
        f"{scenario.runtime.kernels} kernels, {scenario.runtime.load} load\n"
    )
    text.append(_shape_line(resolved))
    memory = prediction.memory
    text.append(
        f"memory a device: {format_bytes(memory.total_bytes)} (weights {format_bytes(memory.weights_bytes)}, "
        f"KV cache {format_bytes(memory.kv_cache_bytes)}, activations {format_bytes(memory.activation_bytes)})"
    )
    return text


def metric_of(prediction: Prediction) -> str:
    """What the latency is called."""
    if prediction.e2e_s is not None:
        return "end to end"
    return "TTFT" if prediction.ttft_s is not None else "TPOT"


def generation_line(answer: Generation) -> str:
    """A generation's times and rate."""
    first, *_, last = (answer.tpot_by_position_s or (0.0,))[:1] + (answer.tpot_by_position_s or (0.0,))[-1:]
    text = f"TTFT {format_seconds(answer.ttft_s)}"
    if answer.tpot_s is not None:
        text += f", TPOT {format_seconds(answer.tpot_s)} ({format_seconds(first)} to {format_seconds(last)})"
    return f"{text}, {answer.tokens_per_s:,.0f} tokens/s of {answer.output_length} a sequence"


def _shape_line(resolved: ResolvedModel) -> str:
    """A line on what the architecture makes of the model; nothing where that is the model's own layers."""
    name, shape = resolved.kind.capitalize(), resolved.own_block
    if shape is not None:
        return (
            f"{name}: {resolved.layout.blocks_per_layer} sub-layers of width {shape.hidden_size}, "
            f"{shape.num_attention_heads} heads of {shape.head_dim}, {shape.num_key_value_heads} key/value heads\n"
        )
    said = ", ".join(f"{field} {value}" for field, value in (resolved.report or {}).items())
    return f"{name}: {said}\n" if said else ""


MOST_COLUMNS = 4
"""Predictions whose breakdowns stand side by side; those of more stand below each other."""


def breakdown_rows(predictions: Sequence[Prediction]) -> Table:
    """The paper's categories of many predictions, a row for each."""
    table = Table(title="Where the time goes", title_justify="left")
    table.add_column("architecture")
    shown = [name for name in predictions[0].breakdown_s if any(found.breakdown_s[name] for found in predictions)]
    for name in (*shown, "total"):
        table.add_column(name, justify="right")
    for label, found in zip(prediction_labels(predictions), predictions, strict=True):
        seconds = [*(found.breakdown_s[name] for name in shown), found.latency_s]
        table.add_row(label, *(format_seconds(value, 3) for value in seconds))
    return table


def breakdown_table(predictions: Sequence[Prediction], *, shares: bool = True) -> Table:
    """The paper's categories side by side, in time and share."""
    if len(predictions) > MOST_COLUMNS:
        return breakdown_rows(predictions)
    table = Table(title="Where the time goes", title_justify="left")
    table.add_column("category")
    for name in prediction_labels(predictions):
        table.add_column(name, justify="right")
        if shares:
            table.add_column("share", justify="right")
    for category in predictions[0].breakdown_s:
        if all(prediction.breakdown_s[category] == 0.0 for prediction in predictions):
            continue
        cells = [category]
        for prediction in predictions:
            seconds = prediction.breakdown_s[category]
            cells += [format_seconds(seconds), f"{100 * seconds / prediction.latency_s:.1f} %"][: 1 + shares]
        table.add_row(*cells)
    table.add_section()
    totals = ["total"]
    for prediction in predictions:
        totals += [format_seconds(prediction.latency_s), "100.0 %"][: 1 + shares]
    table.add_row(*totals, style="bold")
    return table


def communication_lines(prediction: Prediction) -> Text:
    """What communication costs, and where an overlap is lost."""
    text = Text()
    if prediction.communication_alone_s > 0.0:
        text.append(
            f"communication: {format_seconds(prediction.exposed_communication_s)} exposed, "
            f"{format_seconds(prediction.hidden_communication_s)} hidden; the collectives alone would take "
            f"{format_seconds(prediction.communication_alone_s)}\n"
        )
    fused, reduces = prediction.norms_in_all_reduces
    if reduces and RULES[prediction.scenario.runtime.kernels].all_reduce_norm:
        text.append(f"{fused} of {reduces} AllReduces do the add and the norm behind them too; see runtime.kernels\n")
    if prediction.hidden_communication_s > 0.0:
        cost = prediction.overlap_cost
        text.append(
            f"price of the overlap: compute slower by {format_seconds(cost.compute_slowdown_s)}, "
            f"waiting for collectives {format_seconds(cost.waiting_s)}, "
            f"collectives slower by {format_seconds(cost.collective_slowdown_s)}\n"
        )
    return text


def host_lines(predictions: Sequence[Prediction], names: Sequence[str] = ("",)) -> Text:
    """Which steps wait for the host that launches them, and what a graph would give; `names` tell several apart."""
    text = Text()
    for name, prediction in zip(names, predictions, strict=True):
        if (found := host_bound(prediction)) is not None:
            text.append(f"{name}: {found.sentence()}\n" if name else f"{found.sentence()}\n")
    return text


def load_words(prediction: Prediction) -> str:
    """The state of the card that the answer assumes, and the clock that goes with it."""
    load, boost_hz = prediction.scenario.runtime.load, prediction.profile.device.boost_clock_hz
    if prediction.profile.power is None:
        return f"load: the boost clock of {boost_hz / 1e6:.0f} MHz throughout, as the profile knows nothing about power"
    text = f"load: {load.value}, SMs at {prediction.clock_hz / 1e6:.0f} of {boost_hz / 1e6:.0f} MHz"
    if prediction.slowdown > SLOWER:
        percent = 100.0 * (prediction.slowdown - 1.0)
        text += f": the power limit makes arithmetic take {percent:.1f} % longer than at the boost clock"
    return text


def kernel_table(prediction: Prediction) -> Table:
    """The costliest kernels with what one launch takes, alone and as simulated."""
    rows = kernel_rows(prediction)
    title = "Kernels of the prefill" if prediction.e2e_s is not None else "Kernels"
    table = Table(title=title, title_justify="left")
    for column in ("kernel", "launches", "each", "each alone", "total", "how"):
        table.add_column(column, justify="left" if column in ("kernel", "how") else "right")
    for row in rows[:TOP_KERNELS]:
        name = f"{row.name} (beside compute)" if row.overlapped else row.name
        each, alone = row.total_s / row.count, row.alone_s / row.count
        total = format_seconds(row.total_s)
        table.add_row(
            name, str(row.count), format_seconds(each), format_seconds(alone), total, row.detail
        )  # fmt: skip
    if len(rows) > TOP_KERNELS:
        rest = rows[TOP_KERNELS:]
        total = format_seconds(sum(row.total_s for row in rest))
        table.add_row(f"{len(rest)} more", str(sum(row.count for row in rest)), "", "", total, "")
    return table


def provenance_lines(prediction: Prediction) -> Text:
    """Which blocks of constants were used and where they are from."""
    sources: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for path, record in prediction.provenance.items():
        sources[path.split(".")[0]][f"{record.kind}: {record.source}"] += 1
    text = Text("Constants used\n", style="bold")
    for block, origins in sources.items():
        for origin, count in origins.items():
            text.append(f"  {block} ({count}): {origin}\n", style="not bold")
    return text


def comparison_report(predictions: Predictions) -> RenderableType:
    """Architectures side by side, each against the first; kernel sets, each against the first of them."""
    base, sets = predictions[0], predictions.kernel_sets
    several = len(sets) > 1
    title = f"{base.scenario.name} on {base.scenario.hardware}" + ("" if several else f", {sets[0]} kernels")
    table = Table(title=title, title_justify="left")
    against = [f"against {sets[0]}"] if several else []
    for column in ("architecture", "parameters", "width", "latency", "speed-up", *against, "exposed", "hidden"):
        table.add_column(column, justify="left" if column == "architecture" else "right")
    speedups = zip(predictions.speedups_percent, predictions.kernels_speedups_percent, strict=True)
    names = prediction_labels(predictions)
    for name, prediction, (speedup, by_kernels) in zip(names, predictions, speedups, strict=True):
        if several and prediction.resolved.kind == base.resolved.kind:
            table.add_section()
        table.add_row(
            name,
            f"{prediction.num_parameters / 1e9:.2f} B",
            prediction.resolved.width,
            format_seconds(prediction.latency_s),
            f"{speedup:+.1f} %",
            *([f"{by_kernels:+.1f} %"] if several else []),
            format_seconds(prediction.exposed_communication_s),
            format_seconds(prediction.hidden_communication_s),
        )
    lines = [communication_lines(prediction) for prediction in predictions if prediction.resolved.architecture.overlaps]
    named = zip(names, predictions, strict=True)
    loads = Text("\n".join(f"{name}: {load_words(prediction)}" for name, prediction in named))
    waits = host_lines(predictions, names)
    parts = [*([] if several else lines), loads, *([waits] if waits else [])]
    return Group(table, breakdown_table(predictions, shares=not several), *parts)
