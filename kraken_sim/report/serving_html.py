"""A service as a page: the distributions of times, the queue over time, the tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from kraken_sim.report.explore import percent
from kraken_sim.report.figures import PALETTE
from kraken_sim.report.headlines import capital
from kraken_sim.report.page import Bullets, Headline, Page, Plot, Section, table_section
from kraken_sim.report.serving import NAMES, limit_words, rate_text, serve_caveats, serve_grids, serve_sentences
from kraken_sim.serving.answer import PERCENTILES
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from kraken_sim.serving.answer import ServeAnswer

_POINTS = 400
"""Points of a drawn distribution; a choice of ours."""


def serve_page(answer: ServeAnswer) -> Page:
    """The whole answer as a page."""
    shares = Plot(share_figure(answer), "Requests that are no slower than a time; dotted: the limits")
    queue = Plot(queue_figure(answer), "Waiting and running sequences of each replica")
    grids = [table_section(grid) for grid in serve_grids(answer)]
    sections = [
        Section("Share of requests by time", [shares]),
        *grids,
        Section("The queue over time", [queue]),
        Section("What this does not know", [Bullets(serve_caveats(answer))]),
    ]
    title = f"Service: {answer.request.name}"
    return Page("Service", title, sections, _headline(answer), serve_sentences(answer))


def _headline(answer: ServeAnswer) -> Headline:
    """The time to the first token at the percentile that the limits are judged at."""
    percentile = max(PERCENTILES) if answer.sla is None else answer.sla.percentile
    middle, low, high = (format_seconds(spread.percentiles_s[percentile], 3) for spread in answer.spreads["ttft_s"])
    return Headline(
        middle,
        f"TTFT that {percentile:g} % of the requests keep, waiting included",
        f"with every step at either end of its 90 % interval: {low} to {high}",
        _why(answer),
    )


def _why(answer: ServeAnswer) -> str:
    rate_per_s = answer.served.requests.rate_per_s
    come = "all requests come at once" if math.isinf(rate_per_s) else f"{rate_text(rate_per_s)} requests a second come"
    load = f"{come}, {rate_text(answer.capacity_per_s)} a second are the most that can be taken"
    if answer.sla is None or answer.kept is None:
        return f"{capital(load)}."
    verdict = "kept" if answer.keeps_sla else "missed"
    limits = limit_words(answer.sla)
    return f"The SLA is {verdict}: {percent(answer.kept, 2)} of the requests keep {limits}; {load}."


def share_figure(answer: ServeAnswer) -> Any:
    """Share of the requests that are no slower than a time: TTFT and TPOT, with their limits."""
    figure, sla = go.Figure(), answer.sla
    shares = np.linspace(0.0, 100.0, _POINTS)
    limits = {"ttft_s": sla and sla.ttft_s, "tpot_s": sla and sla.tpot_s}
    for colour, (name, limit) in zip(PALETTE, limits.items(), strict=False):
        times = getattr(answer.served, name)
        known = times[~np.isnan(times)]
        if not len(known):
            continue
        figure.add_scatter(
            name=NAMES[name],
            x=np.percentile(known, shares).tolist(),
            y=shares.tolist(),
            mode="lines",
            line={"color": colour},
        )
        if limit is not None:
            figure.add_vline(x=limit, line={"color": colour, "dash": "dot"})
    figure.update_layout(
        height=380,
        xaxis={"title": "seconds", "type": "log"},
        yaxis={"title": "% of requests"},
    )
    return figure


def queue_figure(answer: ServeAnswer) -> Any:
    """Waiting and running sequences of every replica."""
    figure = go.Figure()
    for index, samples in enumerate(answer.served.samples):
        colour = PALETTE[index % len(PALETTE)]
        for name, place, dash in (("waiting", 0, "dot"), ("running", 1, "solid")):
            values = [state[place] for state in samples.states]
            line = {"color": colour, "dash": dash, "shape": "hv"}
            figure.add_scatter(
                name=f"{name}, replica {index + 1}", mode="lines", x=samples.times_s, y=values, line=line
            )
    figure.update_layout(
        height=380,
        xaxis={"title": "seconds"},
        yaxis={"title": "sequences"},
    )
    return figure
