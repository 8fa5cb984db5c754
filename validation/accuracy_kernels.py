"""How far single kernels of measured steps are off, class by class: what `diff-trace` finds in the profiled passes."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING

from kraken_sim.measurements.records.launched import KernelsRecord
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.predict.api import simulate
from kraken_sim.program.kernel_sets import CardLoad
from kraken_sim.traces.comparison import compare_traces, predicted
from kraken_sim.traces.measured import question_of, trace_of_record
from validation.accuracy_table import Line, Section, line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.scenario.spec import Scenario
    from kraken_sim.traces.comparison import TraceComparison

_GAP = "gap before a kernel, us"


def kernels_section(files: Sequence[MeasurementFile]) -> Section:
    """Predicted over measured time of every kernel of profiled passes with the gap before it, by phase and class."""
    errors: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    gaps: dict[str, list[tuple[float, float]]] = defaultdict(list)
    steps = unmatched = 0
    for asked, found in _comparisons(files):
        steps += 1
        unmatched += len(found.diff.missing)
        for pair in found.diff.matched:
            if pair.ours is not None and pair.theirs is not None:
                # What a node's gap is and what its kernel depends on who looks; both together do not.
                times = (pair.ours.duration_s + pair.ours.gap_s, pair.theirs.duration_s + pair.theirs.gap_s)
                errors[asked.phase, pair.kernel_class].append(times)
                gaps[asked.phase].append((pair.ours.gap_s, pair.theirs.gap_s))
    lines = [_line(labels, times) for labels, times in sorted(errors.items())]
    lines += [_gap_line((phase, _GAP), times) for phase, times in sorted(gaps.items())]
    note = (
        f"The first 48 kernels of {steps} steps of Llama-like and Qwen-like models on one H200 under torch.profiler, "
        "bf16, all kernel sets, lined up with the predicted ones (kraken-sim diff-trace). A profiled step runs alone, "
        f"so the prediction is of a rested card. {unmatched} predicted kernels had no partner. Fills and sums of "
        "partial results count to the kernel that they serve, and the gap before a kernel counts to it. A profiler "
        "adds some 0.3 us to both together. The last two columns are microseconds a kernel."
    )
    extra = ("predicted", "measured")
    return Section("kernels", "Kernels of profiled steps", ("phase", "class"), tuple(lines), extra, note=note)


def _comparisons(files: Sequence[MeasurementFile]) -> Iterator[tuple[Scenario, TraceComparison]]:
    """Every profiled pass beside its prediction."""
    for file in files:
        passes = {record.key: record for record in file.select(PassRecord)}
        for record in file.select(KernelsRecord):
            if record.of in passes:
                scenario = question_of(passes[record.of], file)
                runtime = scenario.runtime.model_copy(update={"load": CardLoad.RESTED})
                scenario = scenario.model_copy(update={"runtime": runtime})
                trace = trace_of_record(record, file.source, file.header.device_name)
                yield scenario, compare_traces(predicted(simulate(scenario)), [trace])


def _line(labels: tuple[str, str], times: Sequence[tuple[float, float]]) -> Line:
    means = tuple(f"{1e6 * fmean(side):.2f}" for side in zip(*times, strict=True))
    return line(labels, [ours / theirs - 1.0 for ours, theirs in times], extra=means)


def _gap_line(labels: tuple[str, str], times: Sequence[tuple[float, float]]) -> Line:
    """Errors in microseconds, as the section's are in hundredths."""
    means = tuple(f"{1e6 * fmean(side):.2f}" for side in zip(*times, strict=True))
    return line(labels, [(ours - theirs) * 1e4 for ours, theirs in times], extra=means)
