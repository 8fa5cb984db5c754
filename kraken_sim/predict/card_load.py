"""What a step does to a card: what its power follows from, and what it streams through L2."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kraken_sim.costs.power import Load, tensor_s
from kraken_sim.costs.slower import clocked_share
from kraken_sim.program.many import maths_for
from kraken_sim.program.ops import Attention, Collective, Gemm
from kraken_sim.program.program import MAIN_STREAM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.power import PowerConstants
    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.hardware.device import Device
    from kraken_sim.program.many import Sizes
    from kraken_sim.program.ops import ComputeOp, DType
    from kraken_sim.program.program import Program


@dataclass(slots=True)
class StepSums:
    """What a step's power follows from: its kernels, equal ones once with their number, and its time without them."""

    gap_s: float
    kernels: dict[int, tuple[ComputeOp, KernelCost, int]] = field(default_factory=dict)
    collectives: list[tuple[CollectiveCost, int]] = field(default_factory=list)
    compute_s: Sizes = 0.0
    other_s: Sizes = 0.0

    def add(self, op: ComputeOp, cost: KernelCost, repeat: int) -> None:
        """One kernel."""
        _, _, before = self.kernels.get(id(cost), (op, cost, 0))
        self.kernels[id(cost)] = (op, cost, before + repeat)
        self.compute_s = self.compute_s + repeat * cost.busy_s
        self.other_s = self.other_s + repeat * self.gap_s

    def add_collective(self, cost: CollectiveCost, repeat: int, stream: int) -> None:
        """One collective, which takes the time of compute if it runs on its stream."""
        self.collectives.append((cost, repeat))
        if stream == MAIN_STREAM:
            self.other_s = self.other_s + repeat * cost.busy_s


def streams(program: Program, kernels: Mapping[int, KernelCost], l2_capacity_bytes: float) -> Sizes:
    """Whether the kernels of a program, by the identity of their ops, stream more through L2 than it holds.

    What a communicator's buffers had in L2 is then gone by the time that the same ones are used again: a call uses a
    part of them, the next call the next part.
    """
    num_bytes: Sizes = 0.0
    for segment in program.segments:
        for kernel in segment.kernels:
            if not isinstance(kernel.op, Collective):
                num_bytes = num_bytes + segment.repeat * kernels[id(kernel.op)].hbm_bytes
    return num_bytes > l2_capacity_bytes


def arithmetic_format(op: ComputeOp) -> DType | None:
    """The number format of a kernel's matrix products; None where it has none."""
    if isinstance(op, Gemm):
        return op.input_dtype
    return op.dtype if isinstance(op, Attention) else None


def load_of(op: ComputeOp, cost: KernelCost, device: Device, power: PowerConstants | None, repeat: int = 1) -> Load:
    """What `repeat` such kernels mean to the card's power."""
    dtype = arithmetic_format(op)
    peak_s = tensor_s(cost.flops, dtype, device, power) if dtype is not None else 0.0
    maths = maths_for(cost.busy_s)
    share = maths.minimum(1.0, cost.ctas / device.num_sms) * maths.maximum(0.0, 1.0 - cost.fixed_s / cost.busy_s)
    clocked = clocked_share(cost, device.hbm_bandwidth_bytes_per_s)
    return Load(repeat * cost.busy_s, repeat * peak_s, repeat * cost.hbm_bytes, share, clocked)


def collective_load_of(cost: CollectiveCost, num_sms: int, repeat: int = 1) -> Load:
    """What `repeat` such collectives mean to the card's power."""
    share = maths_for(cost.channels).minimum(1.0, cost.channels / num_sms)
    return Load(repeat * cost.busy_s, 0.0, repeat * cost.hbm_bytes, share)
