"""Compute kernels on a device: how their CTAs occupy SMs, and how far they have come.

CTAs that start together and live equally long form a *wave*. What remains of it is counted in seconds of CTA life at
speed 1, the speed of the kernel alone on the device. A grid that fills the device runs all of its full waves as one,
which costs one event: its own CTAs come before those of later kernels, so that nobody could start between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kraken_sim.costs.contention import fill_speed
from kraken_sim.engine.clock import each_to_ps, to_ps, to_s
from kraken_sim.program.many import maths_for

if TYPE_CHECKING:
    from kraken_sim.costs.types import KernelCost
    from kraken_sim.engine.clock import Action

DONE_S = 1e-12
"""Work below a picosecond is finished: the clock cannot resolve it; a limit of ours."""


class LaunchShape(NamedTuple):
    """How a kernel runs with the device to itself: its CTAs, how many at once, the life of one, and all of it."""

    ctas: int
    full_width: int
    body_s: float
    life_s: float
    alone_ps: int
    """Its start and its full waves, then the last one."""


def launch_shape(cost: KernelCost, num_sms: int) -> LaunchShape:
    """Waves of equal lives fill the time after the kernel's start."""
    maths = maths_for(cost.busy_s)
    ctas = maths.maximum(1, cost.ctas)
    full_width = maths.minimum(ctas, cost.ctas_per_sm * num_sms)
    waves, rest = divmod(ctas, full_width)
    body_s = maths.maximum(cost.busy_s - cost.fixed_s, DONE_S)
    life_s = body_s / (waves + (rest > 0))
    alone_ps = each_to_ps(cost.fixed_s + waves * life_s) + (rest > 0) * each_to_ps(life_s)
    return LaunchShape(ctas, full_width, body_s, life_s, alone_ps)


@dataclass(slots=True)
class Wave:
    """`ctas` CTAs that run at once, for the life of one or, where full waves follow each other, of several."""

    ctas: int
    remaining_s: float


@dataclass(slots=True)
class ComputeKernel:
    """A compute kernel from its dispatch to its end."""

    cost: KernelCost
    shape: LaunchShape
    finished: Action
    """Called when its last CTA has ended."""
    order: int
    """Number of its launch on the device."""
    num_sms: int
    compute_fraction: float
    memory_fraction: float
    pending: int
    """CTAs that wait for an SM."""
    short: int
    """Those of them that have one tile less than the others."""
    starting_s: float
    """What is left of the launch latency, which no other kernel prolongs."""
    waves: list[Wave] = field(default_factory=list)
    active_ctas: int = 0
    """CTAs that are running now."""
    sms_filled: int = 0
    """SMs that its running CTAs would fill if they were packed: what other compute cannot have."""
    speed: float = 1.0
    earliest_ps: int = -1
    """When it would end with the device to itself; -1 before its first CTA has started."""

    @classmethod
    def create(
        cls, cost: KernelCost, shape: LaunchShape, finished: Action, order: int, num_sms: int, saturation: float
    ) -> ComputeKernel:
        """Derive what limits a CTA, and which of them have less to do."""
        ctas, body_s = shape.ctas, shape.body_s
        memory_bound = cost.memory_s > cost.compute_s
        compute_fraction = min(1.0, max(cost.compute_s / body_s, saturation)) if memory_bound else 1.0
        uneven = cost.persistent and ctas == shape.full_width < cost.tiles and cost.tiles % ctas > 0
        return cls(
            cost, shape, finished, order, num_sms, compute_fraction, min(1.0, cost.memory_s / body_s),
            pending=ctas, short=ctas - cost.tiles % ctas if uneven else 0, starting_s=cost.fixed_s,
        )  # fmt: skip

    @property
    def sms_touched(self) -> int:
        """SMs with at least one of its CTAs: the hardware spreads a grid over all SMs before it stacks CTAs."""
        return min(self.num_sms, self.active_ctas)

    @property
    def waits(self) -> bool:
        """Some of its CTAs need an SM."""
        return self.pending > 0

    def start(self, free_sms: int, now_ps: int) -> None:
        """Start pending CTAs on `free_sms` SMs.

        Static schedules of persistent grids deal some CTAs one tile less; those are taken to start first. Two H200
        show it: where 4 of 132 CTAs are displaced and 8 have one tile of two, the displaced ones start when the
        short ones end and run for both their tiles.
        """
        if self.earliest_ps < 0:
            self.earliest_ps = now_ps + self.shape.alone_ps
        width = min(self.pending, free_sms * self.cost.ctas_per_sm)
        if self.short:
            short = min(width, self.short)
            tiles = self.cost.tiles // self.cost.ctas
            self._place(short, 1, self.shape.life_s * tiles / (tiles + 1))
            self.short -= short
            width -= short
        if width:
            waves = self.pending // width if width == self.shape.full_width else 1
            self._place(width, waves, self.shape.life_s)

    def _place(self, ctas: int, waves: int, life_s: float) -> None:
        self.waves.append(Wave(ctas, waves * life_s))
        self.pending -= waves * ctas
        self.active_ctas += ctas
        self.sms_filled += -(-ctas // self.cost.ctas_per_sm)

    def retire(self) -> bool:
        """End the waves that are over; whether none is left, nor to come."""
        left = []
        for wave in self.waves:
            if wave.remaining_s > DONE_S:
                left.append(wave)
            else:
                self.active_ctas -= wave.ctas
                self.sms_filled -= -(-wave.ctas // self.cost.ctas_per_sm)
        self.waves = left
        return not left and not self.pending

    def set_own_speed(self) -> float:
        """Take the speed that the CTAs running now have without others; returns the share of HBM that they ask for."""
        fill = self.active_ctas / self.shape.full_width
        self.speed = speed = fill_speed(fill, self.compute_fraction, self.memory_fraction)
        return self.memory_fraction * fill * speed

    def advance(self, elapsed_s: float) -> None:
        """Let time pass: launch latency first, at its own pace, then CTA life at `speed`."""
        if self.starting_s > 0.0:
            waited_s = min(elapsed_s, self.starting_s)
            self.starting_s -= waited_s
            elapsed_s -= waited_s
        done_s = elapsed_s * self.speed
        for wave in self.waves:
            wave.remaining_s -= done_s

    @property
    def wave_is_over(self) -> bool:
        """The CTAs of some wave have ended."""
        if self.starting_s > DONE_S:
            return False
        for wave in self.waves:  # noqa: SIM110 - a loop is faster than a generator, and this runs at every event
            if wave.remaining_s <= DONE_S:
                return True
        return False

    @property
    def time_left_s(self) -> float:
        """Seconds until its next wave ends, if the speed stays."""
        waves = self.waves
        least_s = waves[0].remaining_s if len(waves) == 1 else min([wave.remaining_s for wave in waves])
        return self.starting_s + max(0.0, least_s) / self.speed


@dataclass(slots=True)
class WaveCycle:
    """Waves of one kernel that follow each other on the same SMs, all of one life, until something else happens.

    Each of its running waves ends at one of `ends_ps` and is followed by one as wide every `period_ps`: the same
    moments that the waves would end at one by one, as all are whole picoseconds.
    """

    kernel: ComputeKernel
    ends_ps: list[int]
    period_ps: int
    skipped_ps: int
    """So many periods that the CTAs that wait are enough for all of them."""

    @classmethod
    def of(cls, kernel: ComputeKernel, now_ps: int) -> WaveCycle | None:
        """The cycle that begins now; None where waves stand for several, or end together and become one."""
        period_ps = to_ps(kernel.shape.life_s / kernel.speed)
        widths = [wave.ctas for wave in kernel.waves]
        if period_ps <= 0 or kernel.shape.full_width in widths:
            return None
        if any(width % kernel.cost.ctas_per_sm for width in widths):
            return None
        ends_ps = [
            now_ps + to_ps(kernel.starting_s + max(0.0, wave.remaining_s) / kernel.speed) for wave in kernel.waves
        ]
        if len({end % period_ps for end in ends_ps}) < len(ends_ps):
            return None
        return cls(kernel, ends_ps, period_ps, kernel.pending // kernel.active_ctas * period_ps)

    def advance(self, elapsed_s: float, now_ps: int) -> None:
        """Let time pass until a moment; waves that end then have not ended."""
        kernel = self.kernel
        waited_s = min(elapsed_s, kernel.starting_s)
        kernel.starting_s -= waited_s
        for wave, end_ps in zip(kernel.waves, self.ends_ps, strict=True):
            if now_ps <= end_ps:
                wave.remaining_s -= (elapsed_s - waited_s) * kernel.speed
                continue
            ended = (now_ps - end_ps - 1) // self.period_ps + 1
            kernel.pending -= ended * wave.ctas
            begin_ps = end_ps + (ended - 1) * self.period_ps
            wave.remaining_s = kernel.shape.life_s - to_s(now_ps - begin_ps) * kernel.speed
