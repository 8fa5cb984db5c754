"""Fits the constants of the AllReduce models to measured collectives.

NCCL's choice of algorithm, protocol and channels comes from its source and is not fitted; so every sample
belongs to one group (a link class and protocol, or a custom kernel), and groups are fitted one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, log
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares

from kraken_sim.calibration.split import Fit, split
from kraken_sim.costs.collectives.choice import nccl_choice
from kraken_sim.costs.collectives.constants import LINK_CLASS, CollectiveConstants
from kraken_sim.costs.collectives.custom import custom_all_reduce
from kraken_sim.costs.collectives.nccl import nccl_cost
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library
from kraken_sim.costs.collectives.tuning import NVLS
from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from kraken_sim.calibration.split import Key
    from kraken_sim.costs.collectives.tuning import NcclChoice
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Interconnect

LOSS_SCALE = 0.06
"""Relative error from which a sample counts less; a choice of ours, that of a good fit."""

PRIOR_WEIGHT = 0.02
"""Weight that holds a constant at its start, against a sample's error; a choice of ours, weak."""

SMOOTHNESS_WEIGHT = 0.04
"""Weight that holds a correction by size near 1 and near its neighbours; a choice of ours, weak."""

UNKNOWN_WEIGHT = 10.0
"""By how much more a constant is held that no sample varies; a choice of ours, so that it stays where it is."""

PAIR_LOSS_RANGE = (1e-3, 0.5)
"""Bounds of what a ring of two loses; assumed."""

KNOT_RANGE = (0.25, 8.0)
"""Bounds of a correction by size; assumed."""

LINK_KNOTS: Mapping[str, tuple[int, ...]] = {
    "ll": (18, 21),
    "ll128": (21, 23, 25),
    "simple": (20, 22, 24, 25, 26, 28),
    "nvls": (20, 22, 23, 24, 26, 28, 29),
}
"""Knots of the correction by size in log2 of bytes, by protocol; a choice of ours, where the published curves bend."""

CUSTOM_KNOTS = (18, 20, 22, 24, 26)
"""The same of custom kernels."""


@dataclass(frozen=True, slots=True)
class AllReduceSample:
    """One measured AllReduce.

    Attributes:
        num_bytes: Bytes a rank.
        num_devices: Ranks.
        library: `nccl` or `custom`.
        kernel: Name of the custom kernel, such as `two_shot_vllm`; empty for NCCL.
        channels: NCCL_MAX_NCHANNELS, or None for NCCL's own number.
        transport: `p2p` or `shm`; with `num_devices` the key of the interconnect.
        launch: `graph` or `eager` (back to back).
        period_s: Time from one AllReduce to the next in a chain.
        gap_s: The part of the period that lies between kernels and is not the collective's.
        nccl_minor_version: NCCL 2.x that ran it; None where it is the constants' own.
    """

    num_bytes: int
    num_devices: int
    library: str
    kernel: str
    channels: int | None
    transport: str
    launch: str
    period_s: float
    gap_s: float = 1.0e-6
    nccl_minor_version: int | None = None


@dataclass(frozen=True, slots=True)
class _Case:
    sample: AllReduceSample
    interconnect: Interconnect
    choice: NcclChoice | None
    group: tuple[str, str]

    def predict_s(self, constants: CollectiveConstants) -> float:
        """Period that the model gives."""
        sample = self.sample
        if self.choice is None:
            cost = custom_all_reduce(sample.num_bytes, sample.kernel, self.interconnect, constants)
        else:
            cost = nccl_cost(CollectiveKind.ALL_REDUCE, sample.num_bytes, self.choice, self.interconnect, constants)
        return cost.busy_s + sample.gap_s


def fit_all_reduce(
    samples: Sequence[AllReduceSample],
    interconnects: Mapping[tuple[int, str], Interconnect],
    device: Device,
    initial: CollectiveConstants,
) -> Fit[CollectiveConstants, AllReduceSample]:
    """Fits the constants to 70 % of the shapes and reports the error on the other 30 %.

    Robust least squares (soft L1) on log(predicted / measured), a weak pull towards `initial` and towards
    flat corrections, and a strong one for what the samples cannot tell: the step where all have as many
    ranks, the rate of a channel where all have as many channels. Samples launched from graphs are used alone
    where a class has any. Deterministic.

    Args:
        samples: Measured AllReduces; whole passes have no place here.
        interconnects: The group's interconnect by (num_devices, transport).
        device: The GPU.
        initial: Constants to start from; entries of classes without samples are kept.

    Raises:
        InputError: There are no samples, one is not positive, or an interconnect is missing.
    """
    _check(samples, interconnects, initial)
    cases = _prefer_graph([_case(sample, interconnects, device, initial) for sample in samples])
    fitted, held = split(cases, lambda case: all_reduce_shape(case.sample))
    groups = sorted({case.group for case in fitted})
    constants = initial
    for group in groups:
        constants = _fit_group(constants, group, [case for case in fitted if case.group == group])
    held_out = [(case.sample, case.predict_s(constants) / case.sample.period_s - 1.0) for case in held]
    return Fit(constants, tuple(held_out), tuple(case.sample for case in fitted), _kept(groups, initial))


def all_reduce_periods(
    samples: Sequence[AllReduceSample],
    interconnects: Mapping[tuple[int, str], Interconnect],
    device: Device,
    constants: CollectiveConstants,
) -> list[float]:
    """Predicted `period_s` of each sample, seconds."""
    return [_case(sample, interconnects, device, constants).predict_s(constants) for sample in samples]


def all_reduce_shape(sample: AllReduceSample) -> Key:
    """What an AllReduce is a measurement of: its bytes on so many devices, whatever runs them and how."""
    return collective_shape(sample.num_devices, sample.num_bytes)


def collective_shape(num_devices: int, num_bytes: int) -> Key:
    """The shape of every kind of collective; those of one shape are on one side, whatever their kind."""
    return (num_devices, num_bytes)


def condition_class(sample: AllReduceSample) -> tuple[int, str]:
    """The class of an AllReduce: its condition and the range of its size."""
    if sample.transport == "shm":
        rank, condition = 2000, "host memory"
    elif sample.channels is None:
        rank, condition = 0, "default"
    else:
        rank, condition = 1000 - sample.channels, f"{sample.channels} channel{'s' * (sample.channels > 1)}"
    sizes = ((64 * 1024, "below 64 KiB"), (4 * 1024 * 1024, "64 KiB to 4 MiB"))
    found = (index for index, (below, _) in enumerate(sizes) if sample.num_bytes < below)
    index = next(found, len(sizes))
    text = sizes[index][1] if index < len(sizes) else "from 4 MiB"
    return 10 * rank + index, f"{condition}, {text}"


def _kept(groups: Sequence[tuple[str, str]], initial: CollectiveConstants) -> dict[str, str]:
    """The protocols that no fitted sample ran, of the link classes that some ran over."""
    links = {link for link, _ in groups if link in initial.base_s}
    missing = {(link, protocol) for link in links for protocol in initial.base_s[link]} - set(groups)
    return {f"{link}.{protocol}": "no fitted AllReduce ran it" for link, protocol in sorted(missing)}


def _check(
    samples: Sequence[AllReduceSample],
    interconnects: Mapping[tuple[int, str], Interconnect],
    initial: CollectiveConstants,
) -> None:
    if not samples:
        raise InputError.single("samples", "there are no AllReduce samples to fit")
    kernels = tuple(initial.custom_base_s)
    problems: list[Problem] = []
    for index, sample in enumerate(samples):
        path = f"samples[{index}]"
        if sample.period_s <= sample.gap_s or sample.num_bytes <= 0:
            problems.append(Problem(path, "needs bytes, and a period longer than its gap", sample.period_s))
        if (sample.num_devices, sample.transport) not in interconnects:
            group = f"{sample.num_devices} devices, {sample.transport}"
            problems.append(Problem(path, "there is no interconnect for this group", group))
        if sample.library == Library.CUSTOM and sample.kernel not in kernels:
            message = f"the kernel must be one of {', '.join(kernels)}"
            problems.append(Problem(path, message, sample.kernel, None, closest(sample.kernel, kernels)))
    if problems:
        raise InputError(problems)


def _case(
    sample: AllReduceSample,
    interconnects: Mapping[tuple[int, str], Interconnect],
    device: Device,
    initial: CollectiveConstants,
) -> _Case:
    interconnect = interconnects[sample.num_devices, sample.transport]
    if sample.library == Library.CUSTOM:
        return _Case(sample, interconnect, None, ("custom", sample.kernel))
    policy = CollectivePolicy(channels=sample.channels)
    ran = initial
    if sample.nccl_minor_version is not None:
        ran = replace(initial, nccl_minor_version=sample.nccl_minor_version)
    choice = nccl_choice(sample.num_bytes, interconnect, device, ran, policy)
    protocol = NVLS if choice.algorithm == NVLS else choice.protocol
    return _Case(sample, interconnect, choice, (LINK_CLASS[interconnect.kind], protocol))


def _prefer_graph(cases: Iterable[_Case]) -> list[_Case]:
    cases = list(cases)
    graphs = {case.group for case in cases if case.sample.launch == "graph"}
    return [case for case in cases if case.sample.launch == "graph" or case.group not in graphs]


def _fit_group(initial: CollectiveConstants, group: tuple[str, str], cases: Sequence[_Case]) -> CollectiveConstants:
    scalars, knots = _parameters(initial, group, cases)
    start = np.array([log(value) for value in scalars.values()] + [0.0] * len(knots))
    previous = _knot_start(initial, group, knots)
    start[len(scalars) :] = previous
    pull = PRIOR_WEIGHT * _stiffness(scalars, group, cases)

    def build(x: NDArray[np.float64]) -> CollectiveConstants:
        values = dict(zip(scalars, (exp(v) for v in x[: len(scalars)]), strict=True))
        factors = {str(knot): exp(v) for knot, v in zip(knots, x[len(scalars) :], strict=True)}
        return _with_group(initial, group, values, factors)

    def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
        constants = build(x)
        misfit = [log(case.predict_s(constants) / case.sample.period_s) for case in cases]
        away = pull * (x[: len(scalars)] - start[: len(scalars)])
        corrections = SMOOTHNESS_WEIGHT * x[len(scalars) :]
        return np.concatenate([misfit, away, corrections, np.diff(corrections)])

    low, high = _bounds(scalars, knots)
    start = np.clip(start, low + 1e-9, high - 1e-9)
    solution = least_squares(residuals, start, bounds=(low, high), loss="soft_l1", f_scale=LOSS_SCALE, max_nfev=200)
    return build(solution.x)


def _stiffness(scalars: Mapping[str, float], group: tuple[str, str], cases: Sequence[_Case]) -> NDArray[np.float64]:
    """How hard each parameter is held at its start: hard where no sample varies what it describes."""
    unknown = {"cta_bytes_per_s"} if group[0] == "custom" else set()
    if len({case.sample.num_devices for case in cases}) == 1:
        unknown |= {"step_s", "peer_s", "pair_loss"}
    if len({case.sample.channels for case in cases}) == 1:
        unknown.add("channel_bytes_per_s")
    return np.array([UNKNOWN_WEIGHT if name in unknown else 1.0 for name in scalars])


def _parameters(
    initial: CollectiveConstants, group: tuple[str, str], cases: Sequence[_Case]
) -> tuple[dict[str, float], tuple[int, ...]]:
    """Start values by name, and the knots that lie within the sizes of the samples."""
    top = max(case.sample.num_bytes for case in cases)
    bottom = min(case.sample.num_bytes for case in cases)
    if group[0] == "custom":
        kernel = group[1]
        scalars = {
            "base_s": initial.custom_base_s[kernel],
            "peer_s": initial.custom_peer_s[kernel],
            "cta_bytes_per_s": initial.custom_cta_bytes_per_s[kernel],
            "efficiency": initial.custom_link_efficiency[kernel],
        }
        wanted: tuple[int, ...] = CUSTOM_KNOTS
    else:
        link, protocol = group
        scalars = {
            "base_s": initial.base_s[link][protocol],
            "step_s": initial.step_s[link][protocol],
            "channel_bytes_per_s": initial.channel_bytes_per_s[link][protocol],
            "efficiency": initial.link_efficiency[link][protocol],
            "pair_loss": max(initial.ring_pair_loss.get(protocol, 0.0), PAIR_LOSS_RANGE[0]),
        }
        wanted = LINK_KNOTS[protocol] if link == "nvlink" else ()
    knots = tuple(knot for knot in wanted if bottom <= 2**knot <= top)
    return scalars, knots


def _knot_start(initial: CollectiveConstants, group: tuple[str, str], knots: Sequence[int]) -> list[float]:
    table = initial.custom_link_correction if group[0] == "custom" else initial.link_correction
    known = table.get(group[1], {})
    return [log(known.get(str(knot), 1.0)) for knot in knots]


def _bounds(scalars: Mapping[str, float], knots: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    limits = {
        "efficiency": (0.005, 1.0),
        "base_s": (1e-7, 1e-3),
        "peer_s": (1e-9, 1e-3),
        "step_s": (1e-9, 1e-3),
        "pair_loss": PAIR_LOSS_RANGE,
    }
    pairs = [limits.get(name, (1e7, 1e12)) for name in scalars] + [KNOT_RANGE] * len(knots)
    return np.log([low for low, _ in pairs]), np.log([high for _, high in pairs])


def _with_group(
    constants: CollectiveConstants,
    group: tuple[str, str],
    values: Mapping[str, float],
    factors: Mapping[str, float],
) -> CollectiveConstants:
    if group[0] == "custom":
        kernel = group[1]
        return replace(
            constants,
            custom_base_s={**constants.custom_base_s, kernel: values["base_s"]},
            custom_peer_s={**constants.custom_peer_s, kernel: values["peer_s"]},
            custom_cta_bytes_per_s={**constants.custom_cta_bytes_per_s, kernel: values["cta_bytes_per_s"]},
            custom_link_efficiency={**constants.custom_link_efficiency, kernel: values["efficiency"]},
            custom_link_correction={**constants.custom_link_correction, kernel: factors},
        )
    link, protocol = group

    def entry(table: Mapping[str, Mapping[str, float]], value: float) -> dict[str, Mapping[str, float]]:
        return {**table, link: {**table[link], protocol: value}}

    changed = replace(
        constants,
        base_s=entry(constants.base_s, values["base_s"]),
        step_s=entry(constants.step_s, values["step_s"]),
        channel_bytes_per_s=entry(constants.channel_bytes_per_s, values["channel_bytes_per_s"]),
        link_efficiency=entry(constants.link_efficiency, values["efficiency"]),
        ring_pair_loss={**constants.ring_pair_loss, protocol: values["pair_loss"]},
    )
    if not factors:
        return changed
    return replace(changed, link_correction={**constants.link_correction, protocol: factors})
