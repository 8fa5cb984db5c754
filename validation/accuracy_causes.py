"""What the error of whole passes is made of: bias of groups, and how far single GEMMs account for it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kraken_sim.calibration.samples import gemm_samples
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.program.ops import Gemm
from kraken_sim.validate.passes import Comparison, ValidationResult, pass_names, scenario_of_pass
from validation.accuracy_passes import grouped
from validation.accuracy_table import Section, line

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.predict.prepared import Prepared
    from kraken_sim.profiles.profile import HardwareProfile


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
    order = pass_names()
    found = grouped(result.comparisons, lambda c: c.architecture)
    return {str(name): found[name] for name in sorted(found, key=order.index)}


def measured_gemms(microbench: MeasurementFile, profile: HardwareProfile) -> dict[Gemm, float]:
    """Mean busy time of each product measured alone, seconds; the samples that the GEMM fit takes."""
    gap_s = profile.launch.graph_node_gap_s
    times: dict[Gemm, list[float]] = defaultdict(list)
    for s in gemm_samples(microbench, profile.device, gap_s):
        times[Gemm(s.m, s.n, s.k, s.dtype, accumulate=s.accumulate)].append(s.period_s - gap_s)
    return {op: fmean(found) for op, found in times.items()}


def gemm_shift_s(prepared: Prepared, measured: Mapping[Gemm, float]) -> tuple[float, float]:
    """What a pass without overlap would take longer if its GEMMs took as long as measured alone.

    Returns:
        The seconds, at the clock of the pass, and the share of the GEMM time whose shapes were measured.
    """
    pricing = prepared.pricing
    shift_s = covered_s = total_s = 0.0
    for segment in prepared.program.segments:
        for kernel in segment.kernels:
            if not isinstance(kernel.op, Gemm):
                continue
            model_s = pricing.kernel(kernel.op).busy_s
            total_s += segment.repeat * model_s
            if kernel.op in measured:
                covered_s += segment.repeat * model_s
                longer = model_s / pricing.at_boost(kernel.op).busy_s
                shift_s += segment.repeat * (longer * measured[kernel.op] - model_s)
    return shift_s, covered_s / total_s if total_s > 0.0 else 0.0


def gemm_section(
    graph: ValidationResult,
    conditions: Mapping[str, dict[str, Any] | None],
    profile: HardwareProfile,
    microbench: MeasurementFile,
) -> Section:
    """Errors of passes without overlap by tokens and size, when their GEMMs take as long as measured alone."""
    measured, predictor = measured_gemms(microbench, profile), Predictor(profile)
    serial = [c for c in graph.comparisons if not c.overlaps]
    lines = []
    groups = grouped(sorted(serial, key=lambda c: c.record.context_length), _tokens_and_size)
    for own in groups.values():
        errors, shares = [], []
        for c in own:
            scenario = scenario_of_pass(c.record, conditions[c.condition] or {}, graph.hardware)
            shift_s, share = gemm_shift_s(predictor.prepare(scenario), measured)
            errors.append((c.predicted_s + shift_s) / c.measured_s - 1.0)
            shares.append(share)
        before = f"{100 * fmean(c.error for c in own):+.1f}"
        labels = (str(own[0].record.context_length), own[0].size)
        lines.append(line(labels, errors, extra=(before, f"{100 * fmean(shares):.0f} %")))
    note = (
        "The fitted time of each GEMM is replaced by that measured alone at the boost clock, times the predicted "
        "slowdown of the clock. Bias that goes is the GEMM fit's; bias that stays has another cause: the clock under "
        "mixed load, caches, the other kernels, gaps."
    )
    title = "Passes without overlap, CUDA graph, with GEMMs as measured alone"
    extra = ("bias with fitted GEMMs", "GEMM time measured")
    return Section("measured_gemms", title, ("tokens", "size"), tuple(lines), extra, note=note)


def _tokens_and_size(c: Comparison) -> tuple[int, str]:
    return c.record.context_length, c.size
