"""One simulated GPU: who holds its SMs, who shares its HBM, and when the next CTA ends.

Dispatch follows the hardware's leftover policy: CTAs of the kernel that was dispatched first (within a
stream priority) are placed before those of later kernels; running CTAs are never preempted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kraken_sim.costs.contention import fill_speed
from kraken_sim.costs.fair import Flow, max_min_rates
from kraken_sim.engine.clock import now_ps, set_timer, to_ps, to_s
from kraken_sim.engine.resident import CollectiveKernel, ComputeKernel

if TYPE_CHECKING:
    import simpy

    from kraken_sim.costs.contention import ContentionConstants
    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.engine.collective import JointCollective

EARLY_S = 2e-12
"""An end this much before that of the kernel alone is rounding of the clock; a limit of ours, two of its ticks."""


@dataclass(slots=True)
class DeviceState:
    """The kernels on one device; times are integer picoseconds of the SimPy clock."""

    env: simpy.Environment
    num_sms: int
    hbm_bandwidth_bytes_per_s: float
    contention: ContentionConstants
    compute: list[ComputeKernel] = field(default_factory=list)
    collectives: list[CollectiveKernel] = field(default_factory=list)
    _updated_ps: int = 0
    _order: int = 0
    _timer: int = 0

    def launch(self, cost: KernelCost, priority: int) -> simpy.Event:
        """Dispatch a compute kernel; the event succeeds when its last CTA has ended."""
        self._order += 1
        saturation = self.contention.memory_saturation_fraction
        finished = self.env.event()
        kernel = ComputeKernel.create(cost, finished, priority, self._order, self.num_sms, saturation)
        self._advance()
        self.compute.append(kernel)
        self.settle()
        return finished

    def launch_collective(self, cost: CollectiveCost, joint: JointCollective, priority: int) -> None:
        """Dispatch this rank's kernel of a collective; `joint.finished` succeeds at its end."""
        self._order += 1
        hbm_bytes_per_s = cost.hbm_bytes / cost.busy_s if cost.busy_s > 0.0 else 0.0
        hbm_fraction = min(1.0, hbm_bytes_per_s / self.hbm_bandwidth_bytes_per_s)
        wanted = min(cost.channels, self.num_sms)
        kernel = CollectiveKernel(cost, joint, priority, self._order, wanted, hbm_fraction)
        self._advance()
        self.collectives.append(kernel)
        self.settle()
        if wanted == 0:
            joint.join(self, kernel)

    def release(self, kernel: CollectiveKernel) -> None:
        """A collective has ended: its SMs are free."""
        self._advance()
        self.collectives.remove(kernel)
        self.settle()

    def free_sms(self, kernel: ComputeKernel | CollectiveKernel) -> int:
        """SMs that `kernel` could use now: a collective's CTA needs an empty one, compute fills up others."""
        left = self.num_sms
        for other in self.collectives:
            left -= other.sms_held
        if isinstance(kernel, CollectiveKernel):
            touched = sum([other.sms_touched for other in self.compute])
            return max(0, left - touched - (self.contention.stranded_sms if touched else 0))
        for resident in self.compute:
            left -= resident.sms_filled
        return max(0, left)

    def settle(self) -> None:
        """After any change: retire what ended, place what waits, set speeds, arm the timer."""
        self._advance()
        self._retire()
        if not self.compute and not self.collectives:
            self._timer += 1
            return
        joined = self._dispatch()
        self.set_speeds()
        for kernel in joined:
            kernel.joint.join(self, kernel)

    def set_speeds(self) -> None:
        """Divide HBM and apply interference among the kernels that run now; arm the timer."""
        self._advance()
        running = [kernel for kernel in self.compute if kernel.active_ctas]
        transfers = [kernel for kernel in self.collectives if kernel.joint.running]
        if len(running) == 1 and not transfers:
            kernel = running[0]
            kernel.speed = self._alone_speed(kernel)
        elif running or transfers:
            self._share(running, transfers)
        self._arm()

    def _alone_speed(self, kernel: ComputeKernel) -> float:
        fill = kernel.active_ctas / kernel.full_width
        if fill >= 1.0:
            return 1.0
        return fill_speed(fill, kernel.compute_fraction, kernel.memory_fraction)

    def _share(self, running: list[ComputeKernel], transfers: list[CollectiveKernel]) -> None:
        speeds, demands, touched = [], [], 0
        for kernel in running:
            active = kernel.active_ctas
            fill = active / kernel.full_width
            speed = 1.0 if fill >= 1.0 else fill_speed(fill, kernel.compute_fraction, kernel.memory_fraction)
            speeds.append(speed)
            demands.append(kernel.memory_fraction * fill * speed)
            touched += min(self.num_sms, active)
        demands += [kernel.hbm_fraction for kernel in transfers]
        shares = demands if sum(demands) <= 1.0 else _hbm_shares(demands)
        scales = [share / demand if demand > 0.0 else 1.0 for share, demand in zip(shares, demands, strict=True)]
        occupied = min(1.0, touched / self.num_sms)
        loaded = min(1.0, sum(shares[: len(running)]))
        contention = self.contention
        slower = contention.collective_slowdown * occupied + contention.collective_memory_slowdown * loaded
        traffic = 0.0
        for transfer, scale in zip(transfers, scales[len(running) :], strict=True):
            transfer.limit = scale / (1.0 + slower)
            transfer.joint.refresh(self)
        for transfer in transfers:
            traffic += transfer.hbm_fraction * transfer.joint.speed
        slowdown = 1.0 + contention.compute_slowdown * traffic
        for kernel, speed, scale in zip(running, speeds, scales, strict=False):
            kernel.speed = speed * scale / slowdown

    def _advance(self) -> None:
        now = now_ps(self.env)
        if now == self._updated_ps:
            return
        elapsed_s = to_s(now - self._updated_ps)
        for kernel in self.compute:
            for lump in kernel.lumps:
                lump.advance(elapsed_s, kernel.speed)
        self._updated_ps = now

    def _retire(self) -> None:
        ended = []
        for kernel in self.compute:
            if any(lump.done for lump in kernel.lumps):
                kernel.lumps = [lump for lump in kernel.lumps if not lump.done]
            if not kernel.lumps and kernel.pending == 0:
                early_s = kernel.early_s(self._updated_ps)
                if early_s > EARLY_S:
                    kernel.wait(early_s)
                else:
                    ended.append(kernel)
        if ended:
            self.compute = [kernel for kernel in self.compute if kernel.lumps or kernel.pending]
            for kernel in ended:
                kernel.finished.succeed()

    def _waiting(self) -> list[ComputeKernel | CollectiveKernel]:
        waiting: list[ComputeKernel | CollectiveKernel] = [kernel for kernel in self.compute if kernel.pending]
        waiting += [kernel for kernel in self.collectives if kernel.sms_held < kernel.sms_wanted]
        if len(waiting) > 1:
            waiting.sort(key=lambda kernel: (-kernel.priority, kernel.order))
        return waiting

    def _dispatch(self) -> list[CollectiveKernel]:
        """Place waiting CTAs and return the collectives that became fully resident.

        Lumps of several waves are split first when others compete for SMs.
        """
        joined: list[CollectiveKernel] = []
        waiting = self._waiting()
        if not waiting:
            self._spread()
            return joined
        if len(self.compute) + len(self.collectives) > 1:
            wanted = sum(self._sms_wanted(kernel) for kernel in waiting)
            if wanted > self.free_sms(waiting[0]):
                for resident in self.compute:
                    resident.split()
                waiting = self._waiting()
        for kernel in waiting:
            free = self.free_sms(kernel)
            if free <= 0:
                break
            if isinstance(kernel, ComputeKernel):
                if kernel.began_ps < 0:
                    kernel.began_ps = self._updated_ps
                kernel.start(free, alone=len(waiting) == 1)
            else:
                kernel.sms_held += min(free, kernel.sms_wanted - kernel.sms_held)
                if kernel.sms_held == kernel.sms_wanted:
                    joined.append(kernel)
        return joined

    def _spread(self) -> None:
        """SMs were freed while a plain grid still has waves to come: let it spread over them."""
        for kernel in self.compute:
            if kernel.cost.persistent or all(lump.ctas <= lump.width for lump in kernel.lumps):
                continue
            if kernel.active_ctas < kernel.full_width:
                free = self.free_sms(kernel)
                if free > 0:
                    kernel.split()
                    if kernel.pending:
                        kernel.start(free, alone=False)
                return

    def _sms_wanted(self, kernel: ComputeKernel | CollectiveKernel) -> int:
        if isinstance(kernel, CollectiveKernel):
            return kernel.sms_wanted - kernel.sms_held
        return min(self.num_sms, kernel.sms_for(kernel.pending))

    def _arm(self) -> None:
        """Set the timer to the next end of a lump; older timers are ignored when they fire.

        A lump that is not done keeps the timer from firing at once: at more than twice its usual speed (a narrow
        memory-bound kernel) what is left can take less than half a picosecond, and the clock must advance.
        """
        self._timer += 1
        ends = [lump.time_left_s(kernel.speed) for kernel in self.compute for lump in kernel.lumps]
        if not ends:
            return
        timer = self._timer
        delay_ps = to_ps(min(ends))
        if delay_ps == 0 and not any(lump.done for kernel in self.compute for lump in kernel.lumps):
            delay_ps = 1
        set_timer(self.env, delay_ps, lambda _: self._expire(timer))

    def _expire(self, timer: int) -> None:
        if timer == self._timer:
            self.settle()


def _hbm_shares(demands: list[float]) -> list[float]:
    """Max-min fair shares of HBM's bandwidth, which is 1."""
    return max_min_rates([Flow({"hbm": 1.0}, demand) for demand in demands], {"hbm": 1.0})
