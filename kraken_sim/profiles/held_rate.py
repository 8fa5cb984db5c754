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
"""

from __future__ import annotations

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

RATE_BY_WATTS: Final = 0.44
"""Exponent of the rate in the watts; measured on one H200 under 55 sustained loads: its SMs' power goes with the clock
to the 1.524, arithmetic with the clock to the 0.67."""

WORK_PER_JOULE: Final[Mapping[str, float]] = MappingProxyType(
    {"volta": 0.625, "turing": 0.625, "ampere": 1.0, "ada": 1.6, "hopper": 1.6, "blackwell": 2.56, "cdna3": 1.6}
)
"""Operations per joule at the same clock, over GA100's, of data-centre chips by generation; Ada's time is Hopper's.
Fitted to the shares of the peak that GEMMs of A100, L40S, H100 and B200 hold (0.92, 0.65, 0.76, 0.77): from generation
to generation, and from a graphics chip to the data-centre chip of its time, it is a factor of 1.6. Volta and Turing are
taken for a generation before, AMD's CDNA 3 for Hopper's."""

GRAPHICS_CHIPS_BEHIND: Final = 1.6
"""The factor that graphics chips are behind; fitted: L40S beside H100. That it holds for Ampere and Blackwell too is
assumed."""

_SAME_RATE: Final = 0.1
"""By how much rate and watts a clock and SM of like cards differ; a limit of ours: datasheets state rates at clocks
that differ by so much."""


def held_share(share: float, source: Device, target: Device, dtype: DType | None = None) -> float:
    """The share of its peak rate that `target` holds, where `source` holds `share` of its own; at most 0.95.

    Args:
        share: of the peak rate, 0 to 1.
        source: the GPU that was measured.
        target: another one.
        dtype: the number format; None for the fastest of 16 bits and more.
    """
    rates = rate_flops(source, dtype), rate_flops(target, dtype)
    needed = joules_per_operation(target) * rates[1] / (joules_per_operation(source) * rates[0])
    at_hand = target.tdp_w / source.tdp_w / needed
    held = share * float(at_hand**RATE_BY_WATTS)
    if _same_sms(source, target):
        per_clock = source.num_sms * source.boost_clock_hz / (target.num_sms * target.boost_clock_hz)
        held = min(held, share * rates[0] / (rates[1] * per_clock))
    return min(held, max(MAX_MMA_EFFICIENCY, share))


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
