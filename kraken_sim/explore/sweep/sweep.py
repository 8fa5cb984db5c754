"""A sweep from its file, or from Python, to its results."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from kraken_sim.errors import SHOWN, InputError
from kraken_sim.explore.selection import RowChoice
from kraken_sim.explore.sweep.plan import MOST_POINTS, Plan, load_plan, plan_of
from kraken_sim.explore.sweep.rows import Evaluator
from kraken_sim.explore.sweep.runners import run_chunks
from kraken_sim.explore.sweep.store import decode, opened, read_results
from kraken_sim.explore.sweep.table import csv_of
from kraken_sim.files.shipped import shipped_path
from kraken_sim.files.whole import write_whole
from kraken_sim.predict.answer import Answer, frame_of
from kraken_sim.predict.records import Records
from kraken_sim.profiles.load import load_profile
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from kraken_sim.errors import Problem

ASK_ABOVE = 250_000
"""Points that run without a question: about two minutes of one core."""

MOST_JOBS = 4_096
"""Processes on one machine: a limit of ours, more than any has cores."""

PROBED = 1_000
"""Values of a field that are tried before a sweep of which no point has an answer is refused."""


@dataclass(frozen=True, slots=True, repr=False)
class SweepResult(Answer):
    """All points of a sweep with their results, in the order of the points."""

    table: pa.Table

    @property
    def headline(self) -> str:
        """How many points there are, and the fastest."""
        times = [(row["latency_s"], row["point"]) for row in self.table.select(["latency_s", "point"]).to_pylist()]
        answered = [found for found in times if found[0] is not None]
        text = f"{len(self):,} points, {len(times) - len(answered):,} without an answer"
        return f"{text}; fastest {format_seconds(min(answered)[0])}" if answered else text

    @property
    def records(self) -> Records:
        """One plain mapping a point: `point`, the swept fields by their dotted paths, and the results."""
        return Records(self.table.to_pylist())

    def to_pandas(self) -> pd.DataFrame:
        """The same as a DataFrame.

        Raises:
            InputError: pandas is not installed; `records` gives the same rows without it.
        """
        frame_of(Records())  # says that there is no pandas
        return self.table.to_pandas()

    def __len__(self) -> int:
        return int(self.table.num_rows)


@dataclass(frozen=True, slots=True)
class SweepRun:
    """What a run of a sweep did: points it found done, points it ran, and those of them without an answer."""

    num_points: int
    num_found: int
    num_run: int
    num_failed: int


def sweep(
    scenario: Mapping[str, object] | str | Path,
    *,
    out: str | Path | None = None,
    jobs: int | None = None,
    cluster: str | None = None,
    yes: bool = False,
) -> SweepResult:
    """Predict every point of a scenario whose fields may be lists or `{start, stop, step}`.

    Args:
        scenario: a mapping of a scenario's shape, the path of a file or the name of one that ships.
        out: a Parquet file to stream the results to, and to go on with after an interruption; of a name in `.csv` that
            file lies beside the CSV; default: none.
        jobs: processes; default: as many as cores.
        cluster: `dask://host:port` or `ray://host:port` to run on instead.
        yes: run however many points there are.

    Raises:
        InputError: the fields, their lists, `out` or `cluster` are wrong, or there are more than `ASK_ABOVE`
            points without `yes`. A wrong point is a row with its error.
    """
    data = dict(scenario) if isinstance(scenario, Mapping) else scenario
    plan = load_plan(shipped_path(scenario, "scenario")) if isinstance(scenario, (str, Path)) else plan_of(data, Path())
    check(plan, yes=yes)
    check_jobs(jobs)
    if out is not None and not isinstance(out, (str, Path)):
        raise InputError.single("out", "must be the path of a file", out, "results.parquet")
    if out is None:
        found = sorted(run_chunks(plan, range(plan.num_chunks), jobs=jobs, cluster=cluster))
        return SweepResult(pa.concat_tables(decode(data) for _, _, data in found))
    file = Path(out).with_suffix(".parquet") if Path(out).suffix == ".csv" else Path(out)
    run_to_file(plan, file, jobs=jobs, cluster=cluster)
    if file != Path(out):
        write_whole(Path(out), csv_of(file, RowChoice()))
    return SweepResult(read_results(file))


def run_to_file(
    plan: Plan,
    out: Path,
    *,
    jobs: int | None = None,
    cluster: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    force: bool = False,
) -> SweepRun:
    """Run what is missing of a sweep and write the final file.

    Args:
        plan: a checked plan.
        out: the Parquet file.
        jobs: see `sweep`.
        cluster: see `sweep`.
        progress: called with the points done so far and those done before this run.
        force: replace a file that is not this sweep's.

    Raises:
        InputError: see `sweep`.
    """
    check_jobs(jobs)
    with opened(out, plan, force=force) as store:
        if store.is_complete():
            return SweepRun(plan.num_points, plan.num_points, 0, 0)
        missing = store.missing()
        found = plan.num_points - sum(map(plan.points_of, missing))
        done, failed = found, 0
        while missing or not store.finish():
            missing = missing or store.missing()  # what finishing found damaged
            done = plan.num_points - sum(map(plan.points_of, missing))
            with contextlib.closing(run_chunks(plan, missing, jobs=jobs, cluster=cluster)) as results:
                for chunk, errors, data in results:
                    store.add(chunk, data)
                    done += plan.points_of(chunk)
                    failed += errors
                    if progress is not None:
                        progress(done, found)
            missing = []
        return SweepRun(plan.num_points, found, plan.num_points - found, failed)


def check_jobs(jobs: int | None) -> None:
    """Refuse a number of processes that is none.

    Raises:
        InputError: as said.
    """
    if jobs is not None and not (isinstance(jobs, int) and not isinstance(jobs, bool) and 1 <= jobs <= MOST_JOBS):
        raise InputError.single("jobs", f"must be a whole number from 1 to {MOST_JOBS:,}", jobs, "4")


def check(plan: Plan, *, yes: bool) -> None:
    """Refuse a sweep that can't be meant: too many points, or a field none of whose values is right.

    Raises:
        InputError: as said.
    """
    _check_count(plan, yes=yes)
    try:
        evaluator = Evaluator(plan.fixed, plan.paths, plan.folder)
        problems = [problem for name in evaluator.swept for problem in _hopeless(plan, evaluator, name)]
        if "hardware" not in evaluator.swept:
            load_profile(evaluator.constant["hardware"])
    except InputError as error:
        raise plan.located(error) from None
    if problems:
        raise plan.located(InputError(problems))


def _check_count(plan: Plan, *, yes: bool) -> None:
    count = plan.num_points
    if count <= (MOST_POINTS if yes else ASK_ABOVE):
        return
    factors = " x ".join(f"{axis.length:,} ({', '.join(axis.paths)})" for axis in plan.axes[:SHOWN])
    points = f"{count:,}" if count < 1 << 63 else "more than 2^63"
    if count > MOST_POINTS:
        message = f"are {points} points: {factors}; {MOST_POINTS:,} are the most of one sweep"
    else:
        message = f"are {points} points: {factors}; --yes (yes=True) runs them, fewer values may be meant"
    raise InputError.single("", f"these fields {message}")


def _hopeless(plan: Plan, evaluator: Evaluator, name: str) -> Sequence[Problem]:
    """What is wrong with the first values of a field of the scenario, if none of its values is right."""
    axes = [axis for axis in plan.axes if any(path.partition(".")[0] == name for path in axis.paths)]
    part = Plan("", {}, tuple(axes))
    if part.num_points > PROBED:
        return ()
    columns = [index for index, path in enumerate(part.paths) if path.partition(".")[0] == name]
    first: InputError | None = None
    for point in range(part.num_points):
        row = part.values(point)
        try:
            value = evaluator.part(name, tuple(row[index] for index in columns))
            if name == "hardware":
                load_profile(value)
        except InputError as error:
            first = first or error
        else:
            return ()
    return () if first is None else first.problems
