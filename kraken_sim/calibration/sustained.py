"""A sustained load as a sample: its rate at the boost clock and settled, and what the card's sensors said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.calibration.split import Key
    from kraken_sim.costs.power import Load
    from kraken_sim.hardware.device import Device
    from kraken_sim.program.ops import DType

BOOST_WINDOW_S: Final = (4e-3, 24e-3)
"""Chunks that end in here run at the boost clock, measured: the first one warms up, the controller has not acted
yet."""

SETTLED_FROM_S: Final = 0.2
"""From here on rates and readings have settled, measured on an H200; dips of some 0.15 s follow once a second and
belong to the average."""

SETTLING_UNTIL_S: Final = 0.15
"""Until here the clock is on its way down, measured on an H200."""

LEAST_IDLE_S: Final = 0.5
"""Rest before a load that starts at the boost clock for sure; measured: 0.1 s is enough, 0.03 s is not."""

LEAST_LOAD_S: Final = 1.0
"""Load that has one of the dips in it, which an H200 takes after 0.9 s and then about once a second, measured."""

LEAST_CYCLES_S: Final = 2.0
"""Load with so many dips that the share of their time is about right; a choice of ours, two of them."""

LONGEST_CHUNK_S: Final = 0.05
"""Longest chunk that shows a dip of 0.15 s whole; a choice of ours, a third of it."""

LEAST_ENERGY: Final = 3
"""Fewest readings of the energy counter that tell a power; a limit of ours."""

HOST_BOUND: Final = 1.35
"""A round that takes this much longer than its kernels waits for the host that launches them; assumed."""


@dataclass(frozen=True, slots=True)
class SustainedSample:
    """A chain of kernels under load: rounds/s by chunk, and (seconds, clock in Hz, watts) by reading.

    `loads` are the kernels of one round at the boost clock, whose `tensor_s` no format weighs yet; `formats` are their
    number formats, None where a kernel leaves the tensor cores alone. `other_s` of a round no kernel runs.
    """

    idle_before_s: float
    chunk_end_s: tuple[float, ...]
    chunk_rounds_per_s: tuple[float, ...]
    samples: tuple[tuple[float, float, float], ...]
    loads: tuple[Load, ...]
    formats: tuple[DType | None, ...]
    shape: Key
    """What the kernels of a round work on."""
    gemms_only: bool = True
    energy_j: tuple[tuple[float, float], ...] = ()
    """(seconds, J) of the card's energy counter, where it was read."""
    other_s: float = 0.0

    @property
    def boost_rate(self) -> float:
        """Rounds a second at the boost clock."""
        low, high = BOOST_WINDOW_S
        rates = [rate for at, rate in zip(self.chunk_end_s, self.chunk_rounds_per_s, strict=True) if low < at < high]
        return median(rates) if rates else self.chunk_rounds_per_s[0]

    @property
    def settled_rate(self) -> float:
        """Rounds a second from `SETTLED_FROM_S` to the end."""
        rounds = seconds = begun_s = 0.0
        for end_s, rate in zip(self.chunk_end_s, self.chunk_rounds_per_s, strict=True):
            if begun_s >= SETTLED_FROM_S:
                rounds += rate * (end_s - begun_s)
                seconds += end_s - begun_s
            begun_s = end_s
        return rounds / seconds

    @property
    def has_cycles(self) -> bool:
        """Whether it is long and finely cut enough to show how a settled card's rate goes up and down."""
        last_s = self.chunk_end_s[-1]
        longest_s = max(end_s - begun_s for begun_s, end_s in pairwise(self.chunk_end_s))
        return last_s >= LEAST_CYCLES_S and longest_s <= LONGEST_CHUNK_S

    @property
    def unevenness(self) -> float:
        """Mean excess of the time of a round over its floor in settled chunks, over what the limit costs on average.

        For an exponential excess that is twice what the slower of two draws has over their mean.
        """
        boost_s = 1.0 / self.boost_rate
        begun = zip(self.chunk_end_s, self.chunk_rounds_per_s[1:], strict=False)
        times = sorted(1.0 / rate for begun_s, rate in begun if begun_s >= SETTLED_FROM_S)
        count = len(times)
        of_two = sum((2 * index + 1) * seconds for index, seconds in enumerate(times)) / count**2
        return 2.0 * (of_two - fmean(times)) / (fmean(times) - boost_s)

    def settled_clock(self, device: Device) -> float:
        """The mean of the readings since `SETTLED_FROM_S`, over the boost clock."""
        return fmean(reading[1] for reading in self._settled) / device.boost_clock_hz

    @property
    def settled_w(self) -> float:
        """Power since `SETTLED_FROM_S`, by the energy counter where it was read."""
        counted = [reading for reading in self.energy_j if reading[0] > SETTLED_FROM_S]
        if len(counted) >= LEAST_ENERGY:
            (begun_s, before_j), (end_s, after_j) = counted[0], counted[-1]
            return (after_j - before_j) / (end_s - begun_s)
        return fmean(reading[2] for reading in self._settled)

    @property
    def _settled(self) -> Sequence[tuple[float, float, float]]:
        return [reading for reading in self.samples if reading[0] > SETTLED_FROM_S]

    @property
    def is_usable(self) -> bool:
        """Whether it has a phase at the boost clock and a long settled one with readings, and waits for no host."""
        if self.idle_before_s < LEAST_IDLE_S or max(self.chunk_end_s, default=0.0) < LEAST_LOAD_S or not self._settled:
            return False
        return self.boost_rate * (self.busy_s * HOST_BOUND + self.other_s) > 1.0

    @property
    def busy_s(self) -> float:
        """Time of a round's kernels at the boost clock."""
        return float(sum(load.busy_s for load in self.loads))

    def as_measured(self) -> SustainedSample:
        """The same with kernels as long as the chain at the boost clock says; how they share the time stays."""
        factor = (1.0 / self.boost_rate - self.other_s) / self.busy_s
        if factor <= 0.0:
            return self
        return replace(self, loads=tuple(load._replace(busy_s=factor * load.busy_s) for load in self.loads))
