"""Which architecture, as tables and sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group

from kraken_sim.explore.architectures import reason
from kraken_sim.report.explore import percent, question, span_percent
from kraken_sim.report.page import TextTable
from kraken_sim.report.text import interval_text
from kraken_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from kraken_sim.explore.architectures import ArchitectureAnswer, Rival

ARCHITECTURE_TITLE: Final = "Which architecture"


def gains_table(rivals: Sequence[Rival], title: str) -> TextTable:
    """A row for each: latency, gain with its interval, at equal parameters, and the probability that it is fastest."""
    columns = ["architecture", "parameters", "width", rivals[0].prediction.metric, "90 % interval", "speed-up"]
    columns += ["speed-up, 90 % interval", "at equal parameters", "fastest: probability", "quality"]
    return TextTable(title, columns, [_gain_row(rival) for rival in rivals])


def _gain_row(rival: Rival) -> list[str]:
    is_base = rival.prediction is rival.base
    equal = "" if rival.equal is None else f"{100.0 * rival.gain_at_equal_parameters:+.1f} %{_bracket(rival)}"
    return [
        rival.kind,
        f"{rival.prediction.num_parameters / 1e9:.2f} B",
        rival.prediction.resolved.width,
        format_seconds(rival.prediction.latency_s),
        interval_text(rival.prediction),
        "" if is_base else f"{100.0 * rival.gain:+.1f} %",
        "" if is_base else span_percent(rival.interval),
        equal,
        percent(rival.probability, 0),
        rival.quality,
    ]


def _bracket(rival: Rival) -> str:
    """The widths that equal parameters lie between, each with its gain."""
    found = rival.equal
    if found is None or len(found.widths) == 1:
        return ""
    gains = [100.0 * (rival.base.latency_s / latency_s - 1.0) for latency_s in found.latencies_s]
    listed = [
        f"{width}: {count / 1e9:.2f} B {gain:+.1f} %"
        for width, count, gain in zip(found.widths, found.num_parameters, gains, strict=True)
    ]
    return f" ({', '.join(listed)})"


def accounts_table(rivals: Sequence[Rival]) -> TextTable:
    """A row for each: what it costs beside time."""
    columns = ["architecture", "memory a GPU", "KV cache", "TFLOP a GPU", "sent a GPU"]
    columns += ["blocking collectives", "beside compute", "exposed", "hidden"]
    rows = []
    for rival in rivals:
        account, prediction = rival.account, rival.prediction
        rows.append(
            [
                rival.kind,
                format_bytes(account.memory_bytes, 3),
                format_bytes(account.kv_cache_bytes, 3),
                f"{account.flops / 1e12:.3g}",
                format_bytes(account.sent_bytes, 3),
                str(account.blocking),
                str(account.beside),
                format_seconds(prediction.exposed_communication_s, 3),
                format_seconds(prediction.hidden_communication_s, 3),
            ]
        )
    generates = rivals[0].prediction.scenario.phase.value == "generate"
    return TextTable(f"What each costs beside time, in {'the prefill' if generates else 'a step'}", columns, rows)


def reasons(rivals: Sequence[Rival]) -> list[str]:
    """Why each wins or loses."""
    return [reason(rival) for rival in rivals if rival.prediction is not rival.base]


def architecture_sentences(answer: ArchitectureAnswer) -> list[str]:
    """The best and how sure it is, why each wins or loses, and what is not possible."""
    best = answer.rivals[0]
    sentences = [
        f"Fastest at equal parameters: {best.kind}, {100.0 * best.gain_at_equal_parameters:+.1f} % against "
        f"{best.base.resolved.kind}; its quality: {best.quality}."
    ]
    sentences += [f"{text}." for text in reasons(answer.rivals)]
    return sentences + [f"{kind} is not possible: {why}" for kind, why in answer.impossible.items()]


def architectures_report(
    answers: Sequence[ArchitectureAnswer], rows: Sequence[Sequence[int]] | None = None
) -> RenderableType:
    """For each question the architectures, the fastest first, with what they cost and why.

    Args:
        answers: one a question.
        rows: of each answer the architectures that its tables show, in order; default: all.
    """
    parts: list[RenderableType] = []
    for index, answer in enumerate(answers):
        shown = range(len(answer.rivals)) if rows is None else rows[index]
        gains = gains_table(answer.rivals, f"{ARCHITECTURE_TITLE}: {question(answer.scenario)}")
        parts += [
            gains.with_rows(shown).rich(),
            accounts_table(answer.rivals).with_rows(shown).rich(),
            *architecture_sentences(answer),
        ]
    return Group(*parts)
