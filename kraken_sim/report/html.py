"""Predictions as a page: the answer, how sure it is and why, and everything that it rests on."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from kraken_sim.explore.architectures import Rival, rivals_of
from kraken_sim.explore.what_changes import BLOCK_WORDS, answer_changes
from kraken_sim.predict.api import Predictions
from kraken_sim.predict.explain import overlap_sentences
from kraken_sim.predict.host_bound import host_bound
from kraken_sim.report.architectures import accounts_table, reasons
from kraken_sim.report.architectures_html import gains_without_quality, quality_of_rivals
from kraken_sim.report.figures import PART_NAMES
from kraken_sim.report.gains_figure import gains_figure
from kraken_sim.report.glossary import what_is
from kraken_sim.report.headlines import capital, comparison_headline, prediction_headline, rival_told
from kraken_sim.report.labels import prediction_labels
from kraken_sim.report.page import Bullets, Details, Facts, Page, PageBlock, Plot, Section, TextTable
from kraken_sim.report.prediction_figures import (
    breakdown_figure,
    changes_figure,
    communication_figure,
    layers_figure,
    memory_figure,
    roofline_figure,
    steady_layer,
)
from kraken_sim.report.question import question_facts
from kraken_sim.report.render import render
from kraken_sim.report.text import TOP_KERNELS, communication_lines, kernel_rows, load_words
from kraken_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kraken_sim.predict.explain import OverlapAdvice
    from kraken_sim.predict.prediction import Prediction


def render_html(predictions: Sequence[Prediction]) -> str:
    """The page of predictions of one question as HTML; see `prediction_page`."""
    return render(prediction_page(predictions))


def prediction_page(
    predictions: Sequence[Prediction],
    rivals: Sequence[Rival] | None = None,
    advice: OverlapAdvice | None = None,
    asked: str = "",
) -> Page:
    """One prediction, or several of one question, each against the first.

    Args:
        predictions: architectures, and kernel sets, of one question.
        rivals: the same like with like; default: worked out where there are several.
        advice: where the overlap of a single prediction is lost.
        asked: the architecture that the headline is about; default: the fastest rival at equal parameters.
    """
    several = len(predictions) > 1
    if rivals is None:
        rivals = _rivals(predictions) if several else []
    sections = [
        Section("The question", [Facts(question_facts(predictions))]),
        *_like_with_like(rivals),
        Section("Where the time goes", list(_breakdown(predictions))),
        Section("One layer, kernel by kernel", list(_layers(predictions))),
        *_communication(predictions, advice),
        Section("Memory", list(_memory(predictions))),
        Section("Kernels", list(_kernels(predictions))),
        Section(
            "Roofline", [_ROOFLINE, Plot(roofline_figure(predictions), "Kernels with matrix products, each alone")]
        ),
        *_changes(predictions, rivals, asked),
        Section("Where the numbers come from", list(_provenance(predictions))),
    ]
    return Page(
        kind="Comparison" if several else "Prediction",
        title=predictions[0].scenario.name,
        headline=comparison_headline(rivals, asked) if rivals else prediction_headline(predictions[0]),
        sentences=_sentences(predictions, rivals, asked),
        sections=sections,
        warnings=[f"{name}: {words}" if several else words for name, words in _host_words(predictions)],
    )


def _sentences(predictions: Sequence[Prediction], rivals: Sequence[Rival], asked: str) -> list[str]:
    """What the architectures of the headline are, for who never heard of them."""
    told = rival_told(rivals, asked)
    kinds = [predictions[0].resolved.kind] if told is None else [told.kind, told.base.resolved.kind]
    return [sentence for kind in kinds if (sentence := what_is(kind))]


_ROOFLINE = (
    "The line is what the GPU's datasheet allows: its memory's bandwidth on the slope, its arithmetic on the flat "
    "part. A point far below the line is limited by something else, such as too little work to fill the GPU."
)


def _rivals(predictions: Sequence[Prediction]) -> list[Rival]:
    found = predictions
    if not isinstance(found, Predictions):
        found = Predictions()
        found.extend(predictions)
    return rivals_of(found)


def _host_words(predictions: Sequence[Prediction]) -> Iterator[tuple[str, str]]:
    for name, prediction in zip(prediction_labels(predictions), predictions, strict=True):
        if (found := host_bound(prediction)) is not None:
            yield name, found.sentence()


def _like_with_like(rivals: Sequence[Rival]) -> Iterator[Section]:
    """Standard against its rivals, as they are built and at equal parameters."""
    if not rivals:
        return
    sets = dict.fromkeys(rival.prediction.scenario.runtime.kernels for rival in rivals)
    blocks: list[PageBlock] = []
    for kernels in sets:
        chosen = [rival for rival in rivals if rival.prediction.scenario.runtime.kernels is kernels]
        title = f"with {kernels} kernels" if len(sets) > 1 else ""
        if len(chosen) > 1:
            blocks.append(Plot(gains_figure(chosen), f"Faster than {chosen[0].base.resolved.kind} {title}".strip()))
        blocks += [gains_without_quality(chosen, title), Bullets([capital(f"{text}.") for text in reasons(chosen)])]
        accounts = accounts_table(chosen)
        blocks.append(accounts)
    if len(sets) > 1:
        blocks.append(_against_first_set(rivals))
    blocks.append(quality_of_rivals(rivals))
    yield Section("Like with like", blocks)


def _against_first_set(rivals: Sequence[Rival]) -> TextTable:
    """What every kernel set does to each architecture, against the first set."""
    first: dict[str, Rival] = {}
    rows = []
    for rival in rivals:
        base = first.setdefault(rival.kind, rival)
        gain = base.prediction.latency_s / rival.prediction.latency_s - 1.0
        kernels = rival.prediction.scenario.runtime.kernels
        rows.append([rival.kind, str(kernels), format_seconds(rival.prediction.latency_s), f"{100.0 * gain:+.1f} %"])
    against = f"against {rivals[0].prediction.scenario.runtime.kernels}"
    return TextTable("Kernel sets", ["architecture", "kernels", "latency", against], rows, num_left=2)


def _breakdown(predictions: Sequence[Prediction]) -> Iterator[PageBlock]:
    yield Plot(breakdown_figure(predictions), "The time of a step, by what the compute stream does")
    shown = [name for name in predictions[0].breakdown_s if any(found.breakdown_s[name] for found in predictions)]
    rows = [
        [label, *(format_seconds(found.breakdown_s[name], 3) for name in shown), format_seconds(found.latency_s, 3)]
        for label, found in zip(prediction_labels(predictions), predictions, strict=True)
    ]
    yield TextTable("", ["architecture", *(PART_NAMES[name] for name in shown), "total"], rows)
    yield _told("What the card's load does", predictions, [f"{load_words(prediction)}." for prediction in predictions])


def _layers(predictions: Sequence[Prediction]) -> Iterator[PageBlock]:
    label = "A layer of each on one scale; point at a kernel for its shape and its time alone"
    yield Plot(layers_figure(predictions), label)
    labels = zip(prediction_labels(predictions), predictions, strict=True)
    items = [f"One layer: {label}, {_layer_words(prediction)}" for label, prediction in labels]
    yield Details("How long a layer takes, and how many are alike", [Bullets(items)], is_open=len(items) == 1)


def _told(summary: str, predictions: Sequence[Prediction], words: Sequence[str]) -> PageBlock:
    """A sentence of each: as it is for one, behind a line for several."""
    if len(predictions) == 1:
        return capital(words[0])
    named = [f"{label}: {text}" for label, text in zip(prediction_labels(predictions), words, strict=True)]
    return Details(summary, [Bullets(named)])


def _layer_words(prediction: Prediction) -> str:
    spans = steady_layer(prediction)
    length = max(span.end_s for span in spans) - min(span.start_s for span in spans)
    times = 1 + sum(fold.count for fold in prediction.timeline.folds if fold.segment == spans[0].segment)
    others = f"; {times} layers run exactly like it" if times > 1 else ""
    return f"{format_seconds(length)} from its first kernel to its last{others}."


def _communication(predictions: Sequence[Prediction], advice: OverlapAdvice | None) -> Iterator[Section]:
    if not any(prediction.communication_alone_s > 0.0 for prediction in predictions):
        return
    blocks: list[PageBlock] = [Plot(communication_figure(predictions), "Communication of a step, exposed and hidden")]
    lines = [communication_lines(prediction).plain.splitlines() for prediction in predictions]
    words = [" ".join(f"{capital(line)}." for line in found) or "None." for found in lines]
    blocks.append(_told("What it costs each", predictions, words))
    if advice is not None:
        blocks.append(Bullets(overlap_sentences(advice)))
    yield Section("Communication", blocks)


def _memory(predictions: Sequence[Prediction]) -> Iterator[PageBlock]:
    yield Plot(memory_figure(predictions), "Bytes of the fullest GPU, against what it has")
    capacity = predictions[0].profile.device.hbm_capacity_bytes
    rows = []
    for label, prediction in zip(prediction_labels(predictions), predictions, strict=True):
        memory = prediction.memory
        parts = (memory.weights_bytes, memory.kv_cache_bytes, memory.activation_bytes, memory.total_bytes)
        share = f"{100.0 * memory.total_bytes / capacity:.0f} %"
        rows.append([label, *(format_bytes(value, 3) for value in parts), share])
    yield TextTable("", ["architecture", "weights", "KV cache", "activations", "together", "of the GPU"], rows)


def _kernels(predictions: Sequence[Prediction]) -> Iterator[PageBlock]:
    tables = [_kernel_table(prediction) for prediction in predictions]
    if len(tables) == 1:
        yield tables[0]
        return
    for index, (label, table) in enumerate(zip(prediction_labels(predictions), tables, strict=True)):
        yield Details(label, [table], is_open=index == 0)


def _kernel_table(prediction: Prediction) -> TextTable:
    columns = ["kernel", "how", "launches", "each", "each alone", "total", "share"]
    rows = []
    found = kernel_rows(prediction)
    whole_s = prediction.timeline.duration_s
    for row in found[:TOP_KERNELS]:
        name = f"{row.name} (beside compute)" if row.overlapped else row.name
        times = (row.total_s / row.count, row.alone_s / row.count, row.total_s)
        share = f"{100.0 * row.total_s / whole_s:.1f} %"
        rows.append([name, row.detail, str(row.count), *(format_seconds(value) for value in times), share])
    if rest := found[TOP_KERNELS:]:
        total_s = sum(row.total_s for row in rest)
        share = f"{100.0 * total_s / whole_s:.1f} %"
        rows.append(
            [f"{len(rest)} more", "", str(sum(row.count for row in rest)), "", "", format_seconds(total_s), share]
        )
    return TextTable("of the prefill" if prediction.e2e_s is not None else "", columns, rows, num_left=2)


def _changes(predictions: Sequence[Prediction], rivals: Sequence[Rival], asked: str) -> Iterator[Section]:
    """What would change the answer: of a comparison, the gain of the rival in its headline."""
    best = rival_told(rivals, asked)
    pair = [predictions[0]] if best is None else [best.base, best.prediction]
    changes = answer_changes(pair)
    if not changes:
        return
    labels = [prediction.resolved.kind for prediction in pair]
    columns = ["if", *labels, *([] if best is None else ["gain, as built"])]
    rows = []
    for change in changes:
        cells = [f"{100.0 * (factor - 1.0):+.1f} %" for factor in change.factors]
        if best is not None:
            gain = (1.0 + best.gain) * change.factors[0] / change.factors[1] - 1.0
            cells.append(f"{100.0 * gain:+.1f} %")
        rows.append([change.what, *cells])
    figure = changes_figure([change.what for change in changes], [100.0 * (c.factors[-1] - 1.0) for c in changes])
    yield Section(
        "What would change the answer",
        [
            f"Each by itself. The first {sum(change.is_doubt for change in changes)} are doubts: kernels take longer "
            "by as much as their constants are known to be off. The others are another machine, or another way to run.",
            Plot(figure, f"Change of the latency of {labels[-1]}"),
            TextTable("", columns, rows),
        ],
    )


def _provenance(predictions: Sequence[Prediction]) -> Iterator[PageBlock]:
    """By block of constants: how many numbers, how they are known and how far they are off; then every source."""
    prediction = max(predictions, key=lambda found: len(found.provenance))
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    sources: Counter[tuple[str, str, str]] = Counter()
    for path, record in prediction.provenance.items():
        block, kind = path.split(".")[0], str(record.kind.value)
        kinds[block][kind] += 1
        sources[block, kind, record.source] += 1
    residuals = prediction.prepared.described.residuals
    rows = []
    for block, counts in kinds.items():
        known = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        residual = f"{100.0 * residuals[block]:.1f} %" if block in residuals else ""
        rows.append([block, BLOCK_WORDS.get(block, ""), known, residual])
    yield f"Constants of {prediction.scenario.hardware} that the answer used."
    yield TextTable("", ["block", "prices", "numbers, and how they are known", "residual"], rows, num_left=3)
    listed = [[*source, str(count)] for source, count in sources.items()]
    yield Details("Every source", [TextTable("", ["block", "known", "from", "numbers"], listed, num_left=3)])
