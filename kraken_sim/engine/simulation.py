"""Run a program on a machine and say what happened when: everything by events, or what repeats only once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kraken_sim.engine.folding import fold
from kraken_sim.engine.periods import simulate_periods
from kraken_sim.engine.ranks import Machine, simulate_ranks
from kraken_sim.engine.streams import launches_of
from kraken_sim.engine.timeline import Timeline
from kraken_sim.errors import InfeasibleError
from kraken_sim.program.many import OneByOneError

if TYPE_CHECKING:
    from kraken_sim.engine.windows import SimulatedWindows
    from kraken_sim.program.program import Program

__all__ = ["Machine", "run"]

MOST_STEPS: Final = 1_000_000
"""Most steps of all ranks simulated one by one, a limit of ours: measured, 0.42 million took 11 s and 0.27 GB."""


def run(
    program: Program, machine: Machine, *, eager: bool, exact: bool = False, windows: SimulatedWindows | None = None
) -> Timeline:
    """Simulate `program`; `exact` simulates every rank and every layer by events, else see `folding` and `periods`.

    `windows` keep what was simulated for runs on other hosts.

    Raises:
        InfeasibleError: more steps than `MOST_STEPS` would be simulated one by one.
        OneByOneError: the program is of many points, and has to be simulated step by step.
        SimulationError: some operations wait for each other; names them.
    """
    if not exact:
        timeline = fold(program, machine, eager=eager, windows=windows)
        if timeline is not None:
            return timeline
        if not program.num_points and (timeline := simulate_periods(program, machine, eager=eager)) is not None:
            return timeline
    if program.num_points:
        message = f"streams of {program.name} are never idle together, so points of it go one by one"
        raise OneByOneError(message)
    num_ranks = program.num_devices if exact else 1
    num_steps = num_ranks * sum(segment.repeat * len(segment.steps) for segment in program.segments)
    if num_steps > MOST_STEPS:
        advice = "without --exact, or with fewer layers or devices" if exact else "with fewer layers"
        ranks = f"{num_ranks} ranks x " if num_ranks > 1 else ""
        message = f"{ranks}{num_steps // num_ranks:,} steps are too many to simulate one by one; ask again {advice}"
        raise InfeasibleError(message, f"{MOST_STEPS:,} steps")
    launches = tuple(launches_of(program, machine.launch, eager=eager))
    result = simulate_ranks(launches, machine, eager=eager, num_ranks=num_ranks, ready_ps={})
    spans = tuple(span for _, span in result.spans)
    return Timeline(spans, (), max((span.end_ps for span in spans), default=0), result.num_events)
