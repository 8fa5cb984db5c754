"""Fits the constants of memory-bound kernels to kernels measured alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kraken_sim.calibration.parameters import Parameters, robust_fit
from kraken_sim.calibration.split import Fit, shape_of, split
from kraken_sim.costs.memory_bound import (
    COPY,
    ELEMENTWISE,
    EMBEDDING,
    KINDS,
    NORM,
    MemoryBoundConstants,
    Stream,
    StreamRates,
    kernel_row,
    kind_of,
    stream_of,
    stream_rates,
    stream_times,
)
from kraken_sim.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from kraken_sim.calibration.split import Key
    from kraken_sim.costs.memory_bound import MemoryBoundOp
    from kraken_sim.hardware.device import Device

    Floats = NDArray[np.float64]

MIN_SAMPLES = 20
"""Fewest samples of a fit; a limit of ours."""

_MIN_PER_KIND = 6
"""Fewest samples of a kernel that gets constants of its own; a limit of ours, about as many as it has."""


@dataclass(frozen=True, slots=True)
class MemoryBoundSample:
    """One measured kernel: `period_s` is the time from one graph node to the next, its gap included.

    `inputs_warm`: the kernel before it has just written its inputs, as in a pass; False when they come from HBM.
    `others` were timed with it, one after the other; the period is then that of all.
    """

    op: MemoryBoundOp
    period_s: float
    inputs_warm: bool
    others: tuple[MemoryBoundOp, ...] = ()

    @property
    def ops(self) -> tuple[MemoryBoundOp, ...]:
        """All the kernels of the period."""
        return (self.op, *self.others)


class _Timed(NamedTuple):
    """The kernels of samples one after the other, and whose they are."""

    kinds: NDArray[np.int64]
    stream: Stream
    warm: Floats
    sample: NDArray[np.int64]

    @classmethod
    def of(cls, samples: Sequence[MemoryBoundSample]) -> _Timed:
        """The kernels of `samples`."""
        kinds = np.array([KINDS.index(kind_of(op)) for sample in samples for op in sample.ops])
        stream = Stream(*np.array([stream_of(op) for sample in samples for op in sample.ops], dtype=float).T)
        warm = np.array([float(sample.inputs_warm) for sample in samples for _ in sample.ops])
        return cls(kinds, stream, warm, np.repeat(np.arange(len(samples)), [len(sample.ops) for sample in samples]))

    def periods(self, device: Device, constants: MemoryBoundConstants, gap_s: float) -> Floats:
        """Predicted period of each sample, seconds."""
        busy = _busy(self.kinds, self.stream, self.warm, device, constants)
        return np.bincount(self.sample, busy + gap_s).astype(np.float64, copy=False)


DEFAULT_START = MemoryBoundConstants(
    hbm_efficiency=0.9,
    l2_bytes_per_s=5e12,
    l2_share=0.7,
    l2_width=0.3,
    overlap_power=3.0,
    kernels={
        NORM: {"launch_s": 2e-6, "cta_s": 4e-6, "cta_bytes_per_s": 1e10, "ctas_per_sm": 8},
        ELEMENTWISE: {"launch_s": 1.2e-6, "cta_s": 0.8e-6, "cta_bytes_per_s": 1e10, "ctas_per_sm": 16},
        COPY: {"launch_s": 1.2e-6, "cta_s": 0.8e-6, "cta_bytes_per_s": 1.5e10, "ctas_per_sm": 16},
        EMBEDDING: {"launch_s": 1.5e-6, "cta_s": 1.5e-6, "cta_bytes_per_s": 1e10, "ctas_per_sm": 8},
    },
)
"""Where a fit starts when no similar GPU is known; assumed, but for L2: adds of 34 to 52 MB turn from it to HBM on an
H200, and a fit that starts elsewhere may end where those are off by a third."""

_BOUNDS: dict[str, tuple[float, float]] = {
    "l2_share": (0.05, 1.5),
    "l2_width": (0.05, 2.0),
}
"""Bounds of the fields that kernels share. Outside of them a number loses its physical meaning; assumed."""

_COLD_BOUNDS = (1e-9, 2e-6)
"""Bounds of what a round of loads waits for HBM, seconds; assumed."""

_COLD_START = 3.5e-7
"""Where that time starts, seconds: a DRAM latency less that of L2; assumed."""

_KERNEL_BOUNDS: dict[str, tuple[float, float]] = {
    "launch_s": (1e-7, 1e-5),
    "cta_s": (1e-8, 2e-5),
    "cta_bytes_per_s": (1e8, 1e13),
    "hbm_efficiency": (0.1, 1.0),
    "l2_bytes_per_s": (5e11, 4e13),
    "overlap_power": (1.0, 8.0),
}
"""Bounds of a kernel's own fields. Outside of them a number loses its physical meaning; assumed."""

_OWN_RATES = ("hbm_efficiency", "l2_bytes_per_s", "overlap_power")
_ROW_BOUNDS = (1e-9, 5e-6)
"""Bounds of the time of a row that is gathered alone, seconds; assumed."""

_ROW_START = 5e-7
"""Where that time starts, seconds; assumed."""


def memory_bound_shape(sample: MemoryBoundSample) -> Key:
    """What a memory-bound kernel is a measurement of: its kind and sizes."""
    return shape_of(sample.op)


def kind_class(sample: MemoryBoundSample) -> tuple[int, str]:
    """The class of a memory-bound kernel: its kind."""
    return 0, kind_of(sample.op)


def memory_bound_periods(
    samples: Sequence[MemoryBoundSample],
    device: Device,
    constants: MemoryBoundConstants,
    graph_node_gap_s: float = 1e-6,
) -> Floats:
    """Predicted `period_s` of each sample [num_samples], seconds; the formulas of `memory_bound_cost`."""
    return _Timed.of(samples).periods(device, constants, graph_node_gap_s)


def fit_memory_bound(
    samples: Sequence[MemoryBoundSample],
    device: Device,
    initial: MemoryBoundConstants = DEFAULT_START,
    *,
    graph_node_gap_s: float = 1e-6,
    common: bool = True,
    only: Collection[str] = KINDS,
) -> Fit[MemoryBoundConstants, MemoryBoundSample]:
    """Fits on 70 % of the shapes and measures the error on the others; deterministic.

    Kernels with too few samples keep their initial constants, and so do the common rates, which hold for kernels
    without rates of their own; `ctas_per_sm` is never fitted. What all kernels share of L2 is fitted where `common`,
    and of the kinds `only` some.

    Raises:
        InputError: too few samples, or periods that are not longer than the gap.
    """
    _check(samples, graph_node_gap_s)
    train, held_out = split(samples, memory_bound_shape)
    timed = [{kind_of(op) for op in sample.ops} for sample in train]
    counts = {kind: sum(kind in kinds for kinds in timed) for kind in KINDS if kind in only}
    fitted = [kind for kind, count in counts.items() if count >= _MIN_PER_KIND]
    kept = {
        f"kernels.{kind}": f"{count} fitted samples, {_MIN_PER_KIND} needed"
        for kind, count in counts.items()
        if kind not in fitted
    }
    constants = _fit(train, fitted, device, initial, graph_node_gap_s, common=common)
    measured = np.array([sample.period_s for sample in held_out])
    errors = memory_bound_periods(held_out, device, constants, graph_node_gap_s) / measured - 1.0
    return Fit(constants, tuple(zip(held_out, errors.tolist(), strict=True)), tuple(train), kept)


def _fit(
    train: Sequence[MemoryBoundSample],
    fitted: Sequence[str],
    device: Device,
    initial: MemoryBoundConstants,
    gap_s: float,
    *,
    common: bool,
) -> MemoryBoundConstants:
    timed = _Timed.of(train)
    kinds, stream = timed.kinds, timed.stream
    rows = dict(initial.kernels) | {kind: _start_row(initial, kind) for kind in fitted}
    parameters = Parameters(replace(initial, kernels=rows))
    for name, bounds in _BOUNDS.items() if common else ():
        parameters.add_field(name, bounds)
    for kind in fitted:
        for name, bounds in _KERNEL_BOUNDS.items():
            parameters.add_nested("kernels", kind, name, bounds, rows[kind][name])
        if np.any(stream.serial_rows[kinds == KINDS.index(kind)] > 0.0):
            parameters.add_nested("kernels", kind, "row_s", _ROW_BOUNDS, rows[kind].get("row_s", _ROW_START))
        if np.any(stream.cold_rounds[kinds == KINDS.index(kind)] > 0.0):
            start = rows[kind].get("cold_round_s", _COLD_START)
            parameters.add_nested("kernels", kind, "cold_round_s", _COLD_BOUNDS, start)
    measured = np.array([sample.period_s for sample in train])
    return robust_fit(parameters, lambda c: timed.periods(device, c, gap_s), measured)


def _start_row(initial: MemoryBoundConstants, kind: str) -> dict[str, float]:
    """The kernel's constants before the fit, with rates of its own."""
    known = kernel_row(initial, kind)
    return {name: getattr(initial, name) for name in _OWN_RATES} | dict(known)


def _busy(kinds: NDArray[np.int64], stream: Stream, warm: Floats, device: Device, c: MemoryBoundConstants) -> Floats:
    per_kind = [stream_rates(c, kind) for kind in KINDS]
    rates = StreamRates(*(np.array(column)[kinds] for column in zip(*per_kind, strict=True)))
    times = stream_times(stream, rates, device, warm)
    # the same floor as in `memory_bound_cost`
    floor = rates.launch_s + times.hbm_bytes / device.hbm_bandwidth_bytes_per_s
    return np.asarray(np.maximum(times.busy_s, floor))


def _check(samples: Sequence[MemoryBoundSample], gap_s: float) -> None:
    problems = []
    if len(samples) < MIN_SAMPLES:
        problems.append(Problem("samples", f"a fit needs at least {MIN_SAMPLES} of them", len(samples)))
    short = [sample for sample in samples if not sample.period_s > gap_s]
    if short:
        message = f"must exceed the gap between graph nodes, {gap_s:.3g} s"
        problems.append(Problem("samples.period_s", message, short[0].period_s))
    if problems:
        raise InputError(problems)
