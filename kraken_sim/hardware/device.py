"""One GPU as its datasheet describes it, and what it costs to launch work on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.program.ops import DType


@dataclass(frozen=True, slots=True)
class Device:
    """Datasheet values of one GPU.

    `peak_flops` is dense, per dtype, at `boost_clock_hz`. `generation` is NVIDIA's name of the architecture
    (volta, ampere, ada, hopper, blackwell); it decides the kernels that libraries pick.
    """

    name: str
    generation: str
    num_sms: int
    boost_clock_hz: float
    peak_flops: Mapping[DType, float]
    hbm_bandwidth_bytes_per_s: float
    hbm_capacity_bytes: float
    l2_capacity_bytes: float
    tdp_w: float

    def rate_flops(self, dtype: DType) -> float:
        """The peak rate of a number format, in FLOP/s.

        Raises:
            InputError: The device has none for it.
        """
        rate = self.peak_flops.get(dtype)
        if rate is None:
            known = list(self.peak_flops)
            message = f"{self.name} does not compute with it; device.peak_flops has {', '.join(known)}"
            raise InputError.single("dtype", message, str(dtype), f"dtype: {known[0]}")
        return rate


@dataclass(frozen=True, slots=True)
class LaunchCosts:
    """What the host and the front end of the GPU spend around kernels, in seconds.

    Eager: `eager_kernel_s` of host time a kernel, `eager_collective_s` a collective call, `eager_event_s`
    an event record or wait (stream switch included). Graph: `graph_launch_s` once from the launch call to the
    first node, `graph_node_gap_s` between two nodes of one stream, `graph_edge_s` extra when a node waits
    for a node of another stream. `eager_kernel_gap_s` is the gap between two queued kernels of one stream
    when the host is ahead. `eager_side_collective_s` is the host time of a collective on a stream beside the
    main one, its stream switch included and its events not; where it is less, `eager_collective_s` counts.
    `kernel_switch_s` is what a kernel takes longer after a kernel of another kind than after its like: caches
    of instructions and translations are cold, the graph's nodes differ. Chains of one kernel don't show it.
    """

    eager_kernel_s: float
    eager_collective_s: float
    eager_event_s: float
    eager_kernel_gap_s: float
    graph_launch_s: float
    graph_node_gap_s: float
    graph_edge_s: float
    eager_side_collective_s: float = 0.0
    kernel_switch_s: float = 0.0
