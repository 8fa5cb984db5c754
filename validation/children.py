"""The worker processes: started early, told what to do when it is their turn, stopped when a peer is lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.measurements.schema import condition_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from validation.job import Job

_POLL_S: Final = 0.2
_GRACE_S: Final = 25.0
"""How long a worker may go on after a peer's worker failed: long enough to write its note."""


class Child:
    """One worker of this rank, with the environment of its condition; it waits for `go`."""

    def __init__(self, condition: str) -> None:
        self.condition = condition
        environment = {**os.environ, **condition_named(condition).environment}
        root = str(Path(__file__).resolve().parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "validation.worker"],
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
            env=environment,
            text=True,
        )

    def go(self, job: Job) -> None:
        """Hand the job over; standard input stays open as a sign that the parent lives."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(job.to_line() + "\n")
            self._process.stdin.flush()

    def wait(self, ends: Any) -> int:
        """Exit code, once the worker is done or had to be stopped.

        Args:
            ends: a store in which the parents of all ranks tell how their workers ended; None for one rank.
        """
        stop_at_s: float | None = None
        try:
            while (code := self._process.poll()) is None:
                time.sleep(_POLL_S)
                if stop_at_s is None and ends is not None and ends.check(["failed"]):
                    stop_at_s = time.monotonic() + _GRACE_S
                if stop_at_s is not None and time.monotonic() > stop_at_s:
                    self.stop()
        except BaseException:
            self.stop()
            raise
        if code != 0 and ends is not None:
            ends.set("failed", str(code))
        return code

    def stop(self) -> None:
        """End it at once."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process.kill()
        self._process.wait()


def outcome_of(codes: Sequence[int]) -> str:
    """The exit codes of all ranks, in words."""
    parts = [f"rank {rank} exited with {code}" for rank, code in enumerate(codes) if code]
    return "its processes ended early (" + ", ".join(parts) + ")"
