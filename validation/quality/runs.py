"""Runs an experiment: a process a candidate, each its rates and then its seeds, until all is done or the time is up.

    python -m validation.quality.runs EXPERIMENT.yaml --data out/corpus --out out/parity

It is `validation.quality.parity` without its page, for machines that have nothing to draw with. Processes share a GPU
well: while one compiles or launches, another computes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from kraken_sim.errors import InputError
from kraken_sim.files.whole import write_whole
from validation.command import check_positive, exit_code
from validation.models import ARCHITECTURES
from validation.models.communication import Group
from validation.progress import duration, say
from validation.quality import checkpoint
from validation.quality.corpus import Corpus, open_corpus
from validation.quality.experiment import (
    Candidate,
    Experiment,
    best_rate,
    read_experiment,
    run_folder,
    tuning_of,
)
from validation.quality.place import Place
from validation.quality.trainer import Result, Trainer, read_result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Map = Callable[..., Iterable[Any]]


GOES_ON = "runs are as of their last checkpoints, the same command goes on"
FITTED = "tokens.json"
"""What `fit` found: runs that go on keep it."""
WARM_UP_STEPS = 10
"""Steps before a speed is measured, and at a time while it is; a choice of ours."""
MEASURED_S = 15.0
"""How long a speed is measured; a choice of ours."""
FIT_SHARE = 0.85
"""Part of the time that runs are sized to fill: validations, starts and an uneven end take the rest. Assumed."""
LEAST_STEPS = 20
"""Steps that a run gets even where there is no time for them; a choice of ours."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a process is to do."""

    experiment: Experiment
    candidate: Candidate
    data: Path
    out: Path
    device: str
    peak: float | None
    stop_at_s: float | None
    threads: int


def run_all(
    experiment: Experiment,
    data: Path,
    out: Path,
    *,
    workers: int | None = None,
    peak: float | None = None,
    deadline_s: float | None = None,
    fit: bool = False,
) -> tuple[Experiment, bool]:
    """Does what is left of an experiment; what it was (see `fit`), and whether all of it is done.

    Args:
        experiment: what to run.
        data: the corpus.
        out: folder of the runs, begun or continued.
        workers: processes at a time; default: one a candidate on GPUs, one a core on CPUs.
        peak: a device's peak in FLOP/s, for the MFU.
        deadline_s: stop before; runs can go on later.
        fit: train on as many tokens as the time until the deadline allows, which is measured first.

    Raises:
        InputError: what a run finds wrong with the recipe, the corpus or a checkpoint.
    """
    open_corpus(data)
    gpus, cores = torch.cuda.device_count(), len(os.sched_getaffinity(0))
    processes = max(1, min(len(experiment.candidates), workers or (len(experiment.candidates) if gpus else cores)))
    stop_at_s = None if deadline_s is None else time.monotonic() + deadline_s
    devices = [f"cuda:{index % gpus}" if gpus else "cpu" for index in range(len(experiment.candidates))]
    jobs = [
        Job(experiment, candidate, data, out, device, peak, stop_at_s, max(1, cores // processes))
        for candidate, device in zip(experiment.candidates, devices, strict=True)
    ]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        spread: Map = map if processes == 1 else pool.map
        if fit and stop_at_s is not None:
            fitted = out / FITTED
            tokens = (
                json.loads(fitted.read_text()) if fitted.exists() else _tokens_for(spread, jobs[:processes], stop_at_s)
            )
            write_whole(fitted, json.dumps(tokens).encode())
            training = experiment.training.model_copy(update={"tokens": tokens})
            experiment = experiment.model_copy(update={"training": training})
            jobs = [replace(job, experiment=experiment) for job in jobs]
        return experiment, all(list(spread(run_candidate, jobs)))


def _tokens_for(spread: Map, jobs: Sequence[Job], stop_at_s: float) -> int:
    """How many tokens a run has time for, measured while as many processes compute as will later."""
    experiment = jobs[0].experiment
    speeds = dict(spread(measure, jobs, [len(jobs)] * len(jobs)))
    slowest = min(speeds.values())
    # Processes share the device: alone each would be as many times faster.
    seconds_a_token = sum(
        experiment.num_runs(one) / (len(jobs) * speeds.get(one.name, speeds.get(one.tuned_as or "", slowest)))
        for one in experiment.candidates
    )
    least = LEAST_STEPS * experiment.recipe(jobs[0].candidate, 1.0, 0).tokens_per_step
    tokens = max(least, int(FIT_SHARE * (stop_at_s - time.monotonic()) / seconds_a_token))
    speed = ", ".join(f"{name} {value:,.0f}" for name, value in speeds.items())
    say(f"tokens a second while {len(jobs)} share the device: {speed}; every run gets {tokens:,} tokens")
    return tokens


def measure(job: Job, processes: int) -> tuple[str, float]:
    """Name and tokens a second of a candidate, beside the others that are measured at the same time."""
    torch.set_num_threads(job.threads)
    folder = job.out / "speed"
    recipe = job.experiment.recipe(job.candidate, job.experiment.learning_rates[0], job.experiment.seeds[0])
    trainer = Trainer(recipe, open_corpus(job.data), folder / job.candidate.name, _place(job), job.peak)
    trainer.rehearse(WARM_UP_STEPS)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{job.candidate.name}.{os.getppid()}").touch()
    while len(list(folder.glob(f"*.{os.getppid()}"))) < processes and time.monotonic() < (job.stop_at_s or math.inf):
        time.sleep(0.05)
    begun, steps = time.monotonic(), 0
    while (elapsed := time.monotonic() - begun) < MEASURED_S:
        trainer.rehearse(WARM_UP_STEPS)
        steps += WARM_UP_STEPS
    return job.candidate.name, steps * recipe.tokens_per_step / elapsed


def run_candidate(job: Job) -> bool:
    """All runs of one candidate; whether they are done."""
    torch.set_num_threads(job.threads)
    if job.experiment.training.compile:
        # Runs of one candidate share their code; that of others would count against the limit of recompilations.
        torch.compiler.reset()
    corpus, experiment = open_corpus(job.data), job.experiment
    if job.candidate.tuned_as is None:
        tuning = [_run(job, corpus, rate, experiment.seeds[0]) for rate in experiment.learning_rates]
        best = best_rate([run for run in tuning if run is not None])
        if None in tuning:
            return False
    else:
        best = _best_of_another(job)
    if best is None:
        say(f"{job.candidate.name}: no learning rate to go on with")
        return True
    return None not in [_run(job, corpus, best, seed) for seed in experiment.seeds]


def _best_of_another(job: Job) -> float | None:
    """The best rate of the candidate that this one is tuned as, which another process may still be trying."""
    rates = len(job.experiment.learning_rates)
    while len(found := tuning_of(job.experiment, job.candidate, job.out)) < rates:
        if job.stop_at_s is None or time.monotonic() >= job.stop_at_s:
            return None
        time.sleep(0.2)
    return best_rate(found)


def _run(job: Job, corpus: Corpus, rate: float, seed: int) -> Result | None:
    folder = run_folder(job.out, job.candidate, rate, seed)
    recipe = job.experiment.recipe(job.candidate, rate, seed)
    done = read_result(folder)
    if done is not None:
        checkpoint.check(folder, recipe, corpus)
        return done
    if job.stop_at_s is not None and time.monotonic() >= job.stop_at_s:
        return None
    return Trainer(recipe, corpus, folder, _place(job), job.peak).run(job.stop_at_s)


def _place(job: Job) -> Place:
    """A process of its own."""
    return Place(Group(), Group(), Group(), torch.device(job.device))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `runs` and `parity` are asked alike."""
    parser.add_argument("experiment", type=Path, help="YAML file of the candidates, rates and seeds")
    parser.add_argument("--data", type=Path, required=True, help="corpus, made by validation.quality.corpus")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, begun or continued")
    parser.add_argument("--workers", type=int, help="processes at a time (default: a candidate each, or a core each)")
    parser.add_argument(
        "--peak-flops", type=float, metavar="FLOP/S", help="a device's peak, which the MFU is a part of"
    )
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="stop before; the runs can go on later")
    parser.add_argument(
        "--fit", action="store_true", help="as many tokens a run as there is time for, instead of the file's"
    )


def run_given(given: argparse.Namespace) -> tuple[Experiment, bool]:
    """Runs what the command line asks for; the experiment, and whether all of it is done.

    Raises:
        InputError: what is wrong with the arguments or the files they name.
    """
    check_positive(given, "--workers", "--deadline", "--peak-flops")
    experiment, begun = read_experiment(given.experiment, ARCHITECTURES), time.monotonic()
    if given.fit and given.deadline is None:
        raise InputError.single("--fit", "needs a deadline to fit the runs to", example="--deadline 600")
    experiment, done = run_all(
        experiment,
        given.data,
        given.out,
        workers=given.workers,
        peak=given.peak_flops,
        deadline_s=given.deadline,
        fit=given.fit,
    )
    after = duration(time.monotonic() - begun)
    say(f"all runs are done, {after}" if done else f"the time is up after {after}; the same command goes on")
    return experiment, done


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog="validation.quality.runs", description="Runs an experiment.")
    add_arguments(parser)
    given = parser.parse_args(argv)
    return exit_code(lambda: _run_all_given(given), given.out, GOES_ON)


def _run_all_given(given: argparse.Namespace) -> None:
    run_given(given)


if __name__ == "__main__":
    sys.exit(main())
