"""A purchase as a page, with the cost of every candidate under every what-if."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from kraken_sim.report.page import PALETTE, figures_html, render_page
from kraken_sim.report.procure import answer_sentences, caveat_sentences, priced_tokens, procure_grids

if TYPE_CHECKING:
    from kraken_sim.explore.procure.candidates import Outcome, Procurement


def procure_html(result: Procurement) -> str:
    """The tables as a page, with the cost of every candidate under every what-if."""
    sections = [(f"Cost of a million {priced_tokens(result)}", figures_html([cost_figure(result)])[0])]
    sections += [(grid.title, grid.html()) for grid in procure_grids(result)]
    return render_page(
        f"Purchase: {result.request.name}", [*answer_sentences(result), *caveat_sentences(result)], sections
    )


def cost_figure(result: Procurement) -> Any:
    """Cost by candidate with its interval, one colour a what-if."""
    figure = go.Figure()
    names = [candidate.name for candidate in result.request.candidates]
    for index, outcome in enumerate((result.base, *result.what_ifs)):
        _add_costs(figure, outcome, names, PALETTE[index % len(PALETTE)])
    figure.update_layout(
        template="plotly_white",
        height=420,
        scattermode="group",
        scattergap=0.7,
        margin={"t": 30},
        yaxis={"title": f"{result.request.currency} a million {priced_tokens(result)}", "type": "log"},
        xaxis={"categoryorder": "array", "categoryarray": names},
        legend={"orientation": "h", "y": -0.15},
    )
    return figure


def _add_costs(figure: Any, outcome: Outcome, names: list[str], colour: str) -> None:
    offers = [(name, offer) for name in names if (offer := outcome.offer_of(name)) is not None]
    costs = [offer.cost_per_million_tokens for _, offer in offers]
    ups, downs = [], []
    for (_, offer), cost in zip(offers, costs, strict=True):
        low, high = offer.cost_range
        downs.append(cost - low)
        ups.append((cost if high is None else high) - cost)
    errors = {"type": "data", "symmetric": False, "array": ups, "arrayminus": downs, "color": "#555"}
    x = [name for name, _ in offers]
    marker = {"color": colour, "size": 11}
    figure.add_scatter(name=outcome.name, x=x, y=costs, error_y=errors, mode="markers", marker=marker)
