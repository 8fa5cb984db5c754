"""From a case to its record: which function measures it, and what becomes of errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import torch

from kraken_sim.measurements.records.kernels import AllReduceRecord, AttentionRecord, GemmRecord, MemoryBoundRecord
from kraken_sim.measurements.records.launched import KernelsRecord, LaunchRecord
from kraken_sim.measurements.records.loads import SustainedRecord, WakeRecord
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.records.record import NoteRecord
from kraken_sim.measurements.records.together import ChainRecord, PairRecord
from validation.microbench import all_reduce, attention, chain, gemm, launch, memory_bound, pair, sustained, wake
from validation.microbench.bench import Outcome, SkipCase
from validation.timing import quartiles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kraken_sim.measurements.records.base import Case
    from kraken_sim.measurements.records.record import Record
    from validation.microbench.bench import Bench

RUN: Final[Mapping[str, Callable[[Bench, Any], Outcome]]] = {
    "gemm": gemm.run,
    "attention": attention.run,
    "memory_bound": memory_bound.run,
    "all_reduce": all_reduce.run,
    "pair": pair.run,
    "chain": chain.run,
    "sustained": sustained.run,
    "wake": wake.run,
    "launch": launch.run,
}
"""What measures a case of each kind that runs by itself; kernels and passes run in groups."""

_RECORDS: Final[Mapping[str, Any]] = {
    "gemm": GemmRecord,
    "attention": AttentionRecord,
    "memory_bound": MemoryBoundRecord,
    "all_reduce": AllReduceRecord,
    "pair": PairRecord,
    "chain": ChainRecord,
    "sustained": SustainedRecord,
    "wake": WakeRecord,
    "launch": LaunchRecord,
    "kernels": KernelsRecord,
    "pass": PassRecord,
}
_MESSAGE_LENGTH: Final = 300


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of a case on one rank: an outcome, or why there is none.

    `healthy` says whether the device still works afterwards.
    """

    outcome: Outcome | None = None
    status: str = "ok"
    message: str = ""
    healthy: bool = True

    def to_json(self) -> dict[str, Any]:
        """For the other ranks."""
        outcome = {"times": self.outcome.times, "fields": self.outcome.fields} if self.outcome else None
        return {"outcome": outcome, "status": self.status, "message": self.message, "healthy": self.healthy}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Attempt:
        """From another rank."""
        outcome = Outcome(**data["outcome"]) if data["outcome"] else None
        return cls(outcome, data["status"], data["message"], data["healthy"])


def attempt(bench: Bench, measure: Callable[[], Outcome]) -> Attempt:
    """Run `measure`; no error of a case ends the run."""
    bench.rewind()
    try:
        return Attempt(measure())
    except SkipCase as reason:
        return Attempt(None, "skipped", str(reason))
    except torch.OutOfMemoryError as error:
        bench.memo.clear()
        torch.cuda.empty_cache()
        return Attempt(None, "skipped", _short(f"too little device memory: {error}"), bench.clock.is_healthy())
    except Exception as error:  # whatever CUDA, NCCL or torch raise: the next case may well run
        bench.memo.clear()
        message = _short(f"{type(error).__name__}: {error}")
        return Attempt(None, "failed", message, bench.clock.is_healthy())


def _short(message: str) -> str:
    return " ".join(message.split())[:_MESSAGE_LENGTH]


@dataclass(slots=True)
class Ranks:
    """The attempts of all ranks that took part in a case, by rank."""

    attempts: dict[int, Attempt] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[int, Attempt]:
        """The first rank whose attempt gave nothing, or else the first rank."""
        without = [(rank, one) for rank, one in self.attempts.items() if one.outcome is None]
        return (without or list(self.attempts.items()))[0]

    @property
    def healthy(self) -> bool:
        """Whether every rank can go on."""
        return all(one.healthy for one in self.attempts.values())

    @property
    def all_failed_alike(self) -> bool:
        """Whether no rank has an outcome, so that all of them left the case at about the same point."""
        return all(one.outcome is None for one in self.attempts.values())


def record_of(case: Case, ranks: Ranks) -> Record:
    """The record of a case, or a note where a rank has no outcome.

    Times are the mean over the ranks of each repeat; of whole passes the maximum, since the answer is there
    when the slowest rank has it.
    """
    rank, worst = ranks.worst
    if worst.outcome is None:
        status: Literal["skipped", "failed"] = "skipped" if worst.status == "skipped" else "failed"
        return NoteRecord(of=case.key, status=status, message=worst.message, rank=rank)
    outcomes = [one.outcome for one in ranks.attempts.values() if one.outcome is not None]
    data = case.model_dump() | outcomes[0].fields
    if not case.collective and case.kind not in ("sustained", "kernels"):
        data["rank"] = rank
    for name in outcomes[0].times:
        samples = [outcome.times[name] for outcome in outcomes]
        data[name] = tuple(quartiles(_over_ranks(samples, slowest=case.kind == "pass")))
    record: Record = _RECORDS[case.kind].model_validate(data)
    return record


def _over_ranks(samples: Sequence[Sequence[float]], *, slowest: bool) -> list[float]:
    columns = zip(*samples, strict=True)
    return [max(column) if slowest else sum(column) / len(column) for column in columns]
