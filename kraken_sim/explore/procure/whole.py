"""One way to buy where whole answers count: replicas that batch continuously, judged by simulating requests.

A replica gets a Poisson share of its model's requests (with the load's bursts, if it has any). The most that it takes
is the highest rate at which every workload keeps TTFT and TPOT at the percentile and which leaves the utilisation below
the load's limit; it is searched by bisection on the same drawn requests. With a link prompts are computed on replicas
of their own, in the best of a few ratios.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kraken_sim.errors import InfeasibleError
from kraken_sim.explore.procure.judge import LIGHTEST, DrawnRequests, ReplicaJudge
from kraken_sim.explore.procure.option import Option, Pool, Service, pool_groups, serve_alone
from kraken_sim.explore.procure.sla import TpotStatus
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.serving.answer import Spread
from kraken_sim.serving.request import PrefillSpec, ServeRequest
from kraken_sim.serving.service import ServiceSimulator
from kraken_sim.serving.steps import End
from kraken_sim.serving.traffic import TrafficSpec
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.explore.procure.request import LoadSpec
    from kraken_sim.explore.procure.specs import WorkloadSpec
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.serving.request import SchedulerSpec
    from kraken_sim.serving.sla import Sla

RATIOS: Final = ((1, 1), (1, 2), (2, 1), (1, 3), (1, 4))
"""Replicas of prefill and of decode that are tried together; a choice of ours."""


class SlaMissedError(InfeasibleError):
    """Not even an idle replica keeps the limits: what it does keep is `ttft_s` and `tpot_s`."""

    def __init__(self, message: str, limit: str, ttft_s: float, tpot_s: float) -> None:
        self.ttft_s, self.tpot_s = ttft_s, tpot_s
        super().__init__(message, limit)

    def __reduce__(self) -> tuple[object, ...]:
        """See `InputError`."""
        return type(self), (self.message, self.limit, self.ttft_s, self.tpot_s)


@dataclass(frozen=True)
class PoolAnswer:
    """What requests of one model see at the load that its replicas are counted for, and what one replica draws."""

    workloads: tuple[str, ...]
    rate_per_s: float
    capacity_per_s: float
    spreads: dict[str, Spread]
    replica_w: float
    prompt_share: float
    """Share of the computing time that prompts take."""
    prefill_replicas: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "workloads": list(self.workloads),
            "requests_per_s_a_replica": self.rate_per_s,
            "capacity_per_s": self.capacity_per_s,
            **{name: spread.as_dict() for name, spread in self.spreads.items()},
            "prompt_share": self.prompt_share,
            "prefill_replicas_a_group": self.prefill_replicas,
        }


@dataclass(frozen=True)
class WholeOption(Option):
    """The same where whole answers are simulated."""

    answers: tuple[PoolAnswer, ...] = ()

    @property
    def prompt_share(self) -> float:
        """Share of the computing time that prompts take, over all replicas."""
        weights = [pool.num_replicas for pool in self.pools]
        shares = [answer.prompt_share for answer in self.answers]
        return float(np.average(shares, weights=weights))

    def fleet_w(self, load: LoadSpec, host_power_w: float, num_machines: int | None = None) -> float:  # noqa: ARG002
        """Average power of all machines under the load: replicas as simulated, GPUs that wait, hosts."""
        machines = self.num_machines if num_machines is None else num_machines
        replicas = sum(pool.num_replicas for pool in self.pools)
        spare = max(0, machines * len(self.profile.topology.gpus) - replicas * self.num_devices)
        served_w = sum(
            pool.num_replicas * answer.replica_w for pool, answer in zip(self.pools, self.answers, strict=True)
        )
        return machines * host_power_w + served_w + spare * self.services[0].energy.idle_w


def build_whole(
    workloads: Sequence[WorkloadSpec],
    sla: Sla,
    load: LoadSpec,
    scheduler: SchedulerSpec,
    hardware: str,
    profile: HardwareProfile,
    degree: int,
    link: float | None = None,
) -> WholeOption:
    """One machine and degree; with a `link` in bytes/s prompts are computed apart.

    Raises:
        InputError: a model cannot be split over `degree` GPUs.
        InfeasibleError: a model or a request does not fit.
        SlaMissedError: the limits cannot be kept, however light the load.
    """
    predictor = Predictor(profile)
    services: list[Service] = []
    pools: dict[End, list[Pool]] = {end: [] for end in End}
    answers = []
    for group in pool_groups(workloads):
        alone = [serve_alone(workload, sla, hardware, predictor, degree) for workload in group]
        services += [replace(one, tpot=replace(one.tpot, status=_status(sla))) for one in alone]
        judge, capacity = _best_judge(group, sla, load, scheduler, hardware, predictor, degree, link)
        share = sum(workload.share for workload in group)
        names = tuple(workload.name for workload in group)
        for end in End:
            most = load.max_utilisation
            own = capacity if end is End.MIDDLE else judge.service.capacity_per_s(judge.drawn.at(1.0), end)
            rate = judge.rate(own, most, end)
            pools[end].append(Pool(names, share * load.peak_per_s, rate / judge.size, judge.size))
        middle = pools[End.MIDDLE][-1]
        if middle.replica_per_s == 0.0:
            raise _missed(judge, capacity, f"{degree} x {hardware}")
        answers.append(_answer(judge, middle, capacity, share * load.rate_per_s))
    return WholeOption(
        profile,
        degree,
        tuple(services),
        tuple(pools[End.MIDDLE]),
        tuple(pools[End.LOW]),
        tuple(pools[End.HIGH]),
        tuple(answers),
    )


def _status(sla: Sla) -> TpotStatus:
    return TpotStatus.NOT_ASKED if sla.tpot_s is None else TpotStatus.KEPT


def _best_judge(
    group: Sequence[WorkloadSpec],
    sla: Sla,
    load: LoadSpec,
    scheduler: SchedulerSpec,
    hardware: str,
    predictor: Predictor,
    degree: int,
    link: float | None,
) -> tuple[ReplicaJudge, float]:
    """The group of replicas that takes most a replica, and what it can take at all."""
    drawn = DrawnRequests.of(group, load.bursts)
    found = []
    for before, behind in RATIOS if link is not None else ((0, 1),):
        apart = None if link is None else PrefillSpec.model_validate({"replicas": before, "link": f"{link} B/s"})
        service = ServiceSimulator(_request(group[0], scheduler, hardware, degree, behind, apart), predictor)
        service.check(drawn.at(1.0), limits=False)
        judge = ReplicaJudge(service, drawn, sla, before + behind)
        capacity = judge.capacity()
        rate = judge.rate(capacity, load.max_utilisation, End.MIDDLE) if link is not None else 0.0
        found.append((rate / judge.size, judge, capacity))
    _, judge, capacity = max(found, key=lambda item: item[0])
    return judge, capacity


def _request(
    workload: WorkloadSpec,
    scheduler: SchedulerSpec,
    hardware: str,
    degree: int,
    replicas: int,
    apart: PrefillSpec | None,
) -> ServeRequest:
    lengths = {"mean": workload.prompt_tokens}
    traffic = {"requests_per_s": 1.0, "prompt_tokens": lengths, "output_tokens": {"mean": workload.output_tokens or 1}}
    return ServeRequest(
        name=workload.name,
        hardware=hardware,
        model=workload.model,
        architecture=workload.architecture,
        num_devices=degree,
        dtype=workload.dtype,
        quantization=workload.quantization,
        kv_cache_dtype=workload.kv_cache_dtype,
        runtime=workload.runtime,
        scheduler=scheduler,
        replicas=replicas,
        prefill=apart,
        traffic=TrafficSpec.model_validate(traffic),
    )


def _missed(judge: ReplicaJudge, capacity_per_s: float, where: str) -> SlaMissedError:
    sla = judge.sla
    ttft_s, tpot_s = judge.drawn.worst(judge.at(LIGHTEST * capacity_per_s), sla.percentile)
    message = (
        f"on {where} even an all but idle replica has a TTFT of {format_seconds(ttft_s, 3)} and a TPOT of "
        f"{format_seconds(tpot_s, 3)} at {sla.percentile:g} %"
    )
    limit = f"TTFT {format_seconds(sla.ttft_s)}"
    if ttft_s <= sla.ttft_s and sla.tpot_s is not None:
        limit = f"TPOT {format_seconds(sla.tpot_s)}"
    return SlaMissedError(message, f"{limit} of the SLA", ttft_s, tpot_s)


def _answer(judge: ReplicaJudge, pool: Pool, capacity_per_s: float, arrivals_per_s: float) -> PoolAnswer:
    """What requests see at the load that replicas are counted for, and what one draws at today's."""
    groups = pool.num_replicas // judge.size
    peak = judge.at(pool.arrivals_per_s / groups)
    today = peak if pool.arrivals_per_s == arrivals_per_s else judge.at(arrivals_per_s / groups)
    spreads = {
        "ttft_s": Spread.of(peak.ttft_s, judge.sla.percentile),
        "tpot_s": Spread.of(peak.tpot_s, judge.sla.percentile),
        "e2e_s": Spread.of(peak.e2e_s, judge.sla.percentile),
    }
    service = judge.service
    idle_s = sum(max(0.0, today.span_s - account.busy_s) for account in today.accounts)
    energy_j = sum(account.energy_j for account in today.accounts) + idle_s * service.idle_w * service.num_devices
    busy_s = sum(account.busy_s for account in today.accounts)
    prompt_s = sum(account.prompt_s for account in today.accounts)
    return PoolAnswer(
        pool.workloads,
        pool.arrivals_per_s / pool.num_replicas,
        capacity_per_s,
        spreads,
        energy_j / today.span_s / judge.size,
        prompt_s / busy_s,
        today.num_prefill,
    )
