"""What share of its tensor cores' rate a GPU holds, from that of another one: what limits a card that nobody measured.

The least of three:

    full     = what kernels reach where nothing else holds them back
    issued   = share_s · (rate_s per SM and clock) / (rate_t per SM and clock)        within a generation
    watts    = share_s · (joules at hand per operation, t over s)^g

    joules at hand per operation = watts / rate · work per joule of the generation / boost clock

with rate the datasheet's peak in the number format, s the GPU that was measured and t the other one. `issued` says that
an SM feeds and retires no more a clock than it was seen to; a chip with slower tensor cores (H20 has a quarter of
H100's, L20 and GeForce half of L40S's) is not held back by it. `watts` says that at the same clock and share an
operation takes energy that grows with the clock (voltage rises with it) and falls from generation to generation, and
that a card with fewer watts per operation lowers its clock until they suffice.

Where s has watts to spare (A100: its long products are as fast as its short ones), its share is what its kernels reach
and says nothing of watts. Then

    full     = share_s
    watts    = full rate · (joules at hand per operation, t over what the full rate takes)^g

and short products, which draw less for the same work, get `SHORT_OVER_LONG` of that.
"""

from __future__ import annotations

from math import log
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.hardware.device import Device
    from kraken_sim.program.formats import DType

MAX_MMA_EFFICIENCY: Final = 0.95
"""Share of the tensor-core peak that a GPU reaches when neither watts nor clock hold it back; assumed: the fit of A100
has 0.92; published products of 8192 reach 0.99 of it on RTX 4090 (xytpai/gpuk) and RTX 5060 Ti
(QuantumDrizzle/BLACKWALL), 0.88 to 0.96 on L20 (DefTruth/CUDA-Learn-Notes), and these include a kernel's ends."""

RATE_BY_WATTS: Final = 0.68
"""Exponent of the rate in the watts: that of an SM's power in the clock, 1.469 (measured on one H200 under 55 sustained
loads), turned round, as the rate of products far below the boost clock is in proportion to the clock."""

RATE_BY_WATTS_LEAST: Final = 0.46
"""The same of an RTX PRO 6000 Server of 300 to 500 W; published (voipmonitor/rtx6kpro, power limit sweep)."""

RATE_BY_WATTS_MOST: Final = 0.87
"""The same of an RTX PRO 6000 Workstation of 300 to 600 W; published there too."""

WORK_PER_JOULE: Final[Mapping[str, float]] = MappingProxyType(
    {"volta": 0.625, "turing": 0.625, "ampere": 1.0, "ada": 1.6, "hopper": 1.6, "blackwell": 2.29, "cdna3": 1.6}
)
"""Operations per joule at the same clock, over GA100's, of data-centre chips by generation; Ada's time is Hopper's.
Fitted to the shares of the peak that long GEMMs of L40S, H100 and B200 hold (0.54, 0.68, 0.67); Ampere's, whose A100
has watts to spare and so says at most a factor of 2.1 to Hopper's, is assumed to be as far behind Hopper's as graphics
chips are. Volta and Turing are taken for a generation before, AMD's CDNA 3 for Hopper's."""

GRAPHICS_CHIPS_BEHIND: Final = 1.6
"""The factor that graphics chips are behind; fitted: L40S beside H100. That it holds for Ampere and Blackwell too is
assumed."""

FULL_RATE_JOULES: Final = 0.874e-21
"""Joules per operation and Hz of boost clock at which GA100 would hold the full rate; fitted to the same long GEMMs."""

SHORT_OVER_LONG: Final = 1.16
"""Rate of short products over that of long ones where watts limit both; fitted: 1.20 on L40S, 1.13 on H100, 1.16 on
B200."""

_SAME_RATE: Final = 0.1
"""By how much rate and watts a clock and SM of like cards differ; a limit of ours: datasheets state rates at clocks
that differ by so much."""


def held_share(
    share: float,
    source: Device,
    target: Device,
    dtype: DType | None = None,
    *,
    short: bool = False,
    exponent: float = RATE_BY_WATTS,
) -> float:
    """The share of its peak rate that `target` holds, where `source` holds `share` of its own; at most 0.95.

    Args:
        share: of the peak rate, 0 to 1.
        source: the GPU that was measured.
        target: another one.
        dtype: the number format; None for the fastest of 16 bits and more.
        short: whether the share is that of short products.
        exponent: of the rate in the watts.
    """
    rates = rate_flops(source, dtype), rate_flops(target, dtype)
    needed = joules_per_operation(target) * rates[1] / (joules_per_operation(source) * rates[0])
    bought = float((target.tdp_w / source.tdp_w / needed) ** exponent)
    if _spare(source) < 1.0:
        held, full = share * bought, max(MAX_MMA_EFFICIENCY, share)
    else:
        held = MAX_MMA_EFFICIENCY * float(_spare(source) ** exponent) * bought
        held, full = held * (SHORT_OVER_LONG if short else 1.0), share
    if _same_sms(source, target):
        per_clock = source.num_sms * source.boost_clock_hz / (target.num_sms * target.boost_clock_hz)
        held = min(held, share * rates[0] / (rates[1] * per_clock))
    return min(held, full)


def share_doubt(share: float, source: Device, target: Device) -> float:
    """How far off `held_share` may be, relatively, as exponents of the rate in the watts are known."""
    low, high = (
        held_share(share, source, target, exponent=exponent) for exponent in (RATE_BY_WATTS_LEAST, RATE_BY_WATTS_MOST)
    )
    return 0.5 * abs(log(high / low))


def _spare(device: Device) -> float:
    """The card's watts over what it takes to hold the full rate of 16 bits."""
    return device.tdp_w / (device.unquantised_flops * joules_per_operation(device) * FULL_RATE_JOULES)


def near(a: Device, b: Device) -> bool:
    """Whether what was measured on `a` tells of `b`: the same SMs, and no fewer watts for what they can do."""
    if not _same_sms(a, b):
        return False
    rates = [device.unquantised_flops / (device.num_sms * device.boost_clock_hz) for device in (a, b)]
    watts = [device.tdp_w / (device.num_sms * device.boost_clock_hz) for device in (a, b)]
    return abs(rates[1] / rates[0] - 1.0) < _SAME_RATE and watts[1] > (1.0 - _SAME_RATE) * watts[0]


def _same_sms(a: Device, b: Device) -> bool:
    return (a.generation, a.is_graphics_chip) == (b.generation, b.is_graphics_chip)


def held_clock(mma_efficiency: float) -> float:
    """The clock that a card holds under matrix products, over its boost clock, as far as their share tells it."""
    return min(mma_efficiency / MAX_MMA_EFFICIENCY, 1.0)


def rate_flops(device: Device, dtype: DType | None) -> float:
    """The peak rate in a number format, in FLOP/s; None for the fastest of 16 bits and more."""
    return device.unquantised_flops if dtype is None else device.peak_flops[dtype]


def joules_per_operation(device: Device) -> float:
    """What an operation of the tensor cores takes at the boost clock, over GA100's at 1 Hz."""
    work = WORK_PER_JOULE[device.generation]
    if device.is_graphics_chip:
        work /= GRAPHICS_CHIPS_BEHIND
    return device.boost_clock_hz / work
