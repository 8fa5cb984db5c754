"""Overlap as tools have it that add kernels up: max(compute, communication), at no cost to either side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kraken_sim.engine.simulation import run
from kraken_sim.predict.predictor import engine_machine, program_of
from kraken_sim.predict.pricing import Pricing
from kraken_sim.scenario.resolve import resolve_model
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.engine.timeline import Timeline
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.program.ops import AllReduce
    from kraken_sim.scenario.spec import Scenario


def ideal_overlap(scenario: Scenario, profile: HardwareProfile) -> Timeline:
    """The step if both sides of an overlap ran as they run alone, so that the longer one counts.

    The same costs, launch costs and clock; the collective holds no SMs and takes no HBM bandwidth, and neither
    side slows the other.

    Raises:
        InputError: the scenario does not fit its machine's profile.
    """
    contention = replace(
        profile.contention, compute_slowdown=0.0, collective_slowdown=0.0, collective_memory_slowdown=0.0
    )
    free = replace(profile, contention=contention)
    program = program_of(scenario, resolve_model(scenario, len(free.topology.gpus)))
    pricing = Pricing(free, scenario.runtime.collective.policy()).under_sustained_load(program)

    def weightless(op: AllReduce) -> CollectiveCost:
        return replace(pricing.collective(op), channels=0, hbm_bytes=0.0)

    machine = replace(engine_machine(free, pricing), collective_cost=weightless)
    return run(program, machine, eager=scenario.runtime.launch is Launch.EAGER)
