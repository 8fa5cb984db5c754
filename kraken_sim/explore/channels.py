"""How many channels NCCL should get when its AllReduce runs beside the attention of a Kraken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.architectures.registry import architecture, overlapping
from kraken_sim.costs.collectives.policy import Library
from kraken_sim.errors import InputError, Problem
from kraken_sim.explore.sensitivity import Alternative, decide, speedup_interval
from kraken_sim.predict.answer import Answer
from kraken_sim.predict.explain import CHANNEL_CHOICES, with_channels
from kraken_sim.predict.records import Records
from kraken_sim.scenario.collective import CHANNELS_LIMIT
from kraken_sim.scenario.spec import as_scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.explore.sensitivity import Decision
    from kraken_sim.scenario.spec import Scenario, ScenarioSource

DEFAULT: Final = "default"
"""Name of NCCL's own choice."""

CHOICES: Final = (None, *CHANNEL_CHOICES)


@dataclass(frozen=True, repr=False)
class ChannelAnswer(Answer):
    """The latencies by number of channels for one overlapping Kraken."""

    scenario: Scenario
    decision: Decision

    @property
    def best(self) -> str:
        """The best number of channels, or `default`."""
        return self.decision.best

    @property
    def gain(self) -> float:
        """How much longer NCCL's own choice takes than the best, as a fraction."""
        return self.decision.latencies_s[DEFAULT] / self.decision.latencies_s[self.best] - 1.0

    @property
    def gain_interval(self) -> tuple[float, float]:
        """The 90 % interval of that gain."""
        predictions = self.decision.predictions
        return (0.0, 0.0) if self.best == DEFAULT else speedup_interval(predictions[DEFAULT], predictions[self.best])

    @property
    def advice(self) -> str:
        """The number of channels worth setting: the best where it surely gains, else NCCL's own choice."""
        return self.best if self.gain_interval[0] > 0.0 else DEFAULT

    @property
    def headline(self) -> str:
        """The best number of channels, and what it is worth."""
        what = f"{self.scenario.architecture.kind} on {self.scenario.hardware}, {self.scenario.context_length:,} tokens"
        if self.best == DEFAULT:
            return f"{what}: NCCL's own choice of channels is the best"
        return f"{what}: at most {self.best} channels, {100.0 * self.gain:.1f} % faster than NCCL's own choice"

    @property
    def records(self) -> Records:
        """One flat row for each limit of channels."""
        return Records(
            {
                "hardware": self.scenario.hardware,
                "context_length": self.scenario.context_length,
                "channels": name,
                "latency_s": latency_s,
                "probability_best": self.decision.probability[name],
            }
            for name, latency_s in self.decision.latencies_s.items()
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        prediction = self.decision.predictions[self.best]
        return {
            "hardware": self.scenario.hardware,
            "model": self.scenario.model.model_dump(exclude_none=True),
            "num_devices": prediction.resolved.num_devices,
            "context_length": self.scenario.context_length,
            "best_channels": None if self.best == DEFAULT else int(self.best),
            "gain_over_default": self.gain,
            "advised_channels": None if self.advice == DEFAULT else int(self.advice),
            **self.decision.as_dict(),
        }


def channels_name(channels: int | None) -> str:
    """How tables and JSON call a number of channels."""
    return DEFAULT if channels is None else str(channels)


def _check_choices(choices: object) -> None:
    right = isinstance(choices, list | tuple) and all(
        count is None or (isinstance(count, int) and 1 <= count <= CHANNELS_LIMIT) for count in choices
    )
    if not right:
        message = f"must be a list of limits of channels, each None or a whole number from 1 to {CHANNELS_LIMIT}"
        raise InputError.single("choices", message, choices, "[None, 4, 8]")


def best_channels(
    scenario: ScenarioSource, choices: Sequence[int | None] = CHOICES, *, perturb: bool = True
) -> ChannelAnswer:
    """Predicts the scenario with each limit of channels (None leaves NCCL its own choice).

    Raises:
        InputError: nothing of it overlaps NCCL's AllReduce, or any other fault of the scenario.
        InfeasibleError: the model does not fit in memory.
    """
    problems = []
    scenario = as_scenario(scenario)
    kind = scenario.architecture.kind
    if not architecture(kind).overlaps:
        message = f"only {' or '.join(overlapping())} runs its AllReduce beside other kernels"
        problems.append(Problem("architecture.kind", message, kind, overlapping()[0]))
    if not scenario.runtime.overlap:
        problems.append(Problem("runtime.overlap", "the AllReduce does not overlap anything", False, "true"))
    if scenario.runtime.collective.library is not Library.NCCL:
        message = "only NCCL has a choice of channels"
        problems.append(Problem("runtime.collective.library", message, scenario.runtime.collective.library, "nccl"))
    if problems:
        raise InputError(problems)
    _check_choices(choices)
    wanted = dict.fromkeys((None, *choices))
    alternatives = [Alternative.of(channels_name(count), with_channels(scenario, count)) for count in wanted]
    return ChannelAnswer(scenario, decide(alternatives, perturb=perturb))
