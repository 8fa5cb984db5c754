"""An experiment: several models trained on the same text with the same schedule, each at its best learning rate."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from kraken_sim.errors import Problem, closest
from kraken_sim.files.model import FileModel, Name, NotEmpty
from kraken_sim.files.strict_yaml import read_yaml
from validation.quality.recipe import (
    ArchitectureSpec,
    ModelShape,
    Positive,
    Recipe,
    TrainingSpec,
    checked,
    unknown_kind,
)
from validation.quality.trainer import Result, read_result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Seed = Annotated[int, Field(strict=True, ge=0, lt=1 << 31)]


class Candidate(FileModel):
    """One of the models."""

    name: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9._-]{1,60}$")] = Field(examples=["kraken-2-way"])
    model: ModelShape
    architecture: ArchitectureSpec = ArchitectureSpec()
    tuned_as: Name | None = Field(default=None, description="An earlier candidate, whose best rate it takes.")


class Experiment(FileModel):
    """Every candidate is trained at every rate with the first seed, then at its best rate with the other seeds."""

    name: Name
    baseline: Name = Field(description="The candidate that the others are compared with.")
    candidates: Annotated[tuple[Candidate, ...], NotEmpty]
    learning_rates: Annotated[tuple[Positive, ...], NotEmpty]
    seeds: Annotated[tuple[Seed, ...], NotEmpty]
    training: TrainingSpec

    def tuned(self, candidate: Candidate) -> Candidate:
        """The candidate whose runs at every rate say which is best for this one."""
        return next(one for one in self.candidates if one.name == (candidate.tuned_as or candidate.name))

    def num_runs(self, candidate: Candidate) -> int:
        """How many runs a candidate takes."""
        rates = len(self.learning_rates) if candidate.tuned_as is None else 1
        return rates + len(self.seeds) - 1

    def recipe(self, candidate: Candidate, learning_rate: float, seed: int) -> Recipe:
        """One run."""
        training = self.training.model_copy(update={"learning_rate": learning_rate, "seed": seed})
        name = f"{candidate.name}, rate {learning_rate:g}, seed {seed}"
        return Recipe(name=name, model=candidate.model, architecture=candidate.architecture, training=training)


def read_experiment(path: Path, architectures: tuple[str, ...]) -> Experiment:
    """Reads an experiment strictly.

    Args:
        path: the YAML file.
        architectures: the kinds that can be trained.

    Raises:
        InputError: the file cannot be read or holds any problem; all at once, with their lines.
    """
    document = read_yaml(path)
    experiment = checked(document, Experiment)
    if problems := list(_problems(experiment, architectures)):
        raise document.error(problems)
    return experiment


def _problems(experiment: Experiment, architectures: tuple[str, ...]) -> Iterator[Problem]:
    names = [candidate.name for candidate in experiment.candidates]
    if experiment.baseline not in names:
        message = "is none of the candidates"
        yield Problem("baseline", message, experiment.baseline, names[0], closest(experiment.baseline, names))
    for index, candidate in enumerate(experiment.candidates):
        path = f"candidates.{index}"
        if problem := unknown_kind(candidate.architecture, architectures, f"{path}.architecture.kind"):
            yield problem
        if candidate.name in names[:index]:
            yield Problem(f"{path}.name", "is the name of another candidate too", candidate.name)
        tuned = [one.name for one in experiment.candidates[:index] if one.tuned_as is None]
        if candidate.tuned_as is not None and candidate.tuned_as not in tuned:
            message = "is no earlier candidate with a rate of its own"
            suggestion = closest(candidate.tuned_as, tuned)
            yield Problem(f"{path}.tuned_as", message, candidate.tuned_as, experiment.baseline, suggestion)
    for name in ("learning_rates", "seeds"):
        values = getattr(experiment, name)
        if len(set(values)) < len(values):
            yield Problem(name, "holds a value twice", list(values))
    for name in ("learning_rate", "seed"):
        if name in experiment.training.model_fields_set:
            yield Problem(f"training.{name}", f"is what the experiment varies: list it in {name}s")


def run_folder(out: Path, candidate: Candidate, learning_rate: float, seed: int) -> Path:
    """Where one run lies."""
    return out / "runs" / candidate.name / f"rate-{learning_rate:g}-seed-{seed}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one candidate came to.

    `tuning` are the runs of the first seed, one a rate, of the one that it is tuned as; `runs` those at the best rate,
    one a seed, as far as they are done. Losses are in nats a token.
    """

    candidate: Candidate
    tuning: tuple[Result, ...]
    runs: tuple[Result, ...]

    @property
    def learning_rate(self) -> float:
        """The best one."""
        return self.runs[0].learning_rate

    @property
    def loss(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(run.validation_loss for run in self.runs)

    @property
    def loss_deviation(self) -> float | None:
        """Standard deviation over the seeds; of one seed unknown."""
        return statistics.stdev(run.validation_loss for run in self.runs) if len(self.runs) > 1 else None

    @property
    def bits_per_byte(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(run.bits_per_byte for run in self.runs)

    @property
    def tokens_per_s(self) -> float:
        """Median over the runs."""
        return statistics.median(run.tokens_per_s for run in self.runs)


def best_rate(tuning: Sequence[Result]) -> float | None:
    """The rate of the lowest validation loss; None where every run diverged."""
    healthy = [run for run in tuning if not run.diverged]
    return min(healthy, key=lambda run: run.validation_loss).learning_rate if healthy else None


def outcome_of(experiment: Experiment, candidate: Candidate, out: Path) -> Outcome | None:
    """What the finished runs of a candidate say; None before all rates are tried, or where none works."""
    tuning = tuning_of(experiment, candidate, out)
    rate = best_rate(tuning) if len(tuning) == len(experiment.learning_rates) else None
    runs = () if rate is None else _results(out, candidate, [rate], experiment.seeds)
    return Outcome(candidate, tuning, runs) if runs else None


def tuning_of(experiment: Experiment, candidate: Candidate, out: Path) -> tuple[Result, ...]:
    """The finished runs that say which rate is best for a candidate."""
    return _results(out, experiment.tuned(candidate), experiment.learning_rates, experiment.seeds[:1])


def _results(out: Path, candidate: Candidate, rates: Sequence[float], seeds: Sequence[int]) -> tuple[Result, ...]:
    found = [read_result(run_folder(out, candidate, rate, seed)) for rate in rates for seed in seeds]
    return tuple(one for one in found if one is not None)


def perplexity_ratio(one: Outcome, base: Outcome) -> tuple[float, float | None]:
    """Geometric mean of `one`'s perplexity over `base`'s, and its standard error from the spread over the seeds.

    Seeds are not paired: the same seed gives the same order of the text, but other weights. Of one seed no error.
    """
    ratio = math.exp(one.loss - base.loss)
    if one.loss_deviation is None or base.loss_deviation is None:
        return ratio, None
    variance = one.loss_deviation**2 / len(one.runs) + base.loss_deviation**2 / len(base.runs)
    return ratio, ratio * math.sqrt(variance)
