"""Whole passes, predicted and measured: errors by condition, Kraken's speed-up, eager hosts, intervals."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, TypeVar

from kraken_sim.predict.ideal_overlap import ideal_overlap
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.scenario.spec import Launch
from kraken_sim.validate.passes import Comparison, ValidationResult, scenario_of_pass
from validation.accuracy_table import Bar, Line, Section, line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.validate.passes import Speedup

GroupT = TypeVar("GroupT")

GRAPH_BAR = Bar(mean=0.04, worst=0.10)
EAGER_BAR = Bar(mean=0.12)
SPEEDUP_BAR = Bar(mean=0.04)
TELLING_PERCENT = 3.0
"""Below this size the sign of a speed-up is not asked for."""
INSIDE = ("inside",)
"""The column of `inside_cell`."""
HOST_BOUND_RATIO = 1.2
"""An eager pass that takes this much longer than its graph waits for the host."""


def with_ideal_overlap(
    result: ValidationResult, conditions: Mapping[str, dict[str, Any] | None], profile: HardwareProfile
) -> ValidationResult:
    """The same passes; those that overlap are predicted anew, as if overlap cost nothing."""
    predictor = Predictor(profile)

    def again(c: Comparison) -> Comparison:
        collective = conditions.get(c.condition)
        if not c.overlaps or collective is None:
            return c
        prepared = predictor.prepare(scenario_of_pass(c.record, collective, result.hardware))
        return replace(c, predicted_s=ideal_overlap(prepared).duration_s)

    return replace(result, comparisons=tuple(again(c) for c in result.comparisons))


def launched(result: ValidationResult, launch: Launch) -> ValidationResult:
    """Only the passes launched this way."""
    return replace(result, comparisons=tuple(c for c in result.comparisons if c.record.launch is launch))


def grouped(comparisons: Iterable[Comparison], key: Callable[[Comparison], GroupT]) -> dict[GroupT, list[Comparison]]:
    """Comparisons by `key`, groups in order of appearance."""
    groups: dict[GroupT, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        groups[key(comparison)].append(comparison)
    return dict(groups)


def graph_section(graph: ValidationResult) -> Section:
    """Errors of passes from a CUDA graph, by architecture and condition, each with all conditions first."""
    lines = [line(("all", "all"), [c.error for c in graph.comparisons], extra=inside_cell(graph.comparisons))]
    for architecture, own in grouped(graph.comparisons, lambda c: c.architecture).items():
        lines.append(line((str(architecture), "all"), [c.error for c in own], extra=inside_cell(own)))
        for condition, some in grouped(own, lambda c: c.condition).items():
            labels = (str(architecture), str(condition))
            lines.append(line(labels, [c.error for c in some], GRAPH_BAR, inside_cell(some)))
    judged = [item for item in lines if item.met is not None]
    good_mean = sum(item.mean_met is True for item in judged)
    good_worst = sum(item.worst_met is True for item in judged)
    note = f"Of {len(judged)} groups {good_mean} have a mean within the bar and {good_worst} a worst pass within it."
    title = f"Whole passes, CUDA graph, {graph.hardware}"
    return Section("graph", title, ("architecture", "condition"), tuple(lines), INSIDE, note=note)


def speedup_section(graph: ValidationResult, ideal: ValidationResult) -> Section:
    """Kraken's speed-up over standard in points, beside the model of ideal overlap."""
    lines = [_speedup_line("all", graph.speedups(), ideal.speedups(), Bar())]
    for condition in dict.fromkeys(c.condition for c in graph.comparisons):
        own, other = ([s for s in result.speedups() if s.kraken.condition == condition] for result in (graph, ideal))
        if own:
            lines.append(_speedup_line(condition, own, other, SPEEDUP_BAR))
    shifts = [c.error for c in ideal.comparisons if c.overlaps]
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
        "Every condition ran in processes of its own. Host-bound are passes that take at least "
        f"{HOST_BOUND_RATIO} times their graph under every condition; they wait for the host, so the condition hardly "
        "matters. Spread: the slowest process over the fastest. Below fastest: passes predicted faster than in every "
        "process, with the median of predicted over the fastest."
    )
    extra = ("host-bound passes", "median spread", "largest spread", "below fastest")
    return Section("eager", "Whole passes, eager launch", ("architecture",), tuple(lines), extra, note=note)


@dataclass(frozen=True, slots=True)
class HostSpread:
    """One eager pass that waits for the host in every process: its extremes among them, in seconds."""

    fastest_s: float
    slowest_s: float
    predicted_s: float

    @property
    def spread(self) -> float:
        """The slowest process over the fastest."""
        return self.slowest_s / self.fastest_s


def _spread_cells(spreads: Sequence[HostSpread]) -> tuple[str, ...]:
    if not spreads:
        return ("0", "", "", "")
    ratios = [item.predicted_s / item.fastest_s for item in spreads]
    below = f"{sum(ratio < 1.0 for ratio in ratios)}, {median(ratios):.2f}"
    found = [item.spread for item in spreads]
    return (str(len(spreads)), f"{median(found):.2f}", f"{max(found):.2f}", below)


def host_spreads(result: ValidationResult) -> dict[tuple[str, str, int], HostSpread]:
    """Eager passes that are host-bound under all conditions, by architecture, size and tokens.

    The prediction is the median of those for the conditions.
    """
    passes: dict[tuple[str, str, int], dict[Launch, dict[str, Comparison]]] = defaultdict(lambda: defaultdict(dict))
    for c in result.comparisons:
        passes[c.architecture, c.size, c.record.context_length][c.record.launch][c.condition] = c
    spreads = {}
    for key, by_launch in passes.items():
        eager, graph = by_launch[Launch.EAGER], by_launch[Launch.GRAPH]
        shared = sorted(eager.keys() & graph.keys())
        times = [eager[name].measured_s for name in shared]
        bound = all(eager[name].measured_s >= HOST_BOUND_RATIO * graph[name].measured_s for name in shared)
        if len(shared) > 1 and bound:
            predicted_s = median(eager[name].predicted_s for name in shared)
            spreads[key] = HostSpread(min(times), max(times), predicted_s)
    return spreads


def interval_section(result: ValidationResult) -> Section:
    """How many measured passes lie within the 90 % interval of their prediction."""
    groups: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for c in result.comparisons:
        for architecture in ("all", c.architecture):
            groups[c.record.launch.value, architecture].append(c)
    lines = [line(key, [c.error for c in some], extra=inside_cell(some)) for key, some in sorted(groups.items())]
    note = "85 to 97 % of measurements should lie inside."
    title = "90 % intervals of whole passes"
    return Section("intervals", title, ("launch", "architecture"), tuple(lines), INSIDE, note=note)


def inside_cell(comparisons: Sequence[Comparison]) -> tuple[str]:
    """The share of the passes that lie in the 90 % interval of their prediction."""
    return (f"{100 * fmean(c.inside for c in comparisons):.0f} %",)
