"""Parallel attention + FFN (GPT-J, PaLM): one blocking AllReduce a layer.

    x = x + AR(W_out · Attn(LN(x)) + W2 · gelu(W1 · LN(x)))

The down projection accumulates into the result of the output projection, so the sum costs no kernel.
Source: Wang and Komatsuzaki, GPT-J-6B; Chowdhery et al., "PaLM" (arXiv 2204.02311), section 2.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from kraken_sim.architectures.architecture import Architecture
from kraken_sim.architectures.lowering import lowered
from kraken_sim.architectures.wiring import Attend, Exchange, FeedForward, Normalise, Residual, always, equal_layers
from kraken_sim.models.layout import tensor_parallel

if TYPE_CHECKING:
    from kraken_sim.architectures.architecture import ArchitectureFields, Question
    from kraken_sim.models.layout import Layout


def _layout(question: Question[ArchitectureFields]) -> Layout:
    return tensor_parallel(question.config, question.num_devices, norms_per_block=1)


PARALLEL_WIRING: Final = equal_layers(
    "parallel", Normalise("norm"), Attend(), FeedForward(onto=True), Residual("residual", Exchange("all_reduce"))
)
"""L blocking AllReduces of [T, d]."""


PARALLEL: Final[Architecture[ArchitectureFields, Layout]] = Architecture(
    kind="parallel",
    description="attention and the FFN behind one norm, their sum through one blocking AllReduce",
    quality="a small loss at 8B, none at 62B (PaLM, arXiv 2204.02311, as others report it)",
    layout=_layout,
    program=partial(lowered, PARALLEL_WIRING),
    wiring=partial(always, PARALLEL_WIRING),
)
