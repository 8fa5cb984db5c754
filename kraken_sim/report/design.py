"""The Pareto front of a search as a table and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group

from kraken_sim.report.explore import percent, sureness
from kraken_sim.report.page import TextTable
from kraken_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from kraken_sim.explore.design.evaluate import Evaluated
    from kraken_sim.explore.design.search import SearchResult

MOST_ROWS: Final = 20
"""Designs that a table shows at most."""


def design_report(result: SearchResult, chosen: Sequence[Evaluated] | None = None) -> RenderableType:
    """How it was searched, the front or the designs chosen of all, and how sure its fastest is."""
    return Group(front_grid(result, chosen).rich(), *search_sentences(result))


def front_grid(result: SearchResult, chosen: Sequence[Evaluated] | None = None) -> TextTable:
    """The front, at most `MOST_ROWS` of it; or designs chosen of all."""
    items = result.front[:MOST_ROWS] if chosen is None else chosen
    columns = ["architecture", "machine", "layers", "width", "heads (q/kv x dim)", "FFN", "channels"]
    columns += ["TPOT" if _decodes(result) else "TTFT", "90 % interval", "parameters", "memory a GPU", "J a step"]
    whole = any(item.tpot_s is not None for item in result.front)
    good = any(item.goodput_per_s is not None for item in result.front)
    columns += ["TPOT"] if whole else []
    columns += ["requests/s a GPU"] if good else []
    priced = any(item.cost is not None for item in result.front)
    if priced:
        columns.append(f"{result.request.currency}/M tokens")
    rows = []
    for item in items:
        design = item.design
        row = [
            design.kind,
            f"{design.num_devices} x {design.hardware}",
            str(design.num_hidden_layers),
            design.width,
            f"{design.num_attention_heads}/{design.num_key_value_heads} x {design.head_dim}",
            str(design.intermediate_size),
            "default" if design.channels is None else str(design.channels),
            format_seconds(item.latency_s),
            f"{format_seconds(item.low_s, 3)} to {format_seconds(item.high_s, 3)}",
            f"{item.num_parameters / 1e9:.2f} B",
            format_bytes(item.memory_bytes, 3),
            f"{item.energy_j:.3g}",
            *([format_seconds(item.tpot_s, 3)] if item.tpot_s is not None else []),
            *([f"{item.goodput_per_s:.3g}"] if item.goodput_per_s is not None else []),
        ]
        rows.append([*row, f"{item.cost:.3g}"] if priced and item.cost is not None else row)
    listed = ", ".join(objective.value for objective in result.request.objectives)
    title = f"nothing else is better in all of {listed}" if chosen is None else f"{len(rows)} designs chosen of all"
    return TextTable(f"{result.request.name}: {title}", columns, rows, num_left=2)


def _decodes(result: SearchResult) -> bool:
    return result.request.base.phase.value == "decode"


def search_sentences(result: SearchResult) -> list[str]:
    """How it was searched, what was rejected, and how sure the fastest is."""
    sentences = [
        f"Searched {result.method}; {len(result.evaluated)} keep the constraints, {len(result.front)} are best."
    ]
    if not result.complete:
        sentences.append("Interrupted: the front is that of the designs tried so far.")
    if result.rejections.counts:
        parts = []
        for constraint, count in result.rejections.counts.most_common():
            parts.append(f"{count} by {constraint} ({result.rejections.nearest[constraint][1]})")
        sentences.append(f"Rejected: {'; '.join(parts)}.")
    if len(result.front) > MOST_ROWS:
        sentences.append(f"The first {MOST_ROWS} of the front are shown; --json has all.")
    if result.decision is not None:
        decision = result.decision
        sentences.append(f"Fastest: {sureness(decision, dict.fromkeys(decision.predictions, 1.0), decision.best)}")
        others = [(name, chance) for name, chance in decision.probability.items() if name != decision.best]
        listed = "; ".join(f"{name} ({percent(chance, 0)})" for name, chance in others[:2])
        sentences.append(f"The next: {listed}.")
    if any(item.energy_basis.startswith("assumed") for item in result.front):
        sentences.append("Energy without a power model in the profile is the TDP all the time, an upper bound.")
    sentences.append("Parameters, width and depth only stand in for quality, which nothing here predicts.")
    return sentences
