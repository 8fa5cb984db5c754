"""A machine whose costs are given, so that tests can say what a simulation must answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from kraken_sim.costs.contention import ContentionConstants
from kraken_sim.costs.types import CollectiveCost, KernelCost
from kraken_sim.engine.simulation import Machine
from kraken_sim.hardware.device import LaunchCosts
from kraken_sim.program.ops import Collective, CollectiveKind, ComputeOp, Copy
from kraken_sim.program.program import (
    COMM_STREAM,
    MAIN_STREAM,
    Category,
    Kernel,
    Program,
    RecordEvent,
    Segment,
    Step,
    WaitEvent,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

US = 1e-6
NUM_SMS = 100
FORK = (RecordEvent("fork", MAIN_STREAM), WaitEvent("fork", COMM_STREAM))
JOIN = (RecordEvent("join", COMM_STREAM), WaitEvent("join", MAIN_STREAM))
LAUNCH = LaunchCosts(
    eager_kernel_s=5 * US,
    eager_collective_s=15 * US,
    eager_event_s=2 * US,
    eager_kernel_gap_s=1.5 * US,
    graph_launch_s=8 * US,
    graph_node_gap_s=1 * US,
    graph_edge_s=2 * US,
)
NO_GAPS = LaunchCosts(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
NO_INTERFERENCE = ContentionConstants(
    compute_slowdown=0.0,
    collective_memory_slowdown=0.0,
    memory_saturation_fraction=1.0,
    collective_dispatch_s=0.0,
)


def kernel_cost(
    busy_s: float,
    *,
    ctas: int = NUM_SMS,
    tiles: int | None = None,
    ctas_per_sm: int = 1,
    persistent: bool = False,
    fixed_s: float = 0.0,
    memory_fraction: float = 0.0,
) -> KernelCost:
    """A compute-bound kernel unless `memory_fraction` of its body is what HBM alone would need."""
    body_s = busy_s - fixed_s
    memory_s = body_s * memory_fraction
    compute_s = body_s if memory_fraction < 1.0 else 0.0
    return KernelCost(
        busy_s, ctas, ctas_per_sm, tiles or ctas, persistent, 1.0, 1.0, fixed_s, compute_s, memory_s, "test"
    )


def collective_cost(busy_s: float, channels: int = 0, hbm_bytes: float = 0.0) -> CollectiveCost:
    """A collective that takes `busy_s` alone."""
    return CollectiveCost(busy_s, 0.0, busy_s, "ring", "simple", channels, hbm_bytes, 0.0, "test")


def machine(
    kernels: Mapping[Any, KernelCost] | KernelCost,
    collective: CollectiveCost | None = None,
    launch: LaunchCosts = NO_GAPS,
    contention: ContentionConstants = NO_INTERFERENCE,
) -> Machine:
    """A machine with these costs and one terabyte a second of HBM."""

    def price(op: ComputeOp) -> KernelCost:
        return kernels if isinstance(kernels, KernelCost) else kernels[op]

    def price_collective(_: Collective) -> CollectiveCost:
        return collective or collective_cost(10 * US)

    return Machine(NUM_SMS, 1e12, launch, contention, price, price_collective)


def op(number: int) -> Copy:
    """An op that differs from all others of another number."""
    return Copy(number)


def compute(number: int, stream: int = 0) -> Kernel:
    """A compute kernel."""
    return Kernel(f"kernel_{number}", op(number), Category.GEMM, stream)


def collective(stream: int = 0, num_devices: int = 2) -> Kernel:
    """An AllReduce."""
    return Kernel("all_reduce", Collective(CollectiveKind.ALL_REDUCE, 1024, num_devices), Category.ALL_REDUCE, stream)


def program(*steps: Step, repeat: int = 1, num_devices: int = 2) -> Program:
    """One segment."""
    return Program("test", num_devices, (Segment("layer", steps, repeat),))


kernel_costs = st.builds(
    kernel_cost,
    st.floats(1e-6, 300e-6),
    ctas=st.integers(1, 900),
    ctas_per_sm=st.integers(1, 4),
    memory_fraction=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    fixed_s=st.floats(0.0, 0.5e-6),
)
persistent_costs = st.builds(
    kernel_cost,
    st.floats(1e-6, 300e-6),
    ctas=st.integers(1, NUM_SMS),
    tiles=st.integers(100, 1000),
    persistent=st.just(True),
)
any_cost = st.one_of(kernel_costs, persistent_costs)
collectives = st.builds(collective_cost, st.floats(2e-6, 300e-6), st.integers(0, 32), st.floats(0.0, 1e7))
contentions = st.builds(
    ContentionConstants,
    compute_slowdown=st.floats(0.0, 3.0),
    collective_memory_slowdown=st.floats(0.0, 2.0),
    memory_saturation_fraction=st.floats(0.3, 1.0),
    collective_dispatch_s=st.floats(0.0, 5e-6),
)
