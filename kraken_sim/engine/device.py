"""One simulated GPU: who holds its SMs, who shares its HBM, and when the next CTA ends.

The rules:

- SMs go to kernels in the order of their launch (the hardware's leftover policy): CTAs of a later kernel are placed
  when none of an earlier one waits. Running CTAs are never preempted.
- A collective's CTA needs an SM without a CTA of compute, and holds it until the whole collective has ended; the
  collective begins when all of its CTAs have one. CTAs of compute that find no SM wait until one is free.
- Kernels that together ask for more than HBM gives are slowed alike. Besides, a collective slows compute by its
  traffic, and compute a collective by its own.
- Nothing that runs beside others ends before it would have alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from kraken_sim.costs.contention import hbm_share
from kraken_sim.engine.clock import set_timer, to_ps, to_s
from kraken_sim.engine.collective import CollectiveKernel
from kraken_sim.engine.resident import ComputeKernel, WaveCycle, launch_shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    import simpy

    from kraken_sim.costs.contention import ContentionConstants
    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.engine.clock import Action, Clock
    from kraken_sim.engine.collective import JointCollective
    from kraken_sim.engine.resident import LaunchShape


@dataclass(slots=True)
class DeviceState:
    """The kernels on one device; times are integer picoseconds of the SimPy clock."""

    env: Clock
    num_sms: int
    hbm_bandwidth_bytes_per_s: float
    contention: ContentionConstants
    shapes: Mapping[int, LaunchShape]
    compute: list[ComputeKernel] = field(default_factory=list)
    collectives: list[CollectiveKernel] = field(default_factory=list)
    _num_launched: int = 0
    _updated_ps: int = 0
    _timer: int = 0
    _cycle: WaveCycle | None = None
    """What the timer skips."""

    def launch(self, cost: KernelCost, finished: Action) -> None:
        """Dispatch a compute kernel; `finished` is called when its last CTA has ended."""
        self._advance()
        self._num_launched += 1
        saturation = self.contention.memory_saturation_fraction
        shape, number = self.shape_of(cost), self._num_launched
        self.compute.append(ComputeKernel.create(cost, shape, finished, number, self.num_sms, saturation))
        self._settle()

    def shape_of(self, cost: KernelCost) -> LaunchShape:
        """How the kernel runs with the device to itself."""
        return self.shapes.get(id(cost)) or launch_shape(cost, self.num_sms)

    def launch_collective(self, cost: CollectiveCost, joint: JointCollective) -> None:
        """Dispatch this rank's kernel of a collective; `joint.finished` succeeds at its end."""
        self._advance()
        self._num_launched += 1
        hbm_bytes_per_s = cost.hbm_bytes / cost.busy_s if cost.busy_s > 0.0 else 0.0
        hbm_fraction = min(1.0, hbm_bytes_per_s / self.hbm_bandwidth_bytes_per_s)
        kernel = CollectiveKernel(joint, self._num_launched, min(cost.channels, self.num_sms), hbm_fraction)
        self.collectives.append(kernel)
        self._settle()
        if kernel.sms_wanted == 0:
            joint.join(self, kernel)

    def release(self, kernel: CollectiveKernel) -> None:
        """A collective has ended: its SMs are free."""
        self._advance()
        self.collectives.remove(kernel)
        self._settle()

    def set_speeds(self) -> None:
        """A collective has begun."""
        self._advance()
        self._share()

    def _advance(self) -> None:
        now = self.env.now
        cycle, self._cycle = self._cycle, None
        if now > self._updated_ps:
            elapsed_s = to_s(now - self._updated_ps)
            if cycle is not None:
                cycle.advance(elapsed_s, now)
            else:
                for kernel in self.compute:
                    kernel.advance(elapsed_s)
            self._updated_ps = now

    def _settle(self) -> None:
        """After any change: retire what ended, place what waits, set speeds and the timer."""
        self._retire()
        if self.compute or self.collectives:
            joined = self._dispatch()
            for kernel in joined:
                kernel.joint.join(self, kernel)
            if not joined or not joined[-1].joint.running:  # else what began has shared already
                self._share()

    def _retire(self) -> None:
        """A nearly empty last wave that had the bandwidth to itself may end too early: its kernel then waits."""
        for kernel in [kernel for kernel in self.compute if kernel.wave_is_over]:
            if kernel.retire():
                self.compute.remove(kernel)
                early_ps = kernel.earliest_ps - self._updated_ps
                if early_ps > 0:
                    set_timer(self.env, early_ps, kernel.finished)
                else:
                    kernel.finished()

    def free_sms(self, kernel: ComputeKernel | CollectiveKernel) -> int:
        """SMs that `kernel` could use now: a collective's CTA needs an empty one, compute fills up others."""
        left = self.num_sms
        for holder in self.collectives:
            left -= holder.sms_held
        if isinstance(kernel, CollectiveKernel):
            return left - sum([other.sms_touched for other in self.compute])
        for other in self.compute:
            left -= other.sms_filled
        return left

    def _dispatch(self) -> list[CollectiveKernel]:
        """Place waiting CTAs and return the collectives that became fully resident."""
        joined: list[CollectiveKernel] = []
        waiting: list[ComputeKernel | CollectiveKernel] = [kernel for kernel in self.compute if kernel.pending]
        waiting += [reduce for reduce in self.collectives if reduce.sms_held < reduce.sms_wanted]
        if len(waiting) > 1:
            waiting.sort(key=lambda kernel: kernel.order)
        for kernel in waiting:
            free = self.free_sms(kernel)
            if free <= 0:
                break
            if isinstance(kernel, ComputeKernel):
                kernel.start(free, self._updated_ps)
            else:
                kernel.hold(free)
                if kernel.sms_held == kernel.sms_wanted:
                    joined.append(kernel)
        return joined

    def _share(self) -> None:
        """Divide HBM among the kernels that run now, let them slow each other, and set the timer."""
        running = [kernel for kernel in self.compute if kernel.waves]
        transfers = [kernel for kernel in self.collectives if kernel.joint.running]
        loaded = sum([kernel.set_own_speed() for kernel in running])
        if transfers or loaded > 1.0:
            traffic = sum([kernel.hbm_fraction for kernel in transfers])
            share = hbm_share(loaded + traffic)
            for kernel in running:
                kernel.speed *= share / (1.0 + self.contention.compute_slowdown * traffic)
            for transfer in transfers:
                cost = transfer.joint.cost
                transfer.evicted = transfer.evicted or bool(running)
                pace = cost.evicted_pace if transfer.evicted else 1.0
                slowdown = self.contention.collective_memory_slowdown * cost.memory_share
                transfer.limit = pace * share / (1.0 + slowdown * loaded * share)
                transfer.joint.refresh()
        self._set_timer(running)

    def _set_timer(self, running: list[ComputeKernel]) -> None:
        """To the next end of a wave; older timers are ignored when they fire.

        A wave that is not over keeps the timer from firing at once: at more than twice its usual speed (a narrow
        memory-bound kernel) what is left can take less than half a picosecond, and the clock must advance.
        """
        self._timer += 1
        if running:
            delay_ps = to_ps(min([kernel.time_left_s for kernel in running]))
            if delay_ps == 0 and not any(kernel.wave_is_over for kernel in running):
                delay_ps = 1
            if len(self.compute) == 1:
                self._cycle = self._cycle_of(self.compute[0])
                delay_ps += 0 if self._cycle is None else self._cycle.skipped_ps
            set_timer(self.env, delay_ps, partial(self._expire, self._timer))

    def _cycle_of(self, kernel: ComputeKernel) -> WaveCycle | None:
        """The waves that follow those of a kernel on the same SMs; None where something may come between.

        That is so alone among compute on a full device, beside collectives that have all of their SMs.
        """
        if kernel.pending < kernel.active_ctas or kernel.short:
            return None
        held = sum([other.sms_held for other in self.collectives])
        if held + kernel.sms_filled != self.num_sms or any(other.waits for other in self.collectives):
            return None
        return WaveCycle.of(kernel, self._updated_ps)

    def _expire(self, timer: int, _: simpy.Event) -> None:
        if timer == self._timer:
            self._advance()
            self._settle()
