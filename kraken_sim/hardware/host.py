"""What launching costs one host, where that was measured or is said, instead of what a profile takes it to be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.hardware.device import LaunchCosts

HOST_COSTS: Final = (
    "eager_kernel_s",
    "eager_collective_s",
    "eager_side_collective_s",
    "eager_event_s",
    "graph_launch_s",
)
"""The launch costs that are the host's own; gaps between kernels are the device's."""

_SCALED: Final = ("eager_collective_s", "eager_side_collective_s", "eager_event_s")


@dataclass(frozen=True, slots=True)
class HostTimes:
    """One host.

    `costs` are launch costs in seconds by their name in `LaunchCosts`, `shares` what is known of `eager_shares`. They
    are medians over `processes`; `spread` is the standard deviation of their logarithm from process to process, None
    where one process alone tells. `source` says where they are from.
    """

    source: str
    costs: Mapping[str, float]
    shares: Mapping[str, float] = field(default_factory=dict)
    processes: int = 1
    spread: float | None = None

    def applied(self, launch: LaunchCosts) -> LaunchCosts:
        """Launch costs on this host.

        Calls of the host that were not measured are taken to be as much slower or faster than the profile's as a
        kernel's, which they depend on as much; an assumption.
        """
        changes = {name: value for name, value in self.costs.items() if name in HOST_COSTS}
        if "eager_kernel_s" in changes and launch.eager_kernel_s > 0.0:
            factor = changes["eager_kernel_s"] / launch.eager_kernel_s
            changes = {name: factor * getattr(launch, name) for name in _SCALED} | changes
        shares = {**launch.eager_shares, **self.shares}
        spread = launch.eager_spread if self.spread is None else self.spread
        return replace(launch, **changes, eager_shares=shares, eager_spread=spread)
