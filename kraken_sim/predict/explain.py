"""Where an overlap is lost, and how many channels would be best: answers by simulating what-ifs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kraken_sim.costs.collectives.policy import Library
from kraken_sim.predict.ideal_overlap import ideal_overlap
from kraken_sim.predict.what_if import without_sms
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.scenario.spec import Scenario

CHANNEL_CHOICES = (1, 2, 4, 8, 16)
"""Numbers of channels that are tried beside NCCL's own; a choice of ours, powers of two up to the NVLS kernel's 16."""


@dataclass(frozen=True, slots=True)
class OverlapCauses:
    """Seconds that an overlap costs over one that is free, by cause, and what waiting remains.

    `sms_s`: the collective's CTAs hold SMs, so compute has more waves or starts late. `bandwidth_s`: both sides
    slow each other down in HBM, L2 and on the way there. `waiting_s`: the compute stream stands still for the
    collective. `free_s` is the latency if the two sides did not disturb each other.
    """

    free_s: float
    sms_s: float
    bandwidth_s: float
    waiting_s: float
    blocking_s: float
    """The latency without overlap."""


@dataclass(frozen=True, slots=True)
class OverlapAdvice:
    """The causes, and the latency by NCCL's channels (None is NCCL's own choice)."""

    causes: OverlapCauses
    latency_s: float
    latency_by_channels_s: dict[int | None, float]

    @property
    def best_channels(self) -> int | None:
        """The channels with the lowest latency; NCCL's own choice where none is better."""
        return min(self.latency_by_channels_s, key=lambda count: (self.latency_by_channels_s[count], count is not None))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        causes = self.causes
        return {
            "free_s": causes.free_s,
            "sms_s": causes.sms_s,
            "bandwidth_s": causes.bandwidth_s,
            "waiting_s": causes.waiting_s,
            "blocking_s": causes.blocking_s,
            "latency_by_channels_s": {
                "default" if count is None else str(count): value for count, value in self.latency_by_channels_s.items()
            },
            "best_channels": self.best_channels,
        }


def overlaps(prediction: Prediction) -> bool:
    """Whether this prediction is one step whose collectives run beside compute."""
    return prediction.e2e_s is None and prediction.hidden_communication_s > 0.0


def explain_overlap(prediction: Prediction) -> OverlapAdvice:
    """Simulate the same pass on the same GPUs without each cause, blocking, and with other numbers of channels.

    Raises:
        InputError: see `simulate`.
    """
    prepared, scenario = prediction.prepared, prediction.scenario
    actual_s = prediction.latency_s
    without_sms_s = prepared.run(without_sms(prepared.machine)).duration_s
    free_s = ideal_overlap(prepared).duration_s
    blocking = scenario.model_copy(update={"runtime": scenario.runtime.model_copy(update={"overlap": False})})
    causes = OverlapCauses(
        free_s=free_s,
        sms_s=actual_s - without_sms_s,
        bandwidth_s=without_sms_s - free_s,
        waiting_s=prediction.overlap_cost.waiting_s,
        blocking_s=prepared.again(blocking).run().duration_s,
    )
    by_channels: dict[int | None, float] = {scenario.runtime.collective.channels: actual_s}
    if scenario.runtime.collective.library is Library.NCCL:
        others = [count for count in (None, *CHANNEL_CHOICES) if count not in by_channels]
        by_channels |= {count: prepared.again(with_channels(scenario, count)).run().duration_s for count in others}
    return OverlapAdvice(causes, actual_s, by_channels)


def with_channels(scenario: Scenario, channels: int | None) -> Scenario:
    """The scenario with another limit of NCCL channels; None leaves NCCL its own choice."""
    collective = scenario.runtime.collective.model_copy(update={"channels": channels})
    return scenario.model_copy(update={"runtime": scenario.runtime.model_copy(update={"collective": collective})})


def overlap_sentences(advice: OverlapAdvice) -> list[str]:
    """The same in words."""
    causes, actual_s = advice.causes, advice.latency_s
    gained_s, possible_s = causes.blocking_s - actual_s, causes.blocking_s - causes.free_s
    share = f"{100.0 * gained_s / possible_s:.0f} %" if possible_s > 0.0 else "none"
    sentences = [
        f"Overlap saves {format_seconds(gained_s)} of the {format_seconds(possible_s)} that a free one would "
        f"({share}); lost are {format_seconds(causes.sms_s)} to SMs that the AllReduce holds (waves added, late "
        f"starts) and {format_seconds(causes.bandwidth_s)} to bandwidth and caches that both sides use; "
        f"the compute stream waits {format_seconds(causes.waiting_s)} for it."
    ]
    if gained_s < 0.0:
        sentences[0] = (
            f"Overlap costs {format_seconds(-gained_s)} more than blocking would: {format_seconds(causes.sms_s)} "
            f"are lost to SMs that the AllReduce holds, {format_seconds(causes.bandwidth_s)} to bandwidth and caches."
        )
    best = advice.best_channels
    if len(advice.latency_by_channels_s) > 1:
        listed = ", ".join(
            f"{'default' if count is None else count} {format_seconds(value)}"
            for count, value in sorted(advice.latency_by_channels_s.items(), key=lambda item: item[0] or 99)
        )
        name = "NCCL's own choice of channels is best" if best is None else f"{best} channels would be best"
        sentences.append(f"{name}: {listed}.")
    return sentences
