"""Simulated time is counted in integer picoseconds, so that ties are exact and sums do not drift."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.engine.light import LightEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.engine.light import Clock

PS_PER_S = 1_000_000_000_000


def to_ps(seconds: float) -> int:
    """Seconds to the nearest picosecond."""
    return round(seconds * PS_PER_S)


def now_ps(env: Clock) -> int:
    """The simulation's clock, which only ever advances by integers."""
    now = env.now
    assert isinstance(now, int)
    return now


def set_timer(env: Clock, delay_ps: int, action: Callable[[object], None]) -> None:
    """Call `action` when `delay_ps` have passed."""
    if isinstance(env, LightEnvironment):
        env.call_after(delay_ps, action)
        return
    event = env.timeout(delay_ps)
    assert event.callbacks is not None
    event.callbacks.append(action)


def to_s(ps: int) -> float:
    """Picoseconds to seconds."""
    return ps / PS_PER_S
