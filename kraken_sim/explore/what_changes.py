"""What would change an answer: the same question with a cost model that errs, other links, another launch or load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.explore.sensitivity import perturbed_residuals
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.profiles.what_if import with_bandwidth_factor, with_time_factor
from kraken_sim.program.kernel_sets import CardLoad
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.scenario.spec import Scenario

LINK_FACTORS: Final = {0.5: "half", 2.0: "twice"}
"""Bandwidths of links that are tried, over the machine's own; a choice of ours."""

BLOCK_WORDS: Final = {
    "gemm": "GEMMs",
    "attention": "attention",
    "memory_bound": "norms and other small kernels",
    "collectives": "collectives",
    "contention": "what compute and collectives cost each other",
    "launch": "launch and gaps between kernels",
}
"""What a block of constants prices, in words."""


@dataclass(frozen=True, slots=True)
class AnswerChange:
    """One thing that is otherwise, and the latency of every prediction then over its own: 1.1 is 10 % more.

    `is_doubt` marks a block of constants that errs by its residual; what is not, is another machine or another run.
    """

    what: str
    is_doubt: bool
    factors: tuple[float, ...]


def answer_changes(predictions: Sequence[Prediction]) -> list[AnswerChange]:
    """What changes the answers to predictions of one question on one machine, each change by itself.

    Nothing where the machine cannot be asked again, as that of a host's own file that is gone.
    """
    try:
        before = [_asked(prediction, prediction.profile) for prediction in predictions]
        return [
            AnswerChange(what, is_doubt, tuple(now / then for now, then in zip(times, before, strict=True)))
            for what, is_doubt, times in _changed(predictions)
        ]
    except (InputError, InfeasibleError):
        return []


def _changed(predictions: Sequence[Prediction]) -> Iterator[tuple[str, bool, list[float]]]:
    base = predictions[0]
    profile, runtime = base.profile, base.scenario.runtime
    for block, residual in perturbed_residuals(profile, base.scenario).items():
        machine = with_time_factor(profile, block, 1.0 + residual)
        what = f"{BLOCK_WORDS[block]}: {100.0 * residual:.0f} % more"
        yield what, True, [_asked(prediction, machine) for prediction in predictions]
    if base.resolved.num_devices > 1:
        for factor, words in LINK_FACTORS.items():
            machine = with_bandwidth_factor(profile, factor)
            what = f"links between GPUs: {words} the bandwidth"
            yield what, False, [_asked(prediction, machine) for prediction in predictions]
    launch = Launch.EAGER if runtime.launch is Launch.GRAPH else Launch.GRAPH
    how = "launch: kernel by kernel (eager)" if launch is Launch.EAGER else "launch: as a CUDA graph"
    yield how, False, [_asked(prediction, profile, launch=launch) for prediction in predictions]
    load = CardLoad.RESTED if runtime.load is CardLoad.SUSTAINED else CardLoad.SUSTAINED
    what = "load: a lone step on a rested card" if load is CardLoad.RESTED else "load: sustained, steps back to back"
    yield what, False, [_asked(prediction, profile, load=load) for prediction in predictions]


def _asked(prediction: Prediction, profile: HardwareProfile, **runtime: Any) -> float:
    """The latency on a profile that has the ranks in their places and the host's costs already."""
    return Predictor(profile).predict(_bare(prediction, runtime)).latency_s


def _bare(prediction: Prediction, runtime: dict[str, Any]) -> Scenario:
    scenario = prediction.scenario
    return scenario.model_copy(
        update={
            "num_devices": prediction.resolved.num_devices,
            "placement": None,
            "runtime": scenario.runtime.model_copy(update={"host": None, **runtime}),
        }
    )
