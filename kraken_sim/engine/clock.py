"""Simulated time is counted in integer picoseconds, so that ties are exact and sums do not drift."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.program.many import nearest_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    import simpy

    from kraken_sim.program.many import Sizes

PS_PER_S = 1_000_000_000_000
"""Ticks of the clock in a second; a definition. A picosecond is far below anything that is modelled."""


def to_ps(seconds: float) -> int:
    """Seconds to the nearest picosecond."""
    return round(seconds * PS_PER_S)


def each_to_ps(seconds: Sizes) -> Sizes:
    """The same of one time or of each of an array."""
    return nearest_whole(seconds * PS_PER_S)


def now_ps(env: simpy.Environment) -> int:
    """The simulation's clock, which only ever advances by integers."""
    now = env.now
    assert isinstance(now, int)
    return now


def set_timer(env: simpy.Environment, delay_ps: int, action: Callable[[simpy.Event], None]) -> None:
    """Call `action` when `delay_ps` have passed."""
    env.timeout(delay_ps).callbacks.append(action)


def to_s(ps: int) -> float:
    """Picoseconds to seconds."""
    return ps / PS_PER_S
