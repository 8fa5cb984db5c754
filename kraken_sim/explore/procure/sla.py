"""Service level agreements: limits on TTFT and TPOT at a percentile, MLPerf's by name, and what a verdict may say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InputError, closest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.predict.prediction import Prediction

MLPERF_SOURCE: Final = "MLPerf Inference, github.com/mlcommons/inference, loadgen/mlperf.conf (commit 001712e)"


@dataclass(frozen=True, slots=True)
class Sla:
    """Limits that `percentile` per cent of the prompts must keep; TTFT counts from arrival, waiting included."""

    ttft_s: float
    tpot_s: float | None
    percentile: float
    source: str


def _mlperf(ttft_ms: float, tpot_ms: float) -> Sla:
    # *.Server.target_latency_percentile = 99
    return Sla(1e-3 * ttft_ms, 1e-3 * tpot_ms, 99.0, MLPERF_SOURCE)


MLPERF_PRESETS: Mapping[str, Sla] = {
    "mlperf-llama2-70b": _mlperf(2000, 200),
    "mlperf-llama2-70b-interactive": _mlperf(450, 40),
    "mlperf-llama3.1-8b": _mlperf(2000, 100),
    "mlperf-llama3.1-8b-interactive": _mlperf(500, 30),
    "mlperf-llama3.1-405b": _mlperf(6000, 175),
    "mlperf-llama3.1-405b-interactive": _mlperf(4500, 80),
    "mlperf-mixtral-8x7b": _mlperf(2000, 200),
    "mlperf-deepseek-r1": _mlperf(2000, 80),
    "mlperf-deepseek-r1-interactive": _mlperf(1500, 15),
}
"""Limits of MLPerf Inference's server scenario on TTFT and TPOT, by benchmark; they bind no model here."""


def sla_preset(name: str, at: str = "sla.preset") -> Sla:
    """The limits of a named benchmark.

    Raises:
        InputError: no such preset; says which one was probably meant.
    """
    if name not in MLPERF_PRESETS:
        message = f"unknown preset; known are {', '.join(MLPERF_PRESETS)}"
        guess = closest(name, list(MLPERF_PRESETS))
        raise InputError.single(at, message, name[:60], "mlperf-llama2-70b-interactive", guess)
    return MLPERF_PRESETS[name]


class TpotStatus(StrEnum):
    """What is known about the time per output token."""

    NOT_ASKED = "not asked"
    NOT_JUDGED = "not judged yet"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class TpotVerdict:
    """A limit on TPOT against the one thing known about it: one decode step of a single sequence, undisturbed.

    `step_s` bounds TPOT from below, because batching and prompts served in between only slow a sequence down. So a
    limit can be missed for sure, but meeting it is not claimed. A simulation of whole generations would say more; its
    place is `judge_tpot`.
    """

    status: TpotStatus
    limit_s: float | None
    step_s: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"status": self.status.value, "limit_s": self.limit_s, "undisturbed_step_s": self.step_s}


def judge_tpot(limit_s: float | None, step: Prediction | None) -> TpotVerdict:
    """What may be said about TPOT.

    Args:
        limit_s: the SLA's limit, if it has one.
        step: one decode step of one sequence on its prompt's cache; None where it could not be predicted.
    """
    step_s = None if step is None else step.latency_s
    if limit_s is None:
        return TpotVerdict(TpotStatus.NOT_ASKED, None, step_s)
    missed = step is not None and step.interval.low_s > limit_s
    return TpotVerdict(TpotStatus.MISSED if missed else TpotStatus.NOT_JUDGED, limit_s, step_s)
