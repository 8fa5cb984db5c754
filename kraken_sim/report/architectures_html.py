"""Which architecture, as a page with a picture of the gains."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from kraken_sim.report.architectures import ARCHITECTURE_TITLE, accounts_table, architecture_sentences, gains_table
from kraken_sim.report.explore import question
from kraken_sim.report.page import PALETTE, figures_html, render_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.explore.architectures import ArchitectureAnswer


def architectures_html(answers: Sequence[ArchitectureAnswer]) -> str:
    """A page with a picture, the tables and the sentences of each question."""
    figures = figures_html([gains_figure(answer) for answer in answers])
    sections = []
    for answer, figure in zip(answers, figures, strict=True):
        words = "".join(f"<li>{escape(sentence)}</li>" for sentence in architecture_sentences(answer))
        tables = gains_table(answer.rivals, "").html() + accounts_table(answer.rivals).html()
        sections.append((question(answer.scenario), f"{figure}<ul>{words}</ul>{tables}"))
    return render_page(ARCHITECTURE_TITLE, [], sections)


def gains_figure(answer: ArchitectureAnswer) -> Any:
    """Bars of the gains, the fastest on top, with their intervals; points where parameters are equal."""
    rivals = [rival for rival in answer.rivals if rival.prediction is not rival.base]
    names, gains = [rival.kind for rival in rivals], [100.0 * rival.gain for rival in rivals]
    figure = go.Figure()
    figure.add_bar(
        name="speed-up, with its 90 % interval",
        y=names,
        x=gains,
        orientation="h",
        marker_color=PALETTE[0],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [100.0 * rival.interval[1] - gain for rival, gain in zip(rivals, gains, strict=True)],
            "arrayminus": [gain - 100.0 * rival.interval[0] for rival, gain in zip(rivals, gains, strict=True)],
        },
    )
    equal = [rival for rival in rivals if rival.equal is not None]
    figure.add_scatter(
        name="at equal parameters",
        y=[rival.kind for rival in equal],
        x=[100.0 * rival.gain_at_equal_parameters for rival in equal],
        mode="markers",
        marker={"color": PALETTE[3], "size": 10, "symbol": "diamond"},
    )
    figure.update_layout(
        template="plotly_white",
        height=160 + 40 * len(names),
        margin={"l": 140, "r": 20, "t": 35, "b": 45},
        xaxis_title="faster than standard, %",
        yaxis={"autorange": "reversed"},
    )
    return figure
