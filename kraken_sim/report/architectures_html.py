"""Which architecture, as a page with a picture of the gains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.explore.architectures import reason
from kraken_sim.report.architectures import ARCHITECTURE_TITLE, accounts_table, architecture_sentences, gains_table
from kraken_sim.report.explore import question, span_percent
from kraken_sim.report.gains_figure import gains_figure
from kraken_sim.report.headlines import capital, most_often
from kraken_sim.report.page import Bullets, Details, Headline, Page, Plot, Section, TextTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.explore.architectures import ArchitectureAnswer, Rival


def architectures_page(answers: Sequence[ArchitectureAnswer]) -> Page:
    """A page with a picture, the tables and the sentences of each question."""
    sections = []
    for answer in answers:
        label = f"Faster than {answer.rivals[0].base.resolved.kind}, as built and at equal parameters"
        pictures = [Plot(gains_figure(answer.rivals), label)] if len(answer.rivals) > 1 else []
        tables = [gains_without_quality(answer.rivals, ""), accounts_table(answer.rivals)]
        sections.append(
            Section(
                question(answer.scenario),
                [*pictures, Bullets(architecture_sentences(answer)), *tables, quality_of_rivals(answer.rivals)],
            )
        )
    return Page("Exploration", ARCHITECTURE_TITLE, sections, _headline(answers))


def gains_without_quality(rivals: Sequence[Rival], title: str) -> TextTable:
    """The table of gains, without its last column, whose prose has no room beside the others."""
    table = gains_table(rivals, title)
    return table._replace(columns=table.columns[:-1], rows=[row[:-1] for row in table.rows])


def quality_of_rivals(rivals: Sequence[Rival]) -> Details:
    """What is known of each architecture's quality."""
    known = dict.fromkeys(f"{rival.kind}: {rival.quality}." for rival in rivals)
    return Details("What is known of their quality", [Bullets(list(known))])


def _headline(answers: Sequence[ArchitectureAnswer]) -> Headline:
    """The fastest, its gain with its interval, and why; of several questions what most often is."""
    if len(answers) > 1:
        return most_often([answer.rivals[0].kind for answer in answers])
    best = answers[0].rivals[0]
    gain = f"{100.0 * best.gain_at_equal_parameters:+.1f} % against {best.base.resolved.kind} at equal parameters"
    interval = "" if best.prediction is best.base else f"as built, 90 % interval {span_percent(best.interval)}"
    return Headline(
        best.kind, f"is the fastest: {gain}", interval, f"{capital(reason(best))}. Quality: {best.quality}."
    )
