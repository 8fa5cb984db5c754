"""Fit of the power constants to sustained load: chains of GEMMs that run from idle until the clock has settled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import least_squares

from kraken_sim.costs.power import Load, PowerConstants, dynamic_w

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kraken_sim.hardware.device import Device

START: Final = PowerConstants(
    idle_w=130.0,
    active_w=150.0,
    tensor_w=900.0,
    hbm_w=200.0,
    limit_w=700.0,
    power_exponent=1.1,
    rate_exponent=0.5,
    settle_s=0.05,
    settle_shape=3.0,
    repeats=10.0,
)
"""Where a fit starts: a Hopper card of 700 W."""

ASSUMED: Final = {
    "active_w": "assumption: what the SMs draw before they compute, as a GEMM chain alone does not tell it apart",
    "hbm_w": "assumption: about 5 pJ a bit of HBM3e at 4.8 TB/s",
    "repeats": "definition: a latency is that of the tenth of equal steps run back to back",
}
"""Constants that a fit leaves where it starts, and why."""

BOOST_WINDOW_S: Final = (4e-3, 24e-3)
"""Chunks that end in here run at the boost clock: the first one warms up, the controller has not acted yet."""
SETTLED_FROM_S: Final = 0.15
SETTLED_UNTIL_S: Final = 0.6
"""Until here nothing but power limits the clock; later, heat adds dips of its own."""
SETTLED_SAMPLES_FROM_S: Final = 0.2
MIN_SAMPLES: Final = 2


@dataclass(frozen=True, slots=True)
class SustainedSample:
    """A chain of GEMMs under load: FLOP/s by chunk and (seconds, clock in Hz, watts) by sample."""

    idle_before_s: float
    dtype: str
    chunk_end_s: tuple[float, ...]
    chunk_flops: tuple[float, ...]
    samples: tuple[tuple[float, float, float], ...]
    hbm_bytes_per_flop: float


@dataclass(frozen=True, slots=True)
class PowerFit:
    """Fitted constants and the mean relative error of the rates they predict for chunks of the held-out chains."""

    constants: PowerConstants
    residual: float
    held_out: tuple[tuple[SustainedSample, float], ...]
    num_fitted: int


def fit_power(samples: Sequence[SustainedSample], device: Device, initial: PowerConstants) -> PowerFit:
    """Fit clock, power and settling to two chains of three, and judge on the others.

    `active_w`, `hbm_w` and `repeats` stay as in `initial`: chains of GEMMs do not tell them apart.

    Raises:
        ValueError: no chain has both a phase at the boost clock and a settled one with sensor readings.
    """
    usable = [sample for sample in samples if _is_usable(sample)]
    if len(usable) < MIN_SAMPLES:
        message = "too few sustained records with clock and power to fit the power constants"
        raise ValueError(message)
    fitted = [sample for index, sample in enumerate(usable) if index % 3 != 2]
    held_out = [sample for index, sample in enumerate(usable) if index % 3 == 2] or fitted
    clock = median(_settled(sample, 1) for sample in fitted) / device.boost_clock_hz
    limit_w = median(_settled(sample, 2) for sample in fitted)
    idle_w = min(watts for sample in fitted for _, _, watts in sample.samples)
    # Sensors average over some 25 ms, so the highest reading is the nearest to the power at the boost clock.
    boost_w = max(watts for sample in samples for _, _, watts in sample.samples)
    ratio = median(_settled_rate(sample) / _boost_rate(sample) for sample in fitted)
    constants = replace(
        initial,
        idle_w=idle_w,
        limit_w=limit_w,
        power_exponent=log((limit_w - idle_w) / (boost_w - idle_w)) / log(clock),
        rate_exponent=log(ratio) / log(clock),
    )
    constants = replace(constants, tensor_w=_tensor_w(fitted, device, constants, boost_w - idle_w))
    constants = _fit_settling(fitted, constants, clock)
    errors = [(sample, error) for sample in held_out for error in _rate_errors(sample, constants, clock)]
    residual = fmean(abs(error) for _, error in errors)
    return PowerFit(constants, residual, tuple(errors), len(fitted))


def _is_usable(sample: SustainedSample) -> bool:
    long_enough = bool(sample.chunk_end_s) and sample.chunk_end_s[-1] > SETTLED_FROM_S
    rested = sample.idle_before_s >= 0.5
    return long_enough and rested and any(at > SETTLED_SAMPLES_FROM_S for at, _, _ in sample.samples)


def _settled(sample: SustainedSample, field: int) -> float:
    return median(reading[field] for reading in sample.samples if SETTLED_SAMPLES_FROM_S < reading[0] < SETTLED_UNTIL_S)


def _boost_rate(sample: SustainedSample) -> float:
    low, high = BOOST_WINDOW_S
    rates = [rate for at, rate in zip(sample.chunk_end_s, sample.chunk_flops, strict=True) if low < at < high]
    return median(rates) if rates else sample.chunk_flops[0]


def _settled_rate(sample: SustainedSample) -> float:
    pairs = zip(sample.chunk_end_s, sample.chunk_flops, strict=True)
    return median(rate for at, rate in pairs if SETTLED_FROM_S < at < SETTLED_UNTIL_S)


def _tensor_w(samples: Sequence[SustainedSample], device: Device, c: PowerConstants, dynamic_boost_w: float) -> float:
    """What the tensor cores draw at their peak rate, from what is left of a chain's power."""
    found = []
    for sample in samples:
        rate = _boost_rate(sample)
        peak = next(value for dtype, value in device.peak_flops.items() if str(dtype) == sample.dtype)
        load = Load(1.0, 0.0, rate * sample.hbm_bytes_per_flop)
        others_w = dynamic_w(load, peak, device.hbm_bandwidth_bytes_per_s, c)
        found.append((dynamic_boost_w - others_w) / (rate / peak))
    return median(found)


def _fit_settling(samples: Sequence[SustainedSample], c: PowerConstants, clock: float) -> PowerConstants:
    def errors(values: NDArray[np.float64]) -> NDArray[np.float64]:
        trial = replace(c, settle_s=float(values[0]), settle_shape=float(values[1]))
        return np.array([error for sample in samples for error in _rate_errors(sample, trial, clock)])

    start = (c.settle_s, c.settle_shape)
    found = least_squares(errors, start, bounds=([0.005, 0.5], [1.0, 8.0]), loss="soft_l1", f_scale=0.02)
    return replace(c, settle_s=float(found.x[0]), settle_shape=float(found.x[1]))


def _rate_errors(sample: SustainedSample, c: PowerConstants, clock: float) -> list[float]:
    """Predicted / measured - 1 of the chunks between the warm-up and the first dip by heat."""
    boost = _boost_rate(sample)
    found = []
    for at, rate in zip(sample.chunk_end_s, sample.chunk_flops, strict=True):
        if BOOST_WINDOW_S[0] < at < SETTLED_UNTIL_S:
            way_down = 1.0 - np.exp(-((at / c.settle_s) ** c.settle_shape))
            found.append(float(boost * (1.0 - way_down * (1.0 - clock)) ** c.rate_exponent / rate - 1.0))
    return found
