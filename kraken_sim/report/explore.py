"""Answers about channels as tables and sentences, and what all answers have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

from kraken_sim.explore.channels import DEFAULT
from kraken_sim.report.page import TextTable
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from kraken_sim.explore.channels import ChannelAnswer
    from kraken_sim.explore.channels_measured import ChannelValidation
    from kraken_sim.explore.sensitivity import Decision
    from kraken_sim.scenario.spec import Scenario

CHANNELS_TITLE = "NCCL channels for an AllReduce beside the attention"


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction for people."""
    return f"{100.0 * fraction:.{digits}f} %"


def span_percent(interval: tuple[float, float]) -> str:
    """Both ends of the interval of a gain, which is a fraction."""
    return f"{100.0 * interval[0]:+.0f} to {100.0 * interval[1]:+.0f} %"


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


def channels_grid(answers: Sequence[ChannelAnswer]) -> TextTable:
    """Latency by channels, a row an answer."""
    names = _channel_names(answers)
    columns = ["machine", "model", "tokens", *names, "best", "gain over default", "gain, 90 % interval", "probability"]
    rows = []
    for answer in answers:
        latencies = answer.decision.latencies_s
        times = [format_seconds(latencies[name]) if name in latencies else "" for name in names]
        head = [answer.scenario.hardware, model_name(answer.scenario), str(answer.scenario.context_length)]
        probability = percent(answer.decision.probability[answer.best], 0)
        span = "" if answer.best == DEFAULT else span_percent(answer.gain_interval)
        rows.append([*head, *times, answer.best, percent(answer.gain), span, probability])
    return TextTable(f"{CHANNELS_TITLE}: latency by most channels", columns, rows, num_left=3)


def channels_sentences(answers: Sequence[ChannelAnswer]) -> list[str]:
    """What to do, and how sure each best is."""
    return [
        f"{question(answer.scenario)}: {_advice(answer)} "
        f"{sureness(answer.decision, dict.fromkeys(answer.decision.latencies_s, 1.0), answer.best)}"
        for answer in answers
    ]


def _advice(answer: ChannelAnswer) -> str:
    if answer.best == DEFAULT:
        return "leave it to NCCL, whose own choice is the best."
    if answer.advice == DEFAULT:
        gains = f"{answer.best} channels gain {percent(answer.gain)}, {span_percent(answer.gain_interval)}"
        return f"leave it to NCCL: {gains}, which is not sure to be a gain."
    return f"NCCL_MAX_NCHANNELS={answer.best} gains {percent(answer.gain)}, {span_percent(answer.gain_interval)}."


def channels_report(answers: Sequence[ChannelAnswer], rows: Sequence[Sequence[int]] | None = None) -> RenderableType:
    """Latency by channels, the best, and how sure that is.

    Args:
        answers: one a question.
        rows: of each answer the limits to show, a row each, in order; default: all, a row an answer.
    """
    grid = channels_grid(answers) if rows is None else limits_grid(answers, rows)
    return Group(grid.rich(), *channels_sentences(answers))


def limits_grid(answers: Sequence[ChannelAnswer], rows: Sequence[Sequence[int]]) -> TextTable:
    """Some limits of channels of each answer, a row a limit."""
    cells = []
    for answer, chosen in zip(answers, rows, strict=True):
        head = [answer.scenario.hardware, model_name(answer.scenario), str(answer.scenario.context_length)]
        names = list(answer.decision.latencies_s)
        for name in (names[row] for row in chosen):
            latency_s, chance = answer.decision.latencies_s[name], answer.decision.probability[name]
            cells.append([*head, name, format_seconds(latency_s), percent(chance, 0)])
    columns = ["machine", "model", "tokens", "most channels", "latency", "best: probability"]
    return TextTable(CHANNELS_TITLE, columns, cells, num_left=3)


def measured_grid(result: ChannelValidation) -> TextTable:
    """Predicted and measured best, a row a case."""
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
    return TextTable(f"Best number of channels, predicted and measured, on {result.hardware}", columns, rows)


def measured_sentences(result: ChannelValidation) -> list[str]:
    """How often the two agree, and what following the prediction loses."""
    fixed = result.mean_fixed_regret()
    best_fixed = min(fixed, key=fixed.__getitem__)
    sentences = [
        f"The predicted best is the measured best in {result.num_agreeing} of {len(result.rows)} cases; by the stated "
        f"probabilities it should be in {result.expected_agreeing:.1f}.",
        f"Following the prediction loses {percent(result.mean_regret)} of the measured time on average over the "
        f"measured best (worst {percent(max(row.regret for row in result.rows))}), NCCL's own choice "
        f"{percent(result.mean_default_regret)} (worst {percent(max(row.default_regret for row in result.rows))}).",
        f"Leaving it to NCCL where a gain is not sure loses {percent(result.mean_advised_regret)}.",
        f"The best one limit for all cases, known only afterwards, is {best_fixed} and loses "
        f"{percent(fixed[best_fixed])}.",
    ]
    return [*sentences, *(f"warning: {warning}" for warning in result.warnings)]


def measured_report(result: ChannelValidation, rows: Sequence[int]) -> RenderableType:
    """Predicted and measured best side by side for the cases of `rows`, and what following the prediction loses."""
    return Group(measured_grid(result).with_rows(rows).rich(), *measured_sentences(result))
