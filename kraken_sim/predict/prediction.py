"""What a simulation answers, under the names the API and the JSON share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kraken_sim.architectures.registry import architectures
from kraken_sim.architectures.workload import Phase
from kraken_sim.predict import metrics
from kraken_sim.predict.answer import Answer
from kraken_sim.predict.columns import prediction_columns
from kraken_sim.predict.records import Records
from kraken_sim.predict.uncertainty import interval_of
from kraken_sim.program.kernel_sets import CardLoad
from kraken_sim.program.many import maths_for, where
from kraken_sim.program.ops import Collective, CollectiveKind
from kraken_sim.program.program import Category
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kraken_sim.engine.timeline import Timeline
    from kraken_sim.models.memory import DeviceMemory
    from kraken_sim.predict.metrics import OverlapCost, Totals
    from kraken_sim.predict.prepared import Prepared
    from kraken_sim.predict.uncertainty import Interval
    from kraken_sim.profiles.profile import HardwareProfile, Provenance
    from kraken_sim.program.many import Sizes
    from kraken_sim.scenario.resolve import ResolvedModel
    from kraken_sim.scenario.spec import Scenario


@dataclass(frozen=True, repr=False)
class Prediction(Answer):
    """The answer to one scenario. Times are seconds of one forward step on every device together."""

    prepared: Prepared
    timeline: Timeline

    shown = (
        *("latency_s", "interval_s.low", "interval_s.high"),
        *(f"breakdown_s.{category.value}" for category in Category),
    )

    @property
    def headline(self) -> str:
        """The question and the latency with its interval, in one line."""
        scenario, times = self.scenario, f"{self.metric} {format_seconds(self.latency_s)}"
        low, high = (format_seconds(end) for end in (self.interval.low_s, self.interval.high_s))
        where = f"{self.resolved.kind} on {self.resolved.num_devices} x {scenario.hardware}"
        what = f"{scenario.phase.value} of {scenario.batch_size} x {scenario.context_length:,}"
        return f"{where}, {what}: {times} ({low} to {high} at {100 * self.interval.level:g} %)"

    @property
    def metric(self) -> str:
        """What the latency is called."""
        if self.e2e_s is not None:
            return "end to end"
        return "TTFT" if self.ttft_s is not None else "TPOT"

    @property
    def records(self) -> Records:
        """One flat row: architecture, kernel set, then the columns of a sweep's results."""
        names = [name for name, _ in prediction_columns()]
        asked = {"architecture": self.resolved.kind, "kernels": self.scenario.runtime.kernels.value}
        return Records([asked | dict(zip(names, self.row, strict=True))])

    @property
    def row(self) -> tuple[Any, ...]:
        """The same values in the order of `prediction_columns`."""
        totals, memory, reports = self.totals, self.memory, self.resolved.reports()
        interval, cost = self.interval, totals.overlap_cost
        own = [(reports.get(record.kind) or {}).get(name) for record in architectures() for name in record.columns]
        return (
            self.latency_s, self.ttft_s, self.tpot_s, interval.low_s, interval.high_s,
            *totals.breakdown_s.values(),
            totals.exposed_s, totals.hidden_s, totals.alone_s,
            cost.waiting_s, cost.compute_slowdown_s, cost.collective_slowdown_s,
            totals.host_wait_s, self.slowdown, self.num_parameters,
            memory.weights_bytes, memory.kv_cache_bytes, memory.activation_bytes,
            *own, self.timeline.num_events,
        )  # fmt: skip

    @property
    def scenario(self) -> Scenario:
        """The question."""
        return self.prepared.scenario

    @property
    def profile(self) -> HardwareProfile:
        """The machine, with its ranks where the scenario puts them."""
        return self.prepared.profile

    @property
    def resolved(self) -> ResolvedModel:
        """The shapes that ran."""
        return self.prepared.resolved

    @property
    def steps(self) -> Sequence[tuple[float, Prediction]]:
        """The steps that were simulated, each with how many it stands for: of a generation there are several."""
        return ((1.0, self),)

    @property
    def memory(self) -> DeviceMemory:
        """Bytes that one device needs."""
        return self.prepared.memory

    @property
    def num_parameters(self) -> int:
        """Parameters of the model."""
        return self.prepared.num_parameters

    @property
    def provenance(self) -> Mapping[str, Provenance]:
        """Where the numbers come from that the answer needed, by their path in the profile."""
        return self.prepared.described.provenance

    @property
    def slowdown(self) -> float:
        """How much longer kernels take than at the boost clock, because the card keeps to its power limit."""
        slowdown: float = self.prepared.pricing.slowdown
        return slowdown

    @property
    def clock_hz(self) -> float:
        """The SMs' clock that the slowdown stands for; the boost clock where the profile knows no power."""
        power, boost_hz = self.profile.power, self.profile.device.boost_clock_hz
        return boost_hz if power is None else boost_hz * float(self.slowdown ** (-1.0 / power.rate_exponent))

    @property
    def latency_s(self) -> float:
        """Duration of the step: TTFT of a prefill, TPOT of a decode step."""
        return self.timeline.duration_s

    @property
    def e2e_s(self) -> float | None:
        """From the request to the last token of a generation; None for a single step."""
        return None

    @property
    def period_s(self) -> float:
        """From step to step where they run back to back: the launch of a graph is hidden behind the step before."""
        return self.latency_s - (0.0 if self.prepared.eager else self.prepared.machine.launch.graph_launch_s)

    @property
    def ttft_s(self) -> float | None:
        """Time to first token; None for a decode step."""
        return self.latency_s if self.scenario.phase == Phase.PREFILL else None

    @property
    def tpot_s(self) -> float | None:
        """Time per output token; None for a prefill."""
        return self.latency_s if self.scenario.phase == Phase.DECODE else None

    @cached_property
    def totals(self) -> Totals:
        """All sums over the timeline."""
        return metrics.totals(self.timeline)

    @property
    def breakdown_s(self) -> dict[str, float]:
        """Seconds by the paper's categories (`program.Category`); they add up to the latency."""
        return self.totals.breakdown_s

    @property
    def exposed_communication_s(self) -> float:
        """Time the compute stream spent in collectives or waiting for one."""
        return self.totals.exposed_s

    @property
    def hidden_communication_s(self) -> float:
        """Time of collectives that ran beside compute."""
        return self.totals.hidden_s

    @property
    def communication_alone_s(self) -> float:
        """What the collectives would take one after the other on an idle machine."""
        return self.totals.alone_s

    @property
    def overlap_cost(self) -> OverlapCost:
        """Where the overlap is lost."""
        return self.totals.overlap_cost

    @cached_property
    def interval(self) -> Interval:
        """Where the latency lies with a probability of 90 %, from the errors of the constants used."""
        return self.interval_with(self.prepared.described.residuals)

    def interval_with(self, residuals: Mapping[str, float]) -> Interval:
        """The interval for other residuals of the blocks of constants."""
        kernels_s: dict[str, Mapping[object, Sizes]] = {**self.totals.kernels_s}
        if not self.prepared.eager:
            rested = self.scenario.runtime.load is CardLoad.RESTED
            first_s = self.prepared.machine.launch.graph_launch_s if rested else 0.0
            launches_s = self.totals.blocks_s["launch"] - first_s
            kernels_s["launch"] = {"launch": maths_for(launches_s).maximum(0.0, launches_s)}
        return interval_of(
            self.latency_s,
            kernels_s,
            residuals,
            hosts_s=self.hosts_s,
            slowdown=self.slowdown,
            awaited_s=where(self.communication_alone_s > 0.0, self.totals.compute_s, 0.0),
        )

    @cached_property
    def hosts_s(self) -> tuple[float, float] | None:
        """The latency on hosts as much faster, and as much slower, as hosts differ.

        None where they launch a graph under load: that does not wait for them. The first launch after a rest does, and
        is taken to differ from host to host as their other calls do.
        """
        machine, hosts = self.prepared.machine, self.prepared.hosts
        if not self.prepared.eager:
            if self.scenario.runtime.load is not CardLoad.RESTED:
                return None
            launch_s = machine.launch.graph_launch_s
            return self.latency_s + (hosts.low - 1.0) * launch_s, self.latency_s + (hosts.high - 1.0) * launch_s
        factors = (hosts.low / hosts.median, hosts.high / hosts.median)
        fast, slow = (self.prepared.run_on_host(factor).duration_s for factor in factors)
        return fast, slow

    @property
    def host_wait_s(self) -> float:
        """Time the compute stream waited for the host to launch its next kernel."""
        return self.totals.host_wait_s

    @property
    def norms_in_all_reduces(self) -> tuple[int, int]:
        """How many AllReduces of the step do the add and the norm behind them too, and how many there are."""
        ops = [kernel.op for kernel in self.prepared.program.kernels()]
        reduces = [op for op in ops if isinstance(op, Collective) and op.kind is CollectiveKind.ALL_REDUCE]
        return sum(op.norm is not None for op in reduces), len(reduces)

    def as_dict(self) -> dict[str, Any]:
        """The same under the same names, for JSON; without the timeline's spans."""
        cost = self.overlap_cost
        return {
            "name": self.scenario.name,
            "hardware": self.scenario.hardware,
            "architecture": self.resolved.kind,
            "num_devices": self.resolved.num_devices,
            "phase": self.scenario.phase.value,
            "batch_size": self.scenario.batch_size,
            "context_length": self.scenario.context_length,
            "kernels": self.scenario.runtime.kernels.value,
            "load": self.scenario.runtime.load.value,
            **self.resolved.reports(),
            "num_parameters": self.num_parameters,
            "memory_bytes": {
                "weights": self.memory.weights_bytes,
                "kv_cache": self.memory.kv_cache_bytes,
                "activations": self.memory.activation_bytes,
            },
            "ttft_s": self.ttft_s,
            "tpot_s": self.tpot_s,
            "interval_s": [self.interval.low_s, self.interval.high_s],
            "interval_level": self.interval.level,
            "breakdown_s": self.breakdown_s,
            "exposed_communication_s": self.exposed_communication_s,
            "hidden_communication_s": self.hidden_communication_s,
            "communication_alone_s": self.communication_alone_s,
            "overlap_cost_s": {
                "waiting": cost.waiting_s,
                "compute_slowdown": cost.compute_slowdown_s,
                "collective_slowdown": cost.collective_slowdown_s,
            },
            "slowdown": self.slowdown,
            "clock_hz": self.clock_hz,
            "host_wait_s": self.host_wait_s,
            "num_events": self.timeline.num_events,
            "provenance": {
                path: {"kind": record.kind, "source": record.source, "residual": record.residual}
                for path, record in self.provenance.items()
            },
        }
