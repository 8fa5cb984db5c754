"""The standard decoder layer under Megatron tensor parallelism: two blocking AllReduces a layer.

    y = AR(W_out · Attn(LN1(x)));  x = x + y;  z = AR(W2 · gelu(W1 · LN2(x)));  x = x + z

Source: Shoeybi et al., "Megatron-LM" (arXiv 1909.08053), section 3.
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
    return tensor_parallel(question.config, question.num_devices)


def _program(layout: Layout, config: TransformerConfig, work: Workload) -> Program:
    """A forward pass with 2 L blocking AllReduces of [T, d]."""
    return equal_layers("standard", layout, config, work, _layer)


def _layer(build: ProgramBuilder) -> None:
    devices = build.layout.num_devices
    build.norm("norm_attention")
    build.attention()
    build.residual("residual_attention", all_reduce="all_reduce_attention", num_devices=devices)
    build.norm("norm_ffn")
    build.ffn()
    build.residual("residual_ffn", all_reduce="all_reduce_ffn", num_devices=devices)


STANDARD: Final[Architecture[ArchitectureFields, Layout]] = Architecture(
    kind="standard",
    description="attention, then the FFN, each with a norm before and a blocking AllReduce behind it",
    layout=_layout,
    program=_program,
)
