"""Parallel attention + FFN (GPT-J, PaLM): one blocking AllReduce a layer.

    x = x + AR(W_out · Attn(LN(x)) + W2 · gelu(W1 · LN(x)))

The down projection accumulates into the result of the output projection, so the sum costs no kernel.
Source: Wang and Komatsuzaki, GPT-J-6B; Chowdhery et al., "PaLM" (arXiv 2204.02311), section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.architectures.workload import equal_layers

if TYPE_CHECKING:
    from kraken_sim.architectures.workload import BlockShape, ProgramBuilder, Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.program.program import Program


def parallel_program(config: TransformerConfig, work: Workload) -> Program:
    """A forward pass with L blocking AllReduces of [T, d]."""
    return equal_layers("parallel", config, work, _layer)


def _layer(build: ProgramBuilder, block: BlockShape, width: int, devices: int) -> None:
    build.norm("norm", width)
    build.attention(block)
    build.ffn(block, accumulate=True)
    build.all_reduce("all_reduce", width, devices)
    build.add("residual", width)
