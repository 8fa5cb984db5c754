"""Fits how the other collectives differ from an AllReduce over the same links.

An AllGather is half a ring AllReduce, so the constants that were fitted to AllReduces carry over, and only
factors on them are fitted (`kind_factors` of the profile): on the start-up, a step, the rates, and the loss of
a ring of two. Where a factor cannot be told from the samples it stays near 1, where it starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, log
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares

from kraken_sim.calibration.collectives import LOSS_SCALE, collective_shape
from kraken_sim.calibration.split import Fit, split
from kraken_sim.costs.collectives import collective_cost
from kraken_sim.costs.collectives.policy import CollectivePolicy
from kraken_sim.errors import InputError
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from kraken_sim.costs.collectives import CollectiveConstants
    from kraken_sim.profiles.profile import HardwareProfile

PULL = 0.02
"""Weight that holds a factor at its start, against a sample's error; a choice of ours, weak."""

KNOT_PULL = 0.01
"""The same of a knot of the correction by size."""

SEND_RECV_KNOTS = (20, 22, 24, 26, 28)
"""Knots in log2 of bytes, a choice of ours. Sends and receives fill their pipeline differently from rings, whose
corrections by size do not carry over."""

FACTOR_RANGE = (0.2, 5.0)
"""Bounds of a factor; assumed, beyond them the two collectives have nothing in common."""

RING_FACTORS = ("base", "step", "link", "pair_loss")
SEND_RECV_FACTORS = ("base", "step", "channel", "link")
PROTOCOLS = ("ll", "ll128", "simple")


@dataclass(frozen=True, slots=True)
class CollectiveSample:
    """One measured collective: `num_bytes` as nccl-tests counts its size, `time_s` of one call of many."""

    kind: CollectiveKind
    num_bytes: int
    num_devices: int
    time_s: float


def predict_s(sample: CollectiveSample, profile: HardwareProfile, constants: CollectiveConstants) -> float:
    """A call in a row of calls: the collective and the gap to the next kernel."""
    interconnect = profile.topology.interconnect(sample.num_devices)
    cost = collective_cost(sample.kind, sample.num_bytes, interconnect, profile.device, constants, CollectivePolicy())
    return cost.busy_s + profile.launch.graph_node_gap_s


def fit_kind(
    samples: Sequence[CollectiveSample], profile: HardwareProfile
) -> Fit[CollectiveConstants, CollectiveSample]:
    """Fits the factors of one collective to 70 % of its shapes; the other 30 % give the error.

    Robust least squares (soft L1) on log(predicted / measured), with a weak pull towards 1. Shapes are those of
    AllReduces, so that what is held out here was held out there. Deterministic.

    Raises:
        InputError: No samples, or samples of several collectives, or of an AllReduce.
    """
    kinds = {sample.kind for sample in samples}
    if len(kinds) != 1 or CollectiveKind.ALL_REDUCE in kinds:
        message = "needs samples of one collective other than all_reduce"
        raise InputError.single("samples", message, ", ".join(sorted(kinds)) or "none")
    fitted, held = split(samples, lambda sample: collective_shape(sample.num_devices, sample.num_bytes))
    constants = _solve(kinds.pop(), fitted, profile)
    held_out = [(sample, predict_s(sample, profile, constants) / sample.time_s - 1.0) for sample in held]
    return Fit(constants, tuple(held_out), tuple(fitted))


def _solve(kind: CollectiveKind, samples: Sequence[CollectiveSample], profile: HardwareProfile) -> CollectiveConstants:
    start = profile.collectives
    protocols = _protocols(kind, samples, profile)
    names = SEND_RECV_FACTORS if kind is CollectiveKind.ALL_TO_ALL else RING_FACTORS
    keys = [(protocol, name) for protocol in protocols for name in names]
    corrected = kind is CollectiveKind.ALL_TO_ALL and "simple" in start.link_correction
    knots = SEND_RECV_KNOTS if corrected else ()
    first = np.array([log(start.factor(kind, protocol, name)) for protocol, name in keys] + [0.0] * len(knots))

    def build(x: NDArray[np.float64]) -> CollectiveConstants:
        table: dict[str, dict[str, float]] = {protocol: {} for protocol in protocols}
        for (protocol, name), value in zip(keys, x[: len(keys)], strict=True):
            table[protocol][name] = exp(value)
        correction = {str(knot): exp(value) for knot, value in zip(knots, x[len(keys) :], strict=True)}
        return with_factors(start, kind, table, correction)

    def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
        constants = build(x)
        misfit = [log(predict_s(one, profile, constants) / one.time_s) for one in samples]
        pull = np.full(len(first), PULL)
        pull[len(keys) :] = KNOT_PULL
        return np.concatenate([misfit, len(samples) ** 0.5 * pull * (x - first)])

    low, high = (np.full(len(first), log(limit)) for limit in FACTOR_RANGE)
    solution = least_squares(
        residuals, first, bounds=(low, high), loss="soft_l1", f_scale=LOSS_SCALE, max_nfev=100, diff_step=1e-3
    )
    return build(solution.x)


def _protocols(kind: CollectiveKind, samples: Sequence[CollectiveSample], profile: HardwareProfile) -> tuple[str, ...]:
    """The protocols that the samples run."""
    found = set()
    for one in samples:
        interconnect = profile.topology.interconnect(one.num_devices)
        cost = collective_cost(
            kind, one.num_bytes, interconnect, profile.device, profile.collectives, CollectivePolicy()
        )
        found.add(cost.protocol)
    return tuple(protocol for protocol in PROTOCOLS if protocol in found)


def with_factors(
    constants: CollectiveConstants,
    kind: CollectiveKind,
    table: Mapping[str, Mapping[str, float]],
    correction: Mapping[str, float],
) -> CollectiveConstants:
    """The constants with the factors of one collective replaced, and its correction of Simple if it has one."""
    factors = {**constants.kind_factors, kind.value: table}
    if not correction:
        return replace(constants, kind_factors=factors)
    corrections = {**constants.kind_link_correction, kind.value: {"ll": {}, "simple": correction}}
    return replace(constants, kind_factors=factors, kind_link_correction=corrections)
