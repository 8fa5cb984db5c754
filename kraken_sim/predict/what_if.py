"""A machine whose overlap lacks one of its costs, as what-ifs simulate it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kraken_sim.engine.simulation import Machine


def without_sms(machine: Machine) -> Machine:
    """The machine whose collectives hold no SMs."""
    price = machine.collective_cost
    return replace(machine, collective_cost=lambda op: replace(price(op), channels=0))


def without_interference(machine: Machine) -> Machine:
    """The machine whose collectives take no HBM bandwidth, and neither they nor compute slow the other."""
    contention = replace(machine.contention, compute_slowdown=0.0, collective_memory_slowdown=0.0)
    price = machine.collective_cost
    return replace(machine, contention=contention, collective_cost=lambda op: replace(price(op), hbm_bytes=0.0))


def without_cost(machine: Machine) -> Machine:
    """The machine on which both sides of an overlap run as they run alone, so that the longer one counts."""
    return without_interference(without_sms(machine))
