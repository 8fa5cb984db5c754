"""The standard decoder layer under Megatron tensor parallelism: two blocking AllReduces a layer.

    y = AR(W_out · Attn(LN1(x)));  x = x + y;  z = AR(W2 · gelu(W1 · LN2(x)));  x = x + z

Source: Shoeybi et al., "Megatron-LM" (arXiv 1909.08053), section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.architectures.workload import equal_layers

if TYPE_CHECKING:
    from kraken_sim.architectures.workload import BlockShape, ProgramBuilder, Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.program.program import Program


def standard_program(config: TransformerConfig, work: Workload) -> Program:
    """A forward pass with 2 L blocking AllReduces of [T, d]."""
    return equal_layers("standard", config, work, _layer)


def _layer(build: ProgramBuilder, block: BlockShape, width: int, devices: int) -> None:
    build.norm("norm_attention", width)
    build.attention(block)
    build.all_reduce("all_reduce_attention", width, devices)
    build.add("residual_attention", width)
    build.norm("norm_ffn", width)
    build.ffn(block)
    build.all_reduce("all_reduce_ffn", width, devices)
    build.add("residual_ffn", width)
