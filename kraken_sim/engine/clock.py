"""Simulated time is counted in integer picoseconds, so that ties are exact and sums do not drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kraken_sim.program.many import nearest_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    import simpy

    from kraken_sim.program.many import Sizes

    Action = Callable[..., None]

PS_PER_S = 1_000_000_000_000
"""Ticks of the clock in a second; a definition. A picosecond is far below anything that is modelled."""


class Clock(Protocol):
    """What the engine asks of SimPy's environment, which it starts at 0 and only ever advances by integers."""

    @property
    def now(self) -> int:
        """Picoseconds."""

    def timeout(self, delay: int) -> simpy.Event:
        """An event after so many picoseconds."""

    def event(self) -> simpy.Event:
        """An event that somebody will let succeed."""

    def step(self) -> None:
        """Take the next event."""


def to_ps(seconds: float) -> int:
    """Seconds to the nearest picosecond."""
    return round(seconds * PS_PER_S)


def each_to_ps(seconds: Sizes) -> Sizes:
    """The same of one time or of each of an array."""
    return nearest_whole(seconds * PS_PER_S)


def set_timer(env: Clock, delay_ps: int, action: Action) -> None:
    """Call `action` when `delay_ps` have passed."""
    callbacks = env.timeout(delay_ps).callbacks
    callbacks.append(action)


def to_s(ps: int) -> float:
    """Picoseconds to seconds."""
    return ps / PS_PER_S
