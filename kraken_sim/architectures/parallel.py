"""Parallel attention + FFN (GPT-J, PaLM): one blocking AllReduce a layer.

    x = x + AR(W_out · Attn(LN(x)) + W2 · gelu(W1 · LN(x)))

The down projection accumulates into the result of the output projection, so the sum costs no kernel.
Source: Wang and Komatsuzaki, GPT-J-6B; Chowdhery et al., "PaLM" (arXiv 2204.02311), section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kraken_sim.architectures.architecture import Architecture
from kraken_sim.architectures.builder import equal_layers
from kraken_sim.models.layout import tensor_parallel

if TYPE_CHECKING:
    from kraken_sim.architectures.architecture import ArchitectureFields, Question
    from kraken_sim.architectures.builder import ProgramBuilder
    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Layout
    from kraken_sim.program.program import Program


def _layout(question: Question[ArchitectureFields]) -> Layout:
    return tensor_parallel(question.config, question.num_devices, norms_per_block=1)


def _program(layout: Layout, config: TransformerConfig, work: Workload) -> Program:
    """A forward pass with L blocking AllReduces of [T, d]."""
    return equal_layers("parallel", layout, config, work, _layer)


def _layer(build: ProgramBuilder) -> None:
    build.norm("norm")
    build.attention()
    build.ffn(accumulate=True)
    build.residual("residual", all_reduce="all_reduce", num_devices=build.layout.num_devices)


PARALLEL: Final[Architecture[ArchitectureFields, Layout]] = Architecture(
    kind="parallel",
    description="attention and the FFN behind one norm, their sum through one blocking AllReduce",
    layout=_layout,
    program=_program,
)
