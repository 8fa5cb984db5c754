"""A prediction and a measured trace side by side: which step, which rank, what differs, and what speaks against it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.architectures.workload import Phase
from kraken_sim.errors import InputError
from kraken_sim.measurements.machine import same_device
from kraken_sim.predict.answer import Answer
from kraken_sim.predict.api import simulate
from kraken_sim.predict.prediction import Prediction
from kraken_sim.predict.records import Records
from kraken_sim.traces.chrome import number
from kraken_sim.traces.device_trace import read_trace
from kraken_sim.traces.diff import diff_steps
from kraken_sim.traces.kernel_names import KernelClass
from kraken_sim.traces.nodes import classes_of, nodes_of_prediction, nodes_of_trace, span_s
from kraken_sim.traces.steps import pick_step
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kraken_sim.scenario.spec import ScenarioSource
    from kraken_sim.traces.device_trace import DeviceTrace
    from kraken_sim.traces.diff import StepDiff
    from kraken_sim.traces.nodes import TraceNode
    from kraken_sim.traces.steps import Picked

_ANCHORS: Final = (KernelClass.GEMM, KernelClass.ATTENTION)
"""What every step has, and no profiler's name hides."""
_FEWEST: Final = 0.25
"""Part of the GEMMs and attentions of either side that must find a partner; a choice of ours, below which it is another
model's trace."""
_STRANGE: Final = 0.25
"""Part of the kernels of either side without a partner from which on a report says so; a choice of ours."""
_OTHER_SHAPE: Final = 2.0
"""Times as long, or as short, as predicted: from here on GEMMs are taken to be of other shapes; a choice of ours."""
_MANY: Final = 0.5
"""Kernels with a launch of their own from which on a step was launched one by one; a choice of ours."""
SHOWN_NODES: Final = 10
"""Nodes with the largest difference that a report shows; a choice of ours."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """Our side: a step's kernels, and what is known of the question and the machine."""

    name: str
    nodes: tuple[TraceNode, ...]
    phase: str = Phase.PREFILL
    device_name: str | None = None
    num_devices: int | None = None
    launch: str | None = None
    slowdown: float = 1.0


@dataclass(frozen=True, slots=True)
class RankStep:
    """The step of one rank; seconds."""

    rank: int
    step_s: float
    exposed_communication_s: float
    hidden_communication_s: float
    waiting_s: float | None
    """In collectives for ranks that came later; None where the ranks' collectives are not the same."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, repr=False)
class TraceComparison(Answer):
    """The answer of `diff-trace`."""

    ours: Predicted
    source: str
    rank: int
    device_name: str | None
    picked: Picked
    diff: StepDiff
    ranks: tuple[RankStep, ...]
    period_s: float | None
    warnings: tuple[str, ...]

    @property
    def headline(self) -> str:
        """Both steps, and what of the difference is largest."""
        ours, theirs = format_seconds(self.diff.ours_s), format_seconds(self.diff.theirs_s)
        largest = max(self.diff.terms(), key=lambda term: abs(term.seconds))
        return f"{self.ours.name}: predicted {ours}, recorded {theirs}; most of it: {largest.text}"

    @property
    def records(self) -> Records:
        """Kernels of one name and place, added up over the layers, the largest difference first."""
        return Records(row.as_dict() for row in self.diff.by_node())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        step = self.picked.step
        return {
            "ours": self.ours.name,
            "theirs": self.source,
            "device": self.device_name,
            "rank": self.rank,
            "step": step.number,
            "num_steps": len(self.picked.steps),
            "num_steps_alike": len(self.picked.alike),
            "num_kernels": step.num_kernels,
            "unprofiled_step_s": self.period_s,
            "predicted_slowdown": self.ours.slowdown,
            **self.diff.as_dict(),
            "ranks": [rank.as_dict() for rank in self.ranks],
            "warnings": list(self.warnings),
        }


def predicted(prediction: Prediction) -> Predicted:
    """Our side of a comparison, from a prediction.

    Raises:
        InputError: it is of many steps.
    """
    scenario = prediction.scenario
    if prediction.e2e_s is not None:
        message = "a trace is held against one step"
        raise InputError.single("phase", message, scenario.phase.value, Phase.PREFILL.value)
    return Predicted(
        name=scenario.name,
        nodes=tuple(nodes_of_prediction(prediction)),
        phase=scenario.phase,
        device_name=prediction.profile.device.name,
        num_devices=prediction.resolved.num_devices,
        launch=scenario.runtime.launch,
        slowdown=prediction.slowdown,
    )


def predicted_trace(trace: DeviceTrace) -> Predicted:
    """Our side from a trace that `run --trace` has written.

    Raises:
        InputError: it is not one of ours.
    """
    device, kernels = next(iter(sorted(trace.devices.items())))
    nodes = nodes_of_trace(trace, kernels, 0, len(kernels.name))
    if not all(node.segment for node in nodes):
        message = "is a trace, but none that kraken-sim run --trace has written; give a scenario, or such a trace"
        raise InputError.single("OURS", message, trace.source)
    about = trace.about
    slowdown = number(about.get("slowdown"))
    return Predicted(
        name=str(about.get("name", trace.source)),
        nodes=tuple(nodes),
        phase=str(about.get("phase", Phase.PREFILL.value)),
        device_name=trace.device_names.get(device),
        num_devices=trace.world_size,
        launch=str(about["launch"]) if "launch" in about else None,
        slowdown=1.0 if slowdown is None else slowdown,
    )


def diff_trace(
    question: ScenarioSource | Prediction,
    *traces: str | Path,
    rank: int | None = None,
    step: int | None = None,
) -> TraceComparison:
    """A torch.profiler trace beside a prediction, kernel by kernel.

    Args:
        question: a scenario as `simulate` takes it, or its prediction.
        traces: files, one a process, gzipped or not.
        rank: whose step to compare; None for that of the slowest.
        step: number of the step; None for a typical one.

    Raises:
        InputError: as of `simulate`, `read_trace` and `compare_traces`, or there is no trace.
        InfeasibleError: as of `simulate`.
    """
    if not traces:
        raise InputError.single("traces", "give at least one", example="'trace.json.gz'")
    for name, number_asked in (("rank", rank), ("step", step)):
        if number_asked is not None and (isinstance(number_asked, bool) or not isinstance(number_asked, int)):
            raise InputError.single(name, "must be a whole number", number_asked, "0")
    prediction = question if isinstance(question, Prediction) else simulate(question)
    return compare_traces(predicted(prediction), [read_trace(path, "traces") for path in traces], rank=rank, step=step)


def compare_traces(
    ours: Predicted, theirs: Sequence[DeviceTrace], *, rank: int | None = None, step: int | None = None
) -> TraceComparison:
    """Lines up a predicted step with one of a trace.

    Args:
        ours: the prediction.
        theirs: traces, one a process, in order; a process may have several devices.
        rank: whose step to compare; None for that of the slowest.
        step: index of the step; None for a typical one.

    Raises:
        InputError: no such rank or step, or the trace is so different that nothing can be lined up.
    """
    found = _ranks(theirs)
    if rank is not None and rank not in found:
        raise InputError.single("--rank", f"there is none; there are {_listed(sorted(found))}", rank, "0")
    wanted = {rank: found[rank]} if rank is not None else found
    attentions = classes_of(ours.nodes).get(KernelClass.ATTENTION, 0)
    picks: dict[int, Picked] = {}
    for index, (trace, device) in wanted.items():
        # The same step on every rank.
        asked = step if step is not None else next(iter(picks.values())).step.number if picks else None
        picks[index] = pick_step(trace, trace.devices[device], asked, ours.phase, attentions)
    nodes = {index: _nodes(wanted[index], picked) for index, picked in picks.items()}
    chosen = rank if rank is not None else max(nodes, key=lambda index: span_s(nodes[index]))
    waits = _waits(nodes)
    trace, device = wanted[chosen]
    is_beginning = trace.is_beginning or _is_half(trace, picks[chosen], attentions)
    diff = diff_steps(ours.nodes, nodes[chosen], is_beginning=is_beginning)
    likeness = _likeness_warnings(diff)
    _check_likeness(ours, diff, nodes[chosen], trace)
    if waits is not None and len(nodes) > 1:
        diff = replace(diff, waiting_s=_exposed_waiting(nodes[chosen], waits[chosen]))
    return TraceComparison(
        ours=ours,
        source=trace.source,
        rank=chosen,
        device_name=trace.device_names.get(device),
        picked=picks[chosen],
        diff=diff,
        ranks=tuple(_rank_step(index, nodes[index], waits) for index in sorted(nodes)),
        period_s=trace.period_s,
        warnings=(*_warnings(ours, trace, device, nodes[chosen], len(found), is_beginning=is_beginning), *likeness),
    )


def _ranks(theirs: Sequence[DeviceTrace]) -> dict[int, tuple[DeviceTrace, int]]:
    """Every device by its rank: that of its process, or counted."""
    found: dict[int, tuple[DeviceTrace, int]] = {}
    for trace in theirs:
        for device in sorted(trace.devices):
            alone = len(trace.devices) == 1
            index = trace.rank if alone and trace.rank is not None and trace.rank not in found else len(found)
            while index in found:
                index += 1
            found[index] = (trace, device)
    return found


def _listed(ranks: Sequence[int]) -> str:
    return f"{ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else str(ranks[0])


def _nodes(whose: tuple[DeviceTrace, int], picked: Picked) -> list[TraceNode]:
    trace, device = whose
    return nodes_of_trace(trace, trace.devices[device], picked.step.first, picked.step.end)


def _is_half(trace: DeviceTrace, picked: Picked, attentions: int) -> bool:
    """Whether the file ends within the only step it has."""
    return trace.cut is not None and len(picked.steps) == 1 and picked.step.num_attentions < attentions


def _waits(nodes: dict[int, list[TraceNode]]) -> dict[int, list[float]] | None:
    """By rank and collective, how much longer it lasted there than on the rank that came last."""
    lengths = {index: [node.duration_s for node in own if node.is_collective] for index, own in nodes.items()}
    if len({len(own) for own in lengths.values()}) != 1:
        return None
    shortest = [min(times) for times in zip(*lengths.values(), strict=True)]
    return {index: [time - least for time, least in zip(own, shortest, strict=True)] for index, own in lengths.items()}


def _exposed_waiting(nodes: Sequence[TraceNode], waits: Sequence[float]) -> float:
    collectives = [node for node in nodes if node.is_collective]
    return math.fsum(min(node.exposed_s, wait_s) for node, wait_s in zip(collectives, waits, strict=True))


def _rank_step(index: int, nodes: Sequence[TraceNode], waits: dict[int, list[float]] | None) -> RankStep:
    collectives = [node for node in nodes if node.is_collective]
    exposed_s = math.fsum(node.exposed_s for node in collectives)
    return RankStep(
        rank=index,
        step_s=span_s(nodes),
        exposed_communication_s=exposed_s,
        hidden_communication_s=max(0.0, round(math.fsum(node.duration_s for node in collectives) - exposed_s, 12)),
        waiting_s=None if waits is None else math.fsum(waits[index]),
    )


def _check_likeness(ours: Predicted, diff: StepDiff, theirs: Sequence[TraceNode], trace: DeviceTrace) -> None:
    """Whether so much has a partner that the rest means something.

    Raises:
        InputError: it is the trace of something else.
    """
    matched = sum(pair.kernel_class in _ANCHORS for pair in diff.matched)
    mine = sum(pair.ours is not None and pair.ours.node.kernel_class in _ANCHORS for pair in diff.pairs)
    other = sum(node.kernel_class in _ANCHORS for node in theirs)
    if matched and matched >= _FEWEST * mine and matched >= _FEWEST * other:
        return
    message = (
        f"is the trace of something else, or cut: of its {other} GEMMs and attentions in the step and of the "
        f"prediction's {mine}, {matched} can be lined up. The trace's step has {_counts(theirs)} in "
        f"{span_s(theirs) * 1e3:.3f} ms; the prediction {_counts(ours.nodes)} in {span_s(ours.nodes) * 1e3:.3f} ms"
    )
    raise InputError.single("THEIRS", message + (f"; the file {trace.cut}" if trace.cut else ""), trace.source)


def _likeness_warnings(diff: StepDiff) -> list[str]:
    """What of the kernels themselves speaks for another model or kernel set."""
    found = []
    missing, surplus, matched = len(diff.missing), len(diff.surplus), len(diff.matched)
    if max(missing, surplus) > _STRANGE * (matched + min(missing, surplus)):
        found.append(
            f"{missing} predicted kernels and {surplus} of the trace have no partner: another model, or another kernel "
            "set (runtime.kernels)?"
        )
    ratio = diff.gemm_ratio()
    if ratio is not None and not 1.0 / _OTHER_SHAPE < ratio < _OTHER_SHAPE:
        found.append(f"half of the long GEMMs take {ratio:.2g} times the predicted time: other shapes?")
    return found


def _counts(nodes: Sequence[TraceNode]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(classes_of(nodes).items(), key=lambda item: -item[1]))


def _warnings(
    ours: Predicted, trace: DeviceTrace, device: int, nodes: Sequence[TraceNode], num_ranks: int, *, is_beginning: bool
) -> list[str]:
    """What makes the two strangers to one another, and yet can be compared."""
    found = []
    if trace.cut:
        found.append(f"the file {trace.cut}; the {trace.num_events:,} events before that are compared")
    if is_beginning:
        found.append("the trace holds the beginning of a step only; the prediction is compared up to there")
    name = trace.device_names.get(device)
    if name and ours.device_name and not same_device(name, ours.device_name):
        message = f"the trace is of {name}, the prediction of {ours.device_name}: counts can be compared, times can't"
        found.append(message)
    size = trace.world_size or num_ranks
    if ours.num_devices is not None and size != ours.num_devices:
        found.append(f"the trace is of {size} ranks, the prediction of {ours.num_devices}")
    mine, other = (classes_of(side).get(KernelClass.ATTENTION, 0) for side in (ours.nodes, nodes))
    if mine != other and not is_beginning:
        found.append(f"the trace's step has {other} attention kernels, the prediction {mine}: other layers or kernels?")
    launches = {node.launched_s for node in nodes if not math.isnan(node.launched_s)}
    if ours.launch is not None and launches:
        how = "eager" if len(launches) > _MANY * len(nodes) else "graph"
        if how != ours.launch:
            found.append(f"the trace's kernels were launched as {how}, the prediction says {ours.launch}")
    return found
