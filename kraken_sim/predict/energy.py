"""What a step draws: by the profile's power model where it has one, else by the datasheet's limit.

With a power model, a kernel that runs t seconds alone takes t · f^a · (active · sms + tensor · format · flops / peak)
and hbm · bytes / bandwidth above idle (formulas in `kraken_sim.costs.power`). Under sustained load the card's average
never exceeds its limit; a lone step on a rested card may, until the controller acts. Without a power model the card is
taken to draw its TDP from the first kernel to the last, which is an upper bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kraken_sim.costs.power import clocked_w
from kraken_sim.engine.timeline import SpanKind
from kraken_sim.predict.card_load import collective_load_of, load_of
from kraken_sim.program.kernel_sets import CardLoad
from kraken_sim.program.many import maths_for
from kraken_sim.program.many import power as raised
from kraken_sim.program.ops import Collective

if TYPE_CHECKING:
    from kraken_sim.costs.power import Load, PowerConstants
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.predict.pricing import Pricing
    from kraken_sim.program.ops import Op

MODEL: Final = "power model of the profile"
ASSUMED: Final = "assumed: TDP all the time, an upper bound"


@dataclass(frozen=True, slots=True)
class StepEnergy:
    """Energy of one step on all its devices, the average power of one of them, and how it is known."""

    energy_j: float
    device_w: float
    idle_w: float
    """Power of a device that waits; without a power model the TDP too."""
    basis: str

    @property
    def is_assumed(self) -> bool:
        """Whether the profile says nothing about power but the TDP."""
        return self.basis == ASSUMED


def step_energy(prediction: Prediction) -> StepEnergy:
    """Energy of the predicted step, or of all steps of a generation, on the devices alone (no host, no cooling)."""
    profile = prediction.profile
    latency_s, num_devices = prediction.latency_s, prediction.resolved.num_devices
    power = profile.power
    if power is None:
        device_w, idle_w, basis = profile.device.tdp_w, profile.device.tdp_w, ASSUMED
    else:
        dynamic_j = sum(weight * _dynamic_j(step, power) for weight, step in prediction.steps)
        device_w = power.idle_w + dynamic_j / latency_s
        if prediction.scenario.runtime.load is not CardLoad.RESTED:
            device_w = maths_for(device_w).minimum(power.limit_w, device_w)
        idle_w, basis = power.idle_w, MODEL
    return StepEnergy(device_w * latency_s * num_devices, device_w, idle_w, basis)


def _dynamic_j(prediction: Prediction, power: PowerConstants) -> float:
    """Energy above idle of rank 0."""
    device, pricing = prediction.profile.device, prediction.prepared.pricing
    scale = raised(prediction.slowdown, -power.power_exponent / power.rate_exponent)
    energy_j = 0.0
    for span in prediction.timeline.simulated:
        if span.rank != 0 or span.kind is SpanKind.WAIT or span.op is None:
            continue
        load, weight = _load(pricing, span.op), prediction.timeline.weight(span)
        energy_j = energy_j + weight * span.alone_s * scale * clocked_w(load, power)
        energy_j = energy_j + weight * power.hbm_w * load.hbm_bytes / device.hbm_bandwidth_bytes_per_s
    return energy_j


def _load(pricing: Pricing, op: Op) -> Load:
    """What one such op asks of the card at the boost clock."""
    device = pricing.profile.device
    if isinstance(op, Collective):
        return collective_load_of(pricing.collective(op), device.num_sms)
    return load_of(op, pricing.at_boost(op), device, pricing.profile.power)
