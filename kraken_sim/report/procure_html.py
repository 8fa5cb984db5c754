"""A purchase as a page, with the cost of every candidate under every what-if."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go

from kraken_sim.report.explore import percent
from kraken_sim.report.figures import MUTED, PALETTE, SYMBOLS
from kraken_sim.report.page import Bullets, Headline, Page, Plot, Section, table_section
from kraken_sim.report.procure import (
    answer_sentences,
    bought,
    caveat_sentences,
    cost_span,
    priced_tokens,
    procure_grids,
)

if TYPE_CHECKING:
    from kraken_sim.explore.procure.candidates import Offer, Outcome, Procurement


SAME_COST: Final = 0.005
"""Share of a cost from which a headline says a difference, which it rounds to per cents."""

MOST_NAMED: Final = 3
"""Candidates that a headline names; a choice of ours."""


def procure_page(result: Procurement) -> Page:
    """The tables as a page, with the cost of every candidate under every what-if."""
    picture = Plot(cost_figure(result), "By candidate, for the base case and each what-if, with the range it lies in")
    sections = [Section(f"Cost of a million {priced_tokens(result)}", [picture])]
    sections += [table_section(grid) for grid in procure_grids(result)]
    sections.append(Section("What this does not know", [Bullets(caveat_sentences(result))]))
    title = f"Purchase: {result.request.name}"
    return Page("Purchase", title, sections, _headline(result), answer_sentences(result))


def _headline(result: Procurement) -> Headline:
    """The cost of the cheapest, and how far the next one is."""
    best, currency = result.best, result.request.currency
    return Headline(
        f"{best.cost_per_million_tokens:.3g} {currency}",
        f"a million {priced_tokens(result)}, on {bought(best)}",
        _interval(best, currency),
        _why(result),
    )


def _interval(offer: Offer, currency: str) -> str:
    low, high = offer.cost_range
    if low == high:
        return "the same at both ends of the latencies' 90 % intervals"
    return f"90 % interval: {cost_span(offer)}{'' if high is None else f' {currency}'}"


def _why(result: Procurement) -> str:
    offers = result.base.offers
    if len(offers) == 1:
        rivals = len(result.request.choices) - 1
        return f"None of the {rivals} others meets the SLA." if rivals else "There is no other candidate."
    best, second = offers[:2]
    more = second.cost_per_million_tokens / best.cost_per_million_tokens - 1.0
    costs = f"costs {percent(more, 0)} more" if more >= SAME_COST else "costs as much"
    text = f"The cheapest of {len(offers)} that meet the SLA: the next, {second.candidate.name}, {costs}"
    named = result.contenders[:MOST_NAMED]
    if not named:
        return f"{text}, and no interval reaches that far."
    others = len(result.contenders) - len(named)
    listed = f"{', '.join(named)} and {others} more" if others else " and ".join(", ".join(named).rsplit(", ", 1))
    return f"{text}; within the intervals {listed} may be as cheap."


def cost_figure(result: Procurement) -> Any:
    """Cost by candidate with its interval, one colour a what-if."""
    figure = go.Figure()
    names = [candidate.name for candidate in result.request.choices]
    for index, outcome in enumerate((result.base, *result.what_ifs)):
        _add_costs(figure, outcome, names, index)
    figure.update_layout(
        height=440,
        scattermode="group",
        scattergap=0.7,
        showlegend=True,
        yaxis={"title": f"{result.request.currency} a million {priced_tokens(result)}", "type": "log"},
        xaxis={"categoryorder": "array", "categoryarray": names},
    )
    return figure


def _add_costs(figure: Any, outcome: Outcome, names: list[str], index: int) -> None:
    offers = [(name, offer) for name in names if (offer := outcome.offer_of(name)) is not None]
    costs = [offer.cost_per_million_tokens for _, offer in offers]
    ups, downs = [], []
    for (_, offer), cost in zip(offers, costs, strict=True):
        low, high = offer.cost_range
        downs.append(cost - low)
        ups.append((cost if high is None else high) - cost)
    errors = {"type": "data", "symmetric": False, "array": ups, "arrayminus": downs, "color": MUTED}
    x = [name for name, _ in offers]
    marker = {"color": PALETTE[index % len(PALETTE)], "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 11}
    figure.add_scatter(name=outcome.name, x=x, y=costs, error_y=errors, mode="markers", marker=marker)
