"""A machine whose overlap lacks one of its costs, as what-ifs simulate it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kraken_sim.hardware.host import HOST_COSTS

if TYPE_CHECKING:
    from kraken_sim.engine.simulation import Machine


def with_host_times(machine: Machine, factor: float) -> Machine:
    """The machine on a host that takes `factor` times as long for every call of an eager launch."""
    if factor == 1.0:
        return machine
    launch = machine.launch
    changes = {name: factor * getattr(launch, name) for name in HOST_COSTS if name.startswith("eager_")}
    return replace(machine, launch=replace(launch, **changes))


def without_sms(machine: Machine) -> Machine:
    """The machine whose collectives hold no SMs."""
    price = machine.collective_cost
    return replace(machine, collective_cost=lambda op: replace(price(op), channels=0))


def without_interference(machine: Machine) -> Machine:
    """The machine whose collectives take no HBM bandwidth, and neither they nor compute slow the other."""
    contention = replace(machine.contention, compute_slowdown=0.0, collective_memory_slowdown=0.0)
    price = machine.collective_cost
    return replace(
        machine,
        contention=contention,
        collective_cost=lambda op: replace(price(op), hbm_bytes=0.0, evicted_pace=1.0),
    )


def without_cost(machine: Machine) -> Machine:
    """The machine on which both sides of an overlap run as they run alone, so that the longer one counts."""
    return without_interference(without_sms(machine))
