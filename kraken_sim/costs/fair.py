"""Max-min fair rates of flows over shared resources, by progressive filling.

All rates rise together from zero. A flow stops when it reaches its own limit, or when a resource that it uses is
full. Nobody's rate can then rise without lowering one that is not larger. Source: Bertsekas and Gallager, Data
Networks, section 6.5.2; flows may use several resources at once, each by a factor of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

_TOLERANCE = 1e-12
"""Relative rounding error within which a resource counts as full and a flow as at its limit; a limit of ours."""

R = TypeVar("R", bound="Hashable")


@dataclass(frozen=True, slots=True)
class Alike(Generic[R]):
    """Resources that are full at the same time.

    Attributes:
        first: One of them.
        capacity: What each of them has.
        users: The flows that use them, by their places, each with what a unit of its rate takes.
    """

    first: R
    capacity: float
    users: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Flow:
    """Something that moves at one pace.

    Attributes:
        usage: By resource, how much of it a unit of the flow's rate takes, more than 0.
        limit: The rate that the flow reaches when nobody is in its way; may be infinite.
    """

    usage: Mapping[Hashable, float]
    limit: float = math.inf


def max_min_rates(flows: Sequence[Flow], capacity: Mapping[Hashable, float]) -> list[float]:
    """The max-min fair rate of every flow, in the unit of `capacity`.

    A resource without an entry in `capacity` is never full.

    Raises:
        ValueError: A flow has neither a limit nor a resource that can be full.
    """
    rates = [0.0] * len(flows)
    wanted = used_alike([flow.usage for flow in flows], capacity)
    left = [one.capacity for one in wanted]
    active = set(range(len(flows)))
    level = 0.0
    while active:
        load = {
            which: total
            for which, one in enumerate(wanted)
            if (total := sum(share for index, share in one.users if index in active)) > 0.0
        }
        room = min((left[which] / total for which, total in load.items()), default=math.inf)
        step = min(room, min(flows[index].limit for index in active) - level)
        if not math.isfinite(step):
            raise ValueError("a flow without a limit uses no resource that can be full")
        level += max(0.0, step)
        for which, total in load.items():
            left[which] -= max(0.0, step) * total
        full = [which for which in load if left[which] <= _TOLERANCE * wanted[which].capacity]
        stopped = {index for which in full for index, _ in wanted[which].users} & active
        stopped |= {index for index in active if flows[index].limit <= level * (1.0 + _TOLERANCE)}
        for index in stopped:
            rates[index] = min(level, flows[index].limit)
        active -= stopped
    return rates


def used_alike(usages: Sequence[Mapping[R, float]], capacity: Mapping[R, float]) -> list[Alike[R]]:
    """The resources that some flows use and that can be full, those that are used alike as one."""
    found: list[Alike[R]] = []
    place: dict[R, int] = {}
    for index, usage in enumerate(usages):
        moved: dict[tuple[int, float, float], int] = {}
        for resource, share in usage.items():
            room = capacity.get(resource)
            if share > 0.0 and room is not None:
                before = place.get(resource, -1)
                key = (before, share, room)
                if key not in moved:
                    moved[key] = len(found)
                    users = found[before].users if before >= 0 else ()
                    found.append(Alike(resource, room, (*users, (index, share))))
                place[resource] = moved[key]
    return [found[which] for which in sorted(set(place.values()))]
