"""Fit of the power constants to sustained load: chains of kernels that run from rest until the clock has settled.

Chains at the boost clock say what SMs, tensor cores and HBM draw, chains that meet the limit how the clock lowers power
and rate; all constants but the way down are fitted together. GEMMs alone leave SMs, tensor cores and HBM together, so
without others only `tensor_w`, the limit and the rate's exponent are found. Number formats are told apart by
chains in each.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import exp, log
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import least_squares

from kraken_sim.calibration.split import Fit, each_left_out, split
from kraken_sim.calibration.sustained import BOOST_WINDOW_S, SETTLING_UNTIL_S, SustainedSample
from kraken_sim.costs.power import PowerConstants, average_w, clock_factor, settled_clock
from kraken_sim.program.ops import DType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from kraken_sim.calibration.split import Key
    from kraken_sim.hardware.device import Device

START: Final = PowerConstants(
    idle_w=130.0,
    active_w=350.0,
    tensor_w=740.0,
    hbm_w=310.0,
    limit_w=690.0,
    power_exponent=1.6,
    rate_exponent=0.7,
    lowest_clock=0.3,
    settle_s=0.05,
    settle_shape=3.0,
    repeats=1000.0,
    spread=0.0135,
)
"""Where a fit starts: a Hopper card of 700 W; assumed, but for the spread, which is measured on six H200."""

START_TDP_W: Final = 700.0
"""The TDP of that card, by which another card's watts scale (NVIDIA H200 datasheet)."""

REPEATS_MEAN: Final = (
    "definition: under sustained load a latency is that of the thousandth of equal steps run back to back"
)
ASSUMED: Final = {
    "active_w": "assumption: as on an H200, by TDP; a GEMM chain alone does not tell it apart",
    "hbm_w": "assumption: as on an H200, by TDP; a GEMM chain alone does not tell it apart",
    "power_exponent": "assumption: as on an H200; GEMM chains at one clock, that of the limit, do not tell it",
}
"""Constants that a fit leaves where it starts unless other kernels than GEMMs were run, and why."""

REFERENCE: Final = DType.FLOAT16
"""The number format whose tensor cores' power is `tensor_w`; a definition."""

MIN_SAMPLES: Final = 2
"""Fewest chains that meet the limit; a limit of ours, one to fit and one to judge."""

MANY_SHAPES: Final = 20
"""Mixes from which some can be held out without leaving SMs, tensor cores and HBM untold apart; a choice of ours."""

AT_BOOST: Final = 0.98
"""A chain that settles above this share of the boost clock is not limited by power; assumed, above the noise of the
sensors."""

RATE_ERROR: Final = 0.01
"""Noise of a settled rate, measured: 0.4 to 1 % between runs of the same chain on an H200."""

CLOCK_ERROR: Final = 0.04
"""Noise of a settled clock, measured: the sensor gives a new value every 100 ms, of a clock that goes up and down."""

POWER_ERROR: Final = 0.03
"""Noise of a settled power, measured: sensor and energy counter of an H200 differ by so much."""

FURTHEST: Final = 10.0
"""How many times as large or small as its start a constant may come out; a limit of ours, where chains tell little."""

_FITTED: Final = ("active_w", "tensor_w", "hbm_w", "limit_w", "power_exponent", "rate_exponent")


def start_for(device: Device) -> PowerConstants:
    """Where the fit of a card starts that no profile knows: `START`, its watts by TDP."""
    scale = device.tdp_w / START_TDP_W
    watts = {name: scale * getattr(START, name) for name in ("idle_w", "active_w", "tensor_w", "hbm_w", "limit_w")}
    return replace(START, **watts)


def load_shape(sample: SustainedSample) -> Key:
    """What a sustained load is a measurement of: its mix of kernels, however long the card has rested before."""
    return sample.shape


def load_class(sample: SustainedSample) -> tuple[int, str]:
    """The class of a sustained load: its number format, GEMMs alone or not."""
    formats = [dtype for dtype in sample.formats if dtype is not None]
    name = "no tensor cores" if not formats else min(formats, key=lambda dtype: dtype.num_bytes).value
    return (0, f"GEMMs, {name}") if sample.gemms_only else (1, f"other kernels, {name}")


def fit_power(
    samples: Sequence[SustainedSample], device: Device, initial: PowerConstants
) -> Fit[PowerConstants, SustainedSample]:
    """Fit power, clock and settling; judged on the settled rates of mixes that the fit has seen in no form.

    Of `MANY_SHAPES` mixes and more some are held out; of fewer each is judged by a fit to all others. `repeats` and
    `lowest_clock` stay as in `initial`; so do the constants of `ASSUMED` where all chains are of GEMMs, and the formats
    that no chain has.

    Raises:
        ValueError: too few chains have both a phase at the boost clock and a settled one with sensor readings.
    """
    usable = [sample.as_measured() for sample in samples if sample.is_usable]
    if len({sample.shape for sample in usable}) >= MANY_SHAPES:
        fitted, held = split(usable, load_shape)
        constants, kept = _fit(fitted, device, initial)
        return Fit(constants, tuple(load_errors(held, device, constants)), tuple(fitted), kept)
    constants, kept = _fit(usable, device, initial)
    errors: list[tuple[SustainedSample, float]] = []
    for others, own in each_left_out(usable, load_shape):
        try:
            found, _ = _fit(others, device, initial)
        except ValueError:  # the others are too few
            continue
        errors += load_errors(own, device, found)
    return Fit(constants, tuple(errors), tuple(usable), kept)


def load_errors(
    samples: Sequence[SustainedSample], device: Device, constants: PowerConstants
) -> list[tuple[SustainedSample, float]]:
    """Predicted / measured - 1 of the settled rate of each chain."""
    found = []
    for sample in samples:
        _, rate, _ = _settled(sample, device, constants)
        found.append((sample, rate * sample.boost_rate / sample.settled_rate - 1.0))
    return found


def _fit(
    samples: Sequence[SustainedSample], device: Device, initial: PowerConstants
) -> tuple[PowerConstants, dict[str, str]]:
    """Constants from chains, and what they do not tell."""
    heavy = [sample for sample in samples if sample.gemms_only and sample.settled_clock(device) < AT_BOOST]
    if len(heavy) < MIN_SAMPLES:
        message = "too few sustained records with clock and power to fit the power constants"
        raise ValueError(message)
    gemms_only = all(sample.gemms_only for sample in samples)
    idle_w = min(watts for sample in heavy for _, _, watts in sample.samples)
    start = replace(initial, idle_w=idle_w, limit_w=median(sample.settled_w for sample in heavy))
    names = [name for name in _FITTED if not (gemms_only and name in ASSUMED)]
    formats = _formats(samples)
    measured = [
        (sample.settled_rate / sample.boost_rate, sample.settled_clock(device), sample.settled_w) for sample in samples
    ]

    def errors(values: NDArray[np.float64]) -> NDArray[np.float64]:
        c = _changed(start, names, formats, np.exp(values))
        return np.array(
            [e for s, known in zip(samples, measured, strict=True) for e in _errors(_settled(s, device, c), known)]
        )

    start_at, reach = np.zeros(len(names) + len(formats)), log(FURTHEST)
    found = least_squares(errors, start_at, bounds=(-reach, reach), loss="soft_l1", f_scale=1.5)
    constants = _changed(start, names, formats, np.exp(found.x))
    limited = [sample for sample in samples if sample.settled_clock(device) < AT_BOOST]
    if uneven := [sample.unevenness for sample in limited if sample.has_cycles]:
        constants = replace(constants, unevenness=median(uneven))
    return _fit_settling(heavy, constants), dict(ASSUMED) if gemms_only else {}


def _formats(samples: Sequence[SustainedSample]) -> tuple[DType, ...]:
    """The formats whose power is told beside the reference's, which must be there to compare with."""
    found = {dtype for sample in samples for dtype in sample.formats if dtype is not None}
    return tuple(sorted(found - {REFERENCE})) if REFERENCE in found else ()


def _changed(
    start: PowerConstants, names: Sequence[str], formats: Sequence[DType], factors: NDArray[np.float64]
) -> PowerConstants:
    """The start with each fitted constant times its factor."""
    values = {name: getattr(start, name) * float(factor) for name, factor in zip(names, factors, strict=False)}
    shares: Mapping[str, float] = {
        dtype.value: start.tensor_formats.get(dtype.value, 1.0) * float(factor)
        for dtype, factor in zip(formats, factors[len(names) :], strict=True)
    }
    return replace(start, **values, tensor_formats={**start.tensor_formats, **shares})


def _settled(sample: SustainedSample, device: Device, c: PowerConstants) -> tuple[float, float, float]:
    """Clock over boost clock, rate over that at the boost clock, and power of a chain that has settled."""
    loads = [
        load if dtype is None else load._replace(tensor_s=load.tensor_s * c.tensor_formats.get(dtype.value, 1.0))
        for load, dtype in zip(sample.loads, sample.formats, strict=True)
    ]
    bandwidth = device.hbm_bandwidth_bytes_per_s
    clock = settled_clock(loads, [], sample.other_s, bandwidth, c)
    stretch = clock**-c.rate_exponent
    settled_s = sum(load.busy_s * clock_factor(load.clocked, stretch) for load in loads) + sample.other_s
    watts = c.limit_w if clock < 1.0 else average_w(loads, sample.other_s, bandwidth, c)
    return clock, (sample.busy_s + sample.other_s) / settled_s, watts


def _errors(predicted: tuple[float, float, float], measured: tuple[float, float, float]) -> tuple[float, ...]:
    """Of rate, clock and power, over their noise."""
    (clock, rate, watts), (known_rate, known_clock, known_w) = predicted, measured
    return (
        log(rate / known_rate) / RATE_ERROR,
        log(clock / known_clock) / CLOCK_ERROR,
        log(watts / known_w) / POWER_ERROR,
    )


def _fit_settling(samples: Sequence[SustainedSample], c: PowerConstants) -> PowerConstants:
    """Time and shape of the way down, from the rates of heavy chains."""
    ways = [pair for sample in samples for pair in _way_down(sample)]
    if not ways:
        return c

    def errors(values: NDArray[np.float64]) -> NDArray[np.float64]:
        settle_s, shape = float(values[0]), float(values[1])
        return np.array([1.0 - exp(-((at / settle_s) ** shape)) - way for at, way in ways])

    found = least_squares(errors, (c.settle_s, c.settle_shape), bounds=([0.005, 0.5], [1.0, 8.0]), loss="soft_l1")
    return replace(c, settle_s=float(found.x[0]), settle_shape=float(found.x[1]))


def _way_down(sample: SustainedSample) -> list[tuple[float, float]]:
    """(seconds, how far the rate has come of its way to the settled one) by chunk."""
    boost, settled = sample.boost_rate, sample.settled_rate
    chunks = zip(sample.chunk_end_s, sample.chunk_rounds_per_s, strict=True)
    return [
        ((begun_s + end_s) / 2.0, (boost - rate) / (boost - settled))
        for (begun_s, _), (end_s, rate) in pairwise(chunks)
        if BOOST_WINDOW_S[0] < end_s < SETTLING_UNTIL_S
    ]
