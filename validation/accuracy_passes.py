"""Whole passes, predicted and measured: errors by condition, Kraken's speed-up, eager hosts, what errors are made of."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from kraken_sim import simulate
from kraken_sim.api import engine_machine, program_of
from kraken_sim.comparison import BLOCKING_NAME, KRAKEN_NAME, Comparison, ValidationResult
from kraken_sim.costs.pricing import Pricing
from kraken_sim.engine.simulation import run
from kraken_sim.measurements.records import Launch
from kraken_sim.scenario import scenario_from
from kraken_sim.scenario_resolve import resolve_model
from validation.accuracy_table import Bar, Line, Section, line

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from kraken_sim.comparison import Speedup
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.hardware.profile import HardwareProfile
    from kraken_sim.measurements.records import PassRecord
    from kraken_sim.program.ops import AllReduce

GRAPH_BAR = Bar(mean=0.04, worst=0.10)
EAGER_BAR = Bar(mean=0.12)
SPEEDUP_BAR = Bar(mean=0.04)
TELLING_PERCENT = 3.0
"""Below this size the sign of a speed-up is not asked for."""
HOST_BOUND_RATIO = 1.2
"""An eager pass that takes this much longer than its graph waits for the host."""


def scenario_of(record: PassRecord, collective: Mapping[str, Any], hardware: str) -> dict[str, Any]:
    """The scenario that a measured pass answers."""
    return {
        "name": record.key,
        "hardware": hardware,
        "model": record.model,
        "architecture": record.architecture,
        "num_devices": record.num_devices,
        "phase": record.phase,
        "batch_size": record.batch_size,
        "context_length": record.context_length,
        "dtype": record.dtype.value,
        "runtime": {"launch": record.launch.value, "overlap": record.overlap, "collective": dict(collective)},
    }


def ideal_overlap_s(scenario: Mapping[str, Any], profile: HardwareProfile) -> float:
    """The latency if both sides of an overlap ran as they run alone, so that the longer one counts.

    The same costs, launch costs and clock; the collective holds no SMs and takes no HBM bandwidth, and neither
    side slows the other.
    """
    asked = scenario_from(scenario)
    contention = replace(
        profile.contention, compute_slowdown=0.0, collective_slowdown=0.0, collective_memory_slowdown=0.0
    )
    free = replace(profile, contention=contention)
    program = program_of(asked, resolve_model(asked, len(free.topology.gpus)))
    pricing = Pricing(free, asked.runtime.collective.policy()).under_sustained_load(program)

    def weightless(op: AllReduce) -> CollectiveCost:
        return replace(pricing.collective(op), channels=0, hbm_bytes=0.0)

    machine = replace(engine_machine(free, pricing), collective_cost=weightless)
    return run(program, machine, eager=asked.runtime.launch.value == Launch.EAGER.value).duration_s


def with_ideal_overlap(
    result: ValidationResult, conditions: Mapping[str, dict[str, Any] | None], profile: HardwareProfile
) -> ValidationResult:
    """The same passes; those that overlap are predicted anew, as if overlap cost nothing."""

    def again(c: Comparison) -> Comparison:
        collective = conditions.get(c.condition)
        if c.architecture != KRAKEN_NAME or collective is None:
            return c
        return replace(c, predicted_s=ideal_overlap_s(scenario_of(c.record, collective, result.hardware), profile))

    return replace(result, comparisons=tuple(again(c) for c in result.comparisons))


def launched(result: ValidationResult, launch: Launch) -> ValidationResult:
    """Only the passes launched this way."""
    return replace(result, comparisons=tuple(c for c in result.comparisons if c.record.launch is launch))


def grouped(
    comparisons: Iterable[Comparison], key: Callable[[Comparison], Hashable]
) -> dict[Hashable, list[Comparison]]:
    """Comparisons by `key`, groups in order of appearance."""
    groups: dict[Hashable, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        groups[key(comparison)].append(comparison)
    return dict(groups)


def graph_section(graph: ValidationResult) -> Section:
    """Errors of passes from a CUDA graph, by architecture and condition, each with all conditions first."""
    lines = [line(("all", "all"), [c.error for c in graph.comparisons])]
    for architecture, own in grouped(graph.comparisons, lambda c: c.architecture).items():
        lines.append(line((str(architecture), "all"), [c.error for c in own]))
        for condition, some in grouped(own, lambda c: c.condition).items():
            lines.append(line((str(architecture), str(condition)), [c.error for c in some], GRAPH_BAR))
    judged = [item for item in lines if item.met is not None]
    good_mean = sum(item.mean_met is True for item in judged)
    good_worst = sum(item.worst_met is True for item in judged)
    note = f"Of {len(judged)} groups {good_mean} have a mean within the bar and {good_worst} a worst pass within it."
    title = f"Whole passes, CUDA graph, {graph.hardware}"
    return Section("graph", title, ("architecture", "condition"), tuple(lines), note=note)


def speedup_section(graph: ValidationResult, ideal: ValidationResult) -> Section:
    """Kraken's speed-up over standard in points, beside the model of ideal overlap."""
    lines = [_speedup_line("all", graph.speedups(), ideal.speedups(), Bar())]
    for condition in dict.fromkeys(c.condition for c in graph.comparisons):
        own, other = ([s for s in result.speedups() if s.kraken.condition == condition] for result in (graph, ideal))
        if own:
            lines.append(_speedup_line(condition, own, other, SPEEDUP_BAR))
    shifts = [c.error for c in ideal.comparisons if c.architecture == KRAKEN_NAME]
    note = (
        "Ideal overlap: the same profile with contention off, so that the longer side of each overlap counts; "
        f"its Kraken passes are {-100 * fmean(shifts):.1f} % too fast on average."
    )
    extra = (f"sign right beyond {TELLING_PERCENT:g} %", "ideal overlap: mean", "ideal: sign right")
    title = "Kraken's speed-up over standard, CUDA graph"
    return Section("speedup", title, ("condition",), tuple(lines), extra, unit="points", note=note)


def _speedup_line(condition: str, own: Sequence[Speedup], ideal: Sequence[Speedup], bar: Bar) -> Line:
    ideal_mean = fmean(abs(s.error_points) for s in ideal)
    extra = (_signs(own), f"{ideal_mean:.1f}", _signs(ideal))
    return line((condition,), [s.error_points / 100.0 for s in own], bar, extra)


def _signs(speedups: Sequence[Speedup]) -> str:
    right, telling = sign_counts(speedups)
    return f"{right} of {telling}"


def sign_counts(speedups: Sequence[Speedup]) -> tuple[int, int]:
    """How many measured speed-ups beyond 3 % (either way) have the predicted sign, and how many there are."""
    telling = [s for s in speedups if abs(s.measured_percent) > TELLING_PERCENT]
    return sum((s.measured_percent > 0) == (s.predicted_percent > 0) for s in telling), len(telling)


def eager_section(result: ValidationResult) -> Section:
    """Errors of eager passes, with how much the same pass differs between processes."""
    eager = launched(result, Launch.EAGER).comparisons
    spreads = host_spreads(result)
    lines = [line(("all",), [c.error for c in eager], EAGER_BAR, _spread_cells(list(spreads.values())))]
    for architecture, own in grouped(eager, lambda c: c.architecture).items():
        found = [spread for key, spread in spreads.items() if key[0] == architecture]
        lines.append(line((str(architecture),), [c.error for c in own], EAGER_BAR, _spread_cells(found)))
    note = (
        "Every condition ran in processes of its own. The spread is the longest over the shortest measured time of one "
        f"pass among its conditions, for passes that take at least {HOST_BOUND_RATIO} times their graph in all of "
        "them: those wait for the host, and the condition hardly matters."
    )
    extra = ("host-bound passes", "median spread", "largest spread")
    return Section("eager", "Whole passes, eager launch", ("architecture",), tuple(lines), extra, note=note)


def _spread_cells(spreads: Sequence[float]) -> tuple[str, str, str]:
    if not spreads:
        return ("0", "", "")
    return (str(len(spreads)), f"{median(spreads):.2f}", f"{max(spreads):.2f}")


def host_spreads(result: ValidationResult) -> dict[tuple[str, str, int], float]:
    """Longest over shortest measured eager time among conditions, of passes that are host-bound in all of them."""
    times: dict[tuple[str, str, int], dict[Launch, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for c in result.comparisons:
        times[c.architecture, c.size, c.record.context_length][c.record.launch][c.condition] = c.measured_s
    spreads = {}
    for key, by_launch in times.items():
        eager, graph = by_launch[Launch.EAGER], by_launch[Launch.GRAPH]
        shared = eager.keys() & graph.keys()
        if len(shared) > 1 and all(eager[name] >= HOST_BOUND_RATIO * graph[name] for name in shared):
            spreads[key] = max(eager[name] for name in shared) / min(eager[name] for name in shared)
    return spreads


def interval_section(
    result: ValidationResult, conditions: Mapping[str, dict[str, Any] | None], profile: HardwareProfile
) -> Section:
    """How many measured passes lie within the 90 % interval of their prediction."""
    inside: dict[tuple[str, str], list[bool]] = defaultdict(list)
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    for c in result.comparisons:
        scenario = scenario_of(c.record, conditions[c.condition] or {}, result.hardware)
        interval = simulate(scenario, profile=profile).interval
        for architecture in ("all", c.architecture):
            key = (c.record.launch.value, architecture)
            inside[key].append(interval.low_s <= c.measured_s <= interval.high_s)
            errors[key].append(c.error)
    lines = [line(key, errors[key], extra=(f"{100 * fmean(found):.0f} %",)) for key, found in sorted(inside.items())]
    note = "80 to 95 % of measurements should lie inside."
    title = "90 % intervals of whole passes"
    return Section("intervals", title, ("launch", "architecture"), tuple(lines), ("inside",), note=note)


@dataclass(frozen=True, slots=True)
class Grouping:
    """A way to sort passes into groups."""

    name: str
    key: Callable[[Comparison], Hashable]


GROUPINGS = (
    Grouping("number of tokens", lambda c: c.record.context_length),
    Grouping("size of the model", lambda c: c.size),
    Grouping("architecture", lambda c: c.architecture),
    Grouping("condition", lambda c: c.condition),
    Grouping("tokens and size", lambda c: (c.record.context_length, c.size)),
    Grouping("tokens, size and architecture", lambda c: (c.record.context_length, c.size, c.architecture)),
)


def explained_share(comparisons: Sequence[Comparison], key: Callable[[Comparison], Hashable]) -> float:
    """The part of the squared errors that is the mean signed error of the group: 1 - Σ(e - mean_g)² / Σe²."""
    total = sum(c.error**2 for c in comparisons)
    left = 0.0
    for own in grouped(comparisons, key).values():
        mean = fmean(c.error for c in own)
        left += sum((c.error - mean) ** 2 for c in own)
    return 1.0 - left / total if total > 0.0 else 0.0


def explained_section(graph: ValidationResult) -> Section:
    """What would be left if the mean signed error of each group were taken off its passes."""
    lines = []
    for grouping in GROUPINGS:
        groups = grouped(graph.comparisons, grouping.key)
        left = [c.error - fmean(x.error for x in own) for own in groups.values() for c in own]
        share = explained_share(graph.comparisons, grouping.key)
        lines.append(line((grouping.name, str(len(groups))), left, extra=(f"{100 * share:.0f} %",)))
    note = (
        "Errors that are left when each group's mean signed error is subtracted, and the part of the squared errors "
        "that went with it. A group's own passes give its mean, so small groups flatter."
    )
    title = "What the error of passes from a CUDA graph is made of"
    return Section("explained", title, ("grouped by", "groups"), tuple(lines), ("explained",), note=note)


def bias_section(graph: ValidationResult, by: str) -> Section:
    """Signed errors by architecture and by "tokens" or "size"."""
    keys: dict[str, Callable[[Comparison], Any]] = {
        "tokens": lambda c: c.record.context_length,
        "size": lambda c: c.size,
    }
    lines = []
    for architecture, own in {"all": list(graph.comparisons), **_by_architecture(graph)}.items():
        for name, some in grouped(own, keys[by]).items():
            lines.append(line((architecture, str(name)), [c.error for c in some]))
    title = f"Bias by architecture and {'number of tokens' if by == 'tokens' else 'size'}, CUDA graph"
    return Section(f"bias_{by}", title, ("architecture", by), tuple(lines))


def _by_architecture(result: ValidationResult) -> dict[str, list[Comparison]]:
    order = ("standard", "parallel", KRAKEN_NAME, BLOCKING_NAME)
    found = grouped(result.comparisons, lambda c: c.architecture)
    return {str(name): found[name] for name in sorted(found, key=lambda n: order.index(n) if n in order else 9)}
