"""Fit of the power constants to sustained load: chains of kernels that run from idle until the clock has settled.

Heavy chains give the limit, the exponents and the way down. What SMs, tensor cores and HBM draw comes from the power
of all chains at the clock they settled at, a linear problem; GEMMs alone leave SMs and tensor cores together, so
without chains of other kernels only `tensor_w` is found and the rest stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import least_squares, nnls

from kraken_sim.calibration.split import Fit, each_left_out
from kraken_sim.costs.power import Load, PowerConstants, clock_factor, settled_clock, slowdown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kraken_sim.calibration.split import Key
    from kraken_sim.hardware.device import Device

START: Final = PowerConstants(
    idle_w=120.0,
    active_w=350.0,
    tensor_w=615.0,
    hbm_w=300.0,
    limit_w=700.0,
    power_exponent=1.0,
    rate_exponent=0.5,
    lowest_clock=0.3,
    settle_s=0.05,
    settle_shape=3.0,
    repeats=10.0,
)
"""Where a fit starts: a Hopper card of 700 W; assumed."""

START_TDP_W: Final = 700.0
"""The TDP of that card, by which another card's watts scale (NVIDIA H200 datasheet)."""

REPEATS_MEAN: Final = "definition: a latency is that of the tenth of equal steps run back to back"
ASSUMED: Final = {
    "active_w": "assumption: as on an H200, by TDP; a GEMM chain alone does not tell it apart",
    "hbm_w": "assumption: as on an H200, by TDP; a GEMM chain alone does not tell it apart",
}
"""Constants that a fit leaves where it starts unless other kernels than GEMMs were run, and why."""

BOOST_WINDOW_S: Final = (4e-3, 24e-3)
"""Chunks that end in here run at the boost clock, measured: the first one warms up, the controller has not acted
yet."""

SETTLED_FROM_S: Final = 0.15
"""From here on the rate of chunks has settled; measured on an H200."""

SETTLED_UNTIL_S: Final = 0.6
"""Until here nothing but power limits the clock, measured; later, heat adds dips of its own."""

SETTLED_SAMPLES_FROM_S: Final = 0.2
"""From here on the sensors' readings have settled; measured, they average over some 25 ms and lag."""

MIN_SAMPLES: Final = 2
"""Fewest chains that meet the limit; a limit of ours, one to fit and one to judge."""

LEAST_IDLE_S: Final = 0.5
"""Fewest chains that meet the limit; a limit of ours, one to fit and one to judge."""

AT_BOOST: Final = 0.98
"""A chain that settles above this share of the boost clock is not limited by power; assumed, above the noise of the
sensors."""

HOST_BOUND: Final = 1.35
"""A round that takes this much longer than its kernels waits for the host that launches them; assumed."""


@dataclass(frozen=True, slots=True)
class SustainedSample:
    """A chain of kernels under load: rounds/s by chunk, and (seconds, clock in Hz, watts) by sample.

    `loads` are the kernels of one round at the boost clock, `peak_flops` the peak rate of their dtype.
    """

    idle_before_s: float
    chunk_end_s: tuple[float, ...]
    chunk_rounds_per_s: tuple[float, ...]
    samples: tuple[tuple[float, float, float], ...]
    loads: tuple[Load, ...]
    peak_flops: float
    shape: Key
    """What the kernels of a round work on."""
    gemms_only: bool = True


def start_for(device: Device) -> PowerConstants:
    """Where the fit of a card starts that no profile knows: `START`, its watts by TDP."""
    scale = device.tdp_w / START_TDP_W
    watts = {name: scale * getattr(START, name) for name in ("idle_w", "active_w", "tensor_w", "hbm_w", "limit_w")}
    return replace(START, **watts)


def load_shape(sample: SustainedSample) -> Key:
    """What a sustained load is a measurement of: its mix of kernels, however long the card has rested before."""
    return sample.shape


def load_class(sample: SustainedSample) -> tuple[int, str]:
    """The class of a sustained load."""
    return (0, "GEMMs") if sample.gemms_only else (1, "other kernels")


def fit_power(
    samples: Sequence[SustainedSample], device: Device, initial: PowerConstants
) -> Fit[PowerConstants, SustainedSample]:
    """Fit clock, power and settling to all mixes; each is judged by a fit to the others, on its rates, chunk by chunk.

    A card's suite has less than ten mixes, and three of them left out leave SMs, tensor cores and HBM untold apart.
    `repeats` stays as in `initial`; so do `active_w` and `hbm_w` where all chains are of GEMMs.

    Raises:
        ValueError: too few chains have both a phase at the boost clock and a settled one with sensor readings.
    """
    usable = [sample for sample in samples if _is_usable(sample)]
    constants, kept = _fit(usable, samples, device, initial)
    errors: list[tuple[SustainedSample, float]] = []
    for others, own in each_left_out(usable, load_shape):
        try:
            found, _ = _fit(others, samples, device, initial)
        except ValueError:  # the others are too few
            continue
        errors += [(sample, error) for sample in own for error in _rate_errors(sample, device, found)]
    return Fit(constants, tuple(errors), tuple(usable), kept)


def load_errors(
    samples: Sequence[SustainedSample], device: Device, constants: PowerConstants
) -> list[tuple[SustainedSample, float]]:
    """Predicted / measured - 1 of the rate of each chunk, chain by chain."""
    return [(sample, error) for sample in samples for error in _rate_errors(sample, device, constants)]


def _fit(
    fitted: Sequence[SustainedSample], samples: Sequence[SustainedSample], device: Device, initial: PowerConstants
) -> tuple[PowerConstants, dict[str, str]]:
    """Constants from chains, with readings of shorter ones of the same mixes; and what they do not tell."""
    heavy = [sample for sample in fitted if sample.gemms_only and _settled_clock(sample, device) < AT_BOOST]
    if len(heavy) < MIN_SAMPLES:
        message = "too few sustained records with clock and power to fit the power constants"
        raise ValueError(message)
    shapes = {sample.shape for sample in fitted}
    limits = _limits(heavy, [sample for sample in samples if sample.shape in shapes], device, initial)
    gemms_only = all(sample.gemms_only for sample in fitted)
    constants = _draws(fitted, device, limits, gemms_only=gemms_only)
    return _fit_settling(heavy, device, constants), dict(ASSUMED) if gemms_only else {}


def _limits(
    heavy: Sequence[SustainedSample], samples: Sequence[SustainedSample], device: Device, initial: PowerConstants
) -> PowerConstants:
    """Idle power, the limit, and the exponents, from chains of GEMMs that meet the limit."""
    clock = median(_settled_clock(sample, device) for sample in heavy)
    limit_w = median(_settled(sample, 2) for sample in heavy)
    idle_w = min(watts for sample in heavy for _, _, watts in sample.samples)
    # Sensors average over some 25 ms, so the highest reading is the nearest to the power at the boost clock.
    boost_w = max(watts for sample in samples for _, _, watts in sample.samples)
    ratio = median(_settled_rate(sample) / _boost_rate(sample) for sample in heavy)
    return replace(
        initial,
        idle_w=idle_w,
        limit_w=limit_w,
        power_exponent=log((limit_w - idle_w) / (boost_w - idle_w)) / log(clock),
        rate_exponent=log(ratio) / log(clock),
    )


def _is_usable(sample: SustainedSample) -> bool:
    long_enough = bool(sample.chunk_end_s) and sample.chunk_end_s[-1] > SETTLED_FROM_S
    rested = sample.idle_before_s >= LEAST_IDLE_S
    if not (long_enough and rested and any(at > SETTLED_SAMPLES_FROM_S for at, _, _ in sample.samples)):
        return False
    return _boost_rate(sample) * _busy_s(sample) * HOST_BOUND > 1.0


def _busy_s(sample: SustainedSample, stretch: float = 1.0) -> float:
    """Time of a round's kernels where arithmetic takes `stretch` times as long as at the boost clock."""
    return sum(load.busy_s * clock_factor(load.clocked, stretch) for load in sample.loads)


def _settled(sample: SustainedSample, field: int) -> float:
    return median(reading[field] for reading in sample.samples if SETTLED_SAMPLES_FROM_S < reading[0] < SETTLED_UNTIL_S)


def _settled_clock(sample: SustainedSample, device: Device) -> float:
    """Over the boost clock."""
    return _settled(sample, 1) / device.boost_clock_hz


def _boost_rate(sample: SustainedSample) -> float:
    low, high = BOOST_WINDOW_S
    rates = [rate for at, rate in zip(sample.chunk_end_s, sample.chunk_rounds_per_s, strict=True) if low < at < high]
    return median(rates) if rates else sample.chunk_rounds_per_s[0]


def _settled_rate(sample: SustainedSample) -> float:
    pairs = zip(sample.chunk_end_s, sample.chunk_rounds_per_s, strict=True)
    return median(rate for at, rate in pairs if SETTLED_FROM_S < at < SETTLED_UNTIL_S)


def _draws(
    samples: Sequence[SustainedSample], device: Device, c: PowerConstants, *, gemms_only: bool
) -> PowerConstants:
    """What SMs, tensor cores and HBM draw, from the power of chains that have settled, each at its own clock."""
    rows, watts = [], []
    for sample in samples:
        clock, watt = _settled_clock(sample, device), _settled(sample, 2)
        stretch = clock**-c.rate_exponent
        period_s = max(1.0 / _settled_rate(sample), _busy_s(sample, stretch))
        parts = [(load, load.busy_s * clock_factor(load.clocked, stretch) / period_s) for load in sample.loads]
        scale = clock**c.power_exponent
        sms = scale * sum(share * load.sm_share for load, share in parts)
        tensor = scale * sum(share * min(1.0, load.flops / load.busy_s / sample.peak_flops) for load, share in parts)
        hbm = sum(load.hbm_bytes for load in sample.loads) / period_s / device.hbm_bandwidth_bytes_per_s
        # Relative errors: each row is divided by the power it explains.
        rows.append([sms / watt, tensor / watt, hbm / watt])
        watts.append((watt - c.idle_w) / watt)
    matrix, known = np.array(rows), np.array(watts)
    if gemms_only:
        rest = known - matrix[:, 0] * c.active_w - matrix[:, 2] * c.hbm_w
        return replace(c, tensor_w=float(np.median(rest / matrix[:, 1])))
    active_w, tensor_w, hbm_w = (float(value) for value in nnls(matrix, known)[0])
    return replace(c, active_w=active_w, tensor_w=tensor_w, hbm_w=hbm_w)


def _fit_settling(samples: Sequence[SustainedSample], device: Device, c: PowerConstants) -> PowerConstants:
    def errors(values: NDArray[np.float64]) -> NDArray[np.float64]:
        trial = replace(c, settle_s=float(values[0]), settle_shape=float(values[1]))
        return np.array([error for s in samples for error in _rate_errors(s, device, trial, _settled_clock(s, device))])

    start = (c.settle_s, c.settle_shape)
    found = least_squares(errors, start, bounds=([0.005, 0.5], [1.0, 8.0]), loss="soft_l1", f_scale=0.02)
    return replace(c, settle_s=float(found.x[0]), settle_shape=float(found.x[1]))


def _rate_errors(sample: SustainedSample, device: Device, c: PowerConstants, clock: float | None = None) -> list[float]:
    """Predicted / measured - 1 of the chunks between the warm-up and the first dip by heat.

    `clock` is the settled one over the boost clock; None predicts it.
    """
    boost = _boost_rate(sample)
    other_s = max(0.0, 1.0 / boost - _busy_s(sample))
    if clock is None:
        bandwidth = device.hbm_bandwidth_bytes_per_s
        clock = settled_clock(sample.loads, [], other_s, sample.peak_flops, bandwidth, c)
    found = []
    for at, rate in zip(sample.chunk_end_s, sample.chunk_rounds_per_s, strict=True):
        if BOOST_WINDOW_S[0] < at < SETTLED_UNTIL_S:
            stretch = slowdown(clock, at / c.repeats, c)
            predicted = boost * (_busy_s(sample) + other_s) / (_busy_s(sample, stretch) + other_s)
            found.append(predicted / rate - 1.0)
    return found
