"""Which operands of a program's small kernels are still in L2 when their kernel comes.

What a kernel reads of its predecessor has just been written. A norm's parameters were read a step ago, the residual of
an add a block ago; in between weights, caches and activations have streamed through L2 and pushed them out where they
are more than L2 holds. Measured on H200 (the suite `chains` of
validation.measure): operands survive GEMMs of fewer weights than about half of L2, and not those of more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kraken_sim.program.many import same
from kraken_sim.program.ops import Attention, Collective, Copy, Elementwise, Embedding, Gemm, Norm
from kraken_sim.program.program import Kernel, Program, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kraken_sim.program.ops import Op
    from kraken_sim.program.program import Step

_RESIDUAL = "add"
"""The function of a pointwise kernel that adds onto the residual; a definition of the programs."""


def with_cold_operands(program: Program, held_bytes: float) -> Program:
    """The program with the operands marked that more than `held_bytes` have pushed out of L2 since their last use."""
    step_bytes = sum(segment.repeat * streamed_bytes(segment.kernels) for segment in program.segments)
    walk = _Walk(held_bytes, cold_parameters=step_bytes > held_bytes)
    segments = []
    for segment in program.segments:
        steps = walk.steps(segment)
        if same(segment.repeat > 1):
            # Once more behind itself: what all but the first repetition find.
            steps = walk.steps(segment)
        segments.append(replace(segment, steps=steps))
    return replace(program, segments=tuple(segments))


def streamed_bytes(kernels: Iterable[Kernel]) -> float:
    """What kernels bring into L2: weights, caches, and what they write."""
    return sum(map(_new_bytes, (kernel.op for kernel in kernels)))


@dataclass(slots=True)
class _Walk:
    """Host order, with the bytes streamed since the residual was last used."""

    held_bytes: float
    cold_parameters: bool
    since_residual: float = 0.0

    def steps(self, segment: Segment) -> tuple[Step, ...]:
        return tuple(self._step(step) for step in segment.steps)

    def _step(self, step: Step) -> Step:
        if not isinstance(step, Kernel):
            return step
        op = step.op
        cold = self.since_residual > self.held_bytes
        self.since_residual = 0.0 if _uses_residual(op) else self.since_residual + _new_bytes(op)
        if isinstance(op, Norm):
            changed = replace(op, cold_parameters=self.cold_parameters, cold_inputs=op.adds * cold)
            return replace(step, op=changed)
        if isinstance(op, Elementwise) and op.function == _RESIDUAL and cold is not False:
            return replace(step, op=replace(op, cold_inputs=(op.num_inputs - 1) * cold))
        return step


def _uses_residual(op: Op) -> bool:
    return isinstance(op, Norm | Embedding) or (isinstance(op, Elementwise) and op.function == _RESIDUAL)


def _new_bytes(op: Op) -> float:
    """Bytes that are in L2 behind an op and need not have been before."""
    if isinstance(op, Collective):
        return 0.0
    if isinstance(op, Copy):
        return 1.0 * op.num_bytes
    if isinstance(op, Gemm):
        return op.n * op.k * op.bytes_per_weight + 1.0 * (op.m * op.n) * op.dtype.num_bytes
    if isinstance(op, Attention):
        written_bytes = op.q_len * op.num_heads * op.dtype.num_bytes
        cached_bytes = 2 * op.seen_len * op.num_kv_heads * op.kv_num_bytes * (op.q_len < op.kv_len)
        return 1.0 * (op.batch * op.head_dim) * (written_bytes + cached_bytes)
    if isinstance(op, Elementwise):
        return op.written_bytes
    return 1.0 * (op.num_tokens * op.hidden_size) * op.dtype.num_bytes
