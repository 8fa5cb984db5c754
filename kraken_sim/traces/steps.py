"""One step out of a trace that holds several: by the profiler's steps, or by what repeats."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np

from kraken_sim.architectures.workload import Phase
from kraken_sim.errors import InputError
from kraken_sim.traces.kernel_names import KernelClass, class_of_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from kraken_sim.traces.device_trace import DeviceKernels, DeviceTrace

_SHOWN: Final = 12
"""Steps that a message lists."""
_ATTENTION, _EMBEDDING, _GEMM = 1, 2, 3
"""Codes of the classes that tell steps apart; definitions."""


@dataclass(frozen=True, slots=True)
class TraceStep:
    """Kernels `first` up to `end` of a device; `number` is the profiler's, or counts what was found, from 0."""

    number: int
    first: int
    end: int
    num_attentions: int
    duration_s: float
    kind: int
    """Steps that run the same kernels have the same."""

    @property
    def num_kernels(self) -> int:
        """Kernels, copies and fills."""
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class Picked:
    """The step that is compared, all of those there were, and how they were told apart."""

    step: TraceStep
    steps: tuple[TraceStep, ...]
    how: str

    @property
    def alike(self) -> tuple[TraceStep, ...]:
        """Those that run the same kernels."""
        return tuple(step for step in self.steps if step.kind == self.step.kind)


def pick_step(trace: DeviceTrace, kernels: DeviceKernels, asked: int | None, phase: str, num_attentions: int) -> Picked:
    """The step asked for, or one like most of those that fit the question, of middle length.

    Args:
        trace: whose names and steps they are.
        kernels: of one device.
        asked: the number of a step, if one was asked for.
        phase: prefill or decode: of steps with different kernels the longest, or those that are most.
        num_attentions: attention kernels of the predicted step.

    Raises:
        InputError: there is no such step.
    """
    classes = _classes(trace, kernels)
    steps, how = _steps(trace, kernels, classes)
    if asked is not None:
        for step in steps:
            if step.number == asked:
                return Picked(step, tuple(steps), how)
        numbers = ", ".join(str(step.number) for step in steps[:_SHOWN]) + (", ..." if len(steps) > _SHOWN else "")
        message = f"there is no such step; {how}: {numbers}"
        raise InputError.single("--step", message, asked, str(steps[-1].number))
    return Picked(_typical(steps, phase, num_attentions), tuple(steps), how)


def _classes(trace: DeviceTrace, kernels: DeviceKernels) -> NDArray[np.int8]:
    """The code of each kernel, 0 for any other."""
    codes = {KernelClass.ATTENTION: _ATTENTION, KernelClass.EMBEDDING: _EMBEDDING, KernelClass.GEMM: _GEMM}
    said_codes = {kind.value: code for kind, code in codes.items()}
    by_name = np.array([codes.get(class_of_name(name), 0) for name in trace.names], dtype=np.int8)
    by_place = np.array([said_codes.get(said, 0) for _, _, said in trace.places], dtype=np.int8)
    found: NDArray[np.int8] = np.where(kernels.place > 0, by_place[kernels.place], by_name[kernels.name])
    return found


def _steps(trace: DeviceTrace, kernels: DeviceKernels, classes: NDArray[np.int8]) -> tuple[list[TraceStep], str]:
    """All whole steps in order, and how they were found."""
    if trace.steps:
        bounds = _annotated(trace, kernels)
        if bounds:
            return _described(kernels, classes, bounds), "the profiler's steps"
    begins, count = _begins(classes), len(kernels.name)
    if len(begins) == 0:
        return _described(kernels, classes, {0: (0, count)}), "the trace as one step, as nothing tells steps apart"
    edges = [*begins.tolist(), count]
    bounds = {index: (edges[index], edges[index + 1]) for index in range(len(edges) - 1)}
    found = _described(kernels, classes, bounds)
    if len(found) > 1 and found[-1].num_kernels < min(step.num_kernels for step in found[:-1]):
        found = found[:-1]  # the recording ended within it
    return found, "steps that begin with an embedding"


def _begins(classes: NDArray[np.int8]) -> NDArray[np.intp]:
    """Where steps begin: at an embedding, but one right after another (of positions), or of rows for the head."""
    embeddings = np.flatnonzero(classes == _EMBEDDING)
    work = np.cumsum((classes == _ATTENTION) | (classes == _GEMM))[embeddings]
    begins = embeddings[np.diff(work, prepend=-1) > 0]
    # After rows were gathered for the head no attention comes before the next step.
    before = np.concatenate([[0], np.cumsum(classes == _ATTENTION)])
    counts = np.diff(before[np.append(begins, len(classes))])
    return begins[counts > 0] if counts.any() else begins


def _annotated(trace: DeviceTrace, kernels: DeviceKernels) -> dict[int, tuple[int, int]]:
    """By the number of a profiler's step, its kernels: those that the host launched meanwhile."""
    starts = np.array([step.start_s for step in trace.steps])
    ends = np.array([step.end_s for step in trace.steps])
    when = np.where(np.isnan(kernels.launched_s), kernels.start_s, kernels.launched_s)
    place = np.searchsorted(starts, when, side="right") - 1
    inside = (place >= 0) & (when <= ends[np.maximum(place, 0)])
    found = {}
    for index, step in enumerate(trace.steps):
        mine = np.flatnonzero(inside & (place == index))
        if len(mine):
            found[step.number] = (int(mine[0]), int(mine[-1]) + 1)
    return found


def _described(
    kernels: DeviceKernels, classes: NDArray[np.int8], bounds: Mapping[int, tuple[int, int]]
) -> list[TraceStep]:
    kinds: dict[bytes, int] = {}
    found = []
    for number, (first, end) in bounds.items():
        names = kernels.name[first:end].tobytes()
        last_s = float(np.max(kernels.start_s[first:end] + kernels.duration_s[first:end]))
        attentions = int(np.count_nonzero(classes[first:end] == _ATTENTION))
        duration_s = last_s - float(kernels.start_s[first])
        found.append(TraceStep(number, first, end, attentions, duration_s, kinds.setdefault(names, len(kinds))))
    return found


def _typical(steps: Sequence[TraceStep], phase: str, num_attentions: int) -> TraceStep:
    """Of the steps that fit best, the one of middle length."""
    nearest = min(abs(step.num_attentions - num_attentions) for step in steps)
    fitting = [step for step in steps if abs(step.num_attentions - num_attentions) == nearest]
    kinds = defaultdict[int, list[TraceStep]](list)
    for step in fitting:
        kinds[step.num_kernels].append(step)
    lengths = {count: median(step.duration_s for step in group) for count, group in kinds.items()}
    if phase == Phase.PREFILL:
        chosen = max(lengths, key=lambda count: lengths[count])
    else:
        chosen = Counter(step.num_kernels for step in fitting).most_common(1)[0][0]
    ordered = sorted(kinds[chosen], key=lambda step: step.duration_s)
    return ordered[(len(ordered) - 1) // 2]
