"""Kernels on a device: how their CTAs occupy SMs, and how far they have come.

A compute kernel is a set of *lumps*: CTAs that started together and live equally long. While nothing else
wants SMs, all waves of a plain grid form one lump, so a kernel that runs undisturbed costs one event; when
something changes, a lump is split at the boundary of its current wave. Remaining work is counted in seconds
of CTA life at speed 1, the speed of the kernel alone on the device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kraken_sim.engine.clock import to_s

if TYPE_CHECKING:
    import simpy

    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.engine.collective import JointCollective

DONE_S = 1e-12
"""Work below a picosecond is finished: the clock cannot resolve it; a limit of ours."""


def launch_shape(cost: KernelCost, num_sms: int) -> tuple[int, int, float]:
    """CTAs of a kernel, how many of them run at once with the device to themselves, and the life of one."""
    ctas = max(1, cost.ctas)
    full_width = min(ctas, cost.ctas_per_sm * num_sms)
    body_s = max(cost.busy_s - cost.fixed_s, DONE_S)
    return ctas, full_width, body_s / -(-ctas // full_width)


def alone_s(cost: KernelCost, num_sms: int) -> float | None:
    """Duration of a kernel that has the device to itself: the one timer that its one lump then sets.

    None for a persistent grid of more CTAs than run at once, which ends in several steps.
    """
    ctas, full_width, life_s = launch_shape(cost, num_sms)
    if cost.persistent and ctas > full_width:
        return None
    return cost.fixed_s + -(-ctas // full_width) * life_s


@dataclass(slots=True)
class Lump:
    """`ctas` CTAs run `width` at a time, one wave of them lives `life_s`; `sms` are held meanwhile."""

    ctas: int
    width: int
    sms: int
    life_s: float
    remaining_s: float
    delay_s: float = 0.0

    def advance(self, elapsed_s: float, speed: float) -> None:
        """Let time pass: launch latency first, at its own pace, then CTA life at `speed`."""
        waited = min(elapsed_s, self.delay_s)
        self.delay_s -= waited
        self.remaining_s -= (elapsed_s - waited) * speed

    def time_left_s(self, speed: float) -> float:
        """Seconds until the last CTA ends, if the speed stays."""
        return self.delay_s + max(0.0, self.remaining_s) / speed

    @property
    def done(self) -> bool:
        """No CTA is left."""
        return self.delay_s <= DONE_S and self.remaining_s <= DONE_S


@dataclass(slots=True)
class ComputeKernel:
    """A compute kernel from its dispatch to its end."""

    cost: KernelCost
    finished: simpy.Event
    priority: int
    order: int
    full_width: int
    """CTAs that run at once when the kernel has the device to itself."""
    life_s: float
    """Life of a CTA (of a full wave) when the kernel has the device to itself."""
    compute_fraction: float
    memory_fraction: float
    pending: int
    num_sms: int
    lumps: list[Lump] = field(default_factory=list)
    speed: float = 1.0
    started: bool = False
    began_ps: int = -1
    """When its first CTA started; -1 before."""

    @classmethod
    def create(
        cls,
        cost: KernelCost,
        finished: simpy.Event,
        priority: int,
        order: int,
        num_sms: int,
        saturation: float,
    ) -> ComputeKernel:
        """Derive the launch shape: waves, life of a CTA, and what limits it."""
        ctas, full_width, life_s = launch_shape(cost, num_sms)
        body_s = max(cost.busy_s - cost.fixed_s, DONE_S)
        memory_bound = cost.memory_s > cost.compute_s
        memory_fraction = min(1.0, cost.memory_s / body_s)
        compute_fraction = 1.0
        if memory_bound:
            compute_fraction = min(1.0, max(cost.compute_s / body_s, saturation))
        return cls(
            cost, finished, priority, order, full_width, life_s, compute_fraction,
            memory_fraction, pending=ctas, num_sms=num_sms,
        )  # fmt: skip

    @property
    def active_ctas(self) -> int:
        """CTAs that are running now."""
        count = 0
        for lump in self.lumps:
            count += lump.width if lump.width < lump.ctas else lump.ctas
        return count

    @property
    def sms_filled(self) -> int:
        """SMs that its running CTAs would fill if they were packed: what other compute cannot have."""
        count = 0
        for lump in self.lumps:
            count += lump.sms
        return count

    @property
    def sms_touched(self) -> int:
        """SMs with at least one of its CTAs: the hardware spreads a grid over all SMs before it stacks CTAs."""
        return min(self.num_sms, self.active_ctas)

    @property
    def short_life_s(self) -> float:
        """Life of the CTAs of a persistent kernel that get one tile less than the others."""
        tiles_min = self.cost.tiles // max(1, self.cost.ctas)
        uneven = self.cost.tiles % max(1, self.cost.ctas) != 0
        return self.life_s * tiles_min / (tiles_min + 1) if uneven and tiles_min > 0 else self.life_s

    def sms_for(self, ctas: int) -> int:
        """SMs that `ctas` CTAs occupy when packed."""
        return -(-ctas // self.cost.ctas_per_sm)

    def early_s(self, now_ps: int) -> float:
        """How much sooner than alone on the device the kernel would have ended, if it ended now.

        The model gives all waves one length, and a nearly empty last one with the bandwidth to itself runs faster
        than that beside other work; but what runs beside others never ends before it would have alone.
        """
        least_s = alone_s(self.cost, self.num_sms)
        return 0.0 if least_s is None else least_s - to_s(now_ps - self.began_ps)

    def wait(self, seconds: float) -> None:
        """Let time pass without a CTA."""
        self.lumps.append(Lump(0, 1, 0, self.life_s, 0.0, seconds))

    def start(self, free_sms: int, *, alone: bool) -> None:
        """Start pending CTAs on `free_sms` SMs; `alone` when nothing else waits for SMs."""
        width = min(self.pending, free_sms * self.cost.ctas_per_sm)
        # CTAs that find an SM while the kernel is still starting wait for the rest of its start.
        starting_s = max((lump.delay_s for lump in self.lumps), default=0.0)
        delay_s = starting_s if self.started else self.cost.fixed_s
        self.started = True
        whole = width == self.pending
        if self.cost.persistent and not (whole and alone and not self.lumps):
            self._start_persistent(width, delay_s)
            return
        total = width
        if not whole and not self.lumps:
            total = self.pending if alone else self.pending - self.pending % width
        waves = -(-total // width)
        self.lumps.append(Lump(total, width, self.sms_for(width), self.life_s, waves * self.life_s, delay_s))
        self.pending -= total

    def _start_persistent(self, width: int, delay_s: float) -> None:
        """Static schedules deal some CTAs one tile less; those are taken to be among the ones that start.

        Two H200 show it: where 4 of 132 CTAs are displaced and 8 have one tile of two, the displaced ones start
        when the short ones end and run for both their tiles.
        """
        long_total = self.cost.tiles % max(1, self.cost.ctas)
        short_total = self.cost.ctas - long_total if long_total else 0
        launched = self.cost.ctas - self.pending
        short = max(0, min(width, short_total - launched))
        for count, life_s in ((width - short, self.life_s), (short, self.short_life_s)):
            if count > 0:
                self.lumps.append(Lump(count, count, self.sms_for(count), life_s, life_s, delay_s))
        self.pending -= width

    def split(self) -> None:
        """End the current lump at its wave boundary and return the waves after it to `pending`."""
        lumps, self.lumps = self.lumps, []
        for lump in lumps:
            waves_left = max(1, -int(-(lump.remaining_s - DONE_S) // lump.life_s))
            waves_total = -(-lump.ctas // lump.width)
            if self.cost.persistent and lump.width == self.cost.ctas:
                self._split_persistent(lump)
            elif waves_total == 1:
                self.lumps.append(lump)
            else:
                before = (waves_total - waves_left) * lump.width
                current = min(lump.width, lump.ctas - before)
                self.pending += lump.ctas - before - current
                lump.remaining_s -= (waves_left - 1) * lump.life_s
                lump.ctas = lump.width = current
                lump.sms = self.sms_for(current)
                self.lumps.append(lump)

    def _split_persistent(self, lump: Lump) -> None:
        long = self.cost.tiles % self.cost.ctas
        saved_s = self.life_s - self.short_life_s
        if long == 0 or lump.remaining_s <= saved_s or saved_s == 0.0:
            kept = long if long and lump.remaining_s <= saved_s else lump.ctas
            lump.ctas = lump.width = kept
            lump.sms = self.sms_for(kept)
            self.lumps.append(lump)
            return
        short = lump.ctas - long
        self.lumps.append(Lump(long, long, self.sms_for(long), self.life_s, lump.remaining_s, lump.delay_s))
        self.lumps.append(
            Lump(short, short, self.sms_for(short), self.short_life_s, lump.remaining_s - saved_s, lump.delay_s)
        )


@dataclass(slots=True)
class CollectiveKernel:
    """One rank's kernel of a collective: it holds `sms_held` SMs from dispatch to the end of the whole."""

    cost: CollectiveCost
    joint: JointCollective
    priority: int
    order: int
    sms_wanted: int
    hbm_fraction: float
    sms_held: int = 0
    limit: float = 1.0
    """Speed this rank could sustain, relative to the collective alone."""
