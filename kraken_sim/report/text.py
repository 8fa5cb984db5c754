"""Predictions as tables for a terminal, built with rich."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kraken_sim.engine.timeline import SpanKind
from kraken_sim.predict.explain import overlap_sentences
from kraken_sim.predict.generation import Generation
from kraken_sim.predict.host_bound import host_bound
from kraken_sim.program.kernel_sets import RULES
from kraken_sim.program.program import Category
from kraken_sim.report.labels import prediction_labels
from kraken_sim.report.page import TextTable
from kraken_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

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
        breakdown_table([prediction]).rich(),
        communication_lines(prediction) + load_words(prediction),
        *([lines] if (lines := host_lines([prediction])) else []),
        *words,
        *([""] if words else []),
        kernel_table(prediction).rich(),
        provenance_lines(prediction),
    )


def headline(prediction: Prediction) -> Text:
    """One line with the latency and one with what was asked."""
    scenario, resolved = prediction.scenario, prediction.resolved
    text = Text()
    text.append(f"{scenario.name}: {prediction.metric} {format_seconds(prediction.latency_s)}", style="bold")
    text.append(f" ({100 * prediction.interval.level:.0f} % interval {interval_text(prediction)})\n")
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


def interval_text(prediction: Prediction) -> str:
    """Where the latency lies, by the interval of the prediction."""
    return f"{format_seconds(prediction.interval.low_s, 3)} to {format_seconds(prediction.interval.high_s, 3)}"


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


def breakdown_table(predictions: Sequence[Prediction]) -> TextTable:
    """The paper's categories of predictions: of a few side by side with their shares, of many a row for each."""
    shown = [name for name in predictions[0].breakdown_s if any(found.breakdown_s[name] for found in predictions)]
    labels = prediction_labels(predictions)
    title = "Where the time goes"
    if len(predictions) > MOST_COLUMNS:
        rows = [
            [label, *(format_seconds(found.breakdown_s[name], 3) for name in shown), format_seconds(found.latency_s, 3)]
            for label, found in zip(labels, predictions, strict=True)
        ]
        return TextTable(title, ["architecture", *shown, "total"], rows)
    columns = ["category", *(column for label in labels for column in (label, "share"))]
    rows = [[name, *_times_and_shares(predictions, name)] for name in (*shown, "total")]
    return TextTable(title, columns, rows, total=True)


def _times_and_shares(predictions: Sequence[Prediction], category: str) -> list[str]:
    cells = []
    for prediction in predictions:
        seconds = prediction.latency_s if category == "total" else prediction.breakdown_s[Category(category)]
        cells += [format_seconds(seconds), f"{100.0 * seconds / prediction.latency_s:.1f} %"]
    return cells


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


def kernel_table(prediction: Prediction) -> TextTable:
    """The costliest kernels with what one launch takes, alone and as simulated."""
    rows = kernel_rows(prediction)
    cells = [
        [
            f"{row.name} (beside compute)" if row.overlapped else row.name,
            str(row.count),
            format_seconds(row.total_s / row.count),
            format_seconds(row.alone_s / row.count),
            format_seconds(row.total_s),
            row.detail,
        ]
        for row in rows[:TOP_KERNELS]
    ]
    if rest := rows[TOP_KERNELS:]:
        total = format_seconds(sum(row.total_s for row in rest))
        cells.append([f"{len(rest)} more", str(sum(row.count for row in rest)), "", "", total, ""])
    title = "Kernels of the prefill" if prediction.e2e_s is not None else "Kernels"
    return TextTable(title, ["kernel", "launches", "each", "each alone", "total", "how"], cells)


def provenance_lines(prediction: Prediction) -> RenderableType:
    """Where the constants that were used are from: of each block and kind how many, and the source of most."""
    sources: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for path, record in prediction.provenance.items():
        sources[path.split(".")[0], str(record.kind)][record.source] += 1
    grid = Table.grid(padding=(0, 2, 0, 0))
    last = ""
    for (block, kind), counts in sources.items():
        [(source, _)] = counts.most_common(1)
        others = f"; and {len(counts) - 1} more source{'s' * (len(counts) > 2)}" if len(counts) > 1 else ""
        grid.add_row(Text("" if block == last else block), Text(f"{counts.total()} {kind}: {source}{others}"))
        last = block
    every = f"each with its source: kraken-sim profiles show {prediction.scenario.hardware}"
    return Group(Text("Constants used", style="bold").append(f" ({every})", style="not bold"), Padding(grid, (0, 2)))
