"""Answers about channels as pages with curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kraken_sim.explore.channels import DEFAULT
from kraken_sim.explore.sensitivity import lowest
from kraken_sim.report.explore import (
    CHANNELS_TITLE,
    channels_grid,
    channels_sentences,
    measured_grid,
    measured_sentences,
    model_name,
    percent,
    question,
    span_percent,
)
from kraken_sim.report.figures import DASHES, PALETTE
from kraken_sim.report.page import Headline, Page, Plot, Section
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kraken_sim.explore.channels import ChannelAnswer
    from kraken_sim.explore.channels_measured import ChannelValidation

PANELS_A_ROW = 3
"""Panels beside each other in a figure."""


def channels_page(answers: Sequence[ChannelAnswer]) -> Page:
    """Latency by channels as a page, with curves."""
    picture = Plot(channels_figure(answers), "Predicted latency by channels, each above its own best")
    sections = [Section("Above the best", [picture]), Section("Latency by channels", [channels_grid(answers)])]
    return Page("Exploration", CHANNELS_TITLE, sections, _channels_headline(answers), channels_sentences(answers))


def _channels_headline(answers: Sequence[ChannelAnswer]) -> Headline:
    """The advice, and what it rests on; of several questions how many surely gain."""
    if len(answers) > 1:
        sure = sum(answer.advice != DEFAULT for answer in answers)
        what = "questions surely gain from a limit of channels; leave the others to NCCL"
        return Headline(f"{sure} of {len(answers)}", what)
    answer = answers[0]
    if answer.best == DEFAULT:
        return Headline("leave it", "to NCCL, whose own choice of channels is the best", why=_next_best(answer))
    predictions, best = answer.decision.predictions, f"at most {answer.best} channels"
    exposed = (format_seconds(predictions[name].exposed_communication_s, 3) for name in (answer.best, DEFAULT))
    interval = f"90 % interval: {span_percent(answer.gain_interval)}"
    why = f"With {best} {' instead of '.join(exposed)} of the communication is exposed."
    if answer.advice == DEFAULT:
        what = f"to NCCL: that {best} gain {percent(answer.gain)} is not sure"
        return Headline("leave it", what, interval, why)
    what = f"faster with NCCL_MAX_NCHANNELS={answer.best} than with NCCL's own choice"
    return Headline(f"{100.0 * answer.gain:+.1f} %", what, interval, why)


def _next_best(answer: ChannelAnswer) -> str:
    """How much the best limit costs where NCCL's own choice is better."""
    limits = {name: seconds for name, seconds in answer.decision.latencies_s.items() if name != DEFAULT}
    if not limits:
        return "No limit was tried."
    name = lowest(limits)
    longer = percent(limits[name] / answer.decision.latencies_s[DEFAULT] - 1.0)
    return f"The next best, at most {name} channels, takes {longer} longer."


def channels_figure(answers: Sequence[ChannelAnswer]) -> Any:
    """Latency by channels, each question above its own best."""
    figure = _relative_figure("predicted, % above the best")
    for index, answer in enumerate(answers):
        dash = DASHES[index // len(PALETTE) % len(DASHES)]
        name, colour = question(answer.scenario), PALETTE[index % len(PALETTE)]
        _add_curve(figure, name, answer.decision.latencies_s, colour, dash)
    return figure


def _relative_figure(title: str) -> Any:
    figure = go.Figure()
    figure.update_layout(
        height=420,
        yaxis_title=title,
        xaxis={"title": "most channels", "type": "category"},
        showlegend=True,
    )
    return figure


def _add_curve(
    figure: Any, name: str, times_s: Mapping[str, float], colour: str, dash: str = "solid", **place: Any
) -> None:
    best = min(times_s.values())
    names = sorted(times_s, key=lambda key: (key == DEFAULT, int(key) if key != DEFAULT else 0))
    figure.add_scatter(
        name=name,
        x=names,
        y=[100.0 * (times_s[key] / best - 1.0) for key in names],
        mode="lines+markers",
        line={"color": colour, "dash": dash},
        **place,
    )


def measured_channels_page(result: ChannelValidation) -> Page:
    """Predicted and measured best as a page, with measured and predicted curves of every case."""
    picture = Plot(measured_figure(result), "Latency by channels, each above its own best", min_width_px=700)
    sections = [
        Section("Predicted and measured best", [measured_grid(result)]),
        Section("Every case", [picture]),
    ]
    title = f"{CHANNELS_TITLE}: predicted and measured"
    return Page("Exploration", title, sections, _measured_headline(result), measured_sentences(result))


def _measured_headline(result: ChannelValidation) -> Headline:
    """What the advice loses against the measured best, beside what leaving it to NCCL loses."""
    worst = max(row.advised_regret for row in result.rows)
    return Headline(
        percent(result.mean_advised_regret),
        f"lost by the advice over the measured best, mean of {len(result.rows)} cases",
        f"worst {percent(worst)}; NCCL's own choice {percent(result.mean_default_regret)}",
        f"The predicted best is the measured best in {result.num_agreeing} of {len(result.rows)} cases.",
    )


def measured_figure(result: ChannelValidation) -> Any:
    """A panel for every case: measured and predicted latency by channels, each above its own best."""
    columns = min(PANELS_A_ROW, len(result.rows))
    num_rows = -(-len(result.rows) // columns)
    titles = [f"{model_name(r.answer.scenario)}, {r.answer.scenario.context_length} tokens" for r in result.rows]
    figure = make_subplots(num_rows, columns, subplot_titles=titles, vertical_spacing=0.25 / num_rows)
    for index, row in enumerate(result.rows):
        place = {"row": index // columns + 1, "col": index % columns + 1}
        measured = {name: time.median for name, time in row.measured_s.items()}
        predicted = {name: value for name, value in row.answer.decision.latencies_s.items() if name in measured}
        for name, times, colour, dash in (
            ("measured", measured, PALETTE[0], "solid"),
            ("predicted", predicted, PALETTE[1], "dot"),
        ):
            _add_curve(figure, name, times, colour, dash, showlegend=index == 0, **place)
    figure.update_yaxes(title="% above best", col=1)
    figure.update_xaxes(title="most channels", row=num_rows, type="category")
    figure.update_layout(height=120 + 190 * num_rows)
    return figure
