"""Answers about channels as tables, sentences and pictures, and what all answers have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group

from kraken_sim.explore.channels import DEFAULT
from kraken_sim.report.page import PALETTE, Grid, figures_html, render_page
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from kraken_sim.explore.channels import ChannelAnswer
    from kraken_sim.explore.channels_measured import ChannelValidation
    from kraken_sim.explore.sensitivity import Decision
    from kraken_sim.scenario.spec import Scenario

PANELS_A_ROW = 3
CHANNELS_TITLE = "NCCL channels for an AllReduce beside the attention"


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction for people."""
    return f"{100.0 * fraction:.{digits}f} %"


def model_name(scenario: Scenario) -> str:
    """The model of a scenario in a word."""
    spec = scenario.model
    return spec.preset or spec.config or f"{spec.num_hidden_layers} x {spec.hidden_size}"


def sureness(decision: Decision, weights: Mapping[str, float], best: str) -> str:
    """How sure the best alternative is, and which block's residual would change it."""
    text = f"{best} is the best with a probability of {percent(decision.probability_of(weights)[best], 0)}"
    flips = decision.flips_of(weights)
    if not decision.perturbations:
        return text + "."
    if not flips:
        return f"{text}; it stays the best when any block of constants errs by its residual."
    listed = ", ".join(f"{item.block} times x {item.factor:.2f}: {name}" for item, name in flips)
    return f"{text}; other answers when a block errs by its residual: {listed}."


def question(scenario: Scenario) -> str:
    """What was asked, in a line."""
    return f"{model_name(scenario)}, {scenario.context_length} tokens on {scenario.hardware}"


def _channel_names(answers: Sequence[ChannelAnswer]) -> list[str]:
    names = dict.fromkeys(name for answer in answers for name in answer.decision.latencies_s)
    return sorted(names, key=lambda name: (name == DEFAULT, int(name) if name != DEFAULT else 0))


def _channels_grid(answers: Sequence[ChannelAnswer]) -> Grid:
    names = _channel_names(answers)
    columns = ["machine", "model", "tokens", *names, "best", "gain over default", "probability"]
    rows = []
    for answer in answers:
        latencies = answer.decision.latencies_s
        times = [format_seconds(latencies[name]) if name in latencies else "" for name in names]
        head = [answer.scenario.hardware, model_name(answer.scenario), str(answer.scenario.context_length)]
        probability = percent(answer.decision.probability[answer.best], 0)
        rows.append([*head, *times, answer.best, percent(answer.gain), probability])
    return Grid(f"{CHANNELS_TITLE}: latency by most channels", columns, rows, num_left=2)


def _channels_sentences(answers: Sequence[ChannelAnswer]) -> list[str]:
    return [
        f"{question(answer.scenario)}: "
        f"{sureness(answer.decision, dict.fromkeys(answer.decision.latencies_s, 1.0), answer.best)}"
        for answer in answers
    ]


def channels_report(answers: Sequence[ChannelAnswer]) -> RenderableType:
    """Latency by channels, the best, and how sure that is."""
    return Group(_channels_grid(answers).rich(), *_channels_sentences(answers))


def channels_html(answers: Sequence[ChannelAnswer]) -> str:
    """The same as a page, with curves."""
    figure = _relative_figure("predicted, % above the best")
    for index, answer in enumerate(answers):
        _add_curve(figure, question(answer.scenario), answer.decision.latencies_s, PALETTE[index % len(PALETTE)])
    sections = [("Latency by channels", _channels_grid(answers).html()), ("Above the best", figures_html([figure])[0])]
    return render_page(CHANNELS_TITLE, _channels_sentences(answers), sections)


def _relative_figure(title: str) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(
        template="plotly_white",
        height=420,
        margin={"t": 30},
        yaxis_title=title,
        xaxis={"title": "most channels", "type": "category"},
        legend={"orientation": "h", "y": -0.25},
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


def _measured_grid(result: ChannelValidation) -> Grid:
    columns = ["model", "tokens", "predicted best", "probability", "measured best", "agree"]
    columns += ["lost by the prediction", "lost by the default"]
    rows = []
    for row in result.rows:
        answer = row.answer
        agree = "yes" if row.agrees else "no, within spread" if row.within_spread else "no"
        rows.append(
            [
                model_name(answer.scenario),
                str(answer.scenario.context_length),
                answer.best,
                percent(answer.decision.probability[answer.best], 0),
                row.measured_best,
                agree,
                percent(row.regret),
                percent(row.default_regret),
            ]
        )
    return Grid(f"Best number of channels, predicted and measured, on {result.hardware}", columns, rows)


def _measured_sentences(result: ChannelValidation) -> list[str]:
    fixed = result.mean_fixed_regret()
    best_fixed = min(fixed, key=fixed.__getitem__)
    sentences = [
        f"The predicted best is the measured best in {result.num_agreeing} of {len(result.rows)} cases; by the stated "
        f"probabilities it should be in {result.expected_agreeing:.1f}.",
        f"Following the prediction loses {percent(result.mean_regret)} of the measured time on average over the "
        f"measured best (worst {percent(max(row.regret for row in result.rows))}), NCCL's own choice "
        f"{percent(result.mean_default_regret)} (worst {percent(max(row.default_regret for row in result.rows))}).",
        f"The best one limit for all cases, known only afterwards, is {best_fixed} and loses "
        f"{percent(fixed[best_fixed])}.",
    ]
    return [*sentences, *(f"warning: {warning}" for warning in result.warnings)]


def measured_report(result: ChannelValidation) -> RenderableType:
    """Predicted and measured best side by side, and what following the prediction loses."""
    return Group(_measured_grid(result).rich(), *_measured_sentences(result))


def measured_html(result: ChannelValidation) -> str:
    """The same as a page, with measured and predicted curves of every case."""
    picture = figures_html([measured_figure(result)])[0]
    sections = [("Predicted and measured best", _measured_grid(result).html()), ("Every case", picture)]
    return render_page(f"{CHANNELS_TITLE}: predicted and measured", _measured_sentences(result), sections)


def measured_figure(result: ChannelValidation) -> Any:
    """A panel for every case: measured and predicted latency by channels, each above its own best."""
    from plotly.subplots import make_subplots

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
    figure.update_layout(template="plotly_white", height=120 + 190 * num_rows, legend={"orientation": "h", "y": 1.06})
    return figure
