"""Ends a worker that nobody waits for, or that waits for ever."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from validation.progress import say

LOST: Final = 3
"""Exit code of a worker whose device or communicator is lost: another one may go on."""

_STALL_S: Final = 180.0


@dataclass(slots=True)
class Watchdog:
    """Ends this process when its parent is gone or nothing has moved for too long, as in a hung collective."""

    last_sign_of_life_s: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Watch from two threads."""
        threading.Thread(target=self._watch_parent, daemon=True).start()
        threading.Thread(target=self._watch_progress, daemon=True).start()

    def alive(self) -> None:
        """Something moved."""
        self.last_sign_of_life_s = time.monotonic()

    def _watch_parent(self) -> None:
        while sys.stdin.readline():
            pass
        os._exit(LOST)

    def _watch_progress(self) -> None:
        while time.monotonic() - self.last_sign_of_life_s < _STALL_S:
            time.sleep(1.0)
        say(f"no progress for {_STALL_S:.0f} s, giving this condition's processes up")
        os._exit(LOST)
