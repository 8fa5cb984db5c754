"""Run a program on a machine and say what happened when: everything by events, or what repeats only once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.engine.folding import fold
from kraken_sim.engine.ranks import Machine, simulate_ranks
from kraken_sim.engine.streams import launches_of
from kraken_sim.engine.timeline import Timeline

if TYPE_CHECKING:
    from kraken_sim.program.program import Program

__all__ = ["Machine", "run"]


def run(program: Program, machine: Machine, *, eager: bool, exact: bool = False) -> Timeline:
    """Simulate `program`; `exact` simulates every rank and every layer by events, else see `folding`.

    Raises:
        SimulationError: some operations wait for each other; names them.
    """
    if not exact:
        timeline = fold(program, machine, eager=eager)
        if timeline is not None:
            return timeline
    launches = tuple(launches_of(program, machine.launch, eager=eager))
    num_ranks = program.num_devices if exact else 1
    result = simulate_ranks(launches, machine, eager=eager, num_ranks=num_ranks, ready_ps={})
    spans = tuple(span for _, span in result.spans)
    return Timeline(spans, (), max((span.end_ps for span in spans), default=0), result.num_events)
