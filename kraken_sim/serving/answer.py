"""What a service answers: requests on replicas of predicted steps, at both ends of the predictions' intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.predict.answer import Answer
from kraken_sim.predict.records import Records
from kraken_sim.serving.request import load_serve_request, serve_problems
from kraken_sim.serving.service import ServiceSimulator
from kraken_sim.serving.steps import End
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.scenario.request_file import RequestSource
    from kraken_sim.serving.fleet import Served, Tell
    from kraken_sim.serving.memory import ReplicaMemory
    from kraken_sim.serving.request import ServeRequest
    from kraken_sim.serving.sla import Sla

PERCENTILES: Final = (50.0, 90.0, 99.0)
"""Of every time that is reported; a choice of ours."""

MOST_BOTH_ENDS: Final = 20_000
"""Requests that are simulated at both ends of the intervals too, at most; a choice of ours."""

EDGE: Final = 0.98
"""Share of what a service takes above which a Poisson process's queue grows for longer than is simulated; a choice."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and percentiles of a time over the requests, in seconds."""

    mean_s: float
    percentiles_s: dict[float, float]

    @classmethod
    def of(cls, times_s: NDArray[np.float64], also: float | None = None) -> Spread:
        """Of times, those that are no number left out; `also` another percentile."""
        known = times_s[~np.isnan(times_s)]
        wanted = sorted({*PERCENTILES, *(() if also is None else (also,))})
        if not len(known):
            return cls(float("nan"), dict.fromkeys(wanted, float("nan")))
        found = np.percentile(known, wanted)
        return cls(float(known.mean()), dict(zip(wanted, map(float, found), strict=True)))

    def bounded(self, one: Spread, other: Spread) -> tuple[Spread, Spread]:
        """The least and the most of three: who waits for another in one may miss it in the next."""

        def each(pick: Callable[..., float]) -> Spread:
            shares = {
                name: float(pick([s.percentiles_s[name] for s in (self, one, other)])) for name in self.percentiles_s
            }
            return Spread(float(pick([self.mean_s, one.mean_s, other.mean_s])), shares)

        return each(np.fmin.reduce), each(np.fmax.reduce)

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        numbers = {"mean_s": self.mean_s, **{f"p{name:g}_s": value for name, value in self.percentiles_s.items()}}
        return {name: None if np.isnan(value) else value for name, value in numbers.items()}


@dataclass(frozen=True, repr=False)
class ServeAnswer(Answer):
    """The answer to a request; `ends` are the same requests at the low and the high end of the intervals.

    `capacity_per_s` is what the service can take of such requests: its stable limit.
    """

    request: ServeRequest
    profile: HardwareProfile
    memory: ReplicaMemory
    served: Served
    ends: tuple[Served, Served]
    capacity_per_s: float
    num_devices: int
    idle_w: float

    @property
    def headline(self) -> str:
        """The median times, what the service could take, and whether its limits are kept."""
        ttft, tpot = (self.spreads[name][0].percentiles_s[50.0] for name in ("ttft_s", "tpot_s"))
        times = f"TTFT {format_seconds(ttft)}, TPOT {format_seconds(tpot)} at p50"
        kept = "" if self.kept is None else f", {100.0 * self.kept:.1f} % within the limits"
        where = f"{self.request.name} on {self.num_devices} x {self.request.hardware}"
        return f"{where}: {times}{kept}; stable up to {self.capacity_per_s:.3g} requests/s"

    @property
    def sla(self) -> Sla | None:
        """The limits to keep."""
        return self.request.limits()

    @cached_property
    def spreads(self) -> dict[str, tuple[Spread, Spread, Spread]]:
        """TTFT, TPOT and end to end: as predicted, the least and the most with every step at either end."""
        also = None if self.sla is None else self.sla.percentile
        found = {}
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            middle, *ends = (Spread.of(getattr(run, name), also) for run in (self.served, *self.ends))
            found[name] = (middle, *middle.bounded(*ends))
        return found

    @property
    def kept(self) -> float | None:
        """Share of the requests that keep the limits; None where there are none."""
        return None if self.sla is None else kept_share(self.served, self.sla)

    @property
    def keeps_sla(self) -> bool | None:
        """Whether every limit is kept at its percentile."""
        return None if self.sla is None else keeps(self.served, self.sla)

    @property
    def goodput_per_s(self) -> float:
        """Requests a second that keep the limits; all where there are none."""
        share = 1.0 if self.kept is None else self.kept
        return share * len(self.served.requests) / self.served.span_s

    @property
    def output_tokens_per_s(self) -> float:
        """Tokens that are answered a second."""
        return float(self.served.requests.output_tokens.sum()) / self.served.span_s

    @property
    def utilisations(self) -> list[float]:
        """Share of the time that each replica computes."""
        return [account.busy_s / self.served.span_s for account in self.served.accounts]

    @property
    def energy_j(self) -> float:
        """Of all devices, waiting ones too; no hosts."""
        accounts, span_s = self.served.accounts, self.served.span_s
        idle_s = sum(max(0.0, span_s - account.busy_s) for account in accounts)
        return sum(account.energy_j for account in accounts) + idle_s * self.idle_w * self.num_devices

    @property
    def mean_batch(self) -> float:
        """Tokens answered a step, over all replicas that decode."""
        accounts = self.served.accounts[self.served.num_prefill :]
        return sum(account.generated_tokens for account in accounts) / max(
            1, sum(account.steps for account in accounts)
        )

    @property
    def records(self) -> Records:
        """One flat row for each request."""
        served, requests = self.served, self.served.requests
        columns = {
            "arrival_s": requests.arrival_s,
            "prompt_tokens": requests.prompt_tokens,
            "output_tokens": requests.output_tokens,
            "ttft_s": served.ttft_s,
            "tpot_s": served.tpot_s,
            "e2e_s": served.e2e_s,
        }
        lists = [column.tolist() for column in columns.values()]
        return Records(dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        served, sla = self.served, self.sla
        limits = None
        if sla is not None:
            limits = {
                "ttft_s": sla.ttft_s,
                "tpot_s": sla.tpot_s,
                "percentile": sla.percentile,
                "source": sla.source,
                "kept": self.keeps_sla,
                "share": self.kept,
            }
        times = {
            name: {**middle.as_dict(), "low": low.as_dict(), "high": high.as_dict()}
            for name, (middle, low, high) in self.spreads.items()
        }
        return {
            "name": self.request.name,
            "hardware": self.request.hardware,
            "num_devices": self.num_devices,
            "replicas": self.request.replicas,
            "prefill_replicas": served.num_prefill,
            "num_requests": len(served.requests),
            "requests_per_s": _finite(served.requests.rate_per_s),
            "capacity_per_s": self.capacity_per_s,
            "span_s": served.span_s,
            **times,
            "sla": limits,
            "goodput_per_s": self.goodput_per_s,
            "output_tokens_per_s": self.output_tokens_per_s,
            "utilisation": self.utilisations,
            "mean_batch": self.mean_batch,
            "preemptions": served.preemptions,
            "energy_j": self.energy_j,
            "energy_j_per_output_token": self.energy_j / float(served.requests.output_tokens.sum()),
            "memory": self.memory.as_dict(),
            "queue": [
                {
                    "time_s": samples.times_s,
                    "waiting": [state[0] for state in samples.states],
                    "running": [state[1] for state in samples.states],
                    "used_blocks": [state[2] for state in samples.states],
                }
                for samples in served.samples
            ],
        }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def keeps(served: Served, sla: Sla) -> bool:
    """Whether every limit is kept at its percentile."""
    if float(np.percentile(served.ttft_s, sla.percentile)) > sla.ttft_s:
        return False
    paces = served.tpot_s[~np.isnan(served.tpot_s)]
    return sla.tpot_s is None or not len(paces) or float(np.percentile(paces, sla.percentile)) <= sla.tpot_s


def kept_share(served: Served, sla: Sla) -> float:
    """Share of the requests that keep all limits."""
    good = served.ttft_s <= sla.ttft_s
    if sla.tpot_s is not None:
        good &= ~(served.tpot_s > sla.tpot_s)
    return float(good.mean())


def serve(
    request: ServeRequest | RequestSource, progress: Callable[[str, int, int], None] | None = None
) -> ServeAnswer:
    """Simulates the requests of a request's traffic.

    Args:
        request: a request, a mapping of its shape, the path of a file or the name of one that ships.
        progress: called now and then with what is simulated, the requests answered so far, and all of them.

    Raises:
        InputError: the request is wrong.
        InfeasibleError: the model or a request does not fit, a limit lies below one step, or more come than the service
            can take; names the limiting number.
    """
    if isinstance(request, str | Path | Mapping):
        request = load_serve_request(request)
    if problems := list(serve_problems(request)):
        raise InputError(problems)
    service, requests = ServiceSimulator(request), request.traffic.requests()
    service.check(requests)

    def told(what: str) -> Tell | None:
        return None if progress is None else partial(progress, what)

    capacity = service.capacity_per_s(requests, tell=told("as many as can be served"))
    rate = request.traffic.requests_per_s
    if rate is not None and rate > EDGE * capacity:
        message = f"{rate:g} requests/s are more than {_replicas(request)} can take: the queue grows without end"
        raise InfeasibleError(message, f"stable limit {capacity:.3g} requests/s")
    part = requests.part(MOST_BOTH_ENDS)
    low, high = (service.serve(part, end, tell=told(f"steps at the {end} end")) for end in (End.LOW, End.HIGH))
    return ServeAnswer(
        request,
        service.profile,
        service.memory,
        service.serve(requests, tell=told("as asked")),
        (low, high),
        capacity,
        service.num_devices,
        service.idle_w,
    )


def _replicas(request: ServeRequest) -> str:
    return f"{request.replicas} replica{'s' if request.replicas != 1 else ''} of {request.name}"
