"""Processes on this machine's cores that end with the one that started them, however that ends."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend

from kraken_sim.errors import InfeasibleError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_FEEDER: Final = "ExecutorManagerThread"
"""What loky calls the thread that feeds its workers."""

_PATIENCE_S: Final = 2.0
"""How long that thread may take to end; a choice of ours."""

LOOK_EVERY_S: Final = 0.25
"""How often a worker looks for the process that started it; a choice of ours."""


@contextlib.contextmanager
def local_workers() -> Iterator[None]:
    """Within, joblib's processes follow this one; another backend that the caller has chosen stays.

    Raises:
        InfeasibleError: one of them was ended from outside.
    """
    if type(get_active_backend()[0]).__name__ != "LokyBackend":
        yield
        return
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        # The thread that feeds the workers may stumble when they are stopped; nothing depends on it then.
        if args.thread is None or not args.thread.name.startswith(_FEEDER):
            before(args)

    threading.excepthook = hook
    try:
        with joblib.parallel_config("loky", initializer=follow, initargs=(os.getpid(),)):
            yield
    except TerminatedWorkerError:
        raise lacking("a process of this run was ended from outside, as happens where memory is short") from None
    finally:
        threading.excepthook = before


def lacking(what: str, limit: str = "memory of the machine; fewer --jobs take less") -> InfeasibleError:
    """What is said where the machine, and no point, keeps a sweep from going on."""
    return InfeasibleError(f"{what}; what is done is kept, the same command goes on", limit)


def stopped(results: Generator[Any, None, None]) -> None:
    """Stops what computes results that are still to come, quietly: whoever stops early knows that they are not used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        unfinished = inspect.getgeneratorstate(results) != inspect.GEN_CLOSED
        results.close()
    for thread in threading.enumerate():
        if unfinished and thread.name.startswith(_FEEDER):
            thread.join(timeout=_PATIENCE_S)


def follow(parent: int) -> None:
    """Runs in a worker before any work: ends it when `parent` is gone, and leaves Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # A killed process tells nobody; whose parent is gone gets another one.
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY_S)
    os._exit(1)
