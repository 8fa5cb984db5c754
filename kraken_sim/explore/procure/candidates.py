"""Which machines meet an SLA, how many of them, and what they cost: candidates ranked by cost per million tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kraken_sim.errors import InfeasibleError, InputError, Problem, check_is
from kraken_sim.explore.degree import degrees
from kraken_sim.explore.procure.choices import on_candidate
from kraken_sim.explore.procure.economics import (
    cost_per_million_tokens,
    energy_kwh_per_million_tokens,
    ownership_cost_per_hour,
)
from kraken_sim.explore.procure.option import Option, build_option
from kraken_sim.explore.procure.request import ProcureRequest, check_request, load_procure_request
from kraken_sim.explore.procure.whole import SlaMissedError, WholeOption, build_whole
from kraken_sim.predict.answer import Answer
from kraken_sim.predict.kernel_choice import KERNELS_PATH
from kraken_sim.predict.number_formats import FORMAT_PATHS
from kraken_sim.predict.records import Records
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.what_if import with_bandwidth_factor
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.explore.procure.request import WhatIfSpec
    from kraken_sim.explore.procure.specs import CandidateSpec, WorkloadSpec
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.scenario.request_file import RequestSource
    from kraken_sim.serving.sla import Sla


@dataclass(frozen=True)
class Offer:
    """A candidate that meets the SLA, with the replica size that costs least."""

    request: ProcureRequest
    candidate: CandidateSpec
    option: Option

    @property
    def prompt_tokens_per_s(self) -> float:
        """Prompt tokens a second of the whole load."""
        shares = ((workload.share, workload.prompt_tokens) for workload in self.request.workloads)
        return self.request.load.rate_per_s * sum(share * tokens for share, tokens in shares)

    @property
    def output_tokens_per_s(self) -> float:
        """Tokens answered a second; none where prompts alone are judged."""
        if not self.request.load.whole:
            return 0.0
        shares = ((workload.share, workload.output_tokens or 0) for workload in self.request.workloads)
        return self.request.load.rate_per_s * sum(share * tokens for share, tokens in shares)

    @property
    def tokens_per_s(self) -> float:
        """Prompt tokens, and those answered where they are judged."""
        return self.prompt_tokens_per_s + self.output_tokens_per_s

    @property
    def split_costs(self) -> tuple[float, float] | None:
        """Cost of a million prompt tokens and of a million answered ones, by the time that each computes."""
        if not isinstance(self.option, WholeOption):
            return None
        share = self.option.prompt_share
        return (
            cost_per_million_tokens(share * self.cost_per_hour, self.prompt_tokens_per_s),
            cost_per_million_tokens((1.0 - share) * self.cost_per_hour, self.output_tokens_per_s),
        )

    @property
    def fleet_w(self) -> float:
        """Average power of all machines, site overhead (PUE) not included."""
        return self._fleet_w(self.option.num_machines)

    @property
    def cost_per_hour(self) -> float:
        """Of all machines."""
        return self.cost_per_hour_of(self.option.num_machines)

    @property
    def cost_per_million_tokens(self) -> float:
        """Cost of a million tokens at the request's load: of prompts, and of answers where they are judged."""
        return cost_per_million_tokens(self.cost_per_hour, self.tokens_per_s)

    @property
    def cost_range(self) -> tuple[float, float | None]:
        """The same for the machines at both ends of the latencies' intervals; None: the SLA is missed there."""
        few, many = self.option.machines_range
        low = cost_per_million_tokens(self.cost_per_hour_of(few), self.tokens_per_s)
        if many is None:
            return low, None
        return low, cost_per_million_tokens(self.cost_per_hour_of(many), self.tokens_per_s)

    @property
    def kwh_per_million_tokens(self) -> float:
        """Energy of a million such tokens at the request's load, site overhead included where it is known."""
        return energy_kwh_per_million_tokens(self.fleet_w * self._pue, self.tokens_per_s)

    def cost_per_hour_of(self, num_machines: int) -> float:
        """Cost of some number of machines an hour, serving the request's load."""
        price, electricity = self.candidate.price, self.request.electricity
        if price.per_hour is not None:
            return num_machines * price.per_hour
        assert price.purchase is not None  # checked with the request
        assert price.lifetime_years is not None
        assert electricity is not None
        each_w = self._fleet_w(num_machines) / num_machines
        each = ownership_cost_per_hour(
            price.purchase, price.lifetime_years, each_w, electricity.per_kwh, electricity.pue
        )
        return num_machines * each

    @property
    def _pue(self) -> float:
        return self.request.electricity.pue if self.request.electricity is not None else 1.0

    def _fleet_w(self, num_machines: int) -> float:
        return self.option.fleet_w(self.request.load, self.candidate.host_power, num_machines)

    def as_dict(self) -> dict[str, Any]:
        """For JSON and tables."""
        option = self.option
        return {
            "candidate": self.candidate.name,
            "hardware": self.candidate.hardware,
            "num_devices": option.num_devices,
            "num_machines": option.num_machines,
            "num_machines_range": list(option.machines_range),
            "cost_per_hour": self.cost_per_hour,
            "cost_per_million_tokens": self.cost_per_million_tokens,
            "cost_per_million_tokens_range": list(self.cost_range),
            "fleet_w": self.fleet_w,
            "kwh_per_million_tokens": self.kwh_per_million_tokens,
            "headroom": option.headroom,
            "architecture": ", ".join(dict.fromkeys(service.prediction.resolved.kind for service in option.services)),
            "services": [service.as_dict() for service in option.services],
            "pools": [
                {
                    "workloads": list(pool.workloads),
                    "arrivals_per_s": pool.arrivals_per_s,
                    "replica_per_s": pool.replica_per_s,
                    "num_replicas": pool.num_replicas,
                }
                for pool in option.pools
            ],
            "price": self.candidate.price.model_dump(exclude_none=True),
            **self._whole_dict(),
        }

    def _whole_dict(self) -> dict[str, Any]:
        if not isinstance(self.option, WholeOption) or self.split_costs is None:
            return {}
        prompt, output = self.split_costs
        return {
            "cost_per_million_prompt_tokens": prompt,
            "cost_per_million_output_tokens": output,
            "requests": [answer.as_dict() for answer in self.option.answers],
        }


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a candidate makes no offer, at the largest replica that could be built; `is_input` if none could."""

    candidate: str
    reason: str
    is_input: bool
    nearest: tuple[float, float] | None = None
    """TTFT and TPOT that an idle replica keeps, where it misses the limits."""


@dataclass(frozen=True)
class Outcome:
    """The request under one what-if, or as it is: offers ranked by cost, and why the others are none."""

    name: str
    sla: Sla
    offers: tuple[Offer, ...]
    rejected: tuple[Rejection, ...]

    def offer_of(self, candidate: str) -> Offer | None:
        """The candidate's offer, if it has one."""
        return next((offer for offer in self.offers if offer.candidate.name == candidate), None)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "offers": [offer.as_dict() for offer in self.offers],
            "rejected": [{"candidate": item.candidate, "reason": item.reason} for item in self.rejected],
        }


@dataclass(frozen=True, repr=False)
class Procurement(Answer):
    """The answer to a request: as it is, and under each what-if."""

    request: ProcureRequest
    base: Outcome
    what_ifs: tuple[Outcome, ...]

    @property
    def headline(self) -> str:
        """The cheapest offer, and who might be cheaper still."""
        others = f"; open against {', '.join(self.contenders)}" if self.contenders else ""
        return f"{self.request.name}: cheapest of {len(self.base.offers)} is {self.best.candidate.name}{others}"

    @property
    def best(self) -> Offer:
        """The cheapest per million tokens."""
        return self.base.offers[0]

    @property
    def contenders(self) -> list[str]:
        """Candidates whose range of costs reaches below the highest cost of the best: the ranking is open there."""
        highest = self.best.cost_range[1]
        others = self.base.offers[1:]
        return [o.candidate.name for o in others if highest is None or o.cost_range[0] <= highest]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        sla, load = self.base.sla, self.request.load
        return {
            "name": self.request.name,
            "currency": self.request.currency,
            "sla": {"ttft_s": sla.ttft_s, "tpot_s": sla.tpot_s, "percentile": sla.percentile, "source": sla.source},
            "prompts_per_s": load.prompts_per_s,
            "requests_per_s": load.requests_per_s,
            "max_utilisation": load.max_utilisation,
            "best": self.best.candidate.name,
            "contenders": self.contenders,
            **{key: value for key, value in self.base.as_dict().items() if key != "name"},
            "what_ifs": [outcome.as_dict() for outcome in self.what_ifs],
        }

    @property
    def records(self) -> Records:
        """Offers as flat rows, those of the what-ifs too."""
        rows = Records()
        for outcome in (self.base, *self.what_ifs):
            for offer in outcome.offers:
                flat = {k: v for k, v in offer.as_dict().items() if not isinstance(v, dict | list)}
                rows.append({"what_if": outcome.name, **flat})
        return rows


def procure(request: ProcureRequest | RequestSource, progress: Callable[[int, int], None] | None = None) -> Procurement:
    """Ranks the candidates of a request.

    Args:
        request: a request, a mapping of its shape, the path of a file or the name of one that ships.
        progress: called with how many candidates of how many were tried, those of the what-ifs too.

    Raises:
        InputError: the request is wrong.
        InfeasibleError: no candidate meets the SLA; says what limits each.
    """
    if isinstance(request, str | Path | Mapping):
        request = load_procure_request(request)
    check_is(request, ProcureRequest, "request", 'load_procure_request("request.yaml")')
    check_request(request)
    total = (1 + len(request.what_if)) * len(request.choices)

    def outcome(number: int, what_if: WhatIfSpec | None) -> Outcome:
        before = number * len(request.choices)
        return _outcome(request, what_if, lambda tried: progress(before + tried, total) if progress else None)

    base = outcome(0, None)
    if not base.offers:
        if all(rejection.is_input for rejection in base.rejected):
            # Nothing was too slow or too small: what was asked cannot be built anywhere.
            raise InputError(Problem(f"candidate {item.candidate}", item.reason) for item in base.rejected)
        reasons = "; ".join(f"{item.candidate}: {item.reason}" for item in base.rejected)
        limit = f"TTFT {1e3 * base.sla.ttft_s:g} ms at {base.sla.percentile:g} %"
        if base.sla.tpot_s is not None:
            limit += f", TPOT {1e3 * base.sla.tpot_s:g} ms"
        raise InfeasibleError(f"no candidate meets the SLA ({reasons}){_nearest_words(base)}", limit)
    return Procurement(request, base, tuple(outcome(*numbered) for numbered in enumerate(request.what_if, start=1)))


def _nearest_words(outcome: Outcome) -> str:
    """The nearest request that a candidate would serve."""
    sla, found = outcome.sla, []
    for rejection in outcome.rejected:
        if rejection.nearest is not None:
            ttft_s, tpot_s = rejection.nearest
            found.append((max(ttft_s / sla.ttft_s, tpot_s / (sla.tpot_s or float("inf"))), rejection, ttft_s, tpot_s))
    if not found:
        return ""
    _, rejection, ttft_s, tpot_s = min(found, key=lambda item: item[0])
    ttft = format_seconds(max(ttft_s, sla.ttft_s), 3)
    tpot = format_seconds(max(tpot_s, sla.tpot_s or 0.0), 3)
    return f"; nearest is a TTFT of {ttft} with a TPOT of {tpot}, which {rejection.candidate} keeps at a light load"


def _outcome(request: ProcureRequest, what_if: WhatIfSpec | None, tell: Callable[[int], None]) -> Outcome:
    sla = request.sla.resolve()
    offers, rejected = [], []
    for tried, candidate in enumerate(request.choices):
        tell(tried)
        workloads = [_changed(on_candidate(workload, candidate), what_if) for workload in request.workloads]
        found, reasons = _offers(request, sla, workloads, candidate, what_if)
        if found:
            offers.append(min(found, key=lambda offer: (offer.cost_per_million_tokens, offer.option.num_devices)))
        else:
            rejected.append(_telling(reasons))
    offers.sort(key=lambda offer: offer.cost_per_million_tokens)
    return Outcome("as asked" if what_if is None else what_if.name, sla, tuple(offers), tuple(rejected))


def _telling(reasons: list[Rejection]) -> Rejection:
    """Why no size of a replica serves: what was too slow or small, and the kernels where these ruled others out."""
    chosen = max(reasons, key=lambda rejection: not rejection.is_input)
    kernels = (KERNELS_PATH, *FORMAT_PATHS)
    refused = next((r for r in reasons if r.is_input and any(path in r.reason for path in kernels)), None)
    if chosen.is_input or refused is None:
        return chosen
    return replace(chosen, reason=f"{chosen.reason}; {refused.reason}")


def _offers(
    request: ProcureRequest,
    sla: Sla,
    workloads: list[WorkloadSpec],
    candidate: CandidateSpec,
    what_if: WhatIfSpec | None,
) -> tuple[list[Offer], list[Rejection]]:
    """One offer for every size of a replica that meets the SLA, and why the other sizes don't, largest first."""
    profile = load_profile(candidate.hardware)
    if what_if is not None and what_if.bandwidth_factor is not None:
        profile = with_bandwidth_factor(profile, what_if.bandwidth_factor)
    found, reasons = [], []
    for degree in sorted(candidate.num_devices or degrees(profile), reverse=True):
        try:
            option = _option(request, sla, workloads, candidate, profile, degree, what_if)
        except SlaMissedError as error:
            nearest = (error.ttft_s, error.tpot_s)
            reasons.append(Rejection(candidate.name, str(error), is_input=False, nearest=nearest))
        except InfeasibleError as error:
            reasons.append(Rejection(candidate.name, str(error), is_input=False))
        except InputError as error:
            text = f"{degree} GPUs a replica: " + "; ".join(str(problem) for problem in error.problems)
            reasons.append(Rejection(candidate.name, text, is_input=True))
        else:
            found.append(Offer(request, candidate, option))
    return found, reasons


def _option(
    request: ProcureRequest,
    sla: Sla,
    workloads: list[WorkloadSpec],
    candidate: CandidateSpec,
    profile: HardwareProfile,
    degree: int,
    what_if: WhatIfSpec | None,
) -> Option:
    """One size of a replica: prompts alone, or whole answers."""
    if not request.load.whole:
        return build_option(workloads, sla, request.load, candidate.hardware, profile, degree)
    link = None if what_if is None else what_if.disaggregated
    return build_whole(workloads, sla, request.load, request.scheduler, candidate.hardware, profile, degree, link)


def _changed(workload: WorkloadSpec, what_if: WhatIfSpec | None) -> WorkloadSpec:
    if what_if is None:
        return workload
    names = ("architecture", "runtime", "quantization", "kv_cache_dtype")
    changes = {name: getattr(what_if, name) for name in names}
    return workload.model_copy(update={name: value for name, value in changes.items() if value is not None})
