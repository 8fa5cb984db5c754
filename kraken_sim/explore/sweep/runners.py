"""Who runs the chunks: this process, processes on its cores, or a Dask or Ray cluster, through joblib."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Generator, Iterator
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
from joblib.parallel import get_active_backend

from kraken_sim.architectures.registry import added, kinds, register
from kraken_sim.errors import InputError
from kraken_sim.explore.sweep.reach import unreachable
from kraken_sim.explore.sweep.rows import Evaluator
from kraken_sim.explore.sweep.store import columns_of, encode, table_of
from kraken_sim.explore.sweep.workers import lacking, local_workers, stopped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.architectures.architecture import Architecture
    from kraken_sim.explore.sweep.axis_rows import Row
    from kraken_sim.explore.sweep.plan import Plan

CONNECT_S = 10
"""Seconds that a scheduler that is there has to answer its client."""

CLOSE_S = 2
"""Seconds that it has to say goodbye."""

_ADDRESS = re.compile(
    r"(?P<scheme>dask|ray)://(?P<place>(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>\d{1,5}))"
)
WAVE = 4
"""Chunks a worker in one call of a backend that can't stream: few enough that little is lost, enough to keep busy."""


class Recipe(NamedTuple):
    """What a worker needs to answer points of a sweep, small enough to travel with every chunk."""

    fingerprint: str
    fixed: str
    """As JSON, so that a worker can keep one evaluator for it."""
    paths: tuple[str, ...]
    folder: str | None
    columns: tuple[tuple[str, str], ...]
    added: tuple[Architecture[Any, Any], ...] = ()
    """Architectures that do not ship, which a worker would not know."""


def recipe_of(plan: Plan) -> Recipe:
    """The recipe of a plan."""
    fixed = json.dumps(plan.fixed, default=str)
    return Recipe(plan.fingerprint, fixed, plan.paths, plan.folder, tuple(columns_of(plan)), added())


@lru_cache(maxsize=2)
def evaluator_of(recipe: Recipe) -> Evaluator:
    """The evaluator of a recipe: one a process, which keeps what points share from chunk to chunk."""
    for record in recipe.added:
        if record.kind not in kinds():
            register(record)
    return Evaluator(json.loads(recipe.fixed), recipe.paths, recipe.folder)


def run_chunk(recipe: Recipe, chunk: int, first: int, points: Sequence[Row]) -> tuple[int, int, bytes]:
    """Answer the points of one chunk: its number, how many points have no answer, and the encoded table."""
    rows = evaluator_of(recipe).rows(points)
    failed = sum(row[-1] is not None for row in rows)
    return chunk, failed, encode(table_of(first, rows, recipe.columns))


def run_chunks(
    plan: Plan, chunks: Sequence[int], *, jobs: int | None = None, cluster: str | None = None
) -> Generator[tuple[int, int, bytes], None, None]:
    """The results of `run_chunk` in the order in which they come.

    Args:
        plan: the sweep.
        chunks: numbers of the chunks to run.
        jobs: processes; default: as many as cores. 1 runs in this process.
        cluster: `dask://host:port` or `ray://host:port`, whose workers run the chunks instead.

    Raises:
        InputError: the cluster can't be reached, or what it takes is not installed.
        InfeasibleError: the machine has too little of what processes need, or ends them.
    """
    recipe = recipe_of(plan)
    tasks = (joblib.delayed(run_chunk)(recipe, chunk, chunk * plan.chunk_size, plan.chunk(chunk)) for chunk in chunks)
    with workers(jobs, cluster) as run:
        yield from run(tasks, len(chunks))


Run = Callable[[Iterator[Any], int], Generator[Any, None, None]]
"""Does so many of joblib's delayed calls and gives their results in the order in which they come."""


@contextlib.contextmanager
def workers(jobs: int | None, cluster: str | None) -> Iterator[Run]:
    """Who does the work within: this process, processes on its cores, or a cluster; see `run_chunks`.

    Raises:
        InputError, InfeasibleError: see `run_chunks`.
    """
    jobs = jobs or available_cores()
    here = cluster is None and jobs <= 1
    backend = contextlib.nullcontext() if here else local_workers() if cluster is None else _cluster_backend(cluster)
    with backend:
        yield lambda tasks, count: _done(tasks, 1 if here else -1 if cluster else min(jobs, count))


def _done(tasks: Iterator[Any], jobs: int) -> Generator[Any, None, None]:
    try:
        if jobs in (0, 1):
            for function, args, options in tasks:
                yield function(*args, **options)
        else:
            yield from _as_they_come(tasks, jobs)
    except MemoryError:
        raise lacking("a process of this run had no memory left") from None
    except OSError as error:
        what = f"a process of this run failed: {error.strerror or error}"
        raise lacking(what, "what the system lets a process have") from None


def _as_they_come(tasks: Iterator[Any], jobs: int) -> Iterator[Any]:
    """Results on joblib's active backend; one that only returns all of a call at once gets a wave of tasks a call."""
    # A chunk is some tenths of a second of work, so nothing is gained by putting several into one task.
    if getattr(get_active_backend()[0], "supports_return_generator", False):
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="4*n_jobs")
        results = parallel(tasks)
        try:
            for result in results:  # noqa: UP028  (which would close them before `stopped` does)
                yield result
        finally:
            stopped(results)
        return
    wave = WAVE * max(1, joblib.effective_n_jobs(jobs))
    while batch := list(islice(tasks, wave)):
        yield from joblib.Parallel(n_jobs=jobs, batch_size=1)(batch)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _cluster_backend(address: str) -> Iterator[None]:
    found = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if found is None or not 1 <= int(found["port"]) <= 65_535:
        raise InputError.single("--cluster", "must be dask://host:port or ray://host:port", address, "dask://head:8786")
    scheme, rest = found["scheme"], found["place"]
    connect: Callable[[str], Any] = _dask if scheme == "dask" else _ray
    if find_spec("distributed" if scheme == "dask" else "ray") is None:
        raise _not_installed(scheme)
    why = unreachable(rest, greets=scheme == "dask")
    if why is not None:
        raise _unreachable(scheme, rest, why)
    with connect(rest):
        yield


def _silence(library: str) -> None:
    """Silences a library's log, which tells of lost connections in tracebacks, also when all is over."""
    for name in (library, *logging.root.manager.loggerDict):
        if name.partition(".")[0] in (library, "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@contextlib.contextmanager
def _dask(address: str) -> Iterator[None]:
    from distributed import Client, KilledWorker

    _silence("distributed")
    try:
        client = Client(f"tcp://{address}", timeout=CONNECT_S, set_as_default=False)
    except Exception as error:  # whatever its client makes of what somebody else says there
        raise _unreachable("dask", address, str(error)) from None
    try:
        if not client.scheduler_info().get("workers"):
            raise InputError.single("--cluster", "the Dask cluster has no workers", f"dask://{address}")
        with joblib.parallel_config("dask", client=client):
            yield
    except KilledWorker:
        raise lacking("workers of the cluster ended again and again", "memory of a worker") from None
    finally:
        # All that was computed is here; a scheduler that is gone by now spoils nothing.
        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            client.close(timeout=CLOSE_S)


@contextlib.contextmanager
def _ray(address: str) -> Iterator[None]:
    import ray
    from ray.util.joblib import register_ray

    try:
        ray.init(f"ray://{address}", logging_level="ERROR")
    except Exception as error:
        raise _unreachable("ray", address, str(error)) from None
    register_ray()
    try:
        with joblib.parallel_config("ray"):
            yield
    finally:
        ray.shutdown()


def _not_installed(extra: str) -> InputError:
    return InputError.single("--cluster", f"needs the extra {extra}", example=f'pip install "kraken_sim[{extra}]"')


def _unreachable(scheme: str, address: str, why: str) -> InputError:
    what = {"dask": "Dask scheduler", "ray": "Ray cluster"}[scheme]
    return InputError.single("--cluster", f"no {what} is there: {why}"[:200], f"{scheme}://{address}")
