"""Max-min fair rates of flows over shared resources, by progressive filling.

All rates rise together from zero. A flow stops when it reaches its own limit, or when a resource that it uses is
full. Nobody's rate can then rise without lowering one that is not larger. Source: Bertsekas and Gallager, Data
Networks, section 6.5.2; flows may use several resources at once, each by a factor of its own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

_TOLERANCE = 1e-12
"""Relative rounding error within which a resource counts as full and a flow as at its limit; a limit of ours."""


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
    users: dict[Hashable, set[int]] = defaultdict(set)
    for index, flow in enumerate(flows):
        for resource, share in flow.usage.items():
            if share > 0.0 and resource in capacity:
                users[resource].add(index)
    left = {resource: capacity[resource] for resource in users}
    active = set(range(len(flows)))
    level = 0.0
    while active:
        load = {name: sum(flows[index].usage[name] for index in who) for name, who in users.items() if who}
        room = min((left[name] / total for name, total in load.items()), default=math.inf)
        step = min(room, min(flows[index].limit for index in active) - level)
        if not math.isfinite(step):
            raise ValueError("a flow without a limit uses no resource that can be full")
        level += max(0.0, step)
        for name, total in load.items():
            left[name] -= max(0.0, step) * total
        full = {name for name in load if left[name] <= _TOLERANCE * capacity[name]}
        stopped = {index for name in full for index in users[name]}
        stopped |= {index for index in active if flows[index].limit <= level * (1.0 + _TOLERANCE)}
        for index in stopped:
            rates[index] = min(level, flows[index].limit)
        active -= stopped
        for who in users.values():
            who -= stopped
    return rates
