"""A collective joins its ranks: it starts with the last one and runs at the slowest one's pace."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from kraken_sim.engine.clock import set_timer, to_ps, to_s
from kraken_sim.engine.resident import DONE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import simpy

    from kraken_sim.costs.contention import ContentionConstants
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.engine.clock import Clock
    from kraken_sim.program.ops import Collective

    LinkSpeeds = Callable[[frozenset[Collective]], Mapping[Collective, float]]


@dataclass(slots=True)
class LinkState:
    """The collectives that are under way, and the pace that the links leave to each.

    Groups that run the same op share their links already in its cost; so only different ops are asked about.
    """

    speeds: LinkSpeeds
    running: list[JointCollective] = field(default_factory=list)

    def start(self, joint: JointCollective) -> None:
        """One more transfer begins."""
        self.running.append(joint)
        self._share()

    def end(self, joint: JointCollective) -> None:
        """A transfer has ended: the others may be faster."""
        self.running.remove(joint)
        self._share()

    def _share(self) -> None:
        ops = frozenset(joint.op for joint in self.running)
        table = self.speeds(ops) if len(ops) > 1 else {}
        for joint in self.running:
            speed = table.get(joint.op, 1.0)
            if speed != joint.link_speed:
                joint.link_speed = speed
                joint.refresh()


@dataclass(slots=True)
class CollectiveKernel:
    """One rank's kernel of a collective: it holds `sms_held` SMs from dispatch to the end of the whole."""

    joint: JointCollective
    order: int
    """Number of its launch on the device."""
    sms_wanted: int
    hbm_fraction: float
    evicted: bool = False
    """A kernel of compute has run beside it."""
    sms_held: int = 0
    limit: float = 1.0
    """Speed this rank could sustain, relative to the collective alone."""

    @property
    def waits(self) -> bool:
        """Some of its CTAs need an SM."""
        return self.sms_held < self.sms_wanted

    def hold(self, free_sms: int) -> None:
        """Take what it still needs of `free_sms` SMs."""
        self.sms_held = min(self.sms_wanted, self.sms_held + free_sms)


class Member(Protocol):
    """What a collective asks of the device of each of its ranks."""

    contention: ContentionConstants

    def set_speeds(self) -> None:
        """The collective has begun."""

    def release(self, kernel: CollectiveKernel) -> None:
        """The collective has ended."""


@dataclass(slots=True, eq=False)
class JointCollective:
    """The shared progress of one collective over `num_ranks` ranks (one, when ranks are folded)."""

    env: Clock
    op: Collective
    cost: CollectiveCost
    num_ranks: int
    finished: simpy.Event
    links: LinkState | None
    members: list[tuple[Member, CollectiveKernel]] = field(default_factory=list)
    running: bool = False
    """The transfer is under way."""
    remaining_s: float = 0.0
    speed: float = 0.0
    """Relative to its pace alone; 0 before its last rank has arrived."""
    link_speed: float = 1.0
    _updated_ps: int = 0
    _timer: int = 0

    def join(self, device: Member, kernel: CollectiveKernel) -> None:
        """All CTAs of one more rank are resident; the last one starts the transfer."""
        self.members.append((device, kernel))
        if len(self.members) < self.num_ranks:
            return
        self.running, self._updated_ps = True, self.env.now
        dispatch_s = self.members[0][0].contention.collective_dispatch_s
        self.remaining_s = max(0.0, self.cost.busy_s - dispatch_s)
        if self.links is not None:
            self.links.start(self)
        for member, _ in self.members:
            member.set_speeds()

    def refresh(self) -> None:
        """Take the pace of the slowest rank, and set the timer of the end anew if that is another."""
        speed = min([self.link_speed, *[kernel.limit for _, kernel in self.members]])
        if self.running and speed != self.speed:
            self._set_timer(speed)

    def _set_timer(self, speed: float) -> None:
        self._advance()
        self.speed = speed
        self._timer += 1
        delay_ps = max(0, to_ps(max(0.0, self.remaining_s) / speed))
        set_timer(self.env, delay_ps, partial(self._expire, self._timer))

    def _advance(self) -> None:
        now = self.env.now
        self.remaining_s -= to_s(now - self._updated_ps) * self.speed
        self._updated_ps = now

    def _expire(self, timer: int, _: simpy.Event) -> None:
        if timer != self._timer or not self.running:
            return
        self._advance()
        if self.remaining_s > DONE_S:
            self._set_timer(self.speed)
            return
        self.running = False
        self.finished.succeed()
        if self.links is not None:
            self.links.end(self)
        for device, kernel in self.members:
            device.release(kernel)
