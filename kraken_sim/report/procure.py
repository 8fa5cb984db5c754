"""A purchase as tables and sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

from kraken_sim.architectures.registry import BASELINE
from kraken_sim.explore.procure.sla import TpotStatus
from kraken_sim.explore.procure.whole import WholeOption
from kraken_sim.explore.quality import quality_of
from kraken_sim.report.explore import percent
from kraken_sim.report.page import TextTable
from kraken_sim.units import format_seconds, format_watts

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kraken_sim.explore.procure.candidates import Offer, Procurement


def procure_report(result: Procurement) -> RenderableType:
    """The ranking, the latencies behind it, the what-ifs, and what is assumed."""
    grids = [grid.rich() for grid in procure_grids(result)]
    return Group(*answer_sentences(result), *grids, *caveat_sentences(result))


def procure_grids(result: Procurement) -> list[TextTable]:
    """The ranking, the latencies behind it, and the what-ifs."""
    grids = [_ranking(result), _requests(result) if result.request.load.whole else _latencies(result)]
    return [*grids, _what_ifs(result)] if result.what_ifs else grids


def _range(low: float, high: float | None, digits: str = ".3g") -> str:
    """Both ends of an interval; the high one is open where the SLA is missed there."""
    if high is None:
        return f"{low:{digits}} to SLA missed"
    return f"{low:{digits}}" if low == high else f"{low:{digits}} to {high:{digits}}"


def cost_span(offer: Offer) -> str:
    """Where the cost of a million tokens lies, by the latencies' 90 % intervals."""
    return _range(*offer.cost_range)


def bought(offer: Offer) -> str:
    """What one would buy, in words."""
    number = offer.option.num_machines
    return f"{number} machine{'s' if number != 1 else ''} of {offer.candidate.name}"


def _ranking(result: Procurement) -> TextTable:
    currency = result.request.currency
    columns = [
        "candidate",
        "machine",
        "GPUs/replica",
        "machines",
        f"{currency}/h",
        f"{currency}/M {priced_tokens(result)}",
    ]
    whole = result.request.load.whole
    columns += [f"{currency}/M in", f"{currency}/M out"] if whole else []
    columns += ["power", "kWh/M", "headroom"]
    rows = []
    for offer in result.base.offers:
        option = offer.option
        rows.append(
            [
                offer.candidate.name,
                offer.candidate.hardware,
                str(option.num_devices),
                f"{option.num_machines} ({_range(*option.machines_range, 'd')})",
                f"{offer.cost_per_hour:.2f}",
                f"{offer.cost_per_million_tokens:.3g} ({cost_span(offer)})",
                *(f"{cost:.3g}" for cost in offer.split_costs or ()),
                format_watts(offer.fleet_w, 3) + _star(offer),
                f"{offer.kwh_per_million_tokens:.3g}{_star(offer)}",
                percent(option.headroom, 0),
            ]
        )
    title = "Machines that meet the SLA, the cheapest first; in brackets 90 % intervals; M is a million"
    return TextTable(title, columns, rows, num_left=2)


def priced_tokens(result: Procurement) -> str:
    """What costs are of."""
    return "tokens" if result.request.load.whole else "prompt tokens"


def _requests(result: Procurement) -> TextTable:
    columns = ["candidate", "workloads", "replicas", "requests/s each", "takes at most", "keeps the SLA up to"]
    shown = result.base.sla.percentile
    columns += ["TTFT mean", f"p{shown:g}", "TPOT mean", f"p{shown:g}"]
    rows = []
    for offer in result.base.offers:
        option = offer.option
        if not isinstance(option, WholeOption):
            continue
        for pool, answer in zip(option.pools, option.answers, strict=True):
            cells = [offer.candidate.name, ", ".join(pool.workloads), str(pool.num_replicas)]
            cells += [f"{value:.3g}" for value in (answer.rate_per_s, answer.capacity_per_s, pool.replica_per_s)]
            for name in ("ttft_s", "tpot_s"):
                spread = answer.spreads[name]
                cells += [format_seconds(value, 3) for value in (spread.mean_s, spread.percentiles_s[shown])]
            rows.append(cells)
    return TextTable("What requests see at the load that machines are counted for", columns, rows, num_left=2)


def _star(offer: Offer) -> str:
    return "*" if any(service.energy.is_assumed for service in offer.option.services) else ""


def _latencies(result: Procurement) -> TextTable:
    columns = [
        "candidate",
        "workload",
        "prompt tokens",
        "TTFT alone",
        "90 % interval",
        "replicas",
        "prompts/s a replica",
    ]
    columns += ["TPOT", "undisturbed decode step"]
    rows = []
    for offer in result.base.offers:
        pools = {name: pool for pool in offer.option.pools for name in pool.workloads}
        for service in offer.option.services:
            name, interval = service.workload.name, service.prediction.interval
            step_s = service.tpot.step_s
            rows.append(
                [
                    offer.candidate.name,
                    name,
                    str(service.workload.prompt_tokens),
                    format_seconds(service.prediction.latency_s),
                    f"{format_seconds(interval.low_s, 3)} to {format_seconds(interval.high_s, 3)}",
                    str(pools[name].num_replicas),
                    f"{pools[name].replica_per_s:.3g}",
                    service.tpot.status.value,
                    "" if step_s is None else format_seconds(step_s, 3),
                ]
            )
    return TextTable("Latencies behind it, and what one replica takes within the SLA", columns, rows, num_left=2)


def _what_ifs(result: Procurement) -> TextTable:
    currency = result.request.currency
    columns = ["candidate", *(outcome.name for outcome in (result.base, *result.what_ifs))]
    rows = []
    for candidate in result.request.choices:
        cells = [candidate.name]
        for outcome in (result.base, *result.what_ifs):
            offer = outcome.offer_of(candidate.name)
            refused = any(item.candidate == candidate.name and item.is_input for item in outcome.rejected)
            cells.append("cannot run" if refused else _cell(offer))
        rows.append(cells)
    return TextTable(
        f"What if: {currency} a million {priced_tokens(result)} (machines x GPUs a replica)", columns, rows
    )


def _cell(offer: Offer | None) -> str:
    if offer is None:
        return "SLA missed"
    option = offer.option
    return f"{offer.cost_per_million_tokens:.3g} ({option.num_machines} x {option.num_devices})"


def answer_sentences(result: Procurement) -> list[str]:
    """What to buy, how open the ranking is, and who misses the SLA."""
    best, sla, load = result.best, result.base.sla, result.request.load
    option = best.option
    served, limits = f"{load.rate_per_s:g} prompts/s", f"a TTFT of at most {format_seconds(sla.ttft_s)}"
    if load.whole:
        served = f"{load.rate_per_s:g} requests/s" + (f" and {percent(load.growth, 0)} more" if load.growth else "")
        limits += "" if sla.tpot_s is None else f" and a TPOT of at most {format_seconds(sla.tpot_s)}"
    price = f"{best.cost_per_million_tokens:.3g} {result.request.currency} a million {priced_tokens(result)}"
    asked = "requests" if load.whole else "prompts"
    head = (
        f"{result.request.name}: {bought(best)} ({option.num_devices} GPU{'s' if option.num_devices != 1 else ''} a "
        f"replica) at {price} {'serve' if option.num_machines != 1 else 'serves'} {served} with "
        f"{limits} for {sla.percentile:g} % of the {asked}, waiting included ({sla.source})."
    )
    sentences = [head]
    if result.contenders:
        sentences.append(
            f"The ranking is open: within the intervals {', '.join(result.contenders)} may be as cheap as "
            f"{best.candidate.name}."
        )
    sentences += [f"{item.candidate} does not meet the SLA: {item.reason}." for item in result.base.rejected]
    return sentences


def caveat_sentences(result: Procurement) -> list[str]:
    """What is assumed."""
    services = [service for offer in result.base.offers for service in offer.option.services]
    whole = result.request.load.whole
    sentences = [
        "Whole answers: requests come as a Poisson process, sent to replicas at random, which batch continuously; the "
        "cost of tokens in and out is split by the time that each computes."
        if whole
        else "Prompts only: machines that generate the answers come on top. Replicas serve one prompt at a time in the "
        "order of arrival (M/G/1 queue, Poisson arrivals sent to replicas at random).",
        "Power is that of all GPUs and of the hosts as far as the request gives host_power; energy includes the PUE.",
    ]
    if any(service.tpot.status is TpotStatus.NOT_JUDGED for service in services):
        sentences.append(
            "TPOT is not judged yet: a decode step of one undisturbed sequence, shown above, only bounds it from below."
        )
    if any(service.energy.is_assumed for service in services):
        sentences.append(
            "* no power model in the profile: GPUs are assumed to draw their TDP all the time (upper bound)."
        )
    if any(what_if.architecture is not None for what_if in result.request.what_if):
        sentences.append(
            "Another architecture is another model of as many parameters, to be trained; quality is not judged."
        )
    known = {service.prediction.resolved.kind: quality_of(service.prediction) for service in services}
    if len(known) > 1:
        words = "; ".join(f"{kind}: {quality}" for kind, quality in known.items() if kind != BASELINE)
        sentences.append(f"What is known of quality beside {BASELINE}: {words}.")
    if any(what_if.bandwidth_factor is not None for what_if in result.request.what_if):
        sentences.append("Other links are priced like the machine's own.")
    dates = sorted({candidate.price.date for candidate in result.request.candidates})
    sources = sorted({candidate.price.source for candidate in result.request.candidates})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    sentences.append(f"Prices are the request's, of {when}: {'; '.join(sources)}.")
    return sentences
