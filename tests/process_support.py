"""Processes that tests start, waits for what they do, and limits on what this one may write."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ENOUGH_S: Final = 60.0
"""For a loaded machine; an idle one takes a second or two."""

_FOLLOWING: Final = """
import runpy, sys
from kraken_sim.explore.sweep.workers import follow
follow(int(sys.argv.pop(1)))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def wait_for(condition: Callable[[], bool], seconds: float = ENOUGH_S) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def family_of(group: int) -> set[int]:
    """Every process that a command has started and that still runs, and itself: it leads a group of its own."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8") as file:
                    state, _, of_group = file.read().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(of_group) == group and state != "Z":
                found.add(int(name))
    return found


@contextlib.contextmanager
def running(*commands: Sequence[str], **options: Any) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that say nothing and are gone when the block is left, however it is left."""
    with contextlib.ExitStack() as stack:
        processes = []
        for command in commands:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def module_command(module: str, *arguments: str) -> list[str]:
    """Runs a module like `python -m`, in a process that ends when this one does: also when a signal kills the tests."""
    return [sys.executable, "-c", _FOLLOWING, str(os.getpid()), module, *arguments]


@contextlib.contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """A limit on the size of files fails as a full disk does: with an OSError in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
