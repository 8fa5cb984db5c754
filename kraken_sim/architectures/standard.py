"""The standard decoder layer under Megatron tensor parallelism: two blocking AllReduces a layer.

    y = AR(W_out · Attn(LN1(x)));  x = x + y;  z = AR(W2 · gelu(W1 · LN2(x)));  x = x + z

Source: Shoeybi et al., "Megatron-LM" (arXiv 1909.08053), section 3.
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
    return tensor_parallel(question.config, question.num_devices)


ATTENTION: Final = (
    Normalise("norm_attention"),
    Attend(),
    Residual("residual_attention", Exchange("all_reduce_attention")),
)
"""The first half of a layer."""

FEED_FORWARD: Final = (Normalise("norm_ffn"), FeedForward(), Residual("residual_ffn", Exchange("all_reduce_ffn")))
"""The second one."""

STANDARD_WIRING: Final = equal_layers("standard", *ATTENTION, *FEED_FORWARD)
"""2 L blocking AllReduces of [T, d]."""


STANDARD: Final[Architecture[ArchitectureFields, Layout]] = Architecture(
    kind="standard",
    description="attention, then the FFN, each with a norm before and a blocking AllReduce behind it",
    quality="the reference",
    layout=_layout,
    program=partial(lowered, STANDARD_WIRING),
    wiring=partial(always, STANDARD_WIRING),
)
