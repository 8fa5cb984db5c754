"""At which rate replicas still keep the limits: bisection over simulations of the same drawn requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from kraken_sim.serving.arrivals import Bursts, Lengths, Requests, poisson_arrivals
from kraken_sim.serving.steps import End

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kraken_sim.explore.procure.specs import WorkloadSpec
    from kraken_sim.serving.fleet import Served
    from kraken_sim.serving.service import ServiceSimulator
    from kraken_sim.serving.sla import Sla
    from kraken_sim.serving.traffic import BurstSpec

DRAWN: Final = 1200
"""Requests of a simulation, with bursts enough for `PERIODS` of them; a choice of ours: the 99th percentile is that of
a dozen."""

PERIODS: Final = 4
"""Bursts that a simulation has at least; a choice of ours."""

MOST_DRAWN: Final = 8000
"""Requests of a simulation at most; a choice of ours."""

BISECTIONS: Final = 6
"""Halvings between an idle and a full replica: the rate is known to 2 %; a choice of ours."""

LIGHTEST: Final = 0.02
"""Share of what a replica takes at which it is all but idle; a choice of ours."""


@dataclass(slots=True)
class DrawnRequests:
    """Requests of a pool's workloads: lengths, and which workload each is of."""

    bursts: Bursts | None
    prompts: NDArray[np.int64]
    outputs: NDArray[np.int64]
    kinds: NDArray[np.int64]

    @classmethod
    def of(cls, workloads: Sequence[WorkloadSpec], often: BurstSpec | None, count: int = DRAWN) -> DrawnRequests:
        """So many requests of workloads by their shares; the same for the same workloads."""
        random = np.random.default_rng(0)
        shares = np.array([workload.share for workload in workloads])
        kinds = random.choice(len(workloads), count, p=shares / shares.sum())
        prompts, outputs = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        for index, workload in enumerate(workloads):
            mine = np.flatnonzero(kinds == index)
            for target, mean in ((prompts, workload.prompt_tokens), (outputs, workload.output_tokens or 1)):
                lengths = Lengths(mean, workload.variation, 1, 8 * mean)
                target[mine] = lengths.draw(len(mine), random)
        bursts = None if often is None else Bursts(often.factor, often.duration, often.every)
        return cls(bursts, prompts, outputs, kinds)

    def at(self, rate_per_s: float) -> Requests:
        """The same requests at that rate."""
        bursts, count = self.bursts, len(self.kinds)
        if bursts is not None:
            count = int(np.clip(PERIODS * bursts.period_s * rate_per_s, DRAWN, MOST_DRAWN))
        arrivals = poisson_arrivals(count, rate_per_s, np.random.default_rng(1), bursts)
        return Requests(arrivals, np.resize(self.prompts, count), np.resize(self.outputs, count))

    def worst(self, served: Served, percentile: float) -> tuple[float, float]:
        """TTFT and TPOT at the percentile, of the workload that is worst off."""
        kinds = np.resize(self.kinds, len(served.requests))
        ttft, tpot = served.ttft_s, served.tpot_s
        worst = [0.0, 0.0]
        for kind in np.unique(kinds):
            for place, times in enumerate((ttft, tpot)):
                mine = times[kinds == kind]
                mine = mine[~np.isnan(mine)]
                if len(mine):
                    worst[place] = max(worst[place], float(np.percentile(mine, percentile)))
        return worst[0], worst[1]


@dataclass(slots=True)
class ReplicaJudge:
    """One group of replicas of one model, and the rates it keeps the limits at."""

    service: ServiceSimulator
    drawn: DrawnRequests
    sla: Sla
    size: int

    def keeps(self, served: Served) -> bool:
        """Whether every workload keeps both limits."""
        ttft_s, tpot_s = self.drawn.worst(served, self.sla.percentile)
        return ttft_s <= self.sla.ttft_s and (self.sla.tpot_s is None or tpot_s <= self.sla.tpot_s)

    def capacity(self) -> float:
        """What the group can take a second, whatever the limits."""
        return self.service.capacity_per_s(self.drawn.at(1.0))

    def rate(self, capacity_per_s: float, most_utilisation: float, end: End) -> float:
        """The highest rate of the group that keeps the limits; 0 where an idle one does not."""
        if not self.keeps(self.at(LIGHTEST * capacity_per_s, end)):
            return 0.0
        low, high = LIGHTEST * capacity_per_s, most_utilisation * capacity_per_s
        if self.keeps(self.at(high, end)):
            return high
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.keeps(self.at(middle, end)) else (low, middle)
        return low

    def at(self, rate_per_s: float, end: End = End.MIDDLE) -> Served:
        """The requests at a rate."""
        return self.service.serve(self.drawn.at(rate_per_s), end)
