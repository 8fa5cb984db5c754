"""One way to buy: one machine, cut into replicas of some GPUs, serving all workloads of a request.

Every model gets replicas of its own; a replica serves one prompt at a time (`kraken_sim.explore.procure.queueing`).
Replicas serve prompts only: what generating the answers needs comes on top, which `kraken_sim.explore.procure.whole`
counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.architectures.registry import architecture
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.explore.procure.queueing import ServiceClass, max_arrival_rate
from kraken_sim.explore.procure.sla import TpotStatus, judge_tpot
from kraken_sim.explore.quality import quality_of
from kraken_sim.predict.energy import step_energy
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.scenario.spec import Phase, Scenario
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kraken_sim.explore.procure.request import LoadSpec
    from kraken_sim.explore.procure.sla import TpotVerdict
    from kraken_sim.explore.procure.specs import WorkloadSpec
    from kraken_sim.predict.energy import StepEnergy
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.serving.sla import Sla

HEADROOM_TOLERANCE: Final = 1e-6
"""Relative precision of the load that an option just carries."""


@dataclass(frozen=True)
class Service:
    """One workload on one replica: its prefill, and what is known of its decoding."""

    workload: WorkloadSpec
    prediction: Prediction
    energy: StepEnergy
    tpot: TpotVerdict

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        interval = self.prediction.interval
        return {
            "workload": self.workload.name,
            "architecture": self.prediction.resolved.kind,
            "quality": quality_of(self.prediction),
            "ttft_alone_s": self.prediction.latency_s,
            "interval_s": [interval.low_s, interval.high_s],
            "tpot": self.tpot.as_dict(),
            "joules_per_prompt": self.energy.energy_j,
            "energy_basis": self.energy.basis,
        }


@dataclass(frozen=True, slots=True)
class Pool:
    """The replicas of one model: prompts a second that come, and that one replica can take within the SLA."""

    workloads: tuple[str, ...]
    arrivals_per_s: float
    replica_per_s: float
    together: int = 1
    """Replicas that only serve together, as prefill and decode apart do."""

    @property
    def num_replicas(self) -> int:
        """Replicas needed."""
        return self.replicas_for(1.0)

    def replicas_for(self, load: float) -> int:
        """Replicas needed for `load` times the arrivals."""
        return self.together * replicas_needed(load * self.arrivals_per_s, self.together * self.replica_per_s)


@dataclass(frozen=True)
class Option:
    """A machine with replicas of `num_devices` GPUs; `pools` at the predicted latency and at its interval's ends."""

    profile: HardwareProfile
    num_devices: int
    services: tuple[Service, ...]
    pools: tuple[Pool, ...]
    pools_if_fast: tuple[Pool, ...]
    pools_if_slow: tuple[Pool, ...]

    @property
    def replicas_per_machine(self) -> int:
        """Replicas that one machine has room for."""
        return len(self.profile.topology.gpus) // self.num_devices

    @property
    def num_machines(self) -> int:
        """Machines that the load needs."""
        return self.machines_for(self.pools)

    @property
    def machines_range(self) -> tuple[int, int | None]:
        """Machines at the fast and at the slow end of the latencies' 90 % intervals; None: the SLA is missed there."""
        slow = None if any(pool.replica_per_s == 0.0 for pool in self.pools_if_slow) else self.pools_if_slow
        return self.machines_for(self.pools_if_fast), None if slow is None else self.machines_for(slow)

    def machines_for(self, pools: Sequence[Pool], load: float = 1.0) -> int:
        """Machines for `load` times the pools' arrivals."""
        replicas = sum(pool.replicas_for(load) for pool in pools)
        return ceil(replicas / self.replicas_per_machine)

    @property
    def headroom(self) -> float:
        """How much more load the machines take within the SLA, as a fraction of the load."""
        room = self.num_machines * self.replicas_per_machine
        low, high = 1.0, 1.0 + room / min(pool.arrivals_per_s / pool.replica_per_s for pool in self.pools)
        while high - low > HEADROOM_TOLERANCE * low:
            middle = 0.5 * (low + high)
            fits = self.machines_for(self.pools, middle) <= self.num_machines
            low, high = (middle, high) if fits else (low, middle)
        return low - 1.0

    def fleet_w(self, load: LoadSpec, host_power_w: float, num_machines: int | None = None) -> float:
        """Average power of all machines under the load: GPUs that serve, GPUs that wait, hosts."""
        machines = self.num_machines if num_machines is None else num_machines
        gpus = machines * len(self.profile.topology.gpus)
        idle_w = self.services[0].energy.idle_w
        busy_w = sum(
            load.rate_per_s
            * service.workload.share
            * (service.energy.energy_j - idle_w * service.prediction.latency_s * self.num_devices)
            for service in self.services
        )
        return machines * host_power_w + gpus * idle_w + busy_w


def replicas_needed(arrivals_per_s: float, replica_per_s: float) -> int:
    """Whole replicas; a last ten-thousandth (the precision of the rate) does not buy another one."""
    return max(1, ceil(arrivals_per_s / replica_per_s * (1.0 - 1e-4)))


def build_option(
    workloads: Sequence[WorkloadSpec], sla: Sla, load: LoadSpec, hardware: str, profile: HardwareProfile, degree: int
) -> Option:
    """One machine and degree.

    Raises:
        InputError: a model cannot be split over `degree` GPUs.
        InfeasibleError: a model does not fit, or the SLA cannot be kept; names the limiting number.
    """
    predictor = Predictor(profile)
    services = tuple(serve_alone(workload, sla, hardware, predictor, degree) for workload in workloads)
    for service in services:
        _check_sla(service, sla, f"{degree} x {hardware}")
    middle = _pools(services, sla, load, lambda p: p.latency_s)
    if any(pool.replica_per_s == 0.0 for pool in middle):
        message = f"on {degree} x {hardware} no rate of prompts keeps the TTFT at the percentile"
        raise InfeasibleError(message, f"TTFT {format_seconds(sla.ttft_s)} at {sla.percentile:g} %")
    fast = _pools(services, sla, load, lambda p: p.interval.low_s)
    slow = _pools(services, sla, load, lambda p: p.interval.high_s)
    return Option(profile, degree, services, middle, fast, slow)


def serve_alone(workload: WorkloadSpec, sla: Sla, hardware: str, predictor: Predictor, degree: int) -> Service:
    """One workload on an idle replica.

    Raises:
        InputError: the model cannot be split over `degree` GPUs.
        InfeasibleError: it does not fit.
    """
    fields = workload.architecture
    if (reason := architecture(fields.kind).degenerate(fields, degree)) is not None:
        raise InputError.single("num_devices", reason, degree)
    scenario = Scenario(
        name=workload.name,
        hardware=hardware,
        model=workload.model,
        architecture=workload.architecture,
        num_devices=degree,
        context_length=workload.prompt_tokens,
        dtype=workload.dtype,
        quantization=workload.quantization,
        kv_cache_dtype=workload.kv_cache_dtype,
        runtime=workload.runtime,
    )
    prediction = predictor.predict(scenario)
    try:
        step = predictor.predict(scenario.model_copy(update={"phase": Phase.DECODE})) if sla.tpot_s else None
    except (InputError, InfeasibleError):
        step = None
    return Service(workload, prediction, step_energy(prediction), judge_tpot(sla.tpot_s, step))


def _check_sla(service: Service, sla: Sla, where: str) -> None:
    latency_s, name = service.prediction.latency_s, service.workload.name
    if latency_s > sla.ttft_s:
        message = f"on {where} the TTFT of {name!r} is {format_seconds(latency_s)} even without waiting"
        raise InfeasibleError(message, f"TTFT {format_seconds(sla.ttft_s)} of the SLA")
    if service.tpot.status is TpotStatus.MISSED and service.tpot.step_s and sla.tpot_s:
        step = format_seconds(service.tpot.step_s)
        message = f"on {where} one undisturbed decode step of {name!r} takes {step}"
        raise InfeasibleError(message, f"TPOT {format_seconds(sla.tpot_s)} of the SLA")


def _pools(
    services: Sequence[Service], sla: Sla, load: LoadSpec, latency_s: Callable[[Prediction], float]
) -> tuple[Pool, ...]:
    """One pool a model; in each the workloads are classes of one queue."""
    pools = []
    by_name = {service.workload.name: service for service in services}
    for workloads in pool_groups([service.workload for service in services]):
        group = [by_name[workload.name] for workload in workloads]
        share = sum(service.workload.share for service in group)
        classes = [
            ServiceClass(service.workload.share / share, latency_s(service.prediction), sla.ttft_s) for service in group
        ]
        rate = max_arrival_rate(classes, sla.percentile, load.max_utilisation)
        pools.append(Pool(tuple(s.workload.name for s in group), share * load.rate_per_s, rate))
    return tuple(pools)


def pool_groups(workloads: Sequence[WorkloadSpec]) -> list[list[WorkloadSpec]]:
    """Workloads by what serves them: the same model, wired and run the same way."""
    groups: dict[str, list[WorkloadSpec]] = {}
    for workload in workloads:
        formats = (workload.dtype, workload.quantization, workload.kv_cache_dtype)
        key = repr((workload.model, workload.architecture, formats, workload.runtime))
        groups.setdefault(key, []).append(workload)
    return list(groups.values())
