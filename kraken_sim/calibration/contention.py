"""Fit of the contention constants to pairs: compute beside an AllReduce, alone and together.

The simulator runs each pair with its kernels scaled to the times measured alone, so that only what the two
sides cost each other is fitted, not what each of them costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.optimize import least_squares

from kraken_sim.calibration.split import Fit, shape_of, split
from kraken_sim.costs.contention import evicted
from kraken_sim.engine.simulation import Machine, run
from kraken_sim.predict.pricing import Pricing
from kraken_sim.program.ops import Collective, CollectiveKind, Copy, Gemm
from kraken_sim.program.program import (
    COMM_STREAM,
    MAIN_STREAM,
    Category,
    Kernel,
    Program,
    RecordEvent,
    Segment,
    WaitEvent,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from kraken_sim.calibration.split import Key
    from kraken_sim.costs.collectives.policy import CollectivePolicy
    from kraken_sim.costs.contention import ContentionConstants
    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.program.ops import ComputeOp
    from kraken_sim.program.program import Step

FITTED: Final = {
    "compute_slowdown": (0.0, 6.0),
    "collective_memory_slowdown": (0.0, 4.0),
    "eviction_slowdown": (0.0, 2.0),
    "evicted_memory_share": (0.0, 1.0),
}
"""Fitted constants with their bounds, assumed. The dispatch time is read off timelines; where HBM saturates, pairs
don't say."""

_START: Final = {"eviction_slowdown": 0.3, "evicted_memory_share": 0.4}
"""Where a fit of these starts, whatever they were before; assumed. Next to the bounds it would see no way."""

LARGEST_FIT: Final = 400
"""Most pairs that are fitted, evenly chosen; a limit of ours, since each one is simulated in every step of the fit."""

MIN_SAMPLES: Final = 20
"""Fewest pairs of a fit; a limit of ours, five for each constant."""

_LEAST_S: Final = 1e-7
"""Least time that a kernel keeps when it is scaled to what was measured; a limit of ours, below any kernel's."""


@dataclass(frozen=True, slots=True)
class PairSample:
    """A chain of kernels beside an AllReduce, as periods in seconds of the chain and of each side alone."""

    compute: tuple[ComputeOp, ...]
    num_bytes: int
    num_devices: int
    policy: CollectivePolicy
    together_s: float
    compute_alone_s: float
    collective_alone_s: float
    condition: str


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A pair as the engine runs it: costs scaled to what was measured alone."""

    program: Program
    kernels: dict[ComputeOp, KernelCost]
    collective: CollectiveCost
    streams: bool
    """Weights stream through L2."""
    sample: PairSample


def pair_shape(sample: PairSample) -> Key:
    """What a pair is a measurement of: its kernels and the AllReduce beside them, under whatever condition."""
    return (tuple(shape_of(op) for op in sample.compute), sample.num_devices, sample.num_bytes)


def ideal_error(samples: Iterable[PairSample]) -> float:
    """Mean error if overlap were free: the longer side would be all that a pair takes."""
    return fmean(abs(max(s.compute_alone_s, s.collective_alone_s) / s.together_s - 1.0) for s in samples)


def fit_contention(
    samples: Sequence[PairSample], profile: HardwareProfile, initial: ContentionConstants | None = None
) -> Fit[ContentionConstants, PairSample]:
    """Fit to 70 % of the shapes of pairs (relative errors, soft L1) and judge on the others.

    Raises:
        ValueError: fewer than 20 pairs.
    """
    if len(samples) < MIN_SAMPLES:
        message = f"{len(samples)} pairs are too few to fit contention to; {MIN_SAMPLES} are the least"
        raise ValueError(message)
    start = initial or profile.contention
    fitted, held_out = split(samples, pair_shape)
    fitted = fitted[:LARGEST_FIT]
    chosen = [_prepare(sample, profile) for sample in fitted]
    names = list(FITTED)
    low, high = (np.array([FITTED[name][side] for name in names]) for side in (0, 1))

    def errors(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return pair_errors(chosen, profile, _with(start, names, values))

    first = np.clip([_START.get(name, getattr(start, name)) for name in names], low + 1e-3, high - 1e-3)
    found = least_squares(
        errors, first, bounds=(low, high), loss="soft_l1", f_scale=0.05, diff_step=0.05, x_scale=high - low, max_nfev=12
    )
    constants = _with(start, names, found.x)
    judged = pair_errors([_prepare(sample, profile) for sample in held_out], profile, constants)
    return Fit(constants, tuple(zip(held_out, judged.tolist(), strict=True)), tuple(fitted))


def _with(constants: ContentionConstants, names: Sequence[str], values: NDArray[np.float64]) -> ContentionConstants:
    changes: dict[str, Any] = {name: float(value) for name, value in zip(names, values, strict=True)}
    return replace(constants, **changes)


def errors_of_pairs(
    samples: Sequence[PairSample], profile: HardwareProfile, constants: ContentionConstants
) -> list[float]:
    """Predicted / measured - 1 of every pair with constants of contention other than the profile's."""
    found: list[float] = pair_errors([_prepare(sample, profile) for sample in samples], profile, constants).tolist()
    return found


def pair_errors(
    pairs: Sequence[_Prepared], profile: HardwareProfile, constants: ContentionConstants
) -> NDArray[np.float64]:
    """Predicted / measured - 1 of every pair."""
    return np.array([predict_pair_s(pair, profile, constants) / pair.sample.together_s - 1.0 for pair in pairs])


def predict_pair_s(pair: _Prepared, profile: HardwareProfile, constants: ContentionConstants) -> float:
    """Period of the pair in a chain, in seconds."""
    collective = evicted(pair.collective, pair.streams, constants)
    machine = Machine(
        num_sms=profile.device.num_sms,
        hbm_bandwidth_bytes_per_s=profile.device.hbm_bandwidth_bytes_per_s,
        launch=replace(profile.launch, graph_launch_s=0.0),
        contention=constants,
        kernel_cost=pair.kernels.__getitem__,
        collective_cost=lambda _: collective,
    )
    timeline = run(pair.program, machine, eager=False)
    return timeline.duration_s + profile.launch.graph_node_gap_s


def _prepare(sample: PairSample, profile: HardwareProfile) -> _Prepared:
    pricing = Pricing(profile, sample.policy)
    gap_s = profile.launch.graph_node_gap_s
    costs = [pricing.kernel(op) for op in sample.compute]
    measured_s = max(_LEAST_S, sample.compute_alone_s - gap_s * len(costs))
    factor = measured_s / sum(cost.busy_s for cost in costs)
    # Stand-ins: two kernels of the same shape in one chain are still two kernels.
    stand_ins: list[ComputeOp] = [Copy(index + 1) for index in range(len(costs))]
    kernels = {op: _scaled(cost, factor) for op, cost in zip(stand_ins, costs, strict=True)}
    reduce = Collective(CollectiveKind.ALL_REDUCE, sample.num_bytes, sample.num_devices)
    collective = pricing.collective(reduce)
    alone_s = max(_LEAST_S, sample.collective_alone_s - gap_s)
    collective = replace(collective, busy_s=alone_s, latency_s=min(collective.latency_s, alone_s), transfer_s=alone_s)
    steps: tuple[Step, ...] = (
        RecordEvent("fork", MAIN_STREAM),
        WaitEvent("fork", COMM_STREAM),
        Kernel("all_reduce", reduce, Category.ALL_REDUCE, COMM_STREAM),
        RecordEvent("join", COMM_STREAM),
        *(Kernel(f"kernel_{index}", op, Category.GEMM) for index, op in enumerate(stand_ins)),
        WaitEvent("join", MAIN_STREAM),
    )
    program = Program("pair", sample.num_devices, (Segment("pair", steps),))
    # Chains of pairs take other weights from round to round, more than L2 holds.
    streams = any(isinstance(op, Gemm) for op in sample.compute)
    return _Prepared(program, kernels, collective, streams, sample)


def _scaled(cost: KernelCost, factor: float) -> KernelCost:
    busy_s = cost.busy_s * factor
    return replace(
        cost,
        busy_s=busy_s,
        fixed_s=min(cost.fixed_s, 0.5 * busy_s),
        compute_s=cost.compute_s * factor,
        memory_s=cost.memory_s * factor,
    )
