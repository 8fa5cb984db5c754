"""What a purchase may say of TPOT."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kraken_sim.predict.prediction import Prediction


class TpotStatus(StrEnum):
    """What is known about the time per output token."""

    NOT_ASKED = "not asked"
    NOT_JUDGED = "not judged yet"
    MISSED = "missed"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class TpotVerdict:
    """A limit on TPOT against the one thing known about it: one decode step of a single sequence, undisturbed.

    `step_s` bounds TPOT from below, because batching and prompts served in between only slow a sequence down. So a
    limit can be missed for sure, but meeting it is claimed only where whole answers are simulated
    (`kraken_sim.explore.procure.whole`).
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
