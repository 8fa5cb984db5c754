"""A service as a page: the distributions of times, the queue over time, the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from kraken_sim.report.page import PALETTE, figures_html, render_page
from kraken_sim.report.serving import NAMES, serve_caveats, serve_grids, serve_sentences

if TYPE_CHECKING:
    from kraken_sim.serving.answer import ServeAnswer

_POINTS = 400
"""Points of a drawn distribution; a choice of ours."""


def serve_html(answer: ServeAnswer) -> str:
    """The whole answer as a page."""
    shares, queue = figures_html([share_figure(answer), queue_figure(answer)])
    sections = [("Share of requests by time", shares), ("The queue over time", queue)]
    sections += [(grid.title, grid.html()) for grid in serve_grids(answer)]
    return render_page(f"Service: {answer.request.name}", [*serve_sentences(answer), *serve_caveats(answer)], sections)


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
            name=NAMES[name], x=np.percentile(known, shares).tolist(), y=shares.tolist(), line={"color": colour}
        )
        if limit is not None:
            figure.add_vline(x=limit, line={"color": colour, "dash": "dot"})
    figure.update_layout(
        template="plotly_white",
        height=380,
        margin={"t": 30},
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
            figure.add_scatter(name=f"{name}, replica {index + 1}", x=samples.times_s, y=values, line=line)
    figure.update_layout(
        template="plotly_white",
        height=380,
        margin={"t": 30},
        xaxis={"title": "seconds"},
        yaxis={"title": "sequences"},
    )
    return figure
