"""Parallel attention + FFN (GPT-J, PaLM): one blocking AllReduce a layer.

    x = x + AR(W_out · Attn(LN(x)) + W2 · gelu(W1 · LN(x)))

The down projection accumulates into the result of the output projection, so the sum costs no kernel.
Source: Wang and Komatsuzaki, GPT-J-6B; Chowdhery et al., "PaLM" (arXiv 2204.02311), section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.architectures.workload import ProgramBuilder, shard
from kraken_sim.program.program import Program, Segment

if TYPE_CHECKING:
    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig


def parallel_program(config: TransformerConfig, work: Workload) -> Program:
    """A forward pass with L blocking AllReduces of [T, d]."""
    build = ProgramBuilder(work)
    width, devices = config.hidden_size, work.num_devices
    block = shard(config, devices)
    build.embedding(width)
    start = build.take()
    build.norm("norm", width)
    build.attention(block)
    build.ffn(block, accumulate=True)
    build.all_reduce("all_reduce", width, devices)
    build.add("residual", width)
    layer = build.take()
    build.lm_head(width, config.vocab_size)
    segments = (
        Segment("embedding", start),
        Segment("layer", layer, config.num_hidden_layers),
        Segment("head", build.take()),
    )
    return Program("parallel", devices, segments)
