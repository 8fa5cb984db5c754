"""The headlines of predictions and comparisons, and what headlines of all pages have in common."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from kraken_sim.explore.architectures import reason
from kraken_sim.report.figures import PART_NAMES
from kraken_sim.report.page import Headline
from kraken_sim.report.text import interval_text
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kraken_sim.explore.architectures import Rival
    from kraken_sim.predict.prediction import Prediction

METRIC_WORDS: Final[Mapping[str, str]] = {
    "TTFT": "time to first token (TTFT)",
    "TPOT": "time per output token (TPOT)",
    "end to end": "for the whole answer, end to end",
}
"""What `Prediction.metric` names, in full."""

NAMED_SHARE: Final = 0.05
"""Part of the time from which a headline names what takes it; a choice of ours."""


def prediction_headline(prediction: Prediction, what: str = "") -> Headline:
    """The latency of one prediction; `what` it is, default: its metric in full."""
    level = f"{100 * prediction.interval.level:.0f} % interval"
    return Headline(
        format_seconds(prediction.latency_s, 3),
        what or METRIC_WORDS[prediction.metric],
        f"{level}: {interval_text(prediction)}",
        where_the_time_goes(prediction),
    )


def where_the_time_goes(prediction: Prediction) -> str:
    """In one sentence, what takes the time."""
    ordered = sorted(prediction.breakdown_s.items(), key=lambda item: -item[1])
    listed = [
        f"{PART_NAMES[name]} {100.0 * seconds / prediction.latency_s:.0f} %"
        for name, seconds in ordered
        if seconds >= NAMED_SHARE * prediction.latency_s
    ]
    text = f"Of this time {', '.join(listed)}" if listed else "No part stands out"
    if prediction.communication_alone_s > 0.0:
        text += (
            f"; of its communication {format_seconds(prediction.exposed_communication_s, 3)} is exposed and "
            f"{format_seconds(prediction.hidden_communication_s, 3)} hidden beside compute"
        )
    return f"{text}."


def comparison_headline(rivals: Sequence[Rival], asked: str) -> Headline:
    """The gain of the rival that a comparison is about, or the first one's latency where there is none."""
    told = rival_told(rivals, asked)
    if told is None:
        return prediction_headline(rivals[0].prediction)
    low, high = told.interval
    as_built = f"as built {100.0 * told.gain:+.1f} %, 90 % interval {100.0 * low:+.0f} to {100.0 * high:+.0f} %"
    times = f"{format_seconds(told.prediction.latency_s, 3)} instead of {format_seconds(told.base.latency_s, 3)}"
    why = [f"{capital(reason(told))}.", f"Quality: {told.quality}."]
    others = _against_base(rivals)
    if (best := _best(others)) is not told:
        why.append(
            f"Fastest of {len(others)} rivals at equal parameters: {best.kind}, "
            f"{100.0 * best.gain_at_equal_parameters:+.1f} %."
        )
    return Headline(
        f"{100.0 * told.gain_at_equal_parameters:+.1f} %",
        f"speed-up of {told.kind} over {told.base.resolved.kind}{_at(told)}",
        f"{as_built}; {told.base.metric} {times}",
        " ".join(why),
    )


def most_often(winners: Sequence[str]) -> Headline:
    """Of several questions what most often is the fastest."""
    name, count = Counter(winners).most_common(1)[0]
    return Headline(name, f"is the fastest in {count} of {len(winners)} questions")


def rival_told(rivals: Sequence[Rival], asked: str) -> Rival | None:
    """The rival that was asked for, else the fastest at equal parameters; None where only the baseline stands."""
    others = _against_base(rivals)
    return next((rival for rival in others if rival.kind == asked), _best(others) if others else None)


def capital(text: str) -> str:
    """A clause as a sentence begins."""
    return text[:1].upper() + text[1:]


def _against_base(rivals: Sequence[Rival]) -> list[Rival]:
    return [rival for rival in rivals if rival.prediction is not rival.base]


def _best(rivals: Sequence[Rival]) -> Rival:
    return max(rivals, key=lambda rival: rival.gain_at_equal_parameters)


def _at(rival: Rival) -> str:
    """At how many parameters a rival is compared."""
    if rival.equal is not None:
        return " at equal parameters"
    mine, other = rival.prediction.num_parameters, rival.base.num_parameters
    return "" if mine == other else f", {mine / 1e9:.2f} against {other / 1e9:.2f} B parameters"
