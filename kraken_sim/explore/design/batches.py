"""Who answers the designs of a search, batch by batch: this process, several or a cluster; answers may be kept on disk.

A search asks for the same batches in the same order as long as their answers are the same. So answers are kept by the
number of their batch, and a search that was stopped takes them from there until it stands where it stood.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import joblib

from kraken_sim.architectures.registry import added, kinds, register
from kraken_sim.explore.sweep.plan import machine_files, source_of
from kraken_sim.explore.sweep.runners import workers
from kraken_sim.explore.sweep.store import Store, opened
from kraken_sim.files.software import digest, software
from kraken_sim.models.hf import config_file
from kraken_sim.predict.pipeline import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kraken_sim.architectures.architecture import Architecture
    from kraken_sim.explore.design.request import DesignRequest
    from kraken_sim.explore.sweep.runners import Run


@dataclass(frozen=True, slots=True)
class SearchRecipe:
    """What a worker needs to answer designs of a search, small enough to travel with every batch."""

    name: str
    fingerprint: str
    request: DesignRequest = field(compare=False)
    added: tuple[Architecture[Any, Any], ...] = field(default=(), compare=False)
    """Architectures that do not ship, which a worker would not know."""
    what: ClassVar[str] = "search"
    num_chunks: ClassVar[int] = 0


def search_recipe(request: DesignRequest) -> SearchRecipe:
    """The recipe of a request; its fingerprint is the same for the same request, software and content of files."""
    machines = [path for name in request.search.hardware or (request.base.hardware,) for path in machine_files(name)]
    base, host = request.base, request.base.runtime.host
    named = (getattr(base.architecture, "path", None), None if host is None else host.file)
    others = [*(Path(path) for path in named if path is not None)]
    if base.model.config is not None:
        others.append(config_file(base.model.config))
    content = {
        "request": request.model_dump(mode="json", warnings=False),
        "software": software(),
        "files": [digest(path) for path in (*machines, *others) if os.path.isfile(path)],
        "architectures": [(record.kind, source_of(record)) for record in added()],
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return SearchRecipe(request.name, hashlib.sha256(text.encode()).hexdigest()[:32], request, added())


@lru_cache(maxsize=2)
def predictor_of(recipe: SearchRecipe) -> Predictor:
    """The predictor of a search: one a process, which keeps what designs share from batch to batch."""
    for record in recipe.added:
        if record.kind not in kinds():
            register(record)
    return Predictor()


@dataclass(slots=True)
class Batches:
    """Answers batches of a search in the order in which they are asked for."""

    recipe: SearchRecipe
    run: Run
    store: Store | None = None
    _asked: int = 0

    def __call__(self, answer: Callable[[SearchRecipe, Any], bytes], asked: Sequence[Any]) -> Iterator[bytes]:
        """What `answer` makes of each batch, in their order and as soon as they are there."""
        first = self._asked
        self._asked += len(asked)
        known = {number: data for number in range(len(asked)) if (data := self._kept(first + number)) is not None}
        tasks = [
            joblib.delayed(_numbered)(answer, self.recipe, number, batch)
            for number, batch in enumerate(asked)
            if number not in known
        ]
        with contextlib.closing(self.run(iter(tasks), len(tasks))) as results:
            for wanted in range(len(asked)):
                while wanted not in known:
                    number, data = next(results)
                    if self.store is not None:
                        self.store.add(first + number, data)
                    known[number] = data
                yield known.pop(wanted)

    def _kept(self, number: int) -> bytes | None:
        return None if self.store is None else self.store.read(number)


def _numbered(
    answer: Callable[[SearchRecipe, Any], bytes], recipe: SearchRecipe, number: int, batch: Any
) -> tuple[int, bytes]:
    return number, answer(recipe, batch)


@contextlib.contextmanager
def batches_of(
    request: DesignRequest,
    *,
    jobs: int | None = 1,
    cluster: str | None = None,
    out: Path | None = None,
    force: bool = False,
) -> Iterator[Batches]:
    """Who answers the designs of a request.

    Args:
        request: a checked request.
        jobs: processes; None: as many as cores.
        cluster: `dask://host:port` or `ray://host:port`, whose workers answer instead.
        out: the file of the results, beside which answers are kept until the search is done.
        force: replace a file that is not this search's.

    Raises:
        InputError: the cluster can't be reached, what it takes is not installed, or `out` is somebody else's.
    """
    recipe = search_recipe(request)
    with contextlib.ExitStack() as stack:
        store = None if out is None else stack.enter_context(opened(out, recipe, force=force))
        run = stack.enter_context(workers(jobs, cluster))
        yield Batches(recipe, run, None if store is None or store.is_complete() else store)
